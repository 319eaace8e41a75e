"""What the last reconcile of each AliseEngine read, so that the clock's rounds need not read it again; plain values, no calls.

reconcile.py keeps one `Reads` per AliseEngine that is at rest. A watch that reports a change drops it, and so do the lists of all
AliseEngines (every round) and of all children (`VERIFY_SECONDS`), when they show another version. So a change that no watch reported costs
two minutes at most, but for a pod that its Deployment counts as before, and no round reads what has not changed. A status that the operator
itself has written is no change, if the API server's answer shows that nothing else had changed since the AliseEngine was read. A Deployment
of whose pods an event counts as many as before is taken from the event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final

from alise_operator.children.meta import Manifest, Owner
from alise_operator.cluster import Cluster
from alise_operator.observation import Observation, Workload, view_workload
from alise_operator.route_ready import Way
from alise_operator.spec import Spec

# How often the children of all AliseEngines are listed, and compared with what was applied and read.
VERIFY_SECONDS: Final = 120.0
# Nothing that was read counts for longer, whatever watches and lists report.
MAX_AGE_SECONDS: Final = 900.0

# Kinds of children of which a reconcile reads the status.
READ_KINDS: Final = frozenset({"Deployment", "Ingress", "HTTPRoute"})

# Every write changes these, and neither counts.
_OF_EACH_WRITE: Final = frozenset({"resourceVersion", "managedFields"})

# (kind, name) of a child.
Child = tuple[str, str]


class Need(IntEnum):
    """What an AliseEngine needs after an event."""

    NOTHING = 0
    # A reconcile that goes by what is remembered, because the event has the rest.
    LOOK = 1
    # A reconcile that reads everything.
    READ = 2


@dataclass(frozen=True, slots=True)
class Edition:
    """Which spec of which AliseEngine: one that is created anew under the same name counts its generations from 1 again."""

    uid: str
    generation: int

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "Edition":
        return cls(str(meta.get("uid") or ""), int(meta.get("generation") or 0))

    def or_later(self, known: "Edition | None") -> "Edition":
        """Returns the known one if it is a later spec of the same AliseEngine, else this one."""
        return known if known is not None and known.uid == self.uid and known.generation > self.generation else self


@dataclass(frozen=True, slots=True)
class Reads:
    """One AliseEngine as it was read."""

    resource: Manifest
    spec: Spec
    owner: Owner
    cluster: Cluster
    way: Way
    seen: Observation
    # Resource versions of the children whose status counts, the Deployment and the route.
    versions: Mapping[Child, str]
    at_seconds: float
    # Versions of the AliseEngine: the one that was read, and the one that is this with a status that the operator has written since.
    known_versions: frozenset[str] = frozenset()

    @classmethod
    def of(cls, resource: Manifest, spec: Spec, owner: Owner, cluster: Cluster, way: Way, seen: Observation, at_seconds: float) -> "Reads":
        """Returns the reads."""
        versions = {("Deployment", owner.name): seen.workload.version if seen.workload is not None else ""}
        if spec.route.type in READ_KINDS:
            # A route that was created just now is not in what was read.
            versions[spec.route.type, owner.name] = str(way.route["metadata"].get("resourceVersion", "")) if way.route is not None else ""
        return cls(_slim(resource), spec, owner, cluster, way, seen, versions, at_seconds, frozenset({_version(resource)}))

    @property
    def version(self) -> str:
        return _version(self.resource)

    def reported(self, written: Manifest | None) -> "Reads | None":
        """Returns the reads with what the AliseEngine is after its status was written; None if that is not known."""
        if written is None or _version(written) == self.version:
            return self if written is not None else None
        # Events of earlier versions have come before.
        return replace(self, resource=_slim(written), known_versions=frozenset({self.version, _version(written)}))

    def with_workload(self, workload: Workload) -> "Reads | None":
        """Returns the reads with the Deployment as a later event shows it; None if its pods may be others, so that they must be read."""
        before, child = self.seen.workload, ("Deployment", self.owner.name)
        if before is None or _count(workload) != _count(before) or not is_newer(workload.version, self.versions.get(child, "")):
            return None
        return replace(self, seen=replace(self.seen, workload=workload), versions={**self.versions, child: workload.version})


def _count(workload: Workload) -> tuple[object, ...]:
    return workload.desired, workload.replicas, workload.updated, workload.ready, workload.template


def is_newer(version: str, than: str) -> bool:
    """Returns whether one resource version is after the other. The API server counts them up; others may not be numbers."""
    return version.isdecimal() and than.isdecimal() and int(version) > int(than)


def after_write(read: Manifest, status: Mapping[str, Any], answer: Manifest) -> Manifest | None:
    """Returns the AliseEngine as the API server answered the write of its status; None if anything else is not as it was read.

    Then another writer was between the two, and what it has written must be read.
    """
    before, after = ({**one, "metadata": _settled(one["metadata"]), "status": None} for one in (read, answer))
    return answer if _version(answer) and before == after and answer.get("status") == status else None


def _settled(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name not in _OF_EACH_WRITE}


def _slim(resource: Manifest) -> Manifest:
    """Returns it without the managed fields, which are most of an object."""
    return resource | {"metadata": {name: value for name, value in resource["metadata"].items() if name != "managedFields"}}


def _version(resource: Manifest) -> str:
    return str(resource["metadata"].get("resourceVersion", ""))


def is_at_rest(seen: Observation) -> bool:
    """Returns whether nothing but watched objects decides what the observation says: events and Secrets are read again instead."""
    return not seen.troubles and not any(pod.silent or pod.troubles for pod in seen.pods)


@dataclass(slots=True)
class _Reading:
    """What was reported of an AliseEngine while a reconcile was at it."""

    has_changed: bool = False
    # Versions of the AliseEngine: one of them may be the operator's own write, whose answer has not arrived yet.
    versions: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Memory:
    """The `Reads` of all AliseEngines, by namespace and name."""

    _reads: dict[tuple[str, str], Reads] = field(default_factory=dict)
    _reading: dict[tuple[str, str], _Reading] = field(default_factory=dict)
    _verified_seconds: float = float("-inf")

    def recall(self, place: tuple[str, str], now_seconds: float) -> Reads | None:
        """Returns what is known, if it still counts."""
        found = self._reads.get(place)
        if found is None or now_seconds - found.at_seconds > MAX_AGE_SECONDS or now_seconds - self._verified_seconds > 2 * VERIFY_SECONDS:
            return None
        return found

    def begin(self, place: tuple[str, str], *, again: bool = True) -> None:
        """Notes that a reconcile begins, and whether it reads the AliseEngine again."""
        if again:
            self._reads.pop(place, None)
        self._reading[place] = _Reading()

    def end(self, place: tuple[str, str], reads: Reads | None) -> None:
        """Keeps what the reconcile read, or what it went by, unless that changed meanwhile."""
        reading = self._reading.pop(place, None)
        if reads is None or reading is None or reading.has_changed or not reading.versions <= reads.known_versions:
            self._reads.pop(place, None)
        else:
            self._reads[place] = reads

    def saw(self, place: tuple[str, str], version: str) -> bool:
        """Notes a version of the AliseEngine that a watch reported, and returns whether it may be another than is known."""
        found, reading = self._reads.get(place), self._reading.get(place)
        if found is not None and version and version in found.known_versions:
            return False
        if reading is not None:
            reading.versions.add(version)
        else:
            self.drop(place)
        return True

    def drop(self, place: tuple[str, str]) -> None:
        """Notes a change."""
        self._reads.pop(place, None)
        if place in self._reading:
            self._reading[place].has_changed = True

    def drop_all(self) -> None:
        """Notes that changes may have been missed."""
        self._reads.clear()
        for reading in self._reading.values():
            reading.has_changed = True

    def listed(self, place: tuple[str, str], version: str) -> None:
        """Compares an AliseEngine with its version in a list, which may be as old as what was read before the status was written."""
        if place in self._reads:
            self.saw(place, version)

    def keep(self, places: frozenset[tuple[str, str]]) -> None:
        """Forgets all others."""
        self._reads = {place: reads for place, reads in self._reads.items() if place in places}

    def saw_child(self, place: tuple[str, str], kind: str, child: Mapping[str, Any]) -> Need:
        """Notes a child that a watch reported, whose status counts and nothing else of which has changed."""
        found, key = self._reads.get(place), (kind, str(child["metadata"]["name"]))
        if found is None:
            return Need.READ
        if found.versions.get(key) == str(child["metadata"].get("resourceVersion", "")):
            return Need.NOTHING
        is_own = key == ("Deployment", found.owner.name) and place not in self._reading
        later = found.with_workload(view_workload(dict(child))) if is_own else None
        if later is None:
            return Need.READ
        self._reads[place] = later
        return Need.LOOK

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
