"""What an endpoint keeps beside its signing secret: taken, refused, kept, and never given out again."""

import base64
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from deliveries.models import Endpoint
from deliveries.sealed import Part, open_part
from tenants.models import AuditEntry, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.certificates import certificate_with_an_unreadable_name

pytestmark = pytest.mark.usefixtures("database")

URL = "https://shop.example.com/webhooks"
BATCH = {"max_events": 10, "max_wait_ms": 100}


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


@pytest.fixture
def api(tenant: Tenant) -> Api:
    return tenant_api(tenant)


def make(api: Api, tenant: Tenant, **fields: Any) -> Any:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL, "uid": "one"} | fields)
    assert response.status_code == 201, response.content
    return response.json()  # type: ignore[attr-defined] # of Django's test client


def change(api: Api, tenant: Tenant, **fields: Any) -> Any:
    response = api.patch(f"/tenants/{tenant.slug}/endpoints/one", fields)
    assert response.status_code == 200, response.content
    return response.json()  # type: ignore[attr-defined] # of Django's test client


def row_of(tenant: Tenant) -> Endpoint:
    row: Endpoint = Endpoint.objects.for_tenant(tenant).get(uid="one")
    return row


def opened(row: Endpoint, part: Part, column: str) -> str:
    return open_part(part, bytes(getattr(row, column)), tenant_id=row.tenant_id, endpoint_id=row.id)


def audited(tenant: Tenant) -> str:
    return " ".join(
        str(entry.before) + str(entry.after) for entry in AuditEntry.objects.filter(tenant=tenant)
    )


# --- signature templates ----------------------------------------------------------------------------------------------


def test_a_template_is_kept_as_it_was_given_and_null_clears_it(api: Api, tenant: Tenant) -> None:
    given = {"header": "X-Acme", "prefix": "v1="}

    assert make(api, tenant, signature_template=given)["signature_template"] == given
    assert change(api, tenant, description="x")["signature_template"] == given
    assert change(api, tenant, signature_template={"preset": "github"})["signature_template"] == {
        "preset": "github"
    }
    assert change(api, tenant, signature_template=None)["signature_template"] is None


def test_a_templates_secret_is_sealed_and_shown_as_stars_which_leave_it(api: Api, tenant: Tenant) -> None:
    made = make(api, tenant, signature_template={"preset": "github", "secret": "legacy-s3cret"})

    assert made["signature_template"] == {"preset": "github", "secret": "***"}
    sealed = bytes(row_of(tenant).template_secret_encrypted or b"")
    assert b"legacy" not in sealed
    assert opened(row_of(tenant), Part.TEMPLATE_SECRET, "template_secret_encrypted") == "legacy-s3cret"

    change(api, tenant, signature_template={"preset": "shopify", "secret": "***"})
    assert bytes(row_of(tenant).template_secret_encrypted or b"") == sealed

    assert change(api, tenant, signature_template={"preset": "shopify"})["signature_template"] == {
        "preset": "shopify"
    }
    assert row_of(tenant).template_secret_encrypted is None
    assert "legacy" not in audited(tenant)


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"signature_template": {"preset": "gitlab"}}, [("signature_template.preset", "invalid_choice")]),
        ({"signature_template": "github"}, [("signature_template", "invalid_type")]),
        (
            {"signature_template": {"header": "Webhook-Id", "secret": ""}},
            [("signature_template.header", "header_not_allowed"), ("signature_template.secret", "blank")],
        ),
        (
            {"signature_template": {"preset": "github", "secret": "***"}},
            [("signature_template.secret", "required")],
        ),
        (
            {"signature_template": {"preset": "github"}, "signature_scheme": "ed25519"},
            [("signature_template.secret", "required")],
        ),
        (
            {"signature_template": {"header": "X-Acme"}, "headers": {"x-acme": "1"}},
            [("signature_template", "does_not_fit")],
        ),
        (
            {"batch": {"max_events": 1}},
            [("batch.max_events", "too_small"), ("batch.max_wait_ms", "required")],
        ),
        ({"batch": BATCH | {"max_bytes": 1}}, [("batch.max_bytes", "unknown_field")]),
        ({"batch": BATCH, "ordering": "fifo"}, [("batch", "does_not_fit")]),
        ({"batch": BATCH, "method": "GET"}, [("batch", "does_not_fit")]),
        ({"batch": BATCH, "format": "form"}, [("batch", "does_not_fit")]),
        ({"method": "GET", "format": "xml"}, [("format", "does_not_fit")]),
        ({"method": "GET", "format": "cloudevents"}, [("format", "does_not_fit")]),
        ({"method": "GET", "format": "cloudevents-binary"}, [("format", "does_not_fit")]),
    ],
)
def test_what_makes_no_sense_is_refused_with_field_and_reason(
    api: Api, tenant: Tenant, fields: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL} | fields)

    assert (response.status_code, error_codes(response)) == (422, errors)
    assert Endpoint.objects.for_tenant(tenant).count() == 0


