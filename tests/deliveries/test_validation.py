from datetime import UTC, datetime
from ipaddress import IPv4Network
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deliveries import validation
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.validation import (
    BLOCKED_PORTS,
    Collector,
    Invalid,
    InvalidContent,
    WrongField,
    pattern_matches,
)

GUARD = AddressGuard()
GUARD_OF_A_DEVELOPER = AddressGuard(allowed_networks=[IPv4Network("127.0.0.0/8")], blocked_ports=[5433])


def codes(rule: object, value: object, *arguments: object) -> list[tuple[str, str]]:
    """(field, code) of everything that the rule finds wrong; empty if it takes the value."""
    assert callable(rule)
    try:
        rule(value, *arguments)
    except InvalidContent as invalid:
        return [(error.field, error.code) for error in invalid.errors]
    return []


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "given_url", "expected"),
    [
        (
            "an ordinary one",
            "https://example.com/webhooks?team=a&b=%20",
            "https://example.com/webhooks?team=a&b=%20",
        ),
        ("no path", "https://example.com", "https://example.com"),
        ("a query right after the host", "https://example.com?a=b", "https://example.com?a=b"),
        ("http", "http://example.com:8080/", "http://example.com:8080/"),
        ("capitals", "HTTPS://EXAMPLE.com/Path", "https://example.com/Path"),
        ("a port with zeros", "http://example.com:00443/", "http://example.com:443/"),
        ("a dot at the end of the host", "https://example.com./", "https://example.com/"),
        (
            "an international name",
            "https://bücher.example/ü?q=ü",
            "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC",
        ),
        ("its encoded form", "https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("letters that stand for plain ones", "https://ⓔxample.com/", "https://example.com/"),
        ("a soft hyphen", "https://exa\u00admple.com/", "https://example.com/"),
        ("an underscore", "https://my_host.example.com/", "https://my_host.example.com/"),
        ("a public literal address", "http://1.1.1.1/", "http://1.1.1.1/"),
        ("a public address in another spelling", "http://0x1010101/", "http://1.1.1.1/"),
        ("a public IPv6 address", "https://[2606:4700:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        (
            "characters that must be encoded",
            'https://example.com/<a>"{b}|',
            "https://example.com/%3Ca%3E%22%7Bb%7D%7C",
        ),
        ("an @ in the path", "https://example.com/@me", "https://example.com/@me"),
        (
            "a name that resolves to loopback: seen at the socket",
            "http://127.0.0.1.nip.io/",
            "http://127.0.0.1.nip.io/",
        ),
    ],
)
def test_urls_that_are_taken(case: str, given_url: str, expected: str) -> None:
    assert validation.url(given_url, GUARD) == expected, case


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (None, "invalid_type"),
        (5, "invalid_type"),
        ("", "blank"),
        ("https://example.com/" + "a" * 2029, "too_long"),
        ("https://example.com/" + "ü" * 400, "too_long"),
        # Other schemes, or none.
        ("ftp://example.com/", "invalid_scheme"),
        ("gopher://example.com:70/_x", "invalid_scheme"),
        ("file:///etc/passwd", "invalid_scheme"),
        ("javascript:alert(1)", "invalid_scheme"),
        ("data:text/plain,x", "invalid_scheme"),
        ("dict://example.com:11111/", "invalid_scheme"),
        ("wss://example.com/", "invalid_scheme"),
        ("example.com/x", "invalid_url"),
        ("//example.com/x", "invalid_url"),
        ("/x", "invalid_url"),
        ("http:/example.com/", "invalid_url"),
        ("http:example.com/", "invalid_url"),
        ("https:", "invalid_url"),
        # Parsers disagree about these.
        (" https://example.com/", "invalid_url"),
        ("https://example.com/ ", "invalid_url"),
        ("https://example.com/\n", "invalid_url"),
        ("https://exam\tple.com/", "invalid_url"),
        ("https://example.com/\r\nHost: evil", "invalid_url"),
        ("https://example.com/\x00", "invalid_url"),
        ("https://example.com/\x7f", "invalid_url"),
        ("https://example.com/a b", "invalid_url"),
        ("https://example.com/\u2028", "invalid_url"),
        ("https://example.com/\u00a0", "invalid_url"),
        ("https://example.com/\ud800", "invalid_url"),
        ("http://host\\@evil.example/", "invalid_url"),
        ("http:\\\\127.0.0.1\\", "invalid_url"),
        # User names and fragments.
        ("https://user@example.com/", "userinfo_not_allowed"),
        ("https://user:pass@example.com/", "userinfo_not_allowed"),
        ("https://:@example.com/", "userinfo_not_allowed"),
        ("https://@example.com/", "userinfo_not_allowed"),
        ("https://1.1.1.1@127.0.0.1/", "userinfo_not_allowed"),
        ("https://example.com/#part", "fragment_not_allowed"),
        ("https://example.com#@evil.example/", "fragment_not_allowed"),
        # Hosts.
        ("http://", "invalid_host"),
        ("http:///x", "invalid_host"),
        ("http://?x", "invalid_host"),
        ("http://.", "invalid_host"),
        ("http://.example.com/", "invalid_host"),
        ("http://example..com/", "invalid_host"),
        ("http://example.com../", "invalid_host"),
        ("http://-example.com/", "invalid_host"),
        ("http://exa$mple.com/", "invalid_host"),
        ("http://exa,mple.com/", "invalid_host"),
        ("http://a." + "b" * 64 + ".com/", "invalid_host"),
        ("http://" + "a." * 127 + "com/", "invalid_host"),
        ("http://%31%32%37.0.0.1/", "invalid_host"),
        ("http://127.0.0.1%2f.example.com/", "invalid_host"),
        ("http://1.2.3.4.5/", "invalid_host"),
        ("http://256.1.1.1/", "invalid_host"),
        ("http://example.0x7f/", "invalid_host"),
        ("http://[::1/", "invalid_host"),
        ("http://[/", "invalid_host"),
        ("http://::1/", "invalid_port"),
        ("http://[127.0.0.1]/", "invalid_host"),
        ("http://[fe80::1%25eth0]/", "invalid_host"),
        ("http://[v1.x]/", "invalid_host"),
        ("http://[::1]x/", "invalid_host"),
        # Ports.
        ("http://example.com:/", "invalid_port"),
        ("http://example.com:0/", "invalid_port"),
        ("http://example.com:65536/", "invalid_port"),
        ("http://example.com:99999999999999999999/", "invalid_port"),
        ("http://example.com:+80/", "invalid_port"),
        ("http://example.com:-1/", "invalid_port"),
        ("http://example.com:http/", "invalid_port"),
        ("http://example.com:\u0668\u0660/", "invalid_port"),
        ("http://example.com:80:80/", "invalid_port"),
        ("http://example.com:22/", "blocked_port"),
        ("http://example.com:025/", "blocked_port"),
        ("http://example.com:6379/", "blocked_port"),
        # Addresses that are not on the public internet, spelt out in every way.
        ("http://127.0.0.1/", "address_blocked"),
        ("http://127.0.0.1./", "address_blocked"),
        ("http://2130706433/", "address_blocked"),
        ("http://0x7f000001/", "address_blocked"),
        ("http://0x7f.1/", "address_blocked"),
        ("http://0177.0.0.1/", "address_blocked"),
        ("http://127.1/", "address_blocked"),
        ("http://0/", "address_blocked"),
        ("http://10.0.0.1:8080/", "address_blocked"),
        ("http://169.254.169.254/latest/meta-data/", "address_blocked"),
        ("http://2852039166/", "address_blocked"),
        ("http://[::1]/", "address_blocked"),
        ("http://[::]/", "address_blocked"),
        ("http://[::ffff:127.0.0.1]/", "address_blocked"),
        ("http://[::ffff:a9fe:a9fe]/", "address_blocked"),
        ("http://[fd00:ec2::254]/", "address_blocked"),
        ("http://[64:ff9b::7f00:1]/", "address_blocked"),
        ("http://\uff11\uff12\uff17.0.0.1/", "address_blocked"),
        ("http://127\u30020\u30020\u30021/", "address_blocked"),
        ("http://①②⑦.⓪.⓪.①/", "address_blocked"),
        ("http://localhost/", "address_blocked"),
        ("http://LOCALHOST.:8080/", "address_blocked"),
        ("http://anything.localhost/", "address_blocked"),
        ("http://ⓛocalhost/", "address_blocked"),
    ],
)
def test_urls_that_are_refused(url: object, code: str) -> None:
    assert codes(validation.url, url, GUARD) == [("", code)]


