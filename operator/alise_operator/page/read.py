"""Reads what the page shows: AliseEngines and events from the API server, and pods by the operator's own poll.

server.py calls it once for each page. It reads with the operator's rights and writes nothing. What cannot be read is a sentence on the
page.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from alise_contract.names import KIND
from alise_operator.children.meta import Manifest, Owner
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import Kube
from alise_operator.load import Loads
from alise_operator.observe import observe
from alise_operator.page import view
from alise_operator.page.shown import EnginePage, Overview
from alise_operator.pods import EVENTS
from alise_operator.poller import Poller
from alise_operator.reconcile import ENGINES

# AliseEngines of the list; one namespace can be chosen if there are more.
MOST_LISTED: Final = 300
T = TypeVar("T")


class Reader:
    """Reads the pages of an operator. `namespace`: the only one that it manages; empty for all."""

    def __init__(
        self, kube: Kube, poller: Poller, loads: Loads, *, namespace: str = "", now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._kube = kube
        self._poller = poller
        self._loads = loads
        self._namespace = namespace
        self._now = now

    def time(self) -> datetime:
        return self._now()

    async def overview(self, namespace: str = "") -> Overview:
        """Returns the list of all AliseEngines, or those of a namespace. Raises ClusterError, ApplyError (not allowed)."""
        found: list[Manifest] = []
        is_cut = False
        async for page in self._kube.pages(ENGINES, self._namespace or namespace):
            if len(found) >= MOST_LISTED:
                is_cut = True
                break
            found += page
        keys = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found]
        loads = {key: load for key in keys if (load := self._loads.get(*key)) is not None}
        shown = view.overview(found, loads, self._now(), namespace=namespace)
        if not is_cut:
            return shown
        return Overview(shown.rows, shown.tiles, (f"Only {len(found)} are read. Choose a namespace.", *shown.missing), namespace)

    async def engine(self, namespace: str, name: str) -> EnginePage:
        """Returns all about one AliseEngine. Raises Gone (also for a namespace that is not managed), ClusterError, ApplyError."""
        if self._namespace not in ("", namespace):
            raise Gone(f"this operator manages the namespace {self._namespace} only", status=404)
        resource = await self._kube.get(ENGINES, namespace, name)
        owner = Owner(name, resource["metadata"]["namespace"], resource["metadata"]["uid"])
        missing: list[str] = []
        seen = await _tried(observe(self._kube, self._poller, owner), "pods", missing)
        events = await _tried(self._events(owner), "events", missing)
        return view.engine_page(resource, seen, events or (), missing, self._now())

    async def _events(self, owner: Owner) -> Any:
        fields = f"involvedObject.kind={KIND},involvedObject.name={owner.name}"
        listed = await self._kube.list(EVENTS, owner.namespace, fields=fields)
        # A resource of the same name that was deleted had events, too.
        return [one for one in listed if (one.get("involvedObject") or {}).get("uid") == owner.uid]


async def _tried(reading: Awaitable[T], what: str, missing: list[str]) -> T | None:
    """The value, or None and a sentence in `missing` if the cluster does not give it."""
    try:
        return await reading
    except (ApplyError, ClusterError) as error:
        missing.append(f"The {what} could not be read: {error}.")
        return None
