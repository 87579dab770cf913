"""Names are looked up without blocking, seldom, and in fairness to every tenant. Against a real name server."""

import select
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deliveries.pipeline.resolver import (
    KEEP_FAILURE_SECONDS,
    KEEP_SECONDS,
    LOOKUPS_PER_TENANT,
    Lookup,
    Resolver,
)
from tests.support.dns_server import DnsServer

TENANT, OTHER = uuid.uuid4(), uuid.uuid4()


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def resolver(dns: DnsServer) -> Iterator[Resolver]:
    resolver = Resolver(servers=[dns.address])
    yield resolver
    resolver.close()


def ask(
    resolver: Resolver, host: str, *, token: Any = None, tenant: uuid.UUID = TENANT, seconds: float = 5.0
) -> None:
    resolver.ask(host=host, tenant_id=tenant, seconds=seconds, token=token or host, now=time.monotonic())


def wait_for(resolver: Resolver, count: int, *, seconds: float = 10.0) -> dict[Any, Lookup]:
    """Runs the resolver as a transport does: asleep until its descriptor or its clock says so."""
    found: dict[Any, Lookup] = {}
    deadline = time.monotonic() + seconds
    with select.epoll() as epoll:
        epoll.register(resolver.fileno(), select.EPOLLIN)
        while len(found) < count:
            now = time.monotonic()
            assert now < deadline, f"only {sorted(found)} came"
            due = resolver.due_in(now)
            epoll.poll(min(deadline - now, 10.0 if due is None else due))
            found.update(resolver.advance(time.monotonic()))
    return found


def run_for(resolver: Resolver, seconds: float) -> dict[Any, Lookup]:
    found: dict[Any, Lookup] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
        found.update(resolver.advance(time.monotonic()))
    return found


def test_addresses_of_both_families_are_found_ipv4_first(resolver: Resolver, dns: DnsServer) -> None:
    dns.records = {"both.example.test": ["2606:4700::1111", "1.1.1.1", "1.0.0.1"]}

    ask(resolver, "both.example.test")
    lookup = wait_for(resolver, 1)["both.example.test"]

    assert lookup.addresses == ("1.1.1.1", "1.0.0.1", "2606:4700::1111")
    assert (lookup.detail, lookup.is_silent, lookup.is_platform_fault) == ("", False, False)
    assert 0 < lookup.seconds < 5


def test_a_name_is_kept_for_a_while_and_then_looked_up_anew(resolver: Resolver, dns: DnsServer) -> None:
    dns.records = {"a.example.test": ["1.1.1.1"]}
    before = time.monotonic()
    assert resolver.cached("a.example.test", before) is None

    ask(resolver, "a.example.test")
    lookup = wait_for(resolver, 1)["a.example.test"]

    assert resolver.cached("a.example.test", before + KEEP_SECONDS - 0.1) is lookup
    assert resolver.cached("a.example.test", before + KEEP_SECONDS + 5.0) is None
    dns.records = {"a.example.test": ["8.8.8.8"]}
    ask(resolver, "a.example.test")
    assert wait_for(resolver, 1)["a.example.test"].addresses == ("8.8.8.8",)


def test_a_failure_is_kept_for_a_shorter_while(resolver: Resolver) -> None:
    before = time.monotonic()
    ask(resolver, "missing.example.test")

    lookup = wait_for(resolver, 1)["missing.example.test"]

    assert (lookup.addresses, lookup.detail) == ((), "The name does not exist.")
    assert resolver.cached("missing.example.test", before + KEEP_FAILURE_SECONDS - 0.1) is lookup
    assert resolver.cached("missing.example.test", before + KEEP_FAILURE_SECONDS + 5.0) is None


