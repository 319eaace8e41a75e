"""All scheduling state, and what each event does to it: admissions, the engine's reports, plans.

`dispatcher.py` alone changes it, except that `run.py` hands in the predictor once it is loaded; `explain.py` reads it. It is synchronous,
and time is an argument. Everything here can be rebuilt from Watch's snapshot, except for what the predictor and the step model have
learned. Both survive an engine restart on purpose, because they describe the model and the machine and not a process.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from alise_contract.names import ADMITTED_EXPIRES_SECONDS, MAX_LEVEL, MIN_LEVEL, NEUTRAL_LEVEL, owner_of, pack_priority, unpack_priority

from .admissions import Admitted, Ask, ClassRule, facts_of, rule_of
from .core import exec_time
from .core.account import Facts
from .core.admission_queue import AdmissionQueue, ArrivingRequest
from .core.admit import AdmitLimits, Load, Rejected, admit
from .core.book import Ended, JobBook, Prior
from .core.decide import Decision, decide
from .core.estimate import Estimate, estimate
from .core.exec_time import CostModel
from .core.fairness import behind
from .core.job import Job, Snapshot, columns
from .core.lengths import PRIOR, Lengths
from .core.load_report import LoadReport, load_report
from .core.plan import Limits, Plan, PredictedWork, Rank
from .core.rank import Policy, neutral_after, order_of
from .core.reports import Counters, EngineLost, EngineRequest, EngineShape, EngineSnapshot, EngineUpdate, Phase
from .core.standing import waits
from .guarded_predictor import GuardedPredictor
from .journal import Journal
from .metrics import Metrics
from .predictor.features.request import CHARS_PER_TOKEN
from .predictor.features.row import ModelInput
from .predictor.hint import Hint, decode, encode
from .predictor.interface import Predictor, observation
from .state_metrics import PublishedEnds, publish_decision

log = logging.getLogger(__name__)

# A load older than this is computed again before a request is refused.
_FRESH_SECONDS: Final = 0.02
# The longest assumed prompt until the engine has reported the length of its context.
_LONGEST_PROMPT: Final = 1 << 17
_NEUTRAL_PRIORITY: Final = pack_priority(NEUTRAL_LEVEL, 0)


@dataclass(frozen=True, slots=True)
class Session:
    """An open Watch session."""

    boot_id: str
    session_id: str


class State:
    """The state of the single writer."""

    def __init__(
        self,
        policy: Policy,
        limits: AdmitLimits,
        classes: Mapping[str, ClassRule],
        predictor: Predictor,
        metrics: Metrics,
        salt: bytes,
        hint_key: bytes = b"",
    ) -> None:
        """`salt` keys the hashes of features. `hint_key` signs hints; without one, no hints are given out and none are accepted."""
        self.policy = policy
        self.admit_limits = limits
        self.classes = classes
        self.lengths = GuardedPredictor(predictor, salt, metrics)
        self.metrics = metrics
        self.session: Session | None = None
        self.shape = EngineShape()
        self.counters = Counters()
        self.cost = CostModel()
        self.book = JobBook()
        self.load = Load()
        # The typical job's work in decoding steps, so that its seconds follow the step model while that is being fitted.
        self._neutral_steps = PRIOR.mean
        self._hint_key = hint_key
        self._boot_id = ""
        # What each admitted job added to the load and to the admission queue.
        self._added: dict[str, tuple[int, ArrivingRequest]] = {}
        self._queue, self._arrivals = AdmissionQueue(), 0
        self._began_at, self._decided_at, self._ended_at = math.inf, -math.inf, -math.inf
        # What the predictor needs of each active job when it ends.
        self._details: dict[str, Hint] = {}
        # What the predictor was given about each job that this process admitted, so that it learns from the answer.
        self._asked: dict[str, ModelInput] = {}
        self.journal = Journal(self._facts)
        self._sent: dict[str, Rank] = {}
        # Jobs that the engine did not know at the last Apply: they have finished, or have not reached it yet.
        self._missing: set[str] = set()
        self._sent_limits: Limits | None = None
        # The engine has reported changes since the load was computed.
        self._load_is_old = False
        # Some job waits for other jobs or was preempted by them.
        self._waits = False
        # Tenants with active jobs.
        self._owners: frozenset[str] = frozenset()
        self._ends = PublishedEnds(metrics)
        metrics.neutral_seconds.set(self.neutral_seconds)

    @property
    def neutral_seconds(self) -> float:
        """Work of the typical job, whose level is 0."""
        return self._neutral_steps * self.cost.decode_step_seconds()

    def predict_with(self, predictor: Predictor) -> None:
        """Uses this predictor from now on."""
        self.lengths.predictor = predictor

    # --- admission --------------------------------------------------------------------------------------------------------------------

    def admit(self, ask: Ask, at: float) -> Admitted | Rejected:
        """Admits a request with a priority and a hint, or rejects it with a reason."""
        rule = rule_of(ask.objective, self.classes)
        known = ask.job_id in self.book.jobs
        self._arrivals += not known
        asked, probe, new = self._estimated(ask, at)
        lengths, weight, prompt_tokens = probe.lengths, probe.weight, probe.prompt_tokens
        arrival = ArrivingRequest(new, probe.samples, weight, probe.tenant, by_length=not ask.neutral)
        if not known and (rejected := self._rejected(arrival, ask.slo_ttft_ms or rule.slo_ttft_ms, at)) is not None:
            self.journal.refused(facts_of(ask, probe), rejected.reason.value, rejected.message, at)
            self.lengths.forget(asked)
            return rejected
        level = int(behind(np.array(new.level))) if owner_of(probe.tenant) in self.load.crowding else new.level
        prior = Prior(lengths, weight, ask.question.tenant)
        job = self.book.admit(ask.job_id, prior, ask.question.max_tokens, ask.samples, prompt_tokens, at)
        hint = Hint(lengths, weight, ask.objective, ask.question.tenant, described=not ask.neutral)
        self._details[job.id] = hint
        self.lengths.forget(self._asked.pop(job.id, None))
        if asked is not None:
            self._asked[job.id] = asked
        self.journal.admitted(facts_of(ask, probe), at)
        if not known:
            self._count(1, level, new.work_seconds * probe.samples)
            self._queue.admitted(at, arrival)
            self._added[job.id] = (level, arrival)
            if not ask.neutral:
                self._neutral_steps = neutral_after(self._neutral_steps, new.work_seconds / self.cost.decode_step_seconds())
            self.metrics.admitted(self.neutral_seconds)
        return Admitted(pack_priority(level, order_of(job.order)), encode(hint, self._hint_key, ask.job_id), level, lengths.median)

    def forecast(self, ask: Ask, at: float) -> tuple[Lengths, Estimate]:
        """Returns what this request would get if it were admitted: the predicted length, and its level and work. Changes nothing.

        What earlier requests of its tenant and its conversation taught is left out, because the caller may be neither of them.
        """
        _, probe, new = self._estimated(ask, at, remember=False)
        return probe.lengths, replace(new, work_seconds=new.work_seconds * probe.samples)

    def load_report(self) -> LoadReport:
        """Returns the load by level, as the last decision and the admissions since have it."""
        limit = self.admit_limits.max_wait_seconds
        return load_report(self._queue.backlog(), self.load.draining, self.session is not None, limit, arrivals=self._arrivals)

    def _estimated(self, ask: Ask, at: float, remember: bool = True) -> tuple[ModelInput | None, Job, Estimate]:
        """What the predictor is given about a request, the job that it would be, and its estimate."""
        rule = rule_of(ask.objective, self.classes)
        # Never above the class's weight, so that such a route is no way around a class with a low weight.
        weight = min(1.0, rule.weight) if ask.neutral else rule.weight
        # The engine will refuse a prompt that does not fit; until then it must not count as hours of work.
        longest = self.shape.max_model_len if self._boot_id else _LONGEST_PROMPT
        prompt_tokens = max(1, min(ask.question.prompt_chars // CHARS_PER_TOKEN, longest))
        asked, lengths = self.lengths.of(ask.question, max(1, longest - prompt_tokens), ask.neutral, remember)
        probe = Job(
            id=ask.job_id, order=0, lengths=lengths, weight=weight, tenant=ask.question.tenant, max_tokens=ask.question.max_tokens,
            samples=max(1, ask.samples), prompt_tokens=prompt_tokens, arrived_at=at, phase_at=at,
        )  # fmt: skip
        new = estimate(probe, self.policy, self.shape, self.cost, self.neutral_seconds, self.load.backlog_seconds())
        return asked, probe, replace(new, level=NEUTRAL_LEVEL) if ask.neutral else new

    def _rejected(self, arrival: ArrivingRequest, slo_ttft_ms: int, at: float) -> Rejected | None:
        def ask() -> Rejected | None:
            return admit(slo_ttft_ms, self.load.draining, self.admit_limits, lambda: self._queue.wait(at, arrival, self.policy))

        rejected = ask()
        if rejected is not None and not self.load.draining and (self._load_is_old or at - self._decided_at >= _FRESH_SECONDS):
            # Plans follow at intervals. Decide again, so that no request is refused for work that is already done.
            self.decide(at)
            rejected = ask()
        return rejected

    def withdraw(self, job_id: str) -> bool:
        """Stops counting an admitted job that will not reach the engine. Returns False if the book has no such job."""
        if self.book.withdraw(job_id) is None:
            return False
        if job_id in self._added:
            level, arrival = self._added[job_id]
            self._count(-1, level, -arrival.estimate.work_seconds * arrival.samples)
            self._queue.withdrawn(arrival)
        self._forget((job_id,), "withdrawn")
        self.metrics.withdrawn.inc()
        return True

    def is_contested(self, tenant: str) -> bool:
        """Returns whether this tenant competes with others for a full engine, so that the next plan may make some jobs give way."""
        owners = self._owners | {owner_of(tenant)}
        return self.load.live >= self.load.slots and len(owners) > 1

    @property
    def is_pressed(self) -> bool:
        """Whether a job waits or the next one may have to. Otherwise the engine does not need ranks."""
        return self._waits or self.load.live >= self.load.slots

    def _count(self, jobs: int, level: int, work_seconds: float) -> None:
        """Adds an admitted job to the load that the next Admit sees, or removes it. The next decision computes the load again."""
        work = np.zeros(256) if self.load.work_seconds is None else self.load.work_seconds.copy()
        work[level - MIN_LEVEL] = max(0.0, work[level - MIN_LEVEL] + work_seconds)
        self.load = replace(self.load, live=max(0, self.load.live + jobs), work_seconds=work)

    # --- the engine's reports ---------------------------------------------------------------------------------------------------------

    def snapshot(self, event: EngineSnapshot, at: float) -> None:
        """Takes in the snapshot of a new session."""
        if event.boot_id != self._boot_id:
            self.metrics.engine_boots.inc()
            if self._boot_id:
                # Jobs on their way to the old process died with it.
                self._forget(self.book.expire(at, 0.0), "lost")
        self._boot_id = event.boot_id
        self.session = Session(event.boot_id, event.session_id)
        self.shape, self.counters = event.shape, event.counters
        self._sent, self._sent_limits, self._missing = {}, None, set()
        self._forget(self.book.replace_all(event, at, self._describe), "lost")
        self.load = replace(self.load, draining=event.draining)
        self.metrics.connected.set(1)
        self.metrics.draining.set(event.draining)
        log.info(
            "engine session opened",
            extra={"boot_id": event.boot_id, "session_id": event.session_id, "jobs": len(self.book), "model": event.shape.model},
        )

    def update(self, event: EngineUpdate, at: float) -> tuple[str, ...]:
        """Takes in an update. Returns messages about impossible reports; the caller then asks for a snapshot."""
        if self.session is None:
            return ()
        changes = self.book.update(event, at, self._describe)
        self._load_is_old |= bool(event.requests or event.finished)
        for job in self._missing.intersection(request.job_id for request in event.requests):
            self._missing.discard(job)
            self._sent.pop(job, None)
        for request in event.requests:
            self._waits |= waits(request.phase, request.phase_seconds)
            if request.job_id not in self._sent and request.job_id in self.book.jobs and request.priority != _NEUTRAL_PRIORITY:
                # The engine already ranks it by the priority from its admission.
                level, order = unpack_priority(request.priority)
                if MIN_LEVEL <= level <= MAX_LEVEL:
                    self._sent[request.job_id] = Rank(level, order)
        for ended in changes.ended:
            self._ended_at = at
            self._learn(ended, at)
        self.cost = exec_time.observe(self.cost, event.steps)
        self.counters = event.counters or self.counters
        self.load = replace(self.load, draining=event.draining)
        self.metrics.draining.set(event.draining)
        self.metrics.refused_reports.inc(len(changes.refused))
        return changes.refused

    def lacks_rank(self, event: EngineUpdate) -> bool:
        """Returns whether an update reports a waiting job for which the engine has no rank."""
        return any(r.phase is not Phase.RUNNING and bool(r.job_id) and r.job_id not in self._sent for r in event.requests)

    def lost(self, event: EngineLost) -> None:
        """Takes in the end of a session. Jobs are kept, because perhaps only the stream has broken."""
        self.session = None
        self.metrics.connected.set(0)
        log.warning("engine session lost", extra={"detail": event.detail, "jobs": len(self.book)})

    def expire(self, at: float) -> None:
        """Forgets admitted jobs that did not reach the engine in time."""
        late = self.book.expire(at, ADMITTED_EXPIRES_SECONDS)
        self.metrics.expired.inc(len(late))
        # Without a session it is not known whether they reached it.
        self._forget(late, "withdrawn" if self.session is not None else "lost")

    # --- plans ------------------------------------------------------------------------------------------------------------------------

    def decide(self, at: float) -> Decision:
        """Decides for the present jobs. The plan counts as sent only after `applied()`."""
        began = time.perf_counter()
        jobs = self.book.in_order()
        self._waits = any(waits(job.phase, at - job.phase_at) for job in jobs)
        snapshot = self._columns(jobs, at)
        decision = decide(snapshot, self.policy, self._sent_limits, self.load.draining)
        if self._missing:
            ranks = {job: rank for job, rank in decision.plan.ranks.items() if job not in self._missing}
            decision = replace(decision, plan=replace(decision.plan, ranks=ranks))
        over = decision.over_share
        crowding = frozenset[str]() if over is None else frozenset(owner_of(jobs[row].tenant) for row in over.nonzero()[0].tolist())
        self.load = replace(decision.load, crowding=crowding)
        self._queue.planned(decision.backlog, lambda: [job.tenant for job in jobs])
        self._began_at = min(self._began_at, at)
        self._load_is_old, self._decided_at, self._owners = False, at, frozenset(owner_of(job.tenant) for job in jobs)
        work = PredictedWork(decision.pod_seconds, self._queue.offered_load(at, self._began_at))
        decision = replace(decision, plan=replace(decision.plan, work=work))
        self.journal.decided(jobs, snapshot, self.policy, decision, at)
        self.metrics.plan_seconds.observe(time.perf_counter() - began)
        publish_decision(self.metrics, decision, work, self._counted(jobs), self.counters.host_bytes, self.cost)
        return decision

    def look(self, at: float) -> tuple[tuple[Job, ...], Snapshot, Decision]:
        """Returns the present jobs and what would be decided for them now. Changes nothing."""
        jobs = self.book.in_order()
        snapshot = self._columns(jobs, at)
        return jobs, snapshot, decide(snapshot, self.policy, self._sent_limits, self.load.draining)

    def applied(self, session_id: str, plan: Plan, unknown: tuple[str, ...]) -> None:
        """Takes in that the engine has applied a plan. Jobs unknown to it are sent again once it reports them."""
        if self.session is None or self.session.session_id != session_id:
            return
        self.metrics.applies.inc()
        self.metrics.apply_unknown.inc(len(unknown))
        self._sent.update({job: rank for job, rank in plan.ranks.items() if job in self.book.jobs})
        self._missing.update(job for job in unknown if job in self.book.jobs)
        if plan.limits is not None:
            self._sent_limits = plan.limits

    # --- inside -----------------------------------------------------------------------------------------------------------------------

    def _columns(self, jobs: tuple[Job, ...], at: float) -> Snapshot:
        return columns(jobs, at, self.shape, self.cost, self.neutral_seconds, self._sent, self._ended_at)

    def _describe(self, request: EngineRequest) -> Prior:
        """What is assumed about a request that this process did not admit: its signed hint, or else an average job."""
        hint = decode(request.hint, self._hint_key, request.job_id) if request.job_id else None
        if hint is None:
            return Prior(self.lengths.of_unknown(request.max_tokens))
        self._details[request.job_id] = hint
        # The settings may have changed since the hint was signed, so its weight is at most the class's present one.
        rule = rule_of(hint.klass, self.classes)
        return Prior(hint.lengths, min(hint.weight, rule.weight), hint.tenant)

    def _counted(self, jobs: Sequence[Job]) -> Counter[tuple[Phase, str]]:
        """The number of active jobs of each phase and class."""
        return Counter((job.phase, self.metrics.class_of(hint.klass if (hint := self._details.get(job.id)) else "")) for job in jobs)

    def _learn(self, ended: Ended, at: float) -> None:
        finished, hint = ended.finished, self._details.get(ended.finished.job_id)
        # A request of several samples is learned from once, by the last of them: by the first to end, such requests would seem short.
        asked = self._asked.get(finished.job_id)
        seen = observation(finished, asked.min_tokens if asked is not None else 0)
        if ended.last and asked is not None and seen is not None:
            self.lengths.learn(asked, seen)
        self._ends.publish(ended, hint.klass if hint else "", self.cost, forced=asked is not None and seen is None)
        self.journal.ended(ended, at)
        if ended.last:
            self._forget((finished.job_id,), finished.reason.value)

    def _facts(self, job: Job) -> Facts:
        """What is known of a job that this process did not admit."""
        hint = self._details.get(job.id)
        described = hint is not None and hint.described
        klass = hint.klass if hint is not None else ""
        return Facts(job.id, job.id, self.shape.model, klass, job.tenant, job.weight, job.lengths.median, described)

    def _forget(self, jobs: tuple[str, ...], outcome: str) -> None:
        self.journal.forgotten(jobs, outcome)
        for job in jobs:
            self._details.pop(job, None)
            self.lengths.forget(self._asked.pop(job, None))
            self._added.pop(job, None)
            self._sent.pop(job, None)
            self._missing.discard(job)
