"""A real PostgreSQL and a real Valkey for a machine that has neither: started by `manage.py` and the tests.

`ensure_servers` joins the servers that run already or starts them; the two server classes are also for tests that
stop, kill and pause servers of their own. Nothing here imports Django: the settings need the addresses first.
"""

from webhooks_platform.embedded.postgres import PostgresServer
from webhooks_platform.embedded.programs import Account, EmbeddedError, find_account
from webhooks_platform.embedded.secrets import load_secrets
from webhooks_platform.embedded.shared import Servers, ensure_servers, temporary_servers
from webhooks_platform.embedded.valkey import ValkeyServer

__all__ = [
    "Account",
    "EmbeddedError",
    "PostgresServer",
    "Servers",
    "ValkeyServer",
    "ensure_servers",
    "find_account",
    "load_secrets",
    "temporary_servers",
]