def test_the_address_in_use_stays_first_when_name_servers_rotate(resolver: Resolver, dns: DnsServer) -> None:
    dns.records = {"many.example.test": ["1.0.0.1", "1.0.0.2", "1.0.0.3"]}
    ask(resolver, "many.example.test")
    wait_for(resolver, 1)
    dns.records = {"many.example.test": ["1.0.0.4", "1.0.0.3", "1.0.0.1"]}

    ask(resolver, "many.example.test")
    lookup = wait_for(resolver, 1)["many.example.test"]

    assert lookup.addresses == ("1.0.0.1", "1.0.0.3", "1.0.0.4")


def test_a_name_asked_for_by_many_is_looked_up_once(resolver: Resolver, dns: DnsServer) -> None:
    dns.records = {"a.example.test": ["1.1.1.1"]}

    for token in range(1, 51):
        ask(resolver, "a.example.test", token=token, tenant=TENANT if token % 2 else OTHER)
    found = wait_for(resolver, 50)

    assert sorted(found) == list(range(1, 51))
    assert {lookup.addresses for lookup in found.values()} == {("1.1.1.1",)}
    assert dns.queries == ["a.example.test"] * 2


def test_a_silent_name_ends_at_its_deadline(resolver: Resolver, dns: DnsServer) -> None:
    dns.silent = {"silent.example.test"}
    began = time.monotonic()
    ask(resolver, "silent.example.test", token="hasty", seconds=0.5)
    ask(resolver, "silent.example.test", token="patient", seconds=30.0)

    first = wait_for(resolver, 1)
    hasty_took = time.monotonic() - began
    second = wait_for(resolver, 1)
    patient_took = time.monotonic() - began

    assert list(first) == ["hasty"]
    assert list(second) == ["patient"]
    assert 0.45 < hasty_took < 2.5
    assert 3.0 < patient_took < 10.0
    for lookup in (first["hasty"], second["patient"]):
        assert (lookup.addresses, lookup.detail, lookup.is_silent) == (
            (),
            "No name server answered in time.",
            True,
        )


def test_a_tenant_has_few_look_ups_in_flight_and_others_do_not_wait(
    resolver: Resolver, dns: DnsServer
) -> None:
    dns.records = {"good.example.test": ["1.1.1.1"]}
    dns.silent = {"dead.test"}
    for index in range(200):
        ask(resolver, f"n{index}.dead.test")

    began = time.monotonic()
    ask(resolver, "good.example.test", tenant=OTHER)
    found = wait_for(resolver, 1)

    assert found["good.example.test"].addresses == ("1.1.1.1",)
    # Before any of the others was given up.
    assert time.monotonic() - began < 2.5
    assert len({name for name in dns.queries if name.endswith("dead.test")}) == LOOKUPS_PER_TENANT


def test_a_name_stuck_in_one_tenants_queue_is_looked_up_for_another(
    resolver: Resolver, dns: DnsServer
) -> None:
    dns.records = {"shared.example.test": ["1.1.1.1"]}
    dns.silent = {"dead.test"}
    for index in range(LOOKUPS_PER_TENANT):
        ask(resolver, f"n{index}.dead.test")
    ask(resolver, "shared.example.test", token="stuck")

    ask(resolver, "shared.example.test", token="free", tenant=OTHER)
    found = wait_for(resolver, 2, seconds=2.5)

    assert {token: lookup.addresses for token, lookup in found.items()} == {
        "stuck": ("1.1.1.1",),
        "free": ("1.1.1.1",),
    }


