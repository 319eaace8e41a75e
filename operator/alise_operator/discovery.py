"""Which APIs the cluster serves, as it was last discovered: CRDs are installed and removed while the operator runs.

reconcile.py asks for it in each reconcile. A spec that needs an API that is missing makes it look again soon; everything else waits for a
minute.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from alise_operator.allowed import Allowed
from alise_operator.cluster import Cluster, Images, KedaScaler
from alise_operator.errors import Gone, MissingApi, OperatorError
from alise_operator.kube import Kube

DISCOVERY_SECONDS: Final = 60.0
# While a spec needs an API that the cluster does not serve.
MISSING_API_SECONDS: Final = 5.0


class Discovery:
    """Discovers the cluster, and remembers it."""

    def __init__(
        self,
        kube: Kube,
        images: Images,
        *,
        allowed: Allowed,
        route_annotations: frozenset[str],
        keda: KedaScaler | None,
        namespace: str,
        monotonic: Callable[[], float],
    ) -> None:
        """`namespace` is the one that the operator looks after; empty for all."""
        self._kube = kube
        self._images = images
        self._allowed = allowed
        self._route_annotations = route_annotations
        self._keda = keda
        self._picker_role_kind = "Role" if namespace else "ClusterRole"
        self._monotonic = monotonic
        self._at_seconds = 0.0
        self._lacks_api = False
        self._asking: asyncio.Task[Cluster] | None = None
        # None before the first discovery.
        self.known: Cluster | None = None

    async def cluster(self) -> Cluster:
        """Returns the cluster. Raises ClusterError."""
        age_seconds = self._monotonic() - self._at_seconds
        if self.known is not None and age_seconds <= (MISSING_API_SECONDS if self._lacks_api else DISCOVERY_SECONDS):
            return self.known
        # The workers notice at the same time, and one of them asks.
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="discovery")
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Cluster:
        now = self._monotonic()
        try:
            found = await self._kube.discover(self._images)
        finally:
            self._asking = None
        found = replace(found, allowed=self._allowed, route_annotations=self._route_annotations, keda_scaler=self._keda)
        self.known, self._at_seconds, self._lacks_api = replace(found, picker_role_kind=self._picker_role_kind), now, False
        return self.known

    def note(self, error: OperatorError) -> None:
        """Takes in why a spec was not applied: an API may be missing, or may have been removed since the last discovery."""
        self._lacks_api |= isinstance(error, MissingApi) or isinstance(error.__cause__, Gone)