def test_every_blocked_port_is_refused_and_its_neighbours_are_not() -> None:
    refused = {
        port for port in range(1, 65_536) if codes(validation.url, f"http://example.com:{port}/", GUARD) != []
    }

    assert refused == BLOCKED_PORTS
    assert len(BLOCKED_PORTS) == 1023 - 2 + 17
    assert BLOCKED_PORTS.isdisjoint({80, 443, 1024, 8000, 8080, 8443})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9000/", []),
        ("http://localhost:9000/", []),
        ("http://2130706433:9000/", []),
        ("http://127.0.0.1/", []),
        ("https://127.0.0.1/", []),
        ("https://localhost:443/", []),
        ("http://127.0.0.1:22/", [("", "blocked_port")]),
        ("http://10.0.0.1/", [("", "address_blocked")]),
        ("http://127.0.0.1:5433/", [("", "address_blocked")]),
        ("http://127.0.0.1:5432/", [("", "blocked_port")]),
        ("http://10.0.0.1:9000/", [("", "address_blocked")]),
    ],
)
def test_allowed_networks_are_let_through_but_not_the_platforms_own_ports(
    url: str, expected: list[tuple[str, str]]
) -> None:
    assert codes(validation.url, url, GUARD_OF_A_DEVELOPER) == expected


