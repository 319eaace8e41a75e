"""Policy drivers: the production core, or a rule to compare it with. A driver sets the level and order of a replica's requests.

`replica.py` calls it. `run.py` makes one for each replica, with the function that `systems.py` gives.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from alise_scheduler.core.admission_queue import AdmissionQueue, ArrivingRequest
from alise_scheduler.core.admit import AdmitLimits, Load, admit
from alise_scheduler.core.decide import decide
from alise_scheduler.core.estimate import Estimate
from alise_scheduler.core.exec_time import CostModel
from alise_scheduler.core.fairness import OVER_SHARE_LEVEL
from alise_scheduler.core.job import Ints, Snapshot
from alise_scheduler.core.lengths import QUANTILES, Floats
from alise_scheduler.core.level import BASE_SPAN, NUMBERS, bounded, level_of
from alise_scheduler.core.plan import NEVER_SENT, Limits
from alise_scheduler.core.rank import POLICIES, Policy, neutral_after, promote_seconds, view_of
from alise_scheduler.core.reports import EngineShape, Phase

from .request import Request

# As in the dispatcher: plans are this far apart after an arrival, and one goes out this often in any case.
PLAN_SECONDS: Final = 0.020
REFRESH_SECONDS: Final = 0.7
# As there, deciding takes at most a tenth of the time. A decision takes about a microsecond per job.
_PLAN_SECONDS_PER_JOB: Final = 10 * 1e-6
# Room for live requests to begin with; it doubles when it is full. Small: there may be ten thousand replicas.
_FIRST_ROWS: Final = 32
# Rows of the float table.
_ORDER, _WEIGHT, _LIMIT, _PROMPT, _MARK, _DECODING, _HOST_TOKENS, _HOST_BYTES, _WAITED, _PHASE_AT, _PHASE, _TENANT, _ARRIVED, _COLUMNS = (
    range(14)
)


class PolicyDriver(Protocol):
    """Decides for one replica."""

    limits: Limits

    def arrived(self, request: Request, now: float) -> None:
        """A request is there; gives it the level and order of its admission, or sets `refused`."""

    def moved(self, request: Request, step: int) -> None:
        """It was admitted, began to decode or was preempted; `step` is the replica's step count."""

    def left(self, request: Request) -> None:
        """It ended."""

    def due_at(self, has_free_slot: bool) -> float:
        """When the next plan is due; asked only while a request waits."""

    def plan(self, now: float, step: int) -> None:
        """Sets levels, orders and expected waits anew."""


@dataclass(frozen=True, slots=True)
class AtAdmission:
    """The requests of a trace before they have run, as columns [N]: what the policy makes of each (its level, in seconds), and its work in
    seconds, on a busy and on an idle engine.
    """

    index_seconds: Floats
    work_seconds: Floats
    alone_seconds: Floats


def at_admission(policy: Policy, lengths: Floats, prompt_tokens: Floats, caps: Floats, shape: EngineShape, cost: CostModel) -> AtAdmission:
    """For all requests at once: alone each of them would take as long as a plan."""
    count, none = len(lengths), np.zeros(len(lengths))
    fresh = Snapshot(
        jobs=("",) * count, rankable=np.zeros(count, dtype=np.bool_), phase=np.full(count, Phase.ADMITTED, dtype=np.int64),
        order=np.arange(count), weight=np.ones(count), tenant=np.zeros(count, dtype=np.int64), lengths=lengths, limit_tokens=caps,
        samples=np.ones(count), prompt_tokens=prompt_tokens, generated_tokens=none, device_tokens=none, host_tokens=none, host_bytes=none,
        waiting_seconds=none, age_seconds=none, engine=shape, cost=cost, neutral_seconds=1.0, sent=np.zeros((3, count), dtype=np.int64),
    )  # fmt: skip
    view = view_of(fresh)
    alone = cost.coefficients.alone_seconds(prompt_tokens, view.left_tokens, prompt_tokens)
    return AtAdmission(POLICIES[policy.name](view), view.remaining_seconds, alone)


