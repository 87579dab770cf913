"""Parts of the endpoint's form: what the API takes as an object, such as `batch`, has a small form of its own.

Its prefix is the field of the API, so that what the services refuse in `auth.password` finds its place by itself.
What is secret goes in and never comes out: it is not in the page, not even when the form is shown again.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from deliveries import validation
from deliveries.models import Endpoint
from tenants.portal.words import in_words
from tenants.validation import InvalidContent

IS_SET = gettext_lazy("One is set. Leave this empty to keep it.")
ONCE_MORE = gettext_lazy("What you typed is not shown again: type it once more.")


class Part(forms.Form):
    FIELD: ClassVar[str]
    """The API's."""
    WHOLE: ClassVar[str]
    """Beside which of its own fields stands what is wrong with all of it."""
    SECRETS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: QueryDict | None, *, endpoint: Endpoint | None) -> None:
        self.endpoint = endpoint
        self.wanted: Any = None
        """What the services take, once the form is valid. None: nothing of the kind."""
        self.is_given = True
        """Whether it changes anything at all; if not, it is left as it is."""
        row = endpoint or Endpoint()
        super().__init__(data, prefix=self.FIELD, initial=self.initial_of(row))
        for name in self.SECRETS:
            if data is not None and data.get(self.add_prefix(name)):
                # Seen only if something else is wrong.
                self.fields[name].help_text = ONCE_MORE
            elif self.is_set(row, name):
                self.fields[name].help_text = IS_SET

    def initial_of(self, row: Endpoint) -> dict[str, Any]:
        raise NotImplementedError

    def is_set(self, row: Endpoint, secret: str) -> bool:
        """Whether there is one that an empty field keeps."""
        raise NotImplementedError

    def is_other(self, row: Endpoint) -> bool:
        """Whether `wanted` changes the endpoint."""
        return bool(self.wanted != getattr(row, self.FIELD))

    def add_refusal(self, path: str, message: str) -> None:
        """`path` within the object: a field, perhaps with a name below it, or nothing."""
        name, _dot, rest = path.partition(".")
        at = name if name in self.fields else self.WHOLE
        words = in_words(message)
        self.add_error(at, f"{rest}: {words}" if rest else words)

    def check(self, rule: Callable[[Any], Any], value: object) -> None:
        try:
            self.wanted = rule(value)
        except InvalidContent as invalid:
            for error in invalid.errors:
                self.add_refusal(error.field, error.message)


def secret_text(label: Any, help_text: Any = "") -> forms.CharField:
    """A secret in one line. Browsers do not offer what they know of the person."""
    widget = forms.PasswordInput(attrs={"autocomplete": "new-password", "spellcheck": "false"})
    return forms.CharField(label=label, help_text=help_text, required=False, strip=False, widget=widget)


class Unshown(forms.Textarea):
    """What is typed into it goes in, and is not in the page that comes back."""

    def format_value(self, value: Any) -> None:  # noqa: ARG002 - a widget's
        return None


def area(label: Any, help_text: Any = "", *, rows: int = 2, is_secret: bool = False) -> forms.CharField:
    attributes = {"rows": rows, "spellcheck": "false", "autocomplete": "off"}
    widget = Unshown(attrs=attributes) if is_secret else forms.Textarea(attrs=attributes)
    return forms.CharField(label=label, help_text=help_text, required=False, strip=False, widget=widget)


class BatchForm(Part):
    FIELD = "batch"
    WHOLE = "max_events"

    max_events = forms.IntegerField(
        label=gettext_lazy("Events in one request"),
        required=False,
        help_text=gettext_lazy("At most so many, 2 to 250. Empty: one event in each request."),
    )
    max_wait_ms = forms.IntegerField(
        label=gettext_lazy("Longest wait for more"),
        required=False,
        help_text=gettext_lazy("Milliseconds that the first of them waits for others, 0 to 60000."),
    )

    def initial_of(self, row: Endpoint) -> dict[str, Any]:
        return dict(row.batch or {})

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        given = {name: value for name, value in cleaned.items() if value is not None}
        if given and not self.errors:
            self.check(validation.batch, given)
        return cleaned