@given(
    st.text(max_size=60)
    | st.from_regex(r"\Ahttps?://[a-z0-9.\[\]:%@\\ü。-]{0,40}[/?]?[ -~]{0,10}\Z")
    | st.builds(lambda host: f"http://{host}/", st.text(max_size=40))
    | st.builds(lambda host: f"http://{host}/", st.ip_addresses().map(str))
)
@example("http://\u2024/")
@example("http://xn--a.\u0661/")
def test_whatever_is_taken_reads_the_same_to_another_parser(text: str) -> None:
    try:
        cleaned = validation.url(text, GUARD)
    except Invalid:
        return

    parts = urlsplit(cleaned)
    assert cleaned.isascii()
    assert parts.scheme in {"http", "https"}
    assert parts.username is None
    assert parts.hostname
    assert parts.fragment == ""
    assert parts.port not in BLOCKED_PORTS
    assert parts.geturl() == cleaned or cleaned.endswith("?")
    assert validation.url(cleaned, GUARD) == cleaned


def test_masking_hides_credentials_in_a_query_and_leaves_the_rest_as_it_was() -> None:
    masked = validation.mask_url(
        "https://chat.example.com/v1/x?key=AIza1&token=abc%3D&team=a%20b&api%5Fkey=2&X-Amz-Signature=3&sig=4"
        "&access_token=5&author=me&empty_key=&flag&design=x&code=6#token=7"
    )

    assert masked == (
        "https://chat.example.com/v1/x?key=***&token=***&team=a%20b&api%5Fkey=***&X-Amz-Signature=***&sig=***"
        "&access_token=***&author=me&empty_key=&flag&design=x&code=***#token=7"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/key?", "https://example.com/key?"),
        ("https://example.com/a?b=c", "https://example.com/a?b=c"),
        ("https://me:secret@example.com/a", "https://***@example.com/a"),
        ("https://example.com/a?%73ecret=1", "https://example.com/a?%73ecret=***"),
        ("https://example.com/a?PASSWORD=a=b", "https://example.com/a?PASSWORD=***"),
    ],
)
def test_masking_of_urls(url: str, expected: str) -> None:
    assert validation.mask_url(url) == expected


