from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest

from deliveries.pipeline.address_guard import AddressGuard, literal_host

_TABLE = (Path(__file__).parents[2] / "data" / "addresses.txt").read_text().splitlines()[1:]
_BLANK = _TABLE.index("")
REFUSED = _TABLE[:_BLANK]
LET_THROUGH = _TABLE[_BLANK + 1 :]


def test_the_table_is_whole() -> None:
    assert (len(REFUSED), len(LET_THROUGH)) == (43, 7)


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_on_the_public_internet_is_refused(address: str) -> None:
    guard = AddressGuard()

    assert guard.refusal(address, 443) is not None


@pytest.mark.parametrize("address", LET_THROUGH)
def test_public_addresses_are_let_through(address: str) -> None:
    guard = AddressGuard()

    assert guard.refusal(address, 443) is None


# The edges of every refused block, one step inside and one outside.
@pytest.mark.parametrize(
    ("address", "is_refused"),
    [
        ("1.0.0.0", False),
        ("0.255.255.255", True),
        ("9.255.255.255", False),
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("100.63.255.255", False),
        ("100.64.0.0", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("126.255.255.255", False),
        ("128.0.0.0", False),
        ("168.63.129.15", False),
        ("168.63.129.17", False),
        ("169.253.255.255", False),
        ("169.255.0.0", False),
        ("172.15.255.255", False),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.0.0.8", True),
        ("192.0.0.9", False),
        ("192.0.0.10", False),
        ("192.0.0.11", True),
        ("192.0.1.0", False),
        ("198.17.255.255", False),
        ("198.19.255.255", True),
        ("198.20.0.0", False),
        ("223.255.255.255", False),
        ("239.255.255.255", True),
        ("1fff:ffff::1", True),
        ("2000::", False),
        ("2001:1ff::1", True),
        ("2001:200::1", False),
        ("2003::1", False),
        ("3ffe::1", False),
        ("3fff:fff::1", True),
        ("3fff:1000::1", False),
        ("4000::", True),
    ],
)
def test_the_edges_of_the_blocks(address: str, is_refused: bool) -> None:
    guard = AddressGuard()

    assert (guard.refusal(address, 443) is not None) is is_refused


@pytest.mark.parametrize(
    "address", ["", "example.com", "1.2.3", "0x7f.1", "fe80::1%eth0", "2606:4700::1111%1", "[::1]"]
)
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    guard = AddressGuard([ip_network("0.0.0.0/0"), ip_network("::/0")])

    assert guard.refusal(address, 8080) is not None


def test_a_refusal_says_why_in_words() -> None:
    guard = AddressGuard([IPv4Network("127.0.0.0/8")], {5432})

    assert guard.refusal("169.254.169.254", 80) == (
        "169.254.169.254 is a link-local address; only addresses on the public internet are delivered to."
    )
    assert guard.refusal("127.0.0.1", 5432) == "Port 5432 is one of the platform's own."
    assert guard.refusal("127.0.0.1", 22) == (
        "127.0.0.1 is a loopback address; only its ports 80, 443 and from 1024 on are delivered to."
    )


@pytest.mark.parametrize(
    ("address", "port", "is_refused"),
    [
        ("127.0.0.1", 9000, False),
        ("127.255.0.1", 9000, False),
        ("::ffff:127.0.0.1", 9000, False),
        ("fd12::1", 9000, False),
        ("127.0.0.1", 1023, True),
        ("127.0.0.1", 1024, False),
        ("127.0.0.1", 80, False),
        ("127.0.0.1", 443, False),
        ("fd12::1", 443, False),
        ("127.0.0.1", 22, True),
        ("127.0.0.1", 79, True),
        ("127.0.0.1", 444, True),
        ("10.0.0.1", 443, True),
        ("10.0.0.1", 9000, True),
        ("fd13::1", 9000, True),
        ("127.0.0.1", 5432, True),
        ("::ffff:127.0.0.1", 5432, True),
        ("fd12::1", 5432, True),
        ("8.8.8.8", 5432, False),
        ("8.8.8.8", 443, False),
        ("8.8.8.8", 22, False),
    ],
)
def test_allowed_networks_open_all_but_the_platforms_own_ports(
    address: str, port: int, is_refused: bool
) -> None:
    guard = AddressGuard([IPv4Network("127.0.0.0/8"), IPv6Network("fd12::/16")], {5432})

    assert (guard.refusal(address, port) is not None) is is_refused


@pytest.mark.parametrize("port", [25, 80, 443, 9000])
def test_a_network_may_be_let_through_at_one_port_alone(port: int) -> None:
    guard = AddressGuard([(IPv4Network("127.0.0.1/32"), port)])

    assert guard.refusal("127.0.0.1", port) is None
    assert guard.refusal("127.0.0.1", port + 1) is not None
    assert guard.refusal("127.0.0.2", port) is not None


@pytest.mark.parametrize("port", [80, 443, 9000])
def test_the_platforms_own_ports_stay_refused_whatever_is_let_through(port: int) -> None:
    guard = AddressGuard([IPv4Network("127.0.0.0/8"), (IPv4Network("127.0.0.1/32"), port)], {port})

    assert guard.refusal("127.0.0.1", port) == f"Port {port} is one of the platform's own."


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0177.0x0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("127.65535", "127.0.255.255"),
        ("10.16777215", "10.255.255.255"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("１２７.０.０.１", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[::FFFF:127.0.0.1]", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
        ("[2606:4700:0:0::1111]", "2606:4700::1111"),
        ("8.8.8.8", "8.8.8.8"),
        # Names, or nothing at all: these are looked up, and what comes of it is judged.
        ("example.com", None),
        ("localhost", None),
        ("1.example.com", None),
        ("example.1", None),
        ("256.0.0.1", None),
        ("1.2.3.256", None),
        ("1.2.3.4.5", None),
        ("4294967296", None),
        ("127..1", None),
        ("08.0.0.1", None),
        ("0x7g.0.0.1", None),
        ("1e3", None),
        ("", None),
        (".", None),
        ("[::g]", None),
        ("9" * 5000, None),
    ],
)
def test_a_host_that_spells_an_address_is_seen_through(host: str, address: str | None) -> None:
    assert literal_host(host) == address
