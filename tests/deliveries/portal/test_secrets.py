"""The secret's page: how to verify, the secret on request, its rotation."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from deliveries.models import Endpoint, EndpointSecret
from deliveries.portal.verifying import ED25519, HMAC, function, snippets
from deliveries.services.endpoints import create_endpoint
from deliveries.services.secrets import rotate_secret
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.docs.test_integrators import blocks
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")


def made(**fields: Any) -> tuple[Tenant, Endpoint, Client, str]:
    tenant = make_tenant()
    endpoint = create_endpoint(actor=COMMAND, tenant=tenant, url="https://a.example.com", **fields)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/secret"
    return tenant, endpoint, browser(tenant), path


@pytest.mark.parametrize("snippet", [*HMAC, *ED25519], ids=lambda snippet: snippet.file)
def test_the_code_is_that_of_the_docs_whose_tests_run_it(snippet: Any) -> None:
    language = snippet.file.removesuffix("-ed25519")

    assert function(snippet.file) in blocks(language)
    assert snippet.call.count("KEY") == 1


def test_filled_in_when_there_is_a_key() -> None:
    before, after = snippets("hmac-sha256", None), snippets("hmac-sha256", "whsec_abc")

    assert [each.label for each in before] == [
        "Python",
        "JavaScript",
        "Go",
        "Ruby",
        "PHP",
        "Java",
        "C#",
        "Rust",
    ]
    assert all("whsec_…" in each.code for each in before)
    assert all("whsec_abc" in each.code for each in after)


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_the_secret_is_shown_on_request_and_each_reading_is_audited(headers: dict[str, str]) -> None:
    tenant, _, client, path = made()

    before = client.get(path)
    audited = actions_of(tenant)[-1]
    shown = client.post(path, headers=headers)

    assert re.findall(r"whsec_[A-Za-z0-9+/]{30}", before.content.decode()) == []
    assert audited == "member.added"
    # Itself, and in the code of eight languages.
    assert len(re.findall(r"whsec_[A-Za-z0-9+/]{30}", shown.content.decode())) == 9
    assert "no-store" in shown["Cache-Control"]
    assert (b"<html" in shown.content) == (not headers)
    assert actions_of(tenant)[-1] == "secret.read"


def test_of_ed25519_the_public_key_is_shown() -> None:
    _, _, client, path = made(signature_scheme="ed25519")

    shown = client.post(path)

    assert len(re.findall(r"whpk_[A-Za-z0-9+/]{30}", shown.content.decode())) == 3
    assert b"whsec_" not in shown.content


def test_rotating_lets_the_old_one_sign_for_a_while() -> None:
    tenant, endpoint, client, path = made()

    answer = client.post(f"{path}/rotate", {"overlap": "3600"})

    assert (answer.status_code, answer["Location"]) == (302, path)
    page = text_of(client.get(path))
    assert "There is a new secret. Put it into your receiver before the old one ends." in page
    assert "Earlier ones that still sign, too:" in page
    rows = EndpointSecret.objects.for_tenant(tenant).filter(endpoint=endpoint).order_by("id")
    assert [row.expires_at is None for row in rows] == [False, True]
    assert actions_of(tenant)[-1] == "secret.rotated"


def test_a_secret_that_leaked_ends_at_once() -> None:
    tenant, endpoint, client, path = made()

    client.post(f"{path}/rotate", {"overlap": "0"})

    assert EndpointSecret.objects.for_tenant(tenant).filter(endpoint=endpoint).count() == 1
    assert "no other is valid any more" in text_of(client.get(path))


def test_what_cannot_be_rotated_says_why_beside_the_field() -> None:
    tenant, endpoint, client, path = made()
    for _ in range(4):
        rotate_secret(actor=COMMAND, endpoint=endpoint, overlap=timedelta(days=1))
    before = actions_of(tenant)

    full, odd = (
        client.post(f"{path}/rotate", {"overlap": "3600"}),
        client.post(f"{path}/rotate", {"overlap": "7"}),
    )

    assert (full.status_code, odd.status_code) == (422, 422)
    assert full.context["form"].errors == {
        "overlap": ["5 secrets are live. Wait until the overlap of one ends, or let none overlap."]
    }
    assert list(odd.context["form"].errors) == ["overlap"]
    assert actions_of(tenant) == before