# --- headers ----------------------------------------------------------------------------------------------------------


def test_headers_are_taken_as_they_came_without_blanks_around_values() -> None:
    assert validation.headers({"X-Team": " a b ", "authorization": "Bearer x", "Accept-Language": "de"}) == {
        "X-Team": "a b",
        "authorization": "Bearer x",
        "Accept-Language": "de",
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Webhook-Id",
            "webhook-signature",
            "WEBHOOK-ANYTHING",
            "Content-Type",
            "User-Agent",
            "Content-Encoding",
        ),
        *(
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
        ),
        *("Expect", "Accept-Encoding", "Proxy-Authorization", "Proxy-Authenticate", "Proxy-Connection"),
        "HTTP2-Settings",
    ],
)
def test_headers_of_the_platform_and_the_connection_are_refused(name: str) -> None:
    assert codes(validation.headers, {name: "x"}) == [(name, "header_not_allowed")]


@pytest.mark.parametrize(
    "name", ["", " ", "X Team", "X:Team", "X-Team:", "X-Te\nam", "Größe", "X(Y)", 'X"Y', "X\x00", "a/b"]
)
def test_header_names_must_be_tokens(name: str) -> None:
    assert [code for _, code in codes(validation.headers, {name: "x"})] == ["invalid_header_name"]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("a\r\nX-Evil: 1", "invalid_characters"),
        ("a\nb", "invalid_characters"),
        ("a\tb", "invalid_characters"),
        ("a\x00", "invalid_characters"),
        ("a\x7f", "invalid_characters"),
        ("ü", "invalid_characters"),
        ("a\u2028b", "invalid_characters"),
        ("", "blank"),
        ("   ", "blank"),
        ("a" * 4097, "too_long"),
        (5, "invalid_type"),
        (None, "invalid_type"),
        (["a"], "invalid_type"),
    ],
)
def test_header_values_that_are_refused(value: object, code: str) -> None:
    assert codes(validation.headers, {"X-A": value}) == [("X-A", code)]


def test_every_wrong_header_is_named() -> None:
    assert codes(validation.headers, {"Host": "x", "X-A": "\n", "X-B": "b", "x-b": "c"}) == [
        ("Host", "header_not_allowed"),
        ("X-A", "invalid_characters"),
        ("x-b", "duplicate"),
    ]


def test_headers_are_bounded_in_number_and_name_and_value_at_their_limits_are_taken() -> None:
    assert codes(validation.headers, {f"X-{number}": "a" for number in range(33)}) == [("", "too_long")]
    assert codes(validation.headers, {"X" * 129: "a"}) == [("X" * 64, "too_long")]
    assert codes(validation.headers, {"X" * 128: "a" * 4096}) == []
    assert codes(validation.headers, "X-A: a") == [("", "invalid_type")]


def test_a_change_may_remove_a_header() -> None:
    assert validation.header_changes({"X-A": None, "X-B": "b"}) == {"X-A": None, "X-B": "b"}
    assert codes(validation.header_changes, {"Host": None}) == [("Host", "header_not_allowed")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Authorization", True),
        ("Cookie", True),
        ("X-Api-Key", True),
        ("X-TOKEN", True),
        ("client_secret", True),
        ("X-Password", True),
        ("X-Hub-Signature", True),
        ("X-Team", False),
        ("Accept-Language", False),
    ],
)
def test_sensitive_headers_are_told_by_name(name: str, *, expected: bool) -> None:
    assert validation.is_sensitive_header(name) is expected