def test_a_change_is_judged_together_with_what_is_there(api: Api, tenant: Tenant) -> None:
    make(api, tenant, format="xml")

    response = api.patch(f"/tenants/{tenant.slug}/endpoints/one", {"method": "GET"})

    assert (response.status_code, error_codes(response)) == (422, [("format", "does_not_fit")])
    assert row_of(tenant).method == "POST"


# --- auth -------------------------------------------------------------------------------------------------------------

BASIC = {"type": "basic", "username": "anna", "password": "p4ss-word"}
BEARER = {"type": "bearer", "token": "t0ken-text"}
OAUTH = {
    "type": "oauth2",
    "token_url": "https://login.example.com/token",
    "client_id": "anna",
    "client_secret": "cl1ent-secret",
}


@pytest.mark.parametrize(
    ("given", "name"), [(BASIC, "password"), (BEARER, "token"), (OAUTH, "client_secret")]
)
def test_credentials_are_sealed_and_never_come_out_again(
    api: Api, tenant: Tenant, given: dict[str, str], name: str
) -> None:
    made = make(api, tenant, auth=given)

    shown = made["auth"]
    assert {field: shown[field] for field in given} == given | {name: "***"}
    row = row_of(tenant)
    assert opened(row, Part.AUTH, "auth_encrypted") == given[name]
    assert given[name].encode() not in bytes(row.auth_encrypted or b"")
    listed = api.get(f"/tenants/{tenant.slug}/endpoints").content.decode()
    assert given[name] not in listed + str(row.auth) + audited(tenant)

    sealed = bytes(row.auth_encrypted or b"")
    assert change(api, tenant, auth=shown)["auth"] == shown
    assert bytes(row_of(tenant).auth_encrypted or b"") == sealed

    assert change(api, tenant, auth=None)["auth"] is None
    assert row_of(tenant).auth_encrypted is None


def test_the_audit_log_masks_what_a_token_url_carries(api: Api, tenant: Tenant) -> None:
    make(api, tenant, auth=OAUTH | {"token_url": "https://login.example.com/token?team=7&api_key=qu3ry"})
    change(api, tenant, auth=None)

    assert "https://login.example.com/token?team=7&api_key=***" in audited(tenant)
    assert "qu3ry" not in audited(tenant)


def test_a_kept_secret_does_not_go_to_another_token_url(api: Api, tenant: Tenant) -> None:
    make(api, tenant, auth=OAUTH)

    elsewhere = OAUTH | {"token_url": "https://evil.example.com/", "client_secret": "***"}
    response = api.patch(f"/tenants/{tenant.slug}/endpoints/one", {"auth": elsewhere})

    assert (response.status_code, error_codes(response)) == (422, [("auth.client_secret", "required")])
    assert (row_of(tenant).auth or {})["token_url"] == OAUTH["token_url"]


