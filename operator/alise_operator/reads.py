"""What the last reconcile of each AliseEngine read, so that the clock's rounds need not read it again; plain values, no calls.

reconcile.py keeps one `Reads` per AliseEngine that is at rest. A watch that reports a change drops it, and so do the lists of all
AliseEngines (every round) and of all children (`VERIFY_SECONDS`), when they show another version. So a change that no watch reported costs
two minutes at most, and no round reads what has not changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from alise_operator.children.meta import Manifest, Owner
from alise_operator.cluster import Cluster
from alise_operator.observation import Observation
from alise_operator.route_ready import Way
from alise_operator.spec import Spec

# How often the children of all AliseEngines are listed, and compared with what was applied and read.
VERIFY_SECONDS: Final = 120.0
# Nothing that was read counts for longer, whatever watches and lists report.
MAX_AGE_SECONDS: Final = 900.0

# Kinds of children of which a reconcile reads the status.
READ_KINDS: Final = frozenset({"Deployment", "Ingress", "HTTPRoute"})

# (kind, name) of a child.
Child = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Reads:
    """One AliseEngine as it was read."""

    resource: Manifest
    spec: Spec
    owner: Owner
    cluster: Cluster
    way: Way
    seen: Observation
    # Resource versions of the children whose status counts: the Deployment and the route.
    versions: Mapping[Child, str]
    at_seconds: float

    @classmethod
    def of(cls, resource: Manifest, spec: Spec, owner: Owner, cluster: Cluster, way: Way, seen: Observation, at_seconds: float) -> "Reads":
        """Returns the reads, without the managed fields, which are most of an object."""
        versions = {("Deployment", owner.name): seen.workload.version if seen.workload is not None else ""}
        if spec.route.type in READ_KINDS:
            # A route that was created just now is not in what was read.
            versions[spec.route.type, owner.name] = str(way.route["metadata"].get("resourceVersion", "")) if way.route is not None else ""
        meta = {name: value for name, value in resource["metadata"].items() if name != "managedFields"}
        return cls(resource | {"metadata": meta}, spec, owner, cluster, way, seen, versions, at_seconds)

    @property
    def version(self) -> str:
        return str(self.resource["metadata"].get("resourceVersion", ""))


def is_at_rest(seen: Observation) -> bool:
    """Returns whether nothing but watched objects decides what the observation says: events and Secrets are read again instead."""
    return not seen.troubles and not any(pod.silent or pod.troubles for pod in seen.pods)


@dataclass(slots=True)
class Memory:
    """The `Reads` of all AliseEngines, by namespace and name."""

    _reads: dict[tuple[str, str], Reads] = field(default_factory=dict)
    # AliseEngines that changed while a reconcile read them.
    _reading: dict[tuple[str, str], bool] = field(default_factory=dict)
    _verified_seconds: float = float("-inf")

    def recall(self, place: tuple[str, str], now_seconds: float) -> Reads | None:
        """Returns what is known, if it still counts."""
        found = self._reads.get(place)
        if found is None or now_seconds - found.at_seconds > MAX_AGE_SECONDS or now_seconds - self._verified_seconds > 2 * VERIFY_SECONDS:
            return None
        return found

    def begin(self, place: tuple[str, str]) -> None:
        """Notes that a reconcile begins to read."""
        self._reads.pop(place, None)
        self._reading[place] = True

    def end(self, place: tuple[str, str], reads: Reads | None) -> None:
        """Keeps what the reconcile read, unless it changed meanwhile."""
        if self._reading.pop(place, False) and reads is not None:
            self._reads[place] = reads

    def drop(self, place: tuple[str, str]) -> None:
        """Notes a change."""
        self._reads.pop(place, None)
        if place in self._reading:
            self._reading[place] = False

    def drop_all(self) -> None:
        """Notes that changes may have been missed."""
        self._reads.clear()
        for place in self._reading:
            self._reading[place] = False

    def listed(self, place: tuple[str, str], version: str) -> None:
        """Compares an AliseEngine with its version in a list."""
        found = self._reads.get(place)
        if found is not None and found.version != version:
            self.drop(place)

    def keep(self, places: frozenset[tuple[str, str]]) -> None:
        """Forgets all others."""
        self._reads = {place: reads for place, reads in self._reads.items() if place in places}

    def is_known(self, place: tuple[str, str], child: Child, version: str) -> bool:
        """Returns whether this version of a child whose status counts has been read."""
        found = self._reads.get(place)
        return found is not None and found.versions.get(child) == version

    def is_due(self, now_seconds: float) -> bool:
        """Returns whether it is time to list all children."""
        return now_seconds - self._verified_seconds >= VERIFY_SECONDS

    def verified(self, versions: Mapping[str, Mapping[Child, str]], began_seconds: float) -> None:
        """Compares everything with the resource versions of all children, by the uid of their owner."""
        for place, reads in list(self._reads.items()):
            present = versions.get(reads.owner.uid, {})
            if reads.at_seconds < began_seconds and any(present.get(child) != version for child, version in reads.versions.items()):
                self.drop(place)
        self._verified_seconds = began_seconds