def test_masking_of_headers() -> None:
    assert validation.mask_headers({"Authorization": "Bearer x", "X-Team": "a"}) == {
        "Authorization": "***",
        "X-Team": "a",
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Location", "https://a.example/in?token=s3cret&x=1", "https://a.example/in?token=***&x=1"),
        ("location", "/in?x=1&api_key=s3cret", "/in?x=1&api_key=***"),
        ("location", "/in?token=s3 cret", "/in?token=***"),
        ("location", "https://me:s3cret@a.example/", "https://***@a.example/"),
        (
            "location",
            "https://a.example/in#access_token=s3cret&x=1",
            "https://a.example/in#access_token=***&x=1",
        ),
        ("location", "/a?x=1, /b?token=s3cret", "/a?x=1, /b?token=***"),
        ("content-location", "/in?x=1&token=s3cret", "/in?x=1&token=***"),
        ("Refresh", "5; url=https://a.example/in?token=s3cret", "5; url=https://a.example/in?token=***"),
        ("refresh", '0;URL="/in?token=s3cret"', '0;URL="/in?token=***"'),
        (
            "Link",
            '<https://a.example/?page=2&token=s3cret>; rel="next", </l?key=s3cret>;rel=last',
            '<https://a.example/?page=2&token=***>; rel="next", </l?key=***>;rel=last',
        ),
        (
            "link",
            '<https://a.example/?token=s3 cret>; anchor="/x?key=s3cret"',
            '<https://a.example/?token=***>; anchor="/x?key=***"',
        ),
        ("location", "https://a.example/in?page=2#top", "https://a.example/in?page=2#top"),
        ("set-cookie", "session=s3cret", "***"),
        ("x-team", "/in?token=of-another-header", "/in?token=of-another-header"),
    ],
)
def test_masking_of_links_in_response_headers(name: str, value: str, expected: str) -> None:
    assert validation.mask_response_headers({name: value}) == {name: expected}


# --- names and patterns -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["order", "order.created", "Order_2.line-item.added", "0", "a" * 128, "import"]
)
def test_event_type_names_that_are_taken(value: str) -> None:
    assert validation.event_type_name(value) == value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "blank"),
        (".", "invalid"),
        ("order.", "invalid"),
        (".order", "invalid"),
        ("order..created", "invalid"),
        ("order created", "invalid"),
        ("order.*", "invalid"),
        ("order/created", "invalid"),
        ("ordér", "invalid"),
        ("order\n", "invalid"),
        ("a" * 129, "too_long"),
        (None, "invalid_type"),
        (["order"], "invalid_type"),
    ],
)
def test_event_type_names_that_are_refused(value: object, code: str) -> None:
    assert codes(validation.event_type_name, value) == [("", code)]


@pytest.mark.parametrize(
    "value", ["openapi.json", "import", "endpoint.disabled", "delivery.x.y", "webhook.test"]
)
def test_a_catalogue_has_no_reserved_names(value: str) -> None:
    assert codes(validation.catalogue_event_type_name, value) == [("", "reserved")]


@pytest.mark.parametrize(
    "value", ["endpoint", "delivery", "webhooks.test", "imports", "openapi", "order.endpoint.x"]
)
def test_names_that_only_resemble_reserved_ones_are_free(value: str) -> None:
    assert validation.catalogue_event_type_name(value) == value


@pytest.mark.parametrize("value", ["*", "order.*", "order.line.*", "order.created", "endpoint.*"])
def test_patterns_that_are_taken(value: str) -> None:
    assert validation.pattern(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "**",
        "*.created",
        "order.*.added",
        "order*",
        "order.**",
        ".*",
        "*.*",
        "order.*\n",
        "order.",
        "or?er",
    ],
)
def test_patterns_that_are_refused(value: str) -> None:
    assert codes(validation.pattern, value) == [("", "invalid_pattern")]


def test_every_wrong_pattern_of_a_list_is_named_and_repetitions_are_dropped() -> None:
    assert codes(validation.patterns, ["order.*", "x y", 5]) == [
        ("1", "invalid_pattern"),
        ("2", "invalid_type"),
    ]
    assert validation.patterns(["a", "b", "a"]) == ["a", "b"]
    assert validation.patterns([]) == []


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("order.created", "order.created", True),
        ("order.created", "order.created.twice", False),
        ("order.created", "Order.created", False),
        ("order.*", "order.created", True),
        ("order.*", "order.line.added", True),
        ("order.*", "order", False),
        ("order.*", "orders.created", False),
        ("order.*", "my.order.created", False),
        ("*", "order", True),
        ("*", "order.created", True),
        ("*", "endpoint.disabled", False),
        ("*", "delivery.failed", False),
        ("*", "webhook.test", False),
        ("*", "endpoint", True),
        ("endpoint.*", "endpoint.disabled", True),
        ("delivery.failed", "delivery.failed", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, event_type: str, *, expected: bool) -> None:
    assert pattern_matches(pattern, event_type) is expected


