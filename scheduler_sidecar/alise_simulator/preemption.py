"""Decides which running requests a simulated engine preempts by rank: what `enginecore/decide.py` of the real engine decides.

Pure, and faster than the engine's: there are many such decisions in a simulated hour. It knows no LoRA adapters. The rooms share no code,
so both are changed together; `tests/simulation/test_preemption.py` compares them. `replica.py` calls it between two
steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .request import Request

# By level and order; the third is the request itself.
Queued = tuple[float, int, Request]


@dataclass(frozen=True, slots=True)
class Choice:
    """The requests that have to go, and whether a candidate was left that they could not make room for."""

    victims: tuple[Request, ...]
    is_short: bool


def choose(
    victims: Sequence[Request],
    candidates: Sequence[Queued],
    free_slots: int,
    free_blocks: int,
    *,
    levels: int,
    needed_blocks: Callable[[Request], int],
    own_blocks: Callable[[Request], int],
) -> Choice:
    """Returns who goes, so that the best that wait can run: for each of them the worst go until it fits, up to the first that does not.

    `victims` are those that may go, `candidates` those that wait, the best first. A candidate has to be `levels` better.
    """
    left = sorted(victims, key=lambda one: (-one.level, -one.order))
    chosen: list[Request] = []
    for level, _, candidate in candidates:
        needs, taken = needed_blocks(candidate), 0
        while (free_slots < 1 or free_blocks < needs) and taken < len(left) and left[taken].level - level >= levels:
            free_slots += 1
            free_blocks += own_blocks(left[taken])
            taken += 1
        if free_slots < 1 or free_blocks < needs:
            return Choice(tuple(chosen), is_short=True)
        chosen += left[:taken]
        left = left[taken:]
        free_slots -= 1
        free_blocks -= needs
    return Choice(tuple(chosen), is_short=False)
