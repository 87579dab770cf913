"""How an endpoint signs in, signs and bundles, set in the portal: each field is kept, no secret ever comes out."""

import re
from typing import Any

import pytest
import trustme
from django.test import Client

from deliveries.credentials import about
from deliveries.models import Endpoint
from deliveries.sealed import Part, open_part
from deliveries.services.endpoints import create_endpoint
from tenants import ids
from tenants.models import AuditEntry, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")

FORM: dict[str, Any] = {
    "url": "https://shop.example.com/hooks",
    "event_types": ["*"],
    "method": "POST",
    "format": "standard",
    "signature_scheme": "hmac-sha256",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
}
BASIC = {"auth-type": "basic", "auth-username": "ada", "auth-password": "p4ss-word"}
OAUTH2 = {
    "auth-type": "oauth2",
    "auth-token_url": "https://login.example.com/token",
    "auth-client_id": "shop",
    "auth-client_secret": "p4ss-word",
}
AUTHORITY = trustme.CA()
AUTHORITY_PEM = AUTHORITY.cert_pem.bytes().decode()
LEAF = AUTHORITY.issue_cert("client.example")
CERTIFICATE = LEAF.cert_chain_pems[0].bytes().decode()
KEY = LEAF.private_key_pem.bytes().decode()
OTHER = AUTHORITY.issue_cert("other.example")
OTHER_CERTIFICATE = OTHER.cert_chain_pems[0].bytes().decode()


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


@pytest.fixture
def client(tenant: Tenant) -> Client:
    return browser(tenant)


def add(client: Client, tenant: Tenant, **typed: Any) -> Any:
    return client.post(f"/portal/{tenant.slug}/endpoints/new", FORM | typed)


def only(tenant: Tenant) -> Endpoint:
    row: Endpoint = Endpoint.objects.for_tenant(tenant).get()
    return row


def make(tenant: Tenant, **fields: Any) -> str:
    """The path of its form."""
    row = create_endpoint(actor=COMMAND, tenant=tenant, **({"url": "https://a.example.com"} | fields))
    return f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}/edit"


def filled_in(page: Any) -> dict[str, Any]:
    """What a browser sends if nothing is typed into the form of this page."""
    form = page.context["form"]
    sent: dict[str, Any] = {}
    for each in (form, *form.parts.values()):
        for field in each:
            value = field.field.widget.format_value(field.value()) if field.widget_type else field.value()
            if field.widget_type == "checkbox" or value is None:
                continue
            sent[field.html_name] = re.sub("\r?\n", "\r\n", value) if isinstance(value, str) else value
    return sent


def opened(row: Endpoint, part: Part, column: str) -> str:
    return open_part(part, bytes(getattr(row, column)), tenant_id=row.tenant_id, endpoint_id=row.id)


def wrong(response: Any) -> dict[str, list[str]]:
    """What stands beside which field."""
    form = response.context["form"]
    found = {name: list(texts) for name, texts in form.errors.items()}
    for name, part in form.parts.items():
        found |= {f"{name}-{field}": list(texts) for field, texts in part.errors.items()}
    return found


def audited(tenant: Tenant) -> str:
    return " ".join(str((entry.before, entry.after)) for entry in AuditEntry.objects.filter(tenant=tenant))


# --- signing in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (BASIC, {"type": "basic", "username": "ada"}),
        ({"auth-type": "bearer", "auth-token": "p4ss-word"}, {"type": "bearer"}),
        (
            OAUTH2 | {"auth-scope": "read write", "auth-client_authentication": "body"},
            {
                "type": "oauth2",
                "token_url": "https://login.example.com/token",
                "client_id": "shop",
                "scope": "read write",
                "client_authentication": "body",
            },
        ),
    ],
    ids=lambda value: value.get("type"),
)
def test_how_it_signs_in_is_kept_and_its_secret_shown_nowhere(
    tenant: Tenant, client: Client, typed: dict[str, str], kept: dict[str, str]
) -> None:
    # What is filled in of another type does not count.
    assert add(client, tenant, **({"auth-username": "somebody"} | typed)).status_code == 302

    row = only(tenant)
    assert row.auth == kept
    assert opened(row, Part.AUTH, "auth_encrypted") == "p4ss-word"
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"
    pages = [client.get(path), client.get(f"{path}/edit")]
    assert [page.status_code for page in pages] == [200, 200]
    assert all(b"p4ss-word" not in page.content for page in pages)
    assert "One is set. Leave this empty to keep it." in text_of(pages[1])
    assert "p4ss-word" not in audited(tenant)