@pytest.mark.parametrize(
    ("rule", "taken", "refused"),
    [
        (
            validation.slug,
            ["a", "a-1", "-", "a" * 63],
            ["", "A", "a_b", "a" * 64, "a b", "ä", "a\n", 1, None],
        ),
        (
            validation.uid,
            ["a", "Team:7@eu.west_1-x", "e" * 255, "EP_1", "ep", "tnt_1"],
            ["", "ep_1", ".", "..", "a/b", "a b", "e" * 256, "ü", "a\n", 1],
        ),
        (
            validation.channel,
            ["a", "eu:west.1_x-2", "c" * 128],
            ["", "a b", "c" * 129, "a@b", "a\n", 1, None],
        ),
        (
            validation.ordering_key,
            ["a", "customer 7", "Kunde Müller", "k" * 128],
            ["", "k" * 129, "a\nb", "a\x00", "a\u2028b", "a\u200bb", "\ud800", 1],
        ),
        (
            validation.idempotency_key,
            ["a", "a b~", "k" * 255],
            ["", "k" * 256, "ü", "a\tb", "a\n", "\x7f", 1, None],
        ),
        (
            validation.name,
            ["A", "Zoë & Co", " a "],
            ["", "  ", "a\nb", "a\x00", "n" * 201, "\udc00", 1, None],
        ),
        (
            validation.description,
            ["", "two\nlines\tand a tab"],
            ["a\x00", "a\x1b[0m", "d" * 2001, "\ud800", None],
        ),
        (validation.method, ["POST", "PUT", "GET"], ["post", "DELETE", "", 1, None, ["POST"]]),
        (validation.ordering, ["none", "fifo"], ["FIFO", "", None, {}]),
        (validation.format_, list(validation.FORMATS), ["json", "", None]),
        (validation.signature_scheme, ["hmac-sha256", "ed25519"], ["sha1", "", None]),
        (validation.timeout_seconds, [1, 15, 30], [0, 31, -1, 1.5, "15", True, None, 10**400]),
        (validation.max_in_flight, [1, 1000, 1.0], [0, 1001, 1.5, "1", False, None]),
        (
            validation.rate_limit,
            [None, 0.01, 1, 10_000],
            [0, 0.009, 10_001, -1, "1", True, float("nan"), float("inf")],
        ),
        (
            validation.success_statuses,
            [["2xx"], ["2xx", "302"], ["200"]],
            [[], ["1xx"], ["6xx"], [200], ["2XX"], [""], "2xx", None, ["200"] * 21],
        ),
        (
            validation.retry_schedule,
            [None, [], [0], [5, 5, 5], [86_400] * 20],
            [[-1], [86_401], [1] * 21, ["5"], [1.5], [True], "5", {}],
        ),
        (
            validation.event_channels,
            [[], ["a"], [str(number) for number in range(10)]],
            [[str(number) for number in range(11)], ["a b"], [1], "a", None],
        ),
        (validation.endpoint_channels, [None, ["a"]], [[], [""], "a", {"a": 1}]),
        (
            validation.metadata,
            [{}, {"a": ""}, {"k" * 64: "v" * 512}, {"note": "two\nlines"}],
            [
                {"a": 1},
                {"a": None},
                {"k" * 65: "v"},
                {"a": "v" * 513},
                {"": "v"},
                {"a": "\x00"},
                {"a\x00": "v"},
                [],
                None,
            ],
        ),
        (validation.metadata_changes, [{"a": None}, {"a": "b"}], [{"a": 1}, {"": None}, {"a": []}]),
        (validation.boolean, [True, False], [0, 1, "true", None]),
    ],
)
def test_what_each_rule_takes_and_refuses(rule: object, taken: list[object], refused: list[object]) -> None:
    assert [value for value in taken if codes(rule, value)] == []
    assert [value for value in refused if not codes(rule, value)] == []


