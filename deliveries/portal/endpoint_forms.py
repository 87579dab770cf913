"""The form of an endpoint. It holds no rule of its own: `validation.py` and the services say what is wrong."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import credentials as credential_rules
from deliveries import validation
from deliveries.models import Endpoint
from deliveries.portal import metadata_lines
from deliveries.portal.credential_forms import AuthForm, ClientCertificateForm
from deliveries.portal.endpoint_parts import BatchForm, Part, area
from deliveries.portal.signature_forms import TemplateForm
from deliveries.services import endpoint_settings
from deliveries.validation import MASK, Invalid, mask_url
from tenants.models import EventType, Tenant
from tenants.portal.words import in_words
from tenants.said import said
from tenants.services.event_types import catalogue_of
from tenants.validation import InvalidContent

MOST_TYPES: Final = 500
"""Event types that the form offers to tick. Any other can be typed."""

NO_RETRIES: Final = "none"


# --- the catalogue to tick --------------------------------------------------------------------------------------------


@dataclass
class Group:
    """Types that begin with the same word, and stand in the same group of the catalogue."""

    name: str
    section: str
    """The catalogue's group; empty: none."""
    wildcard: str | None = None
    """`order.*`, where there is something below `order`."""
    types: list[EventType] = field(default_factory=list)


def groups_of(tenant: Tenant) -> list[Group]:
    """One query. Archived types take no new events, so they are not offered."""
    groups: dict[tuple[str, str], Group] = {}
    rows = catalogue_of(tenant).filter(archived_at__isnull=True).order_by("group", "name")
    for event_type in rows[:MOST_TYPES]:
        first, dot, _rest = event_type.name.partition(".")
        group = groups.setdefault((event_type.group, first), Group(first, event_type.group))
        group.types.append(event_type)
        if dot:
            group.wildcard = f"{first}.*"
    return list(groups.values())


# --- texts and values -------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def waits(text: str) -> list[int] | None:
    if not text.strip():
        return None
    if text.strip().lower() == NO_RETRIES:
        return []
    parts = words(text)
    if not all(re.fullmatch("[0-9]{1,6}", part, re.ASCII) for part in parts):
        raise Invalid("invalid_type", _("Must be whole numbers of seconds, with commas between."))
    return validation.retry_schedule([int(part) for part in parts])