class CoreDriver:
    """The production `decide()` on columns kept up to date; admissions are stamped as the dispatcher does."""

    def __init__(
        self, policy: Policy, lengths: Floats, caps: Floats, tenants: Floats, weights: Floats, shape: EngineShape, cost: CostModel,
        fresh: AtAdmission, admit_limits: AdmitLimits | None = None,
    ) -> None:  # fmt: skip
        """`lengths` are the predictions of the whole trace, [N, QUANTILES]; `caps` the clients' limits, `tenants` and `weights` [N].

        Without `admit_limits` no request is refused.
        """
        self._policy, self._shape, self._cost = policy, shape, cost
        self._admit_limits, self._queue = admit_limits, AdmissionQueue()
        self._lengths, self._caps, self._tenants, self._weights = lengths, caps, tenants, weights
        self._fresh = fresh
        self._token_seconds = cost.decode_step_seconds()
        self._neutral_seconds = float(np.exp(np.log(np.maximum(fresh.work_seconds[:200], 1e-6)).mean()))
        self._rows: list[Request] = []
        self._table = np.zeros((_COLUMNS, _FIRST_ROWS))
        self._quantiles = np.ones((_FIRST_ROWS, QUANTILES))
        self._sent = np.full((3, _FIRST_ROWS), NEVER_SENT, dtype=np.int64)
        self._dirty = False
        # Requests ended since the last plan, and when one last did as plans saw it.
        self._ended, self._ended_at = False, -math.inf
        self._last_plan = -math.inf
        self._crowding: frozenset[float] = frozenset()
        self.load = Load()
        self.plans = 0
        self.limits = decide(self._snapshot(0.0, 0), policy).limits

    def arrived(self, request: Request, now: float) -> None:
        level = self._stamp(request.index)
        if self._admit_limits is not None and self.refuses(request, level, now, self._admit_limits):
            request.refused = True
            return
        row = len(self._rows)
        if row == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            self._quantiles = np.concatenate([self._quantiles, np.ones_like(self._quantiles)])
            self._sent = np.concatenate([self._sent, np.full_like(self._sent, NEVER_SENT)], axis=1)
        self._rows.append(request)
        request.row, index = row, request.index
        self._table[:, row] = (
            request.order, self._weights[index], self._caps[index], request.prompt_tokens, 0.0, 0.0, 0.0, 0.0, 0.0, request.arrived_at,
            Phase.WAITING, self._tenants[index], request.arrived_at,
        )  # fmt: skip
        self._quantiles[row] = self._lengths[index]
        request.level = level
        self._neutral_seconds = neutral_after(self._neutral_seconds, float(self._fresh.work_seconds[index]))
        if self._tenants[index] in self._crowding:
            request.level += OVER_SHARE_LEVEL + BASE_SPAN
        self._dirty = True

    def refuses(self, request: Request, level: float, now: float, limits: AdmitLimits) -> bool:
        """Returns whether it is refused for its predicted wait. If not, it counts for those that come after it."""
        index, fresh = request.index, self._fresh
        new = Estimate(int(level), float(fresh.work_seconds[index]), float(fresh.alone_seconds[index]))
        arrival = ArrivingRequest(new, 1, float(self._weights[index]), f"{self._tenants[index]:.0f}")
        # There are plans while requests wait. If the last one is old, none waits.
        waiting = now - self._last_plan < 2 * REFRESH_SECONDS
        if waiting and admit(0, False, limits, lambda: self._queue.wait(now, arrival, self._policy)) is not None:
            return True
        self._queue.admitted(now, arrival)
        return False

    def _stamp(self, index: int) -> float:
        """The level at admission."""
        if self._policy.name == "fcfs":
            return 0.0
        neutral, ends_at = self._neutral_seconds, math.inf
        if self._policy.name == "boost" and self._policy.ageing is not None:
            ends_at = promote_seconds(self._policy.ageing, self.load.backlog_seconds(), neutral)
        level = level_of(float(self._fresh.index_seconds[index]), float(self._weights[index]), neutral, ends_at, NUMBERS)
        return round(bounded(level, NUMBERS))

    def moved(self, request: Request, step: int) -> None:
        column = self._table[:, request.row]
        column[_MARK], column[_DECODING] = request.generated, request.decoding
        column[_HOST_TOKENS], column[_HOST_BYTES] = request.host_tokens, request.host_bytes
        column[_WAITED], column[_PHASE_AT], column[_PHASE] = request.waited_seconds, request.phase_at, request.phase

    def left(self, request: Request) -> None:
        self._ended = True
        hole, last = request.row, self._rows.pop()
        if last is not request:
            self._rows[hole], last.row = last, hole
            end = len(self._rows)
            self._table[:, hole] = self._table[:, end]
            self._quantiles[hole] = self._quantiles[end]
            self._sent[:, hole] = self._sent[:, end]

    def due_at(self, has_free_slot: bool) -> float:
        if self._dirty and not has_free_slot:
            return self._last_plan + max(PLAN_SECONDS, _PLAN_SECONDS_PER_JOB * len(self._rows))
        return self._last_plan + REFRESH_SECONDS

    def plan(self, now: float, step: int) -> None:
        if self._ended:
            self._ended, self._ended_at = False, now
        snapshot = self._snapshot(now, step)
        decision = decide(snapshot, self._policy, self.limits)
        ranks, count = decision.ranks, len(self._rows)
        levels = self.levels(snapshot, ranks.level)
        self._sent[0, :count], self._sent[1, :count], self._sent[2, :count] = levels, ranks.order, ranks.ewt_ms
        for request, level, ewt_ms in zip(self._rows, levels.tolist(), ranks.ewt_ms.tolist(), strict=True):
            request.level, request.ewt_ms = level, ewt_ms
        over = decision.over_share
        self._crowding = frozenset() if over is None else frozenset(self._table[_TENANT, :count][over].tolist())
        self.limits, self.load = decision.limits, decision.load
        if self._admit_limits is not None:
            # At once: the table changes under the snapshot.
            backlog = decision.backlog()
            self._queue.planned(lambda: backlog, lambda: [f"{number:.0f}" for number in snapshot.tenant.tolist()])
        self._dirty, self._last_plan = False, now
        self.plans += 1

    def levels(self, snapshot: Snapshot, level: Ints) -> Ints:
        """The levels to use, given the core's; another rule may replace them."""
        return level

    def _snapshot(self, now: float, step: int) -> Snapshot:
        count = len(self._rows)
        table = self._table[:, :count]
        decoding, prompt = table[_DECODING], table[_PROMPT]
        generated = decoding * step + table[_MARK]
        phase = table[_PHASE].astype(np.int64)
        return Snapshot(
            # The replica reads the columns of ranks; no Apply has to name anybody.
            jobs=("",) * count,
            rankable=np.zeros(count, dtype=np.bool_),
            phase=phase,
            order=table[_ORDER].astype(np.int64),
            weight=table[_WEIGHT],
            tenant=table[_TENANT].astype(np.int64),
            lengths=self._quantiles[:count],
            limit_tokens=table[_LIMIT],
            samples=np.ones(count),
            prompt_tokens=prompt,
            generated_tokens=generated,
            device_tokens=decoding * (prompt + generated),
            host_tokens=table[_HOST_TOKENS],
            host_bytes=table[_HOST_BYTES],
            waiting_seconds=table[_WAITED] + np.where(phase == Phase.RUNNING, 0.0, now - table[_PHASE_AT]),
            age_seconds=now - table[_ARRIVED],
            engine=self._shape,
            cost=self._cost,
            neutral_seconds=self._neutral_seconds,
            sent=self._sent[:, :count],
            ended_seconds=now - self._ended_at,
        )