def test_a_secret_kept_for_another_type_must_be_given_again(api: Api, tenant: Tenant) -> None:
    make(api, tenant, auth=BASIC)

    response = api.patch(
        f"/tenants/{tenant.slug}/endpoints/one", {"auth": {"type": "bearer", "token": "***"}}
    )

    assert (response.status_code, error_codes(response)) == (422, [("auth.token", "required")])


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"auth": "basic"}, [("auth", "invalid_type")]),
        ({"auth": {}}, [("auth.type", "required")]),
        ({"auth": {"type": "digest"}}, [("auth.type", "invalid_choice")]),
        ({"auth": {"type": "basic"}}, [("auth.username", "required"), ("auth.password", "required")]),
        ({"auth": BASIC | {"username": "a:b"}}, [("auth.username", "invalid_characters")]),
        ({"auth": BASIC | {"token": "x"}}, [("auth.token", "unknown_field")]),
        ({"auth": BEARER | {"token": "a\r\nx: y"}}, [("auth.token", "invalid")]),
        ({"auth": OAUTH | {"token_url": "https://10.0.0.1/"}}, [("auth.token_url", "address_blocked")]),
        ({"auth": OAUTH | {"token_url": "ftp://a.example"}}, [("auth.token_url", "invalid_scheme")]),
        ({"auth": OAUTH | {"scope": 'a "b"'}}, [("auth.scope", "invalid")]),
        (
            {"auth": OAUTH | {"client_authentication": "jwt"}},
            [("auth.client_authentication", "invalid_choice")],
        ),
        ({"auth": BASIC, "headers": {"Authorization": "x"}}, [("auth", "does_not_fit")]),
        ({"auth": BASIC | {"password": "***"}}, [("auth.password", "required")]),
    ],
)
def test_wrong_credentials_are_refused_by_field(
    api: Api, tenant: Tenant, fields: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL} | fields)

    assert (response.status_code, error_codes(response)) == (422, errors)
    assert b"p4ss-word" not in response.content
    assert Endpoint.objects.for_tenant(tenant).count() == 0


# --- certificates -----------------------------------------------------------------------------------------------------

AUTHORITY = trustme.CA()
LEAF = AUTHORITY.issue_cert("client.example")
CERTIFICATE = LEAF.cert_chain_pems[0].bytes().decode()
KEY = LEAF.private_key_pem.bytes().decode()
OTHER_KEY = AUTHORITY.issue_cert("other.example").private_key_pem.bytes().decode()


def test_a_client_certificate_is_shown_and_its_key_is_not(api: Api, tenant: Tenant) -> None:
    pair = {"certificate": "notes\n" + CERTIFICATE, "private_key": KEY}
    made = make(api, tenant, client_certificate=pair, ca_certificates=AUTHORITY.cert_pem.bytes().decode())

    shown = made["client_certificate"]
    assert shown == {"certificate": CERTIFICATE, "private_key": "***"}
    assert made["ca_certificates"] == AUTHORITY.cert_pem.bytes().decode()
    sealed = bytes(row_of(tenant).client_key_encrypted or b"")
    assert b"PRIVATE" not in sealed
    assert "PRIVATE" not in audited(tenant)

    assert change(api, tenant, client_certificate=shown)["client_certificate"] == shown
    assert bytes(row_of(tenant).client_key_encrypted or b"") == sealed

    cleared = change(api, tenant, client_certificate=None, ca_certificates=None)
    assert (cleared["client_certificate"], cleared["ca_certificates"]) == (None, None)
    assert row_of(tenant).client_key_encrypted is None


def test_certificates_that_nothing_could_use_are_refused(api: Api, tenant: Tenant) -> None:
    fields = {"url": URL, "ca_certificates": certificate_with_an_unreadable_name()}
    response = api.post(f"/tenants/{tenant.slug}/endpoints", fields)

    assert (response.status_code, error_codes(response)) == (
        422,
        [("ca_certificates", "invalid_certificate")],
    )


