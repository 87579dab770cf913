"""What does not go together among the settings of one endpoint. Called by the endpoint services before they save. Pure."""

from collections.abc import Sequence

from deliveries.models import Endpoint
from deliveries.pipeline.signature_template import header_names, parse
from deliveries.validation import Collector
from tenants.said import said

IN_BATCHES = ("standard", "raw", "cloudevents")
NOT_IN_A_QUERY = ("xml", "cloudevents", "cloudevents-binary")


def check_together(endpoint: Endpoint, wrong: Collector, *, header_lines: Sequence[str]) -> None:
    """`header_lines`: the names of all its own headers, the sensitive ones too."""
    taken = {name.lower() for name in header_lines}
    _check_kind(endpoint, wrong)
    if endpoint.method == "GET" and endpoint.format in NOT_IN_A_QUERY:
        wrong.add(
            "format",
            "does_not_fit",
            said(
                "With GET the payload is in the query string, which cannot be %(format)s.",
                format=endpoint.format,
            ),
        )
    if endpoint.batch is not None:
        _check_batch(endpoint, wrong)
    if endpoint.auth is not None and "authorization" in taken:
        wrong.add("auth", "does_not_fit", "The endpoint has a header Authorization of its own already.")
    if not endpoint.url.startswith("https:"):
        for field in ("client_certificate", "ca_certificates"):
            if getattr(endpoint, field) is not None:
                wrong.add(field, "does_not_fit", "Certificates need a URL that begins with https://.")
    if endpoint.signature_template is not None:
        _check_template(endpoint, taken, wrong)


def _check_kind(endpoint: Endpoint, wrong: Collector) -> None:
    is_polled = endpoint.kind == Endpoint.Kind.POLL
    if is_polled and endpoint.url:
        wrong.add("url", "does_not_fit", "An endpoint that is polled has none: leave it out, or null.")
    if not is_polled and not endpoint.url:
        wrong.add("url", "required", "Must be given, unless kind is poll.")
    if is_polled and endpoint.ordering == "fifo":
        wrong.add("ordering", "does_not_fit", "What is polled comes in the order of publication anyway.")
    if is_polled and endpoint.method == "GET":
        wrong.add("method", "does_not_fit", "What is polled is not sent: its payload is a body.")


def _check_batch(endpoint: Endpoint, wrong: Collector) -> None:
    if endpoint.kind == Endpoint.Kind.POLL:
        wrong.add("batch", "does_not_fit", "Whoever polls says how many events to give.")
    if endpoint.ordering == Endpoint.Ordering.FIFO:
        wrong.add(
            "batch",
            "does_not_fit",
            "With fifo one event of each key is sent at a time, so a batch would mix keys.",
        )
    if endpoint.method == Endpoint.Method.GET:
        wrong.add("batch", "does_not_fit", "A query string holds one event alone: use POST or PUT.")
    if endpoint.format not in IN_BATCHES:
        wrong.add(
            "batch",
            "does_not_fit",
            said(
                "The format %(format)s holds one event alone: use %(formats)s.",
                format=endpoint.format,
                formats=", ".join(IN_BATCHES),
            ),
        )


def _check_template(endpoint: Endpoint, taken: set[str], wrong: Collector) -> None:
    if (
        endpoint.signature_scheme == Endpoint.SignatureScheme.ED25519
        and endpoint.template_secret_encrypted is None
    ):
        wrong.add(
            "signature_template.secret",
            "required",
            "Must be given: with ed25519 the endpoint has no secret that an HMAC could use.",
        )
    if endpoint.auth is not None:
        taken = taken | {"authorization"}
    for name in header_names(parse(endpoint.signature_template)):
        if name.lower() in taken:
            wrong.add(
                "signature_template",
                "does_not_fit",
                said("The header %(name)s is already one of the endpoint's own headers.", name=name),
            )