def test_the_page_says_how_it_signs_in(tenant: Tenant, client: Client) -> None:
    for auth, words in (
        ({"type": "basic", "username": "ada", "password": "x"}, "user name and password, as ada"),
        ({"type": "bearer", "token": "x"}, "a fixed token"),
        (
            {
                "type": "oauth2",
                "token_url": "https://login.example.com/?key=s3cret",
                "client_id": "shop",
                "client_secret": "x",
            },
            "OAuth 2, a token from https://login.example.com/?key=***",
        ),
        (None, "nothing but the signature"),
    ):
        path = make(tenant, auth=auth).removesuffix("/edit")
        assert f"Signs in with {words}" in text_of(client.get(path))


def test_an_empty_secret_stays_and_a_new_one_takes_its_place(tenant: Tenant, client: Client) -> None:
    path = make(tenant, auth={"type": "basic", "username": "ada", "password": "p4ss-word"})
    sealed = bytes(only(tenant).auth_encrypted or b"")

    untouched = client.post(path, filled_in(client.get(path)))
    same = bytes(only(tenant).auth_encrypted or b"")
    renamed = client.post(path, filled_in(client.get(path)) | {"auth-username": "eve"})
    kept = (only(tenant).auth, opened(only(tenant), Part.AUTH, "auth_encrypted"))
    replaced = client.post(path, filled_in(client.get(path)) | {"auth-password": "n3w-word"})

    assert [each.status_code for each in (untouched, renamed, replaced)] == [302, 302, 302]
    assert same == sealed
    assert kept == ({"type": "basic", "username": "eve"}, "p4ss-word")
    assert opened(only(tenant), Part.AUTH, "auth_encrypted") == "n3w-word"


def test_choosing_none_removes_it(tenant: Tenant, client: Client) -> None:
    path = make(tenant, auth={"type": "bearer", "token": "p4ss-word"})

    client.post(path, filled_in(client.get(path)) | {"auth-type": ""})

    row = only(tenant)
    assert (row.auth, row.auth_encrypted) == (None, None)
    assert actions_of(tenant)[-1] == "endpoint.changed"


@pytest.mark.parametrize(
    ("typed", "errors"),
    [
        ({"auth-type": "basic"}, {"auth-username": "Must be given.", "auth-password": "Must be given."}),
        (BASIC | {"auth-username": "a:b"}, {"auth-username": "Must not contain a colon: it ends the name."}),
        (
            {"auth-type": "bearer", "auth-token": "a b"},
            {"auth-token": "Must be visible ASCII, without blanks."},
        ),
        (OAUTH2 | {"auth-token_url": "ftp://x"}, {"auth-token_url": "Must begin with https:// or http://."}),
        (
            BASIC | {"headers": "Authorization: x"},
            {"auth-type": "The endpoint has a header Authorization of its own already."},
        ),
    ],
)
def test_what_is_wrong_with_it_stands_beside_its_field_and_the_secret_is_gone(
    tenant: Tenant, client: Client, typed: dict[str, str], errors: dict[str, str]
) -> None:
    response = add(client, tenant, description="Keep me", **typed)

    assert response.status_code == 422
    assert wrong(response) == {name: [text] for name, text in errors.items()}
    page = response.content.decode()
    for name in errors:
        assert f'id="id_{name}_error"' in page
    assert "Nothing was done yet" in page
    assert "Keep me" in page
    assert "p4ss-word" not in page
    if "auth-username" in typed:
        assert f'value="{typed["auth-username"]}"' in page
        assert "What you typed is not shown again" in page
    assert not Endpoint.objects.for_tenant(tenant).exists()


