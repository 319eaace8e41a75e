"""AliseEngines, their pods and their events as frozen values, read from what the API server returns; pure.

Fields that are missing have a neutral value: an object may be seconds old, or of an older release. `cli.py`, `drain.py` and `ui.py` call
it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from alise_contract.names import API_GROUP, ENGINE_CONTAINER, SCHEDULER_CONTAINER

Object = Mapping[str, Any]

_TEMPLATE_ANNOTATION: Final = f"{API_GROUP}/template"


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Engine:
    """One AliseEngine."""

    name: str
    namespace: str
    model: str
    # Pods that the spec asks for, and those that are ready.
    wanted: int
    ready: int
    suspended: bool
    generation: int
    observed_generation: int
    url: str
    conditions: tuple[Condition, ...]
    created: datetime | None
    # (name, in how many pods it is loaded and why it is not in another) of each LoRA adapter.
    adapters: tuple[tuple[str, str], ...] = ()

    def condition(self, kind: str) -> Condition | None:
        return next((one for one in self.conditions if one.type == kind), None)


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    state: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    ready: bool
    ending: bool
    phase: str
    node: str
    # Identifies the template that it was created from.
    template: str
    containers: tuple[Container, ...]
    created: datetime | None

    def state(self) -> str:
        """One word, as `kubectl get pods` has it."""
        if self.ending:
            return "Draining"
        troubles = [one.state for one in self.containers if one.state not in ("Running", "")]
        return troubles[0] if troubles else self.phase

    def restarts(self) -> int:
        return sum(one.restarts for one in self.containers)

    def has(self, container: str) -> bool:
        return any(one.name == container and one.state == "Running" for one in self.containers)


@dataclass(frozen=True, slots=True)
class Event:
    at: datetime | None
    reason: str
    message: str


def engine_of(found: Object) -> Engine:
    """The AliseEngine in an object."""
    meta, spec, status = found.get("metadata", {}), found.get("spec", {}), found.get("status", {})
    conditions = tuple(
        Condition(one["type"], one["status"], one.get("reason", ""), one.get("message", "")) for one in status.get("conditions", ())
    )
    return Engine(
        name=meta["name"],
        namespace=meta.get("namespace", ""),
        model=spec.get("model", {}).get("servedName") or spec.get("model", {}).get("uri", ""),
        wanted=int(spec.get("replicas", 1)),
        ready=int(status.get("readyReplicas", 0)),
        suspended=bool(spec.get("suspend", False)),
        generation=int(meta.get("generation", 0)),
        observed_generation=int(status.get("observedGeneration", 0)),
        url=status.get("url", ""),
        conditions=conditions,
        created=time_of(meta.get("creationTimestamp")),
        adapters=tuple((str(one.get("name", "")), str(one.get("message", ""))) for one in status.get("adapters", ())),
    )


def pod_of(found: Object) -> Pod:
    """The pod in an object, with the containers of alise."""
    meta, status = found["metadata"], found.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
    return Pod(
        name=meta["name"],
        ready=ready,
        ending="deletionTimestamp" in meta,
        phase=status.get("phase", "Unknown"),
        node=found.get("spec", {}).get("nodeName", ""),
        template=meta.get("annotations", {}).get(_TEMPLATE_ANNOTATION, ""),
        containers=tuple(
            Container(one["name"], _state(one.get("state", {})), int(one.get("restartCount", 0)))
            for one in statuses
            if one["name"] in (ENGINE_CONTAINER, SCHEDULER_CONTAINER)
        ),
        created=time_of(meta.get("creationTimestamp")),
    )


def events_of(found: Iterable[Object]) -> tuple[Event, ...]:
    """The events in objects, oldest first."""
    events = [
        Event(
            time_of(one.get("lastTimestamp") or one.get("eventTime") or one.get("firstTimestamp")),
            one.get("reason", ""),
            one.get("message", ""),
        )
        for one in found
    ]
    return tuple(sorted(events, key=lambda event: event.at or datetime.min.replace(tzinfo=UTC)))


def newest_template(deployment: Object) -> str:
    """The template that the newest pods are created from."""
    template = deployment.get("spec", {}).get("template", {})
    return str(template.get("metadata", {}).get("annotations", {}).get(_TEMPLATE_ANNOTATION, ""))


def time_of(text: str | None) -> datetime | None:
    """The time in a field, None if there is none or it is not a time."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        return None


def _state(state: Mapping[str, Any]) -> str:
    """Running, or the reason why a container does not run."""
    for kind, default in (("waiting", "Waiting"), ("terminated", "Terminated")):
        if kind in state:
            return str(state[kind].get("reason") or default)
    return "Running" if "running" in state else ""