def test_a_schedule_keeps_its_repetitions_and_a_list_of_names_drops_them() -> None:
    assert validation.retry_schedule([5, 5, 5]) == [5, 5, 5]
    assert validation.event_channels(["a", "b", "a"]) == ["a", "b"]


def test_metadata_has_at_most_fifty_keys() -> None:
    assert codes(validation.metadata, {str(number): "" for number in range(50)}) == []
    assert codes(validation.metadata, {str(number): "" for number in range(51)}) == [("", "too_long")]


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.5Z", datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T12:00:00.123456789Z", datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-03-01T13:30:00+01:30", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01t12:00:00z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01 12:00:00-00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_that_are_taken(given_text: str, expected: datetime) -> None:
    assert validation.moment(given_text) == expected
    assert validation.moment(given_text).tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("2026-03-01T12:00:00", "invalid_time"),
        ("2026-03-01", "invalid_time"),
        ("2026-03-01T12:00Z", "invalid_time"),
        ("20260301T120000Z", "invalid_time"),
        ("2026-W09-7T12:00:00Z", "invalid_time"),
        ("2026-02-29T12:00:00Z", "invalid_time"),
        ("2026-03-01T24:00:01Z", "invalid_time"),
        ("2026-03-01T12:00:00+25:00", "invalid_time"),
        ("2026-03-01T12:00:00.Z", "invalid_time"),
        ("2026-03-01T12:00:00Z\n", "invalid_time"),
        ("\u0662026-03-01T12:00:00Z", "invalid_time"),
        ("0001-01-01T00:00:00+01:00", "invalid_time"),
        ("9999-12-31T23:59:59-01:00", "invalid_time"),
        ("0000-01-01T00:00:00Z", "invalid_time"),
        ("", "invalid_time"),
        (1_772_366_400, "invalid_type"),
        (None, "invalid_type"),
    ],
)
def test_times_that_are_refused(value: object, code: str) -> None:
    assert codes(validation.moment, value) == [("", code)]


# --- gathering --------------------------------------------------------------------------------------------------------


def test_a_collector_names_every_wrong_field_at_once_with_its_path() -> None:
    wrong = Collector()

    assert wrong.check("slug", validation.slug, "fine") == "fine"
    assert wrong.check("uid", validation.uid, "ep_1") is None
    wrong.check("headers", validation.headers, {"Host": "x"})
    wrong.check("event_types", validation.patterns, ["ok", "not ok"])
    wrong.add("secret", "required", "Is missing.")
    with pytest.raises(InvalidContent) as caught:
        wrong.done()

    assert caught.value.errors == (
        WrongField("uid", "reserved", "Must not begin with ep_, as ids do."),
        WrongField(
            "headers.Host",
            "header_not_allowed",
            "The header Host belongs to the connection and cannot be set.",
        ),
        WrongField(
            "event_types.1",
            "invalid_pattern",
            "Must be an event type, or * alone or as the last segment, such as order.*.",
        ),
        WrongField("secret", "required", "Is missing."),
    )


def test_a_collector_without_findings_lets_pass() -> None:
    Collector().done()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON | st.integers(min_value=10**308, max_value=10**400) | st.integers(-(10**400), -(10**308)))
@example(10**309)
@example(-(10**309))
def test_no_rule_raises_anything_but_invalid(value: object) -> None:
    for rule in (
        *(validation.slug, validation.uid, validation.name, validation.description, validation.patterns),
        *(validation.metadata, validation.headers, validation.retry_schedule, validation.success_statuses),
        *(validation.rate_limit, validation.timeout_seconds, validation.moment, validation.endpoint_channels),
    ):
        codes(rule, value)
    codes(validation.url, value, GUARD)