def test_what_is_wrong_is_said_in_the_viewers_language(tenant: Tenant) -> None:
    german = browser(tenant, HTTP_ACCEPT_LANGUAGE="de")

    refused = add(german, tenant, **{"auth-type": "basic", "auth-password": "x", "batch-max_events": "1"})

    assert wrong(refused) == {
        "auth-username": ["Muss angegeben werden."],
        "batch-max_events": ["Muss mindestens 2 sein."],
        "batch-max_wait_ms": ["Muss angegeben werden."],
    }


def test_a_secret_does_not_go_along_to_another_address(tenant: Tenant, client: Client) -> None:
    auth = {"type": "oauth2", "token_url": "https://a.example.com/", "client_id": "a", "client_secret": "x"}
    path = make(tenant, auth=auth)

    refused = client.post(
        path, filled_in(client.get(path)) | {"auth-token_url": "https://evil.example.com/token"}
    )

    assert wrong(refused) == {
        "auth-client_secret": ["Must be given again when the type or the token's URL changes."]
    }
    assert (only(tenant).auth or {})["token_url"] == "https://a.example.com/"


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_is_shown_by_its_name_and_its_key_never(tenant: Tenant, client: Client) -> None:
    made = add(
        client,
        tenant,
        **{
            "client_certificate-certificate": CERTIFICATE.replace("\n", "\r\n"),
            "client_certificate-private_key": KEY.replace("\n", "\r\n"),
            "ca_certificates": AUTHORITY_PEM.replace("\n", "\r\n"),
        },
    )

    assert made.status_code == 302
    row = only(tenant)
    assert (row.client_certificate, row.ca_certificates) == (CERTIFICATE, AUTHORITY_PEM)
    assert opened(row, Part.CLIENT_KEY, "client_key_encrypted").startswith("-----BEGIN PRIVATE KEY")
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"
    (leaf,), (authority,) = about(CERTIFICATE), about(AUTHORITY_PEM)
    for page in (client.get(path), client.get(f"{path}/edit")):
        text = text_of(page)
        assert f"{leaf.subject} valid until {leaf.expires_at:%Y-%m-%d %H:%M:%S} UTC" in text
        assert f"SHA-256 {leaf.fingerprint}" in text
        assert "PRIVATE KEY" not in page.content.decode()
    assert authority.fingerprint in text_of(client.get(path))
    assert "PRIVATE KEY" not in audited(tenant)


def test_what_people_tell_a_certificate_by() -> None:
    (leaf,) = about(CERTIFICATE)

    assert leaf.subject.startswith("OU=")
    assert len(leaf.fingerprint.split(":")) == 32
    assert leaf.expires_at.tzinfo is not None
    assert [each.fingerprint for each in about(CERTIFICATE + OTHER_CERTIFICATE)] == [
        leaf.fingerprint,
        about(OTHER_CERTIFICATE)[0].fingerprint,
    ]


def test_empty_fields_keep_the_certificate_and_a_tick_removes_it(tenant: Tenant, client: Client) -> None:
    path = make(
        tenant,
        client_certificate={"certificate": CERTIFICATE, "private_key": KEY},
        ca_certificates=AUTHORITY_PEM,
    )
    before = only(tenant)

    client.post(path, filled_in(client.get(path)))
    untouched = only(tenant)
    client.post(
        path,
        filled_in(client.get(path)) | {"client_certificate-remove": "on", "ca_certificates": ""},
    )

    assert untouched.updated_at > before.updated_at
    assert (untouched.client_certificate, untouched.ca_certificates) == (CERTIFICATE, AUTHORITY_PEM)
    assert bytes(untouched.client_key_encrypted or b"") == bytes(before.client_key_encrypted or b"")
    row = only(tenant)
    assert (row.client_certificate, row.client_key_encrypted, row.ca_certificates) == (None, None, None)


