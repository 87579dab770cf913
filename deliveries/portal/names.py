"""What the API's words for outcomes, triggers and actors are called in pages."""

from collections.abc import Mapping
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from deliveries.models import Delivery
from deliveries.pipeline.outcome import Outcome

OUTCOMES: Final[Mapping[str, Promise | str]] = {
    Outcome.SUCCEEDED: gettext_lazy("succeeded"),
    Outcome.HTTP_ERROR: gettext_lazy("unwanted status"),
    Outcome.TIMEOUT: gettext_lazy("time-out"),
    Outcome.DNS_FAILED: gettext_lazy("name not found"),
    Outcome.CONNECTION_FAILED: gettext_lazy("no connection"),
    Outcome.TLS_FAILED: gettext_lazy("TLS failed"),
    Outcome.ADDRESS_BLOCKED: gettext_lazy("address blocked"),
    Outcome.PROTOCOL_ERROR: gettext_lazy("no HTTP answer"),
    Outcome.REQUEST_TOO_LARGE: gettext_lazy("too large for GET"),
    Outcome.TRANSFORMATION_FAILED: gettext_lazy("transformation failed"),
    Outcome.CREDENTIALS_FAILED: gettext_lazy("credentials refused"),
    Outcome.PROXY_FAILED: gettext_lazy("proxy failed"),
    Outcome.INTERNAL_ERROR: gettext_lazy("platform's fault"),
}

TRIGGERS: Final[Mapping[str, Promise | str]] = {
    Delivery.Trigger.AUTOMATIC: gettext_lazy("automatic"),
    Delivery.Trigger.MANUAL: gettext_lazy("by hand"),
    Delivery.Trigger.TEST: gettext_lazy("test"),
    Delivery.Trigger.REPLAY: gettext_lazy("replay"),
}

ACTORS: Final[Mapping[str, Promise | str]] = {
    "person": gettext_lazy("person"),
    "key": gettext_lazy("API key"),
    "operator": gettext_lazy("operator"),
    "link": gettext_lazy("portal link"),
    "support": gettext_lazy("support"),
    "platform": gettext_lazy("platform"),
}