def test_the_key_that_is_there_is_kept_only_for_a_certificate_of_its_own(api: Api, tenant: Tenant) -> None:
    make(api, tenant, client_certificate={"certificate": CERTIFICATE, "private_key": KEY})
    other = AUTHORITY.issue_cert("other.example").cert_chain_pems[0].bytes().decode()

    response = api.patch(
        f"/tenants/{tenant.slug}/endpoints/one",
        {"client_certificate": {"certificate": other, "private_key": "***"}},
    )

    assert error_codes(response) == [("client_certificate.private_key", "required")]


def protected() -> str:
    key = load_pem_private_key(KEY.encode(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    return pem.decode()


def altered(old: str, new: str) -> str:
    """The certificate with other bytes, in hexadecimal, at one place."""
    lines = CERTIFICATE.strip().splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    assert der.count(bytes.fromhex(old)) == 1
    text = base64.encodebytes(der.replace(bytes.fromhex(old), bytes.fromhex(new))).decode()
    return f"{lines[0]}\n{text}{lines[-1]}\n"


VERSION_30 = altered("a003020102", "a00302011d")
KEY_OF_NO_KNOWN_KIND = altered("06072a8648ce3d0201", "06072a8648ce3d0263")
KEY_ON_NO_KNOWN_CURVE = altered("06082a8648ce3d030107", "06082a8648ce3d030163")
KEY_ON_NO_POINT = altered("03420004", "03420005")


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        *(
            (
                {"client_certificate": {"certificate": odd, "private_key": KEY}},
                [("client_certificate.certificate", "invalid_certificate")],
            )
            for odd in (VERSION_30, KEY_OF_NO_KNOWN_KIND, KEY_ON_NO_KNOWN_CURVE, KEY_ON_NO_POINT)
        ),
        ({"ca_certificates": VERSION_30}, [("ca_certificates", "invalid_certificate")]),
        (
            {"client_certificate": {"certificate": CERTIFICATE}},
            [("client_certificate.private_key", "required")],
        ),
        ({"client_certificate": {"private_key": KEY}}, [("client_certificate.certificate", "required")]),
        (
            {"client_certificate": {"certificate": CERTIFICATE, "private_key": OTHER_KEY}},
            [("client_certificate.private_key", "mismatch")],
        ),
        (
            {"client_certificate": {"certificate": CERTIFICATE, "private_key": protected()}},
            [("client_certificate.private_key", "invalid_key")],
        ),
        (
            {"client_certificate": {"certificate": CERTIFICATE, "private_key": "***"}},
            [("client_certificate.private_key", "required")],
        ),
        (
            {"client_certificate": {"certificate": CERTIFICATE + KEY, "private_key": KEY}},
            [("client_certificate.certificate", "invalid_certificate")],
        ),
        ({"client_certificate": CERTIFICATE}, [("client_certificate", "invalid_type")]),
        ({"ca_certificates": "-----BEGIN"}, [("ca_certificates", "invalid_certificate")]),
        ({"ca_certificates": KEY}, [("ca_certificates", "invalid_certificate")]),
        ({"ca_certificates": CERTIFICATE * 21}, [("ca_certificates", "too_many")]),
        (
            {"ca_certificates": CERTIFICATE, "url": "http://shop.example.com/"},
            [("ca_certificates", "does_not_fit")],
        ),
    ],
)
def test_wrong_certificates_are_refused_by_field(
    api: Api, tenant: Tenant, fields: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL} | fields)

    assert (response.status_code, error_codes(response)) == (422, errors)
    assert b"PRIVATE KEY-----" not in response.content
    assert Endpoint.objects.for_tenant(tenant).count() == 0


def test_deleting_an_endpoint_forgets_its_credentials(api: Api, tenant: Tenant) -> None:
    pair = {"certificate": CERTIFICATE, "private_key": KEY}
    make(api, tenant, auth=BASIC, client_certificate=pair)

    api.delete(f"/tenants/{tenant.slug}/endpoints/one")

    row = row_of(tenant)
    assert (row.auth_encrypted, row.client_key_encrypted, row.template_secret_encrypted) == (None, None, None)