@pytest.mark.parametrize(
    ("typed", "errors"),
    [
        (
            {"client_certificate-certificate": OTHER_CERTIFICATE},
            {
                "client_certificate-private_key": (
                    "Must be given: none is there that belongs to the certificate."
                )
            },
        ),
        (
            {"client_certificate-private_key": OTHER.private_key_pem.bytes().decode()},
            {"client_certificate-private_key": "Is not the key of the certificate."},
        ),
        (
            {"client_certificate-certificate": "soon", "client_certificate-remove": "on"},
            {"client_certificate-remove": "Either remove it or put another one in its place."},
        ),
        (
            {"client_certificate-certificate": "-----BEGIN"},
            {"client_certificate-certificate": "Must be certificates in PEM."},
        ),
        ({"ca_certificates": "-----BEGIN"}, {"ca_certificates": "Must be certificates in PEM."}),
        (
            {"url": "http://a.example.com"},
            {"client_certificate-certificate": "Certificates need a URL that begins with https://."},
        ),
    ],
)
def test_a_certificate_that_is_wrong(
    tenant: Tenant, client: Client, typed: dict[str, str], errors: dict[str, str]
) -> None:
    path = make(tenant, client_certificate={"certificate": CERTIFICATE, "private_key": KEY})

    refused = client.post(path, filled_in(client.get(path)) | typed)

    assert refused.status_code == 422
    assert wrong(refused) == {name: [text] for name, text in errors.items()}
    assert b"PRIVATE KEY" not in refused.content
    assert only(tenant).client_certificate == CERTIFICATE


# --- a further signature ----------------------------------------------------------------------------------------------

TEMPLATE = "signature_template"
OWN = {
    f"{TEMPLATE}-preset": "own",
    f"{TEMPLATE}-header": "X-Acme-Signature",
    f"{TEMPLATE}-prefix_text": "t={timestamp},v1=",
    f"{TEMPLATE}-encoding": "base64",
    f"{TEMPLATE}-algorithm": "sha512",
    f"{TEMPLATE}-signed_content": "{timestamp}\r\n{body}",
    f"{TEMPLATE}-separator": ", ",
    f"{TEMPLATE}-headers": "X-Acme-Time: {timestamp}\r\nX-Acme-Type: {type}",
    f"{TEMPLATE}-secret": "p4ss-word",
}
OWN_KEPT = {
    "header": "X-Acme-Signature",
    "prefix": "t={timestamp},v1=",
    "encoding": "base64",
    "algorithm": "sha512",
    "signed_content": "{timestamp}\n{body}",
    "separator": ", ",
    "headers": {"X-Acme-Time": "{timestamp}", "X-Acme-Type": "{type}"},
}


