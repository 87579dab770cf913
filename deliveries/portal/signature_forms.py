"""Part of the endpoint's form: a further signature, made the way of another scheme, and the header it would make."""

from typing import Any, Final

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.models import Endpoint
from deliveries.pipeline import signature_template
from deliveries.pipeline.signature_template import PRESETS, Algorithm, Encoding, header_lines, parse
from deliveries.portal.endpoint_parts import Part, area, secret_text
from deliveries.services import credentials
from deliveries.validation import MASK, Invalid

OWN: Final = "own"

LABELS: Final = {"github": "GitHub", "stripe": "Stripe", "shopify": "Shopify"}
assert LABELS.keys() == PRESETS.keys()

EXAMPLE: Final[dict[str, Any]] = {
    "message_id": "evt_01h455vb4pex5vsknk084sn02q",
    "timestamp": 1_772_366_400,
    "event_type": "order.created",
    "body": b'{"type":"order.created","timestamp":"2026-03-01T12:00:00.000000Z","data":{"order":"A-17"}}',
}
"""Of the preview. The secret is one, too: nobody's can be read off it."""


class TemplateForm(Part):
    FIELD = "signature_template"
    WHOLE = "preset"
    SECRETS = ("secret",)

    preset = forms.ChoiceField(
        label=gettext_lazy("A further signature"),
        required=False,
        widget=forms.RadioSelect,
        choices=[
            ("", gettext_lazy("None: ours is enough")),
            *LABELS.items(),
            (OWN, gettext_lazy("Of its own making")),
        ],
    )
    header = forms.CharField(
        label=gettext_lazy("Header"),
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "X-Acme-Signature", "autocomplete": "off"}),
    )
    prefix_text = forms.CharField(
        label=gettext_lazy("In front of the signature"),
        required=False,
        strip=False,
        help_text=gettext_lazy("Such as sha256= or t={timestamp},v1="),
    )
    """`prefix` is a word of Django's own."""
    encoding = forms.ChoiceField(
        label=gettext_lazy("Encoding"),
        required=False,
        choices=[(each.value, each.value) for each in Encoding],
    )
    algorithm = forms.ChoiceField(
        label=gettext_lazy("Algorithm"),
        required=False,
        choices=[(each.value, f"HMAC {each.value}") for each in Algorithm],
    )
    signed_content = area(
        gettext_lazy("What is signed"),
        gettext_lazy("A text with {body} in it, and {id}, {timestamp} or {type} where they are signed, too."),
    )
    separator = forms.CharField(
        label=gettext_lazy("Between two signatures"),
        required=False,
        strip=False,
        help_text=gettext_lazy("While secrets overlap. Empty: only the newest signs."),
    )
    headers = area(
        gettext_lazy("Further headers"),
        gettext_lazy("That the receiver needs beside it, such as X-Acme-Timestamp: {timestamp}; one a line."),
    )
    secret = secret_text(
        gettext_lazy("Secret of this signature"),
        gettext_lazy("Kept encrypted, never shown. Empty: it signs with the secret of the endpoint."),
    )
    remove_secret = forms.BooleanField(
        label=gettext_lazy("Forget it, and sign with the secret of the endpoint"), required=False
    )

    RENAMED: Final = {"prefix": "prefix_text"}
    OF_ONES_OWN: Final = (
        "header",
        "prefix_text",
        "encoding",
        "algorithm",
        "signed_content",
        "separator",
        "headers",
    )

    def initial_of(self, row: Endpoint) -> dict[str, Any]:
        template: dict[str, Any] = row.signature_template or {}
        own = {
            "header": template.get("header", ""),
            "prefix_text": template.get("prefix", ""),
            "encoding": template.get("encoding", Encoding.HEX.value),
            "algorithm": template.get("algorithm", Algorithm.SHA256.value),
            "signed_content": template.get("signed_content", "{body}"),
            "separator": template.get("separator") or "",
            "headers": "\n".join(f"{name}: {text}" for name, text in template.get("headers", {}).items()),
        }
        return own | {"preset": template.get("preset", OWN) if template else ""}

    def is_set(self, row: Endpoint, secret: str) -> bool:  # noqa: ARG002 - there is one
        return row.template_secret_encrypted is not None

    @property
    def has_secret(self) -> bool:
        return self.is_set(self.endpoint or Endpoint(), "secret")

    @property
    def own_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.OF_ONES_OWN]

    @property
    def preview(self) -> list[str]:
        """The header lines that it would make of an example. Empty: none, or something is wrong."""
        value = self.wanted if self.is_bound else self.initial_template
        return [] if value is None or self.errors else preview(value)

    @property
    def initial_template(self) -> dict[str, Any] | None:
        return None if self.endpoint is None else credentials.shown_template(self.endpoint)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        preset = cleaned["preset"]
        if cleaned["secret"] and cleaned["remove_secret"]:
            self.add_error("remove_secret", _("Either forget it or put another one in its place."))
        if not preset:
            return cleaned
        try:
            value = self._own(cleaned) if preset == OWN else {"preset": preset}
        except Invalid as invalid:
            self.add_refusal("headers", invalid.message)
            return cleaned
        if cleaned["secret"]:
            value["secret"] = cleaned["secret"]
        elif self.has_secret and not cleaned["remove_secret"]:
            value["secret"] = MASK
        self.check(signature_template.read, value)
        return cleaned

    def _own(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        value = {
            "header": cleaned["header"],
            "prefix": cleaned["prefix_text"],
            "encoding": cleaned["encoding"] or Encoding.HEX.value,
            "algorithm": cleaned["algorithm"] or Algorithm.SHA256.value,
            "signed_content": self._as_it_was(lines_of(cleaned["signed_content"])),
            "separator": cleaned["separator"] or None,
            "headers": pairs_of(cleaned["headers"]),
        }
        return {name: entry for name, entry in value.items() if name != "header" or entry}

    def _as_it_was(self, text: str) -> str:
        """Browsers write the ends of lines in a way of their own. If nothing else differs, nobody changed it."""
        old: str = self.initial["signed_content"]
        return old if lines_of(old) == text else text

    def add_refusal(self, path: str, message: str) -> None:
        super().add_refusal(self.RENAMED.get(path, path), message)

    def is_other(self, row: Endpoint) -> bool:
        """What is not said and what is said to be the default are the same."""
        old = credentials.shown_template(row)
        if self.wanted is None or old is None:
            return bool(self.wanted != old)
        return _told(self.wanted) != _told(old)


def _told(value: dict[str, Any]) -> tuple[object, ...]:
    return parse(_without_secret(value)), value.get("preset"), value.get("secret")


def _without_secret(value: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in value.items() if name != "secret"}


def preview(value: dict[str, Any]) -> list[str]:
    return header_lines(parse(_without_secret(value)), [b"example"], **EXAMPLE)


def lines_of(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def pairs_of(text: str) -> dict[str, str]:
    """`Name: value`, one a line. Raises Invalid."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise Invalid("invalid", _("Each line must be a name, a colon and a value."))
        if name.strip() in found:
            raise Invalid("duplicate", _("The header %(name)s is given twice.") % {"name": name.strip()})
        found[name.strip()] = value.strip()
    return found
