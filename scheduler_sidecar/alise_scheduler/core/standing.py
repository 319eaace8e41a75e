"""Where jobs stand in the queue of one decision: how many rank before each, by which rule, and what keeps it from running.

For example, a job with 14 others before it on 8 slots, 11 of which have less work left, has the rule LENGTH. `journal.py` asks for a job's
standing when it begins to wait, and whenever a person asks why it waits. It describes a decision and never changes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from .decide import Decision
from .job import Snapshot
from .rank import Policy, lateness_of, overdue
from .reports import Phase

# A request that has waited longer than this, which is two of the engine's reports, waits for other requests and not for the next step.
STEP_SECONDS: Final = 1.0
_NO_WAIT: Final = frozenset({Phase.ADMITTED, Phase.RUNNING})


def waits(phase: Phase, seconds: float) -> bool:
    """Return whether a job that has been in this phase for this long waits for other jobs, and not for the next step."""
    return phase not in _NO_WAIT and (phase is not Phase.WAITING or seconds > STEP_SECONDS)


class Rule(Enum):
    """What keeps a job from running."""

    # Nothing: it runs, or it runs with the next step.
    NONE = "none"
    # Its tenant uses its share of the slots, and jobs of tenants within their share go first.
    SHARE = "share"
    # It can no longer be in time, so most jobs that can be go first.
    LATE = "late"
    # Jobs that are overdue go first, oldest first.
    OVERDUE = "overdue"
    # Jobs with less work left, for their class and age, go first.
    LENGTH = "length"
    # Jobs of the same level that arrived earlier go first.
    ARRIVAL = "arrival"
    # It is among the first, but running jobs that rank behind it are not worse enough to be preempted for it or are spared; or it has more
    # samples than there are slots.
    SLOTS = "slots"
    # A slot is free, but there is no KV memory for it.
    KV_MEMORY = "kv_memory"


@dataclass(frozen=True, slots=True)
class Ahead:
    """The number of jobs that rank before one, by the rule that puts them there."""

    share: int = 0
    overdue: int = 0
    length: int = 0
    arrival: int = 0
    # How many of all these have a slot now.
    running: int = 0

    @property
    def total(self) -> int:
        return self.share + self.overdue + self.length + self.arrival


@dataclass(frozen=True, slots=True)
class Standing:
    """The place of one job in a decision."""

    rule: Rule
    level: int
    ahead: Ahead
    # Running jobs that rank behind it.
    running_behind: int
    # Requests that run at once, as far as slots and KV memory allow.
    slots: float
    # Expected wait until its turn.
    turn_seconds: float


def standings(snapshot: Snapshot, policy: Policy, decision: Decision, wanted: Sequence[int]) -> tuple[Standing, ...]:
    """The standings of these rows of the snapshot that the decision is about. It takes about as long as the decision itself."""
    count = len(snapshot)
    if not count or not len(wanted):
        return ()
    rows, place = decision.rows, np.empty(count, dtype=np.int64)
    place[rows] = np.arange(count)
    level, samples = decision.ranks.level[rows], snapshot.samples[rows]
    over = np.zeros(count, dtype=np.bool_) if decision.over_share is None else decision.over_share[rows]
    first = np.zeros(count, dtype=np.bool_)
    first[overdue(snapshot, lateness_of(policy), decision.load.slots)] = True
    first = first[rows] & ~over
    runs = snapshot.phase[rows] == Phase.RUNNING
    # 1. How many jobs before each place are overdue, are within their share, have the same level, or run?
    overdue_before, within_before, running_before = (_before(mask) for mask in (first, ~over & ~first, runs))
    block = np.searchsorted(level, level, side="left")
    same_before = np.arange(count) - block - (overdue_before - overdue_before[block])
    samples_before = np.cumsum(samples) - samples
    running_samples = float(samples[runs].sum())
    result = []
    for at in place[np.asarray(wanted, dtype=np.int64)].tolist():
        # 2. Which rule puts each of them there?
        share = int(within_before[at]) if over[at] else 0
        arrival = int(same_before[at])
        ahead = Ahead(
            share=share,
            overdue=int(overdue_before[at]),
            length=at - share - int(overdue_before[at]) - arrival,
            arrival=arrival,
            running=int(running_before[at]),
        )
        # 3. What keeps this one from running?
        row = int(rows[at])
        if runs[at]:
            rule = Rule.NONE
        elif samples_before[at] + samples[at] > decision.load.slots:
            is_late = decision.is_late is not None and bool(decision.is_late[row])
            rule = Rule.SHARE if over[at] and share else _order_rule(ahead, is_late)
        elif running_samples + samples[at] > snapshot.engine.max_num_seqs:
            rule = Rule.SLOTS
        else:
            rule = Rule.KV_MEMORY if snapshot.waiting_seconds[row] > STEP_SECONDS else Rule.NONE
        behind = int(runs.sum()) - int(running_before[at]) - int(runs[at])
        result.append(Standing(rule, int(level[at]), ahead, behind, decision.load.slots, float(decision.waits_seconds[row])))
    return tuple(result)


def _before(mask: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return np.cumsum(mask) - mask


def _order_rule(ahead: Ahead, is_late: bool) -> Rule:
    if not ahead.total:
        return Rule.SLOTS
    if is_late and ahead.length >= ahead.overdue:
        return Rule.LATE
    counts = {Rule.OVERDUE: ahead.overdue, Rule.LENGTH: ahead.length, Rule.ARRIVAL: ahead.arrival}
    return max(counts, key=lambda rule: counts[rule])