@pytest.mark.parametrize(
    ("preset", "name"), [("github", "GitHub"), ("stripe", "Stripe"), ("shopify", "Shopify")]
)
def test_a_scheme_that_is_known(tenant: Tenant, client: Client, preset: str, name: str) -> None:
    add(client, tenant, **{f"{TEMPLATE}-preset": preset})

    row = only(tenant)
    assert (row.signature_template, row.template_secret_encrypted) == ({"preset": preset}, None)
    page = text_of(client.get(f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"))
    assert f"and as {name} makes it" in page


def test_one_of_its_own_making_with_every_field(tenant: Tenant, client: Client) -> None:
    assert add(client, tenant, **OWN).status_code == 302

    row = only(tenant)
    assert row.signature_template == OWN_KEPT
    assert opened(row, Part.TEMPLATE_SECRET, "template_secret_encrypted") == "p4ss-word"
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"
    assert "and in X-Acme-Signature" in text_of(client.get(path))
    assert b"p4ss-word" not in client.get(f"{path}/edit").content


def test_a_template_that_nobody_touched_stays_as_it_was_written(tenant: Tenant, client: Client) -> None:
    """Browsers write line ends of their own, and the form says what the API may leave out."""
    template = {"header": "X-Sig", "signed_content": "{id}\r\n{body}", "secret": "p4ss-word"}
    path = make(tenant, signature_template=template)
    sealed = bytes(only(tenant).template_secret_encrypted or b"")

    saved = client.post(path, filled_in(client.get(path)) | {"description": "New"})

    row = only(tenant)
    assert (saved.status_code, row.description) == (302, "New")
    assert row.signature_template == {"header": "X-Sig", "signed_content": "{id}\r\n{body}"}
    assert bytes(row.template_secret_encrypted or b"") == sealed


def test_its_secret_is_kept_through_a_change_forgotten_by_a_tick_and_gone_with_it(
    tenant: Tenant, client: Client
) -> None:
    path = make(tenant, signature_template={"preset": "github", "secret": "p4ss-word"})

    client.post(path, filled_in(client.get(path)) | {f"{TEMPLATE}-preset": "stripe"})
    kept = opened(only(tenant), Part.TEMPLATE_SECRET, "template_secret_encrypted")
    client.post(path, filled_in(client.get(path)) | {f"{TEMPLATE}-remove_secret": "on"})
    forgotten = (only(tenant).signature_template, only(tenant).template_secret_encrypted)
    client.post(path, filled_in(client.get(path)) | {f"{TEMPLATE}-preset": ""})

    assert kept == "p4ss-word"
    assert forgotten == ({"preset": "stripe"}, None)
    assert only(tenant).signature_template is None


@pytest.mark.parametrize(
    ("typed", "errors"),
    [
        (OWN | {f"{TEMPLATE}-header": ""}, {f"{TEMPLATE}-header": "Must be given."}),
        (
            OWN | {f"{TEMPLATE}-signed_content": "{timestamp}"},
            {
                f"{TEMPLATE}-signed_content": (
                    "Must hold {body} once: what is not signed can be changed on the way."
                )
            },
        ),
        (
            OWN | {f"{TEMPLATE}-prefix_text": "{body}"},
            {f"{TEMPLATE}-prefix_text": "The body cannot be part of a header."},
        ),
        (
            OWN | {f"{TEMPLATE}-headers": "X-A"},
            {f"{TEMPLATE}-headers": "Each line must be a name, a colon and a value."},
        ),
        (
            OWN | {f"{TEMPLATE}-headers": "X-A: 1\nX-A: 2"},
            {f"{TEMPLATE}-headers": "The header X-A is given twice."},
        ),
        (
            OWN | {f"{TEMPLATE}-headers": "X-A: {body}"},
            {f"{TEMPLATE}-headers": "X-A: The body cannot be part of a header."},
        ),
        (
            {f"{TEMPLATE}-preset": "github", "signature_scheme": "ed25519"},
            {
                f"{TEMPLATE}-secret": (
                    "Must be given: with ed25519 the endpoint has no secret that an HMAC could use."
                )
            },
        ),
        (
            OWN | {"headers": "X-Acme-Signature: mine"},
            {
                f"{TEMPLATE}-preset": (
                    "The header X-Acme-Signature is already one of the endpoint's own headers."
                )
            },
        ),
    ],
)
def test_a_template_that_is_wrong(
    tenant: Tenant, client: Client, typed: dict[str, str], errors: dict[str, str]
) -> None:
    refused = add(client, tenant, **typed)

    assert refused.status_code == 422
    assert wrong(refused) == {name: [text] for name, text in errors.items()}
    assert b"p4ss-word" not in refused.content
    assert not Endpoint.objects.for_tenant(tenant).exists()


def test_the_header_that_would_be_sent_is_shown(tenant: Tenant, client: Client) -> None:
    path = f"/portal/{tenant.slug}/endpoints/new/signature"

    github = client.get(path, {f"{TEMPLATE}-preset": "github"})
    own = client.get(path, {name: text for name, text in OWN.items() if not name.endswith("-secret")})
    half = client.get(path, {f"{TEMPLATE}-preset": "own"})
    none = client.get(path, {f"{TEMPLATE}-preset": ""})
    edited = client.get(make(tenant, signature_template={"preset": "shopify", "secret": "p4ss-word"}))

    # echo -n '{"type":…}' | openssl dgst -sha256 -hmac example
    assert "X-Hub-Signature-256: sha256=" in text_of(github)
    assert "X-Acme-Signature: t=1772366400,v1=" in text_of(own)
    assert "X-Acme-Time: 1772366400 X-Acme-Type: order.created" in text_of(own)
    assert "as soon as nothing is wrong above" in text_of(half)
    assert text_of(none) == ""
    assert "X-Shopify-Hmac-Sha256: " in text_of(edited)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_are_kept_shown_and_given_up(tenant: Tenant, client: Client) -> None:
    add(client, tenant, **{"batch-max_events": "50", "batch-max_wait_ms": "500"})
    row = only(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"
    page = text_of(client.get(path))
    client.post(f"{path}/edit", filled_in(client.get(f"{path}/edit")))
    untouched = only(tenant).batch
    client.post(
        f"{path}/edit",
        filled_in(client.get(f"{path}/edit")) | {"batch-max_events": "", "batch-max_wait_ms": ""},
    )

    assert row.batch == untouched == {"max_events": 50, "max_wait_ms": 500}
    assert "up to 50 events in one request, after 500 ms at the latest" in page
    assert only(tenant).batch is None


@pytest.mark.parametrize(
    ("typed", "field", "says"),
    [
        ({"batch-max_events": "10", "batch-max_wait_ms": ""}, "batch-max_wait_ms", "Must be given."),
        ({"batch-max_events": "1"}, "batch-max_events", "Must be at least 2."),
        ({"batch-max_wait_ms": "many"}, "batch-max_wait_ms", "Enter a whole number."),
        (
            {"ordering": "fifo"},
            "batch-max_events",
            "With fifo one event of each key is sent at a time, so a batch would mix keys.",
        ),
        ({"method": "GET"}, "batch-max_events", "A query string holds one event alone: use POST or PUT."),
        (
            {"format": "xml"},
            "batch-max_events",
            "The format xml holds one event alone: use standard, raw, cloudevents.",
        ),
    ],
)
def test_a_batch_that_makes_no_sense(
    tenant: Tenant, client: Client, typed: dict[str, str], field: str, says: str
) -> None:
    refused = add(client, tenant, **({"batch-max_events": "10", "batch-max_wait_ms": "100"} | typed))

    assert refused.status_code == 422
    assert wrong(refused) == {field: [says]}
    assert not Endpoint.objects.for_tenant(tenant).exists()


# --- polled -----------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_polled_is_made_and_says_how_to_read_it(tenant: Tenant, client: Client) -> None:
    new = f"/portal/{tenant.slug}/endpoints/new"
    form = {
        "description": "behind our firewall",
        "event_types": ["*"],
        "format": "raw",
        "signature_scheme": "hmac-sha256",
    }

    asked = client.get(f"{new}?kind=poll")
    # A URL that somebody typed before changing over does not count.
    made = client.post(f"{new}?kind=poll", form | {"url": "https://a.example.com", "auth-type": "basic"})

    assert '<a href="?kind=poll">' in client.get(new).content.decode()
    assert [field.name for field in asked.context["form"]] == [
        "description",
        "event_types",
        "more_patterns",
        "headers",
        "channels",
        "format",
        "signature_scheme",
        "uid",
        "metadata",
    ]
    row = only(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}"
    assert made["Location"] == f"{path}/secret?new"
    assert (row.kind, row.url, row.format, row.auth) == ("poll", "", "raw", None)
    assert "Fetch what waits" in text_of(client.get(made["Location"]))
    page = text_of(client.get(path))
    address = f"http://testserver/api/v1/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', row.id)}/poll"
    assert f"curl -H 'Authorization: Bearer whk_…' \\ '{address}?limit=50'" in page
    assert f"'{address}?limit=50&after=CURSOR'" in page
    assert "Success statuses" not in page
    saved = client.post(f"{path}/edit", filled_in(client.get(f"{path}/edit")) | {"description": "b"})
    assert (saved.status_code, only(tenant).description) == (302, "b")


# --- who may ----------------------------------------------------------------------------------------------------------


def test_a_viewer_is_refused_and_sees_no_secret(tenant: Tenant) -> None:
    path = make(tenant, auth={"type": "basic", "username": "ada", "password": "p4ss-word"})
    viewer = browser(tenant, "viewer")

    asked, sent = viewer.get(path), viewer.post(path, FORM | {"auth-type": ""})

    assert (asked.status_code, sent.status_code) == (403, 403)
    assert (only(tenant).auth or {})["username"] == "ada"
    assert b"p4ss-word" not in viewer.get(path.removesuffix("/edit")).content
