"""Decides which running requests a simulated engine preempts by rank: what `enginecore/decide.py` of the real engine decides.

Pure, and faster than the engine's: there are many such decisions in a simulated hour. It knows no LoRA adapters. The rooms share no code,
so both are changed together; `tests/simulation/test_preemption.py` compares them. `replica.py` calls it between two steps.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from alise_contract.names import MIN_LEVEL
from alise_scheduler.core.plan import Limits

from .request import Request

# By level and order; the third is the request itself.
Queued = tuple[float, int, Request]


@dataclass(frozen=True, slots=True)
class Choice:
    """The requests that have to go, and the step at which one more may go that a candidate needs; 0 if there is none."""

    victims: tuple[Request, ...]
    recheck_step: int = 0


def outranked(running: Iterable[Request], waiting: Sequence[Queued], limits: Limits) -> list[Request]:
    """Returns the running requests that are not spared and are enough levels worse than the best that waits. Mostly there are none."""
    if limits.preempt_levels <= 0 or not waiting:
        return []
    bar = max(waiting[0][0] + limits.preempt_levels, MIN_LEVEL + limits.spared_levels)
    return [request for request in running if request.level >= bar]


def choose(
    running: Sequence[Request],
    candidates: Sequence[Queued],
    free_slots: int,
    free_blocks: int,
    *,
    step: int,
    limits: Limits,
    needed_blocks: Callable[[Request], int],
    own_blocks: Callable[[Request], int],
) -> Choice:
    """Returns who goes, so that the best that wait can run: for each of them the worst go until it fits, up to the first that does not.

    `running` are those that `outranked()` returned, `candidates` those that wait, the best first.
    """
    ripe = step - limits.min_quantum_steps
    left = sorted((one for one in running if one.start_step <= ripe), key=lambda one: (-one.level, -one.order))
    chosen: list[Request] = []
    for level, _, candidate in candidates:
        needs, taken = needed_blocks(candidate), 0
        while (free_slots < 1 or free_blocks < needs) and taken < len(left) and left[taken].level - level >= limits.preempt_levels:
            free_slots += 1
            free_blocks += own_blocks(left[taken])
            taken += 1
        if free_slots < 1 or free_blocks < needs:
            unripe = [one.start_step for one in running if one.start_step > ripe]
            return Choice(tuple(chosen), min(unripe) + limits.min_quantum_steps if unripe else 0)
        chosen += left[:taken]
        left = left[taken:]
        free_slots -= 1
        free_blocks -= needs
    return Choice(tuple(chosen))
