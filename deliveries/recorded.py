"""What attempts, deliveries and incoming requests have recorded in words of ours, to be said in another language. Pure.

They are recorded in English, as the API gives them. Called for people only: nothing that delivers pays for it.
"""

import re
from functools import lru_cache
from typing import Final

from tenants.said import ENGLISH, Language, Said, said, said_by

TEMPLATES: Final = (
    # an attempt's address, by `pipeline/address_guard.py`
    said("%(address)s is not an address that can be delivered to."),
    said("%(address)s %(reason)s; only addresses on the public internet are delivered to."),
    said("%(address)s %(reason)s; only its ports 80, 443 and from %(port)s on are delivered to."),
    said("Port %(port)s is one of the platform's own."),
    # the way to an access token, a proxy, a query string
    said("There is no access token, its URL did not answer. %(reason)s"),
    said("There is no access token: its URL answered %(code)s."),
    said("The platform's egress proxy answered %(code)s."),
    said("the payload makes a %(what)s of more than %(most)s bytes"),
    # transformations and mappings, by `expressions.py` and `inbound/mapping.py`
    said("The transformation failed: its result has more than %(most)s bytes."),
    said("The transformation failed: %(reason)s."),
    said("The mapping of data failed: its result has more than %(most)s bytes."),
    said("The mapping of data failed: %(reason)s."),
    said("The mapping of the event type failed: its result is no text."),
    said("The mapping of the event type failed: %(reason)s."),
    said("the data has no key %(key)s"),
    said("it cannot be evaluated (%(why)s)"),
    said("The event type that came of the mapping cannot be one: %(reason)s"),
    said("The body cannot be the data of an event: %(faults)s"),
    said("The event %(type)s was refused (%(code)s). %(faults)s"),
    said("The event %(type)s was refused (%(code)s)."),
    said("data may have at most %(most)s bytes."),
    # an incoming request, by `inbound/` and `services/receiving.py`
    said("The body is no valid JSON: %(reason)s"),
    said("The form is not UTF-8, or has more than %(most)s fields."),
    said("The body is no well-formed XML: line %(line)s, column %(column)s."),
    said("The header %(header)s is missing."),
    said("The timestamp is more than %(tolerance)s seconds from the platform's clock."),
    said("A body may have at most %(most)s bytes."),
    said("A query string may have at most %(most)s bytes."),
    said("This came through %(hops)s webhooks that lead to one another."),
    # what those have as their reason
    said("Must have at most %(most)s characters."),
    said("Must not nest deeper than %(most)s levels."),
    said("Must not hold numbers of more than %(most)s characters."),
    said("The body is not UTF-8: byte %(place)s is wrong."),
    said("%(fault)s in line %(line)s, column %(column)s."),
    said("%(name)s is no JSON value."),
    # what the library says of data that break their schema, by `tenants/schemas.py`
    said("the value is not of type %(type)s"),
    said("the value is not of types %(types)s"),
    said("the value is less than or equal to the minimum of %(limit)s"),
    said("the value is greater than or equal to the maximum of %(limit)s"),
    said("the value is less than the minimum of %(limit)s"),
    said("the value is greater than the maximum of %(limit)s"),
    said("the value is not one of %(values)s"),
    said("the value is longer than %(limit)s characters"),
    said("the value is shorter than %(limit)s characters"),
    said("the value does not match %(pattern)s"),
    said("the value has more than %(limit)s items"),
    said("the value has less than %(limit)s items"),
    said("the value has more than %(limit)s properties"),
    said("the value has less than %(limit)s properties"),
    said("the value is not a multiple of %(number)s"),
    said("the value is not a %(format)s"),
    said("%(name)s is a required property"),
    said("%(value)s was expected"),
    said("%(schema)s is not allowed for the value"),
    said("Additional properties are not allowed (%(names)s was unexpected)"),
    said("Additional properties are not allowed (%(names)s were unexpected)"),
    said("Unevaluated properties are not allowed (%(names)s was unexpected)"),
    said("Unevaluated properties are not allowed (%(names)s were unexpected)"),
    said("Unevaluated items are not allowed (%(names)s)"),
    said("%(name)s is longer than %(limit)s characters"),
    said("%(name)s is longer than 1 character"),
)
"""The texts that have something filled in; the others are found as they are. The first that fits is the one."""

