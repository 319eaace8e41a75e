"""Decides which LoRA adapters to load and to drop, from what the operator wants and what is served; pure.

`adapter_loader.py` carries it out, one step at a time. An adapter whose URI or revision changes is served in its old version until the new
one is loaded. One that cannot be loaded is tried again, with growing pauses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from alise_contract.adapters import Adapter

FIRST_PAUSE_SECONDS: Final = 15.0
LONGEST_PAUSE_SECONDS: Final = 300.0


class State(Enum):
    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failure:
    """The last of some failed attempts to load an adapter."""

    message: str
    attempts: int
    again_at_seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """The state of one adapter, for the pod's status."""

    adapter: Adapter
    state: State
    message: str = ""


@dataclass(frozen=True, slots=True)
class Books:
    wanted: tuple[Adapter, ...] = ()
    # By name.
    served: Mapping[str, Adapter] = field(default_factory=dict)
    failures: Mapping[Adapter, Failure] = field(default_factory=dict)


def wanting(books: Books, adapters: tuple[Adapter, ...]) -> Books:
    """Returns the books after the operator has written this list. The failures of what it no longer names are forgotten."""
    kept = {adapter: failure for adapter, failure in books.failures.items() if adapter in adapters}
    return replace(books, wanted=adapters, failures=kept)


def to_drop(books: Books) -> str | None:
    """Returns the name of a served adapter that is not wanted; None if there is none."""
    names = {adapter.name for adapter in books.wanted}
    return next((name for name in books.served if name not in names), None)


def to_load(books: Books, now_seconds: float) -> Adapter | None:
    """Returns the next adapter to load; None while there is none, or while all that are missing have failed lately."""
    for adapter in books.wanted:
        failure = books.failures.get(adapter)
        if books.served.get(adapter.name) != adapter and (failure is None or failure.again_at_seconds <= now_seconds):
            return adapter
    return None


def loaded(books: Books, adapter: Adapter) -> Books:
    failures = {failed: failure for failed, failure in books.failures.items() if failed != adapter}
    return replace(books, served={**books.served, adapter.name: adapter}, failures=failures)


def dropped(books: Books, name: str) -> Books:
    return replace(books, served={served: adapter for served, adapter in books.served.items() if served != name})


def failed(books: Books, adapter: Adapter, message: str, now_seconds: float) -> Books:
    before = books.failures.get(adapter)
    attempts = 1 + (before.attempts if before is not None else 0)
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 10))
    return replace(books, failures={**books.failures, adapter: Failure(message, attempts, now_seconds + pause)})


def rows(books: Books) -> list[Row]:
    """Returns the state of each adapter that is served or wanted."""
    served = [Row(adapter, State.LOADED) for adapter in books.served.values()]
    missing = [adapter for adapter in books.wanted if books.served.get(adapter.name) != adapter]
    return [*served, *(_missing(books, adapter) for adapter in missing)]


def _missing(books: Books, adapter: Adapter) -> Row:
    failure = books.failures.get(adapter)
    return Row(adapter, State.LOADING) if failure is None else Row(adapter, State.FAILED, failure.message)
