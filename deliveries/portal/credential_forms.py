"""Parts of the endpoint's form: how it signs in at its receiver, and the certificate that it shows."""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import credentials as rules
from deliveries.credentials import CLIENT_AUTHENTICATIONS, FIELDS, SECRET_OF
from deliveries.models import Endpoint
from deliveries.portal.endpoint_parts import Part, area, secret_text
from deliveries.services import credentials, endpoint_settings
from deliveries.validation import MASK


class AuthForm(Part):
    FIELD = "auth"
    WHOLE = "type"
    SECRETS = tuple(SECRET_OF.values())

    type = forms.ChoiceField(
        label=gettext_lazy("How it signs in"),
        required=False,
        widget=forms.RadioSelect,
        choices=[
            ("", gettext_lazy("Not at all: the signature is enough")),
            ("basic", gettext_lazy("Basic: user name and password")),
            ("bearer", gettext_lazy("Bearer: a fixed token")),
            ("oauth2", gettext_lazy("OAuth 2: client credentials")),
        ],
    )
    username = forms.CharField(label=gettext_lazy("User name"), required=False, strip=False)
    password = secret_text(gettext_lazy("Password"))
    token = secret_text(gettext_lazy("Token"))
    token_url = forms.CharField(
        label=gettext_lazy("Address of the token"),
        required=False,
        widget=forms.URLInput(
            attrs={"placeholder": "https://login.example.com/oauth/token", "autocomplete": "off"}
        ),
        help_text=gettext_lazy("Where a token is fetched from. It is kept until it ends."),
    )
    client_id = forms.CharField(label=gettext_lazy("Client id"), required=False, strip=False)
    client_secret = secret_text(gettext_lazy("Client secret"))
    scope = forms.CharField(
        label=gettext_lazy("Scope"),
        required=False,
        strip=False,
        help_text=gettext_lazy("With blanks between several. Optional."),
    )
    client_authentication = forms.ChoiceField(
        label=gettext_lazy("Client id and secret are sent"),
        required=False,
        choices=list(
            zip(
                CLIENT_AUTHENTICATIONS,
                (gettext_lazy("in a header (basic)"), gettext_lazy("in the body")),
                strict=True,
            )
        ),
    )

    def initial_of(self, row: Endpoint) -> dict[str, Any]:
        auth: dict[str, Any] = row.auth or {}
        return {name: value for name, value in auth.items() if value is not None}

    def is_set(self, row: Endpoint, secret: str) -> bool:
        return row.auth is not None and SECRET_OF[row.auth["type"]] == secret

    @property
    def groups(self) -> Iterator[tuple[str, list[forms.BoundField]]]:
        """The fields of each type."""
        for kind, names in FIELDS.items():
            yield kind, [self[name] for name in names if name != "type"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        kind = cleaned.get("type")
        if kind:
            value = {name: cleaned[name] for name in FIELDS[kind] if cleaned.get(name)}
            secret = SECRET_OF[kind]
            if secret not in value and self.is_set(self.endpoint or Endpoint(), secret):
                value[secret] = MASK
            self.check(lambda given: rules.auth(given, endpoint_settings.url), value)
        return cleaned

    def is_other(self, row: Endpoint) -> bool:
        return bool(self.wanted != credentials.shown_auth(row))


class ClientCertificateForm(Part):
    FIELD = "client_certificate"
    WHOLE = "certificate"
    SECRETS = ("private_key",)

    certificate = area(
        gettext_lazy("Certificate"),
        gettext_lazy("For mutual TLS, in PEM, with those between it and its authority."),
        rows=4,
    )
    private_key = area(
        gettext_lazy("Private key"),
        gettext_lazy("In PEM, without a password. Kept encrypted, never shown."),
        rows=4,
        is_secret=True,
    )
    remove = forms.BooleanField(label=gettext_lazy("Remove the certificate and its key"), required=False)

    def initial_of(self, row: Endpoint) -> dict[str, Any]:  # noqa: ARG002 - of the new one
        return {}

    def is_set(self, row: Endpoint, secret: str) -> bool:  # noqa: ARG002 - there is one
        return row.client_certificate is not None

    @property
    def current(self) -> list[rules.About]:
        """Of what is set: the certificate, and those that come with it."""
        pem = None if self.endpoint is None else self.endpoint.client_certificate
        return [] if pem is None else rules.about(pem)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        given = {
            name: cleaned[name] for name in ("certificate", "private_key") if cleaned.get(name, "").strip()
        }
        self.is_given = bool(given) or bool(cleaned.get("remove"))
        if given and cleaned.get("remove"):
            self.add_error("remove", _("Either remove it or put another one in its place."))
        elif given:
            self.check(rules.client_certificate, self._kept() | given)
        return cleaned

    def _kept(self) -> dict[str, str]:
        """What an empty field leaves as it is. Whether they belong together is for the rules to say."""
        row = self.endpoint
        return {} if row is None else credentials.shown_client_certificate(row) or {}

    def is_other(self, row: Endpoint) -> bool:
        return self.wanted is not None or row.client_certificate is not None