PARTS: Final = (
    # recorded as they stand, by `pipeline/dispatch.py`, `pipeline/resolver.py` and `inbound/mapping.py`
    said("The receiver asked to disable the endpoint."),
    said("The receiver asked not to try again."),
    said("The receiver refused the endpoint's credentials."),
    said("No name server answered in time."),
    said("The name does not exist."),
    said("The name has no address."),
    said("The name is not a valid host name."),
    said("The platform could not ask its name servers."),
    said("The name servers could not give an answer."),
    said("the answer could not be stored"),
    said("The mapping of data failed: its result is not an object."),
    # of addresses
    said("means this host"),
    said("is a private address"),
    said("is an address inside a provider's network"),
    said("is a loopback address"),
    said("is a cloud provider's internal service"),
    said("is a link-local address"),
    said("is reserved for protocols"),
    said("is an example for documentation"),
    said("is a relay address"),
    said("is reserved for benchmarks"),
    said("is a multicast address"),
    said("is reserved"),
    said("is not a public address"),
    # of payloads
    said("query string"),
    # of data that break their schema
    said("the value is longer than 1 character"),
    said("the value is shorter than 1 character"),
    said("the value has more than 1 item"),
    said("the value has less than 1 item"),
    said("the value has more than 1 property"),
    said("the value has less than 1 property"),
    said("the value has non-unique elements"),
    said("the value is not valid under any of the schemas listed in the 'anyOf' keyword"),
    said("the value is not valid under any of the schemas listed in the 'oneOf' keyword"),
    said("the value is valid under more than one of the schemas listed in the 'oneOf' keyword"),
    said("None of the value are valid under the given schema"),
    said("False schema does not allow the value"),
    said("form"),
)
"""Texts without anything filled in."""

_OURS: Final = {"reason", "what", "fault", "faults"}
"""What templates have under these names is said again, too. All else is a name, a number or somebody else's words."""
_FAULT: Final = re.compile(r"((?:body|data|type)(?:\.[^\s:]+)*: )?(.*)", re.DOTALL)
_PLACE: Final = re.compile(r"%\((\w+)\)s")


def said_again(text: str) -> str:
    """A text as it was recorded, which can be said in another language if it is one of ours."""
    if not text or isinstance(text, Said):
        return text
    return said_by(lambda language: text if language is ENGLISH else _faults(language, text))


def _in(language: Language, text: str) -> str:
    whole = language.gettext(text) if text else text
    if whole != text:
        return whole
    for template, pattern in _patterns():
        if found := pattern.fullmatch(text):
            values = {
                name: _faults(language, value) if name in _OURS else value
                for name, value in found.groupdict().items()
            }
            return language.gettext(template) % values
    return text


def _faults(language: Language, text: str) -> str:
    """One, or several with semicolons between, each of them behind the field that it is of."""
    whole = _in(language, text)
    if whole != text:
        return whole
    parts = [_FAULT.fullmatch(part) for part in text.split("; ")]
    return "; ".join(f"{part[1] or ''}{_in(language, part[2])}" for part in parts if part)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """The templates as what they look like when they are filled in."""
    found = []
    for each in TEMPLATES:
        literals_and_names = _PLACE.split(each)
        parts = [
            f"(?P<{part}>.+?)" if index % 2 else re.escape(part)
            for index, part in enumerate(literals_and_names)
        ]
        found.append((str(each), re.compile("".join(parts), re.DOTALL)))
    return found
