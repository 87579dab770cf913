"""The form of a source. It holds no rule of its own: `inbound/` and the services say what is wrong."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from deliveries.inbound import verification as verifying
from deliveries.inbound.handshakes import Handshake
from deliveries.inbound.presets import PRESETS
from deliveries.inbound.verification import Scheme, Verification
from deliveries.models import Source
from deliveries.portal.endpoint_forms import words
from deliveries.services import sources
from tenants.portal.words import in_words
from tenants.validation import InvalidContent

OWN = ("", gettext_lazy("Settings of its own"))

VERIFICATION_FIELDS: Final = tuple(verifying.RULES)


def text(label: Any, help_text: Any = "", *, required: bool = False, high: int = 1024) -> forms.CharField:
    return forms.CharField(label=label, help_text=help_text, required=required, max_length=high)


def area(label: Any, help_text: Any = "", *, rows: int = 2) -> forms.CharField:
    attributes = {"rows": rows, "spellcheck": "false", "autocomplete": "off"}
    return forms.CharField(
        label=label, help_text=help_text, required=False, widget=forms.Textarea(attrs=attributes)
    )


class SourceForm(forms.Form):
    name = text(gettext_lazy("Name"), required=True, high=200)
    preset = forms.ChoiceField(
        label=gettext_lazy("Provider"),
        required=False,
        choices=[OWN, *((name, each.label) for name, each in PRESETS.items())],
        help_text=gettext_lazy(
            "How its requests are verified and named. What you fill in below goes over it."
        ),
    )
    secrets = area(
        gettext_lazy("Secrets"),
        gettext_lazy(
            "What the provider signs with, or what it sends; one a line, any of which may be used. Kept encrypted, never "
            "shown. Empty: as they are."
        ),
    )
    verify_token = text(
        gettext_lazy("Verify token"), gettext_lazy("Of Meta's handshake. Empty: as it is."), high=256
    )
    event_type = area(
        gettext_lazy("Event type"),
        gettext_lazy('A CEL expression, such as "order.created" in quotes, or "shop." + data.body.kind.'),
    )
    data = area(  # type: ignore[assignment] # Django takes fields out of the class
        gettext_lazy("Data"),
        gettext_lazy("A CEL expression that makes an object. Empty: the body as it came."),
    )
    dedup_header = text(
        gettext_lazy("Header with the provider's id"),
        gettext_lazy("The same id again makes no second event."),
        high=128,
    )
    dedup_path = text(gettext_lazy("Or path to it in the body"), gettext_lazy("Such as data.id."), high=255)
    dedup_seconds = forms.IntegerField(
        label=gettext_lazy("How long an id counts"),
        help_text=gettext_lazy("Seconds, 60 to 86400."),
        required=False,
    )
    scheme = forms.ChoiceField(
        label=gettext_lazy("Verification"),
        required=False,
        choices=[("", gettext_lazy("as the provider does")), *((each.value, each.value) for each in Scheme)],
    )
    header = text(gettext_lazy("Header with the signature or token"), high=128)
    algorithm = forms.ChoiceField(
        label=gettext_lazy("Algorithm"),
        required=False,
        choices=[(each, each) for each in verifying.ALGORITHMS],
    )
    encoding = forms.ChoiceField(
        label=gettext_lazy("Encoding"), required=False, choices=[(each, each) for each in verifying.ENCODINGS]
    )
    prefix_text = text(gettext_lazy("In front of it"), gettext_lazy("Such as sha256=."), high=64)
    """`prefix` is a word of Django's own."""
    signed = text(
        gettext_lazy("What is signed"),
        gettext_lazy("A text with {body}, {timestamp}, {id}, {url} and {form} in it."),
        high=200,
    )
    timestamp_header = text(gettext_lazy("Header with the timestamp"), high=128)
    id_header = text(gettext_lazy("Header with the signed id"), high=128)
    signature_key = text(
        gettext_lazy("Name of the signature"),
        gettext_lazy("If the header holds pairs, such as t=…,v1=…"),
        high=32,
    )
    timestamp_key = text(gettext_lazy("Name of the timestamp"), high=32)
    tolerance_seconds = forms.IntegerField(
        label=gettext_lazy("Oldest timestamp"), help_text=gettext_lazy("Seconds."), required=False
    )
    key_encoding = forms.ChoiceField(
        label=gettext_lazy("The secret is written as"),
        required=False,
        choices=[(each, each) for each in verifying.KEY_ENCODINGS],
    )
    handshake = forms.ChoiceField(
        label=gettext_lazy("Handshake"),
        required=False,
        choices=[("", gettext_lazy("none")), *((each.value, each.value) for each in Handshake)],
    )
    allowed_networks = area(
        gettext_lazy("Addresses"), gettext_lazy("Networks that requests may come from. Empty: any.")
    )
    response_status = forms.IntegerField(label=gettext_lazy("Answer: status"), required=False)
    response_body = text(gettext_lazy("Answer: body"))
    rate_limit = forms.IntegerField(
        label=gettext_lazy("Requests per minute"),
        help_text=gettext_lazy("Empty: the platform's."),
        required=False,
    )

    SECRETS: Final = ("secrets", "verify_token")
    MAIN: Final = ("name", "preset", "secrets", "event_type", "data", "dedup_header", "dedup_path")

    def __init__(
        self, data: QueryDict | None = None, *, source: Source | None = None, may_set_secrets: bool = True
    ) -> None:
        self.source = source
        super().__init__(data, initial=self._initial())
        if source is not None:
            del self.fields["preset"]
        if not may_set_secrets:
            for name in self.SECRETS:
                del self.fields[name]

    def _initial(self) -> dict[str, Any]:
        row = self.source
        if row is None:
            defaults = {name: value for name, value in asdict(Verification()).items() if name != "scheme"}
            return defaults | {"dedup_seconds": 86_400, "response_status": 200}
        return dict(row.verification) | {
            "prefix_text": row.verification.get("prefix", ""),
            "name": row.name,
            "event_type": row.event_type,
            "data": row.data or "",
            "dedup_header": row.dedup_header,
            "dedup_path": row.dedup_path,
            "dedup_seconds": row.dedup_seconds,
            "handshake": row.handshake or "",
            "allowed_networks": "\n".join(row.allowed_networks),
            "response_status": row.response_status,
            "response_body": row.response_body,
            "rate_limit": row.rate_limit,
        }

    @property
    def main_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.MAIN if name in self.fields]

    @property
    def further_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in self.MAIN]

    @property
    def has_further_errors(self) -> bool:
        return any(name in self.errors for name in self.fields if name not in self.MAIN)

    def clean(self) -> dict[str, Any]:
        """What the services take: of a new source only what was filled in, so that the preset keeps the rest."""
        given: dict[str, Any] = super().clean() or {}
        given["prefix"] = given.pop("prefix_text", "")
        proof = {name: given.pop(name) for name in VERIFICATION_FIELDS if given.get(name)}
        for name in VERIFICATION_FIELDS:
            given.pop(name, None)
        if proof.get("scheme"):
            try:
                given["verification"] = verifying.settings_of(proof)
            except InvalidContent as invalid:
                self.add_refusal(invalid)
        for name in ("data", "handshake"):
            given[name] = given.get(name) or None
        given["secrets"] = given.get("secrets", "").splitlines()
        given["allowed_networks"] = words(given.get("allowed_networks", ""))
        for name, rule in RULES.items():
            if given.get(name) not in (None, "", []):
                try:
                    given[name] = rule(given[name])
                except InvalidContent as invalid:
                    self.add_refusal(invalid, at=name)
        return {name: value for name, value in given.items() if self._is_given(name, value)}

    def _is_given(self, name: str, value: Any) -> bool:
        is_empty = value is None or value in ("", [])
        if name in {"secrets", "verify_token", "preset", "event_type", "verification"}:
            return not is_empty
        return self.source is not None or not is_empty

    def add_refusal(self, invalid: InvalidContent, *, at: str = "") -> None:
        for error in invalid.errors:
            name = at or error.field.removeprefix("verification.").partition(".")[0]
            name = "prefix_text" if name == "prefix" else name
            self.add_error(name if name in self.fields else None, in_words(error.message))


RULES: Final[dict[str, Callable[[Any], Any]]] = {
    "secrets": lambda lines: verifying.secrets([line.strip() for line in lines if line.strip()]),
    "verify_token": sources.verify_token,
    "event_type": sources.event_type_text,
    "data": sources.data_text,
    "dedup_header": verifying.header,
    "dedup_path": sources.dedup_path,
    "dedup_seconds": sources.dedup_seconds,
    "allowed_networks": verifying.networks,
    "response_status": sources.response_status,
    "response_body": sources.response_body,
    "rate_limit": sources.rate_limit,
}
