"""A reconciler between a cluster in memory and a clock that the test moves. `conftest.py` and `test_reconcile.py` create it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from alise_operator.cluster import Images
from alise_operator.poller import Poller
from alise_operator.reconcile import ENGINES, Key, Reconciler
from tests.operator.fake_kube import FakeKube

KEY = Key("default", "tiny")


@dataclass
class World:
    """A cluster in memory, a clock that the test moves, and the reconciler between them."""

    kube: FakeKube = field(default_factory=FakeKube)
    seconds: float = 0.0
    reconciler: Reconciler = field(init=False)
    poller: Poller = field(default_factory=Poller)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As a new operator process, which remembers nothing."""
        start = datetime(2026, 1, 1, tzinfo=UTC)
        self.reconciler = Reconciler(
            self.kube, self.poller, Images(), now=lambda: start + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds
        )

    async def reconcile(self) -> dict[str, dict[str, Any]]:
        """One pass; the conditions by type."""
        await self.reconciler.reconcile(KEY)
        return {one["type"]: one for one in self.status()["conditions"]}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.objects[(ENGINES.plural, "default", "tiny")]["status"]
        return found

    def set_ready(self, replicas: int) -> None:
        """The Deployment's controller reports."""
        deployment = self.kube.objects[("deployments", "default", "tiny")]
        observed = deployment["metadata"]["generation"]
        deployment["status"] = {
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "observedGeneration": observed,
        }

    def events(self) -> list[tuple[str, str]]:
        return [(one["type"], one["reason"]) for (plural, _, _), one in self.kube.objects.items() if plural == "events"]

    def deployment(self) -> dict[str, Any]:
        return self.kube.objects[("deployments", "default", "tiny")]
