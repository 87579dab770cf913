"""A pair of own servers, and everything the fault tests do to them."""

from collections.abc import Iterator
from itertools import pairwise

import psycopg
import pytest

from webhooks_platform.embedded import Servers, temporary_servers
from webhooks_platform.embedded.servers import PORTS, children_of


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = temporary_servers()
    yield servers
    servers.stop()
    assert not servers.folder.exists()


def test_the_platform_owns_its_database_and_nothing_else(servers: Servers) -> None:
    with psycopg.connect(servers.database_url) as connection:
        assert connection.execute(
            "SELECT current_user, rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone() == ("webhooks", False, True)


def test_commits_are_durable_statements_and_the_clock_is_utc(servers: Servers) -> None:
    with psycopg.connect(servers.database_url) as connection:
        for name, value in {"synchronous_commit": "on", "jit": "off", "TimeZone": "UTC"}.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,)


def test_letters_beyond_ascii_have_upper_case(servers: Servers) -> None:
    with psycopg.connect(servers.database_url) as connection:
        assert connection.execute("SELECT upper('é')").fetchone() == ("É",)


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_server_comes_back_on_its_port_whatever_happened_to_it(servers: Servers, name: str) -> None:
    server = getattr(servers, name)
    pids = [server.pid]
    port = server.port

    for disturb in (server.stop, lambda: server.stop("immediate"), server.kill):
        disturb()
        assert not server.is_answering()
        server.start()
        assert server.is_answering()
        pids.append(server.pid)

    assert server.port == port
    assert port in PORTS
    assert all(before != after for before, after in pairwise(pids))


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_paused_server_does_not_answer_until_resumed(servers: Servers, name: str) -> None:
    server = getattr(servers, name)

    server.pause()
    assert server.is_running()
    assert not server.is_answering()

    server.resume()
    assert server.is_answering()


def test_killing_leaves_no_process_behind(servers: Servers) -> None:
    assert servers.postgres.pid is not None
    children = list(children_of(servers.postgres.pid))
    assert len(children) > 3

    servers.postgres.kill()

    assert servers.postgres.process_ids() == []
    servers.postgres.start()


def test_without_the_password_nobody_gets_in(servers: Servers) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(servers.database_url.replace(servers.postgres.password, "wrong"))
