"""A platform for one story: real processes on a database of their own, gone when it is over.

Nothing of the configured platform is touched; both may run at the same time.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deliveries.bench.platform import Platform
from deliveries.bench.stage import own_stage, run_in
from webhooks_platform.demo.api import DEMO_SCOPES, Api


@dataclass(frozen=True, slots=True)
class Place:
    url: str
    operator: Api
    folder: Path

    def make_tenant(self, slug: str) -> Api:
        """A new tenant, and its API by a key of its own."""
        self.operator.send("POST", "/tenants", {"slug": slug, "name": slug})
        key = {"name": "of the story", "scopes": DEMO_SCOPES}
        made = self.operator.send("POST", f"/tenants/{slug}/api-keys", key)
        return Api(f"{self.operator.base}/tenants/{slug}", made["key"])


@contextlib.contextmanager
def own_place() -> Iterator[Place]:
    """Raises StageUnavailable, NotReady."""
    with tempfile.TemporaryDirectory(prefix="webhooks-demo-") as name, own_stage() as stage:
        folder = Path(name)
        environment = stage.environment(stage.name) | {
            # Where the receivers of a story listen. The platform's own ports stay refused.
            "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.1/32",
        }
        prepared = json.loads(run_in(["-m", "webhooks_platform.demo.prepare"], environment))
        platform = Platform(environment=environment, folder=folder, is_small=True)
        try:
            platform.start()
            url = f"http://127.0.0.1:{platform.port}"
            yield Place(url, Api(f"{url}/api/v1", prepared["operator_key"]), folder)
        finally:
            platform.stop()