def header_lines(text: str) -> dict[str, str]:
    """`Name: value`, one a line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise Invalid("invalid", _("Each line must be a name, a colon and a value."))
        if name.strip() in found:
            raise Invalid("duplicate", said("The header %(name)s is given twice.", name=name.strip()))
        found[name.strip()] = value.strip()
    return validation.headers(found)


def header_changes(wanted: dict[str, str], endpoint: Endpoint | None) -> dict[str, str | None]:
    """What a merge needs: those that are gone become None, and masked ones stay as they are."""
    readable = [] if endpoint is None else [*endpoint.headers]
    sensitive = [] if endpoint is None else endpoint.sensitive_headers
    given = {name.lower() for name in wanted}
    gone: dict[str, str | None] = {
        name: None for name in [*readable, *sensitive] if name.lower() not in given
    }
    masked = {name.lower() for name in sensitive}
    return gone | {
        name: value for name, value in wanted.items() if value != MASK or name.lower() not in masked
    }


def sends_credentials(row: Endpoint) -> bool:
    """Whether a request of this endpoint shows its receiver what is shown to nobody else."""
    return bool(row.auth or row.sensitive_headers or mask_url(row.url) != row.url)


# --- the form ---------------------------------------------------------------------------------------------------------


def as_they_are(values: Sequence[str]) -> list[tuple[str, str]]:
    """Names of formats and methods are the same in every language."""
    return [(value, value) for value in values]


class PatternsField(forms.Field):
    """Ticked patterns, as a list of texts."""

    widget = forms.SelectMultiple


class EndpointForm(forms.Form):
    url = forms.CharField(
        label=gettext_lazy("URL"),
        max_length=validation.MAX_URL_LENGTH,
        widget=forms.URLInput(attrs={"placeholder": "https://example.com/webhooks", "autocomplete": "off"}),
        help_text=gettext_lazy("Where events are sent: https on the public internet."),
    )
    description = forms.CharField(
        label=gettext_lazy("Description"),
        max_length=2000,
        required=False,
        help_text=gettext_lazy("For you and your colleagues. Optional."),
    )
    event_types = PatternsField(label=gettext_lazy("Events"), required=False)
    more_patterns = forms.CharField(
        label=gettext_lazy("Other patterns"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
        help_text=gettext_lazy("Such as order.line.* or endpoint.disabled; one a line."),
    )
    headers = forms.CharField(
        label=gettext_lazy("Headers"),
        required=False,
        widget=forms.Textarea(
            attrs={"rows": 3, "spellcheck": "false", "placeholder": "X-Team: billing", "autocomplete": "off"}
        ),
        help_text=gettext_lazy(
            "Sent with every request; one a line. Values that look like credentials are kept encrypted and shown as ***."
        ),
    )
    channels = forms.CharField(
        label=gettext_lazy("Channels"),
        required=False,
        help_text=gettext_lazy("Only events that carry one of them. Empty: all events."),
    )
    method = forms.ChoiceField(label=gettext_lazy("Method"), choices=as_they_are(validation.METHODS))
    format = forms.ChoiceField(label=gettext_lazy("Format"), choices=as_they_are(validation.FORMATS))
    signature_scheme = forms.ChoiceField(
        label=gettext_lazy("Signature"), choices=as_they_are(validation.SIGNATURE_SCHEMES)
    )
    success_statuses = forms.CharField(
        label=gettext_lazy("Success statuses"),
        help_text=gettext_lazy("Answers that count as success, such as 2xx, 302."),
    )
    timeout_seconds = forms.IntegerField(
        label=gettext_lazy("Time-out in seconds"),
        help_text=gettext_lazy("1 to 30, from connecting to the last byte."),
    )
    rate_limit = forms.FloatField(
        label=gettext_lazy("Requests per second"),
        required=False,
        help_text=gettext_lazy("At most so many. Empty: no limit."),
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    max_in_flight = forms.IntegerField(
        label=gettext_lazy("Requests at once"), help_text=gettext_lazy("1 to 1000.")
    )
    ordering = forms.ChoiceField(
        label=gettext_lazy("Order"),
        choices=[
            ("none", gettext_lazy("as fast as possible")),
            ("fifo", gettext_lazy("in the order of publication")),
        ],
    )
    retry_schedule = forms.CharField(
        label=gettext_lazy("Retries"),
        required=False,
        help_text=gettext_lazy(
            'Seconds to wait before each, such as 5, 300, 1800. Empty: the default, over three days. "none": no retries.'
        ),
    )
    uid = forms.CharField(
        label=gettext_lazy("Your own id"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("By which your systems know this endpoint. Optional."),
    )
    metadata = forms.CharField(
        label=gettext_lazy("Metadata"),
        required=False,
        widget=forms.Textarea(
            attrs={"rows": 3, "spellcheck": "false", "placeholder": "region=north", "autocomplete": "off"}
        ),
        help_text=gettext_lazy("What your systems want to find with it: key=value, one a line. Optional."),
    )
    ca_certificates = area(
        gettext_lazy("Authorities"),
        gettext_lazy(
            "Certificates in PEM, of the authorities that the receiver's own certificate may come from. Empty: the public ones."
        ),
        rows=4,
    )

    MAIN: Final = ("url", "description")
    CALL: Final = (
        "headers",
        "channels",
        "method",
        "format",
        "success_statuses",
        "timeout_seconds",
        "uid",
        "metadata",
    )
    PACE: Final = ("rate_limit", "max_in_flight", "ordering", "retry_schedule")

    NOT_POLLED: Final = (
        "url",
        "method",
        "success_statuses",
        "timeout_seconds",
        *PACE,
        "ca_certificates",
    )
    """What means nothing for an endpoint that is polled: nobody calls it."""

    def __init__(
        self,
        data: QueryDict | None = None,
        *,
        groups: Sequence[Group],
        endpoint: Endpoint | None = None,
        is_polled: bool = False,
        may_set_credentials: bool = True,
    ) -> None:
        """`is_polled`: of a new one. An endpoint stays of the kind that it is.

        Without `may_set_credentials` nothing can be set that signs in or signs, and what is set is led nowhere else: a
        password that is not shown would be read off the requests to another URL.
        """
        self.groups = groups
        self.endpoint = endpoint
        self.may_set_credentials = may_set_credentials
        self.is_polled = is_polled if endpoint is None else endpoint.kind == Endpoint.Kind.POLL
        super().__init__(data, initial=self._initial())
        self.parts: dict[str, Part] = {}
        if self.is_polled:
            for name in self.NOT_POLLED:
                del self.fields[name]
        else:
            self.batch = BatchForm(data, endpoint=endpoint)
            self._add_parts(self.batch)
        if not may_set_credentials:
            for name in {"signature_scheme", "ca_certificates"} & self.fields.keys():
                del self.fields[name]
            if endpoint is not None and sends_credentials(endpoint):
                self.fields.pop("url", None)
        elif not self.is_polled:
            self.auth = AuthForm(data, endpoint=endpoint)
            self.client_certificate = ClientCertificateForm(data, endpoint=endpoint)
            self.signature_template = TemplateForm(data, endpoint=endpoint)
            self._add_parts(self.auth, self.client_certificate, self.signature_template)

    def _add_parts(self, *parts: Part) -> None:
        self.parts |= {part.FIELD: part for part in parts}

    def _initial(self) -> dict[str, Any]:
        row = self.endpoint or Endpoint()
        patterns = ["*"] if self.endpoint is None else endpoint_settings.patterns_of(self.endpoint)
        offered = self.offered
        lines = [f"{name}: {value}" for name, value in row.headers.items()]
        lines += [f"{name}: {MASK}" for name in row.sensitive_headers]
        if row.retry_schedule is None:
            retries = ""
        else:
            retries = ", ".join(str(wait) for wait in row.retry_schedule) or NO_RETRIES
        return {
            "url": row.url,
            "description": row.description,
            "event_types": [pattern for pattern in patterns if pattern in offered],
            "more_patterns": "\n".join(pattern for pattern in patterns if pattern not in offered),
            "headers": "\n".join(lines),
            "channels": ", ".join(row.channels or []),
            "success_statuses": ", ".join(row.success_statuses),
            "retry_schedule": retries,
            "uid": row.uid or "",
            "metadata": metadata_lines.as_text(row.metadata),
            "ca_certificates": row.ca_certificates or "",
        } | {
            name: getattr(row, name)
            for name in (
                "method",
                "format",
                "signature_scheme",
                "timeout_seconds",
                "rate_limit",
                "max_in_flight",
                "ordering",
            )
        }

    @property
    def offered(self) -> set[str]:
        names = {event_type.name for group in self.groups for event_type in group.types}
        return names | {group.wildcard for group in self.groups if group.wildcard} | {"*"}

    @property
    def ticked(self) -> set[str]:
        return set(self["event_types"].value() or [])

    def _there(self, names: Sequence[str]) -> list[forms.BoundField]:
        return [self[name] for name in names if name in self.fields]

    @property
    def main_fields(self) -> list[forms.BoundField]:
        return self._there(self.MAIN)

    @property
    def call_fields(self) -> list[forms.BoundField]:
        return self._there(self.CALL)

    @property
    def pace_fields(self) -> list[forms.BoundField]:
        return self._there(self.PACE)

    def is_wrong(self, fields: Sequence[str], *parts: str) -> bool:
        return any(name in self.errors for name in fields) or any(
            self.parts[name].errors for name in parts if name in self.parts
        )

    @property
    def open_sections(self) -> dict[str, bool]:
        """Those with something wrong in them, and those in which something is set that few endpoints have."""
        row = self.endpoint or Endpoint()
        return {
            "call": self.is_wrong(self.CALL),
            "pace": self.is_wrong(self.PACE, "batch") or row.batch is not None,
            "signature": self.is_wrong(["signature_scheme"], "signature_template")
            or row.signature_template is not None,
            "credentials": self.is_wrong(["ca_certificates"], "auth", "client_certificate")
            or any((row.auth, row.client_certificate, row.ca_certificates)),
        }

    @property
    def wrong_parts(self) -> list[str]:
        return [name for name, part in self.parts.items() if part.errors]

    def is_valid(self) -> bool:
        return super().is_valid() and not self.wrong_parts

    def clean(self) -> dict[str, Any]:
        """Everything as the services take it."""
        given: dict[str, Any] = super().clean() or {}
        for name, rule in RULES.items():
            if name in given:
                try:
                    given[name] = rule(given[name])
                except InvalidContent as invalid:
                    self.add_refusal(invalid, at=name)
        picked = [*(given.get("event_types") or []), *words(given.pop("more_patterns", ""))]
        try:
            given["event_types"] = validation.patterns(list(dict.fromkeys(picked)))
        except InvalidContent as invalid:
            self.add_refusal(invalid, at="event_types")
        if isinstance(given.get("headers"), dict):
            given["headers"] = header_changes(given["headers"], self.endpoint)
        if not self.may_set_credentials:
            self._refuse_credentials(given)
        if isinstance(given.get("metadata"), dict):
            given["metadata"] = metadata_lines.changes(given["metadata"], self.endpoint)
        if self.is_polled and self.endpoint is None:
            given |= {"kind": Endpoint.Kind.POLL.value, "url": None}
        for name, part in self.parts.items():
            if part.is_valid() and part.is_given:
                given[name] = part.wanted
        return given

    def _refuse_credentials(self, given: dict[str, Any]) -> None:
        """In what else may hold one."""
        url, headers = given.get("url"), given.get("headers")
        if url and mask_url(url) != url:
            self.add_error("url", _("Support sets no credentials."))
        if isinstance(headers, dict) and any(map(validation.is_sensitive_header, headers)):
            self.add_error("headers", _("Support sets no credentials."))

    def changes(self, row: Endpoint) -> dict[str, Any]:
        """What the form changes. What it leaves is not sent, so that it does not undo somebody else's change."""
        return {name: value for name, value in self.cleaned_data.items() if self._is_other(row, name, value)}

    def _is_other(self, row: Endpoint, name: str, value: Any) -> bool:
        if name in self.parts:
            return self.parts[name].is_other(row)
        if name in {"headers", "metadata"}:
            return bool(value)
        if name == "event_types":
            return set(value) != set(endpoint_settings.patterns_of(row))
        return bool(getattr(row, name) != value)

    def add_refusal(self, invalid: InvalidContent, *, at: str = "") -> None:
        """What rules or services refuse, beside the field."""
        for error in invalid.errors:
            name = at or error.field.partition(".")[0]
            if name in self.parts:
                self.parts[name].add_refusal(error.field.partition(".")[2], error.message)
                continue
            message = in_words(error.message)
            rest = error.field if at else error.field.partition(".")[2]
            if name in {"headers", "metadata"} and rest:
                message = f"{rest}: {message}"
            self.add_error(name if name in self.fields else None, message)


RULES: Final[dict[str, Callable[[Any], Any]]] = {
    "url": endpoint_settings.url,
    "description": validation.description,
    "headers": header_lines,
    "channels": lambda text: validation.endpoint_channels(words(text) or None),
    "success_statuses": lambda text: validation.success_statuses(words(text)),
    "timeout_seconds": validation.timeout_seconds,
    "rate_limit": validation.rate_limit,
    "max_in_flight": validation.max_in_flight,
    "retry_schedule": waits,
    "uid": lambda text: validation.uid(text) if text else None,
    "metadata": metadata_lines.as_metadata,
    "ca_certificates": lambda text: credential_rules.certificates(text) if text.strip() else None,
}
