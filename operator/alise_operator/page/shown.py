"""The values that the page's templates print. Pure; view.py makes them, and no text in them is escaped yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# A colour, and what it says.
Tone = Literal["good", "busy", "warn", "bad", "idle"]


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Row:
    """An AliseEngine in the list of all."""

    namespace: str
    name: str
    model: str
    state: Badge
    pods: str
    running: str
    waiting: str
    backlog: str
    # What is wrong and what to do; empty if nothing is.
    trouble: str
    age: str


@dataclass(frozen=True, slots=True)
class Tile:
    label: str
    value: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Overview:
    rows: Sequence[Row]
    tiles: Sequence[Tile]
    # What the list does not have, and why.
    missing: Sequence[str] = ()
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class ConditionRow:
    type: str
    badge: Badge
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class Share:
    """How much of something is used."""

    percent: int
    text: str


@dataclass(frozen=True, slots=True)
class PodRow:
    name: str
    node: str
    state: Badge
    spec: str
    restarts: int
    age: str
    running: str
    waiting: str
    offloaded: str
    backlog: str
    ranked: str
    kv: Share | None
    host: Share | None
    # Why figures are missing, or what keeps the pod from working.
    note: str


@dataclass(frozen=True, slots=True)
class EventRow:
    reason: str
    tone: Tone
    message: str
    age: str
    count: int


@dataclass(frozen=True, slots=True)
class AdapterRow:
    """A LoRA adapter, and in how many pods it is loaded."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class EnginePage:
    namespace: str
    name: str
    model: str
    state: Badge
    summary: str
    url: str
    troubles: Sequence[ConditionRow]
    tiles: Sequence[Tile]
    conditions: Sequence[ConditionRow]
    pods: Sequence[PodRow]
    adapters: Sequence[AdapterRow]
    events: Sequence[EventRow]
    missing: Sequence[str]