def test_names_that_were_silent_leave_room_for_good_names_of_the_same_tenant(
    resolver: Resolver, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deliveries.pipeline.resolver.LOOKUP_SECONDS", 0.2)
    dns.records = {"good.example.test": ["1.1.1.1"]}
    dns.silent = {"dead.test"}
    names = [f"n{index}.dead.test" for index in range(8)]
    for name in names:
        ask(resolver, name)
    wait_for(resolver, 8)
    monkeypatch.setattr("deliveries.pipeline.resolver.LOOKUP_SECONDS", 5.0)
    for name in names:
        ask(resolver, name)

    began = time.monotonic()
    ask(resolver, "good.example.test")
    found = wait_for(resolver, 1)

    assert list(found) == ["good.example.test"]
    assert time.monotonic() - began < 2.5


def test_the_queue_moves_on_as_look_ups_end(resolver: Resolver, dns: DnsServer) -> None:
    names = [f"n{index}.example.test" for index in range(40)]
    dns.records = {name: ["1.1.1.1"] for name in names}

    for name in names:
        ask(resolver, name)
    found = wait_for(resolver, 40)

    assert sorted(found) == sorted(names)
    assert resolver.due_in(time.monotonic()) is not None  # deadlines of what is done, to be passed over
    assert resolver.advance(time.monotonic() + 60.0) == []
    assert resolver.due_in(time.monotonic()) is None


def test_waiting_in_the_queue_has_an_end(
    resolver: Resolver, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deliveries.pipeline.resolver.QUEUE_SECONDS", 0.3)
    dns.silent = {"dead.test"}
    for index in range(LOOKUPS_PER_TENANT + 3):
        ask(resolver, f"n{index}.dead.test")

    found = wait_for(resolver, 3, seconds=2.5)

    assert sorted(found) == ["n4.dead.test", "n5.dead.test", "n6.dead.test"]
    assert {lookup.detail for lookup in found.values()} == {
        "The name had to wait too long behind other names of yours that no name server answers for."
    }


def test_the_hosts_file_counts(resolver: Resolver, dns: DnsServer) -> None:
    ask(resolver, "localhost")

    assert "127.0.0.1" in wait_for(resolver, 1)["localhost"].addresses
    assert dns.queries == []


@pytest.mark.parametrize(
    ("host", "detail"),
    [
        ("a" * 64 + ".example.test", "The name is not a valid host name."),
        (".".join(["abcdefgh"] * 40), "The name is not a valid host name."),
        ("bücher.example.test", "The name does not exist."),
        ("\udcff.example.test", "The name is not a valid host name."),
        ("empty.example.test", "The name has no address."),
        ("failing.example.test", "The name servers could not give an answer."),
    ],
)
def test_what_cannot_be_found_says_why(resolver: Resolver, dns: DnsServer, host: str, detail: str) -> None:
    dns.records = {"empty.example.test": []}
    dns.failing = {"failing.example.test"}

    ask(resolver, host)

    assert wait_for(resolver, 1)[host].detail == detail


def test_name_servers_that_are_not_there_are_the_platforms_fault() -> None:
    resolver = Resolver(servers=["127.0.0.1:1"])

    ask(resolver, "a.example.test")
    lookup = wait_for(resolver, 1)["a.example.test"]

    assert (lookup.addresses, lookup.is_platform_fault) == ((), True)
    resolver.close()


def test_no_search_domain_is_tried(resolver: Resolver, dns: DnsServer) -> None:
    ask(resolver, "intranet")
    wait_for(resolver, 1)

    assert set(dns.queries) == {"intranet"}


def test_what_is_kept_is_bounded(resolver: Resolver, dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.pipeline.resolver.MAX_CACHED_NAMES", 10)
    names = [f"n{index}.example.test" for index in range(30)]
    dns.records = {name: ["1.1.1.1"] for name in names}
    for name in names:
        ask(resolver, name)
    wait_for(resolver, 30)

    kept = [name for name in names if resolver.cached(name, time.monotonic()) is not None]

    assert len(kept) == 10


def test_what_is_forgotten_comes_back_no_more(resolver: Resolver, dns: DnsServer) -> None:
    dns.records = {"a.example.test": ["1.1.1.1"]}
    dns.silent = {"dead.test"}
    ask(resolver, "a.example.test", token="a")
    for index in range(LOOKUPS_PER_TENANT + 1):
        ask(resolver, f"n{index}.dead.test", token=index)

    tokens = resolver.forget_all()

    assert len(tokens) == LOOKUPS_PER_TENANT + 2
    assert run_for(resolver, 0.5) == {}
    assert resolver.forget_all() == []
