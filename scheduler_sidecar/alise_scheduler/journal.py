"""Keeps the account of every request: its facts at admission, where it stood when it had to wait, and how it ended.

`state.py` reports what happens, and `explain.py` reads the accounts. It is mutable, and time is an argument. Every request that ends is one
line of the log, `request ended`. The newest KEPT ended requests and the newest KEPT refused ones stay in memory, and all are lost with the
process. No text is kept.
"""

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .core.account import EndedRequest, Facts, ended_json
from .core.book import Ended
from .core.decide import Decision
from .core.job import Job, Snapshot
from .core.rank import Policy
from .core.reports import Finished, FinishReason, Phase
from .core.standing import Rule, Standing, standings

log = logging.getLogger(__name__)

# Ended requests that can be explained, and refused ones. An account has about a kilobyte.
KEPT: Final = 1000
# vLLM's ids that are kept of one request, which may have a thousand samples.
_IDS_KEPT: Final = 8
# The outcome of a request with several samples is the first of these that any of them has.
_WORST: Final = (FinishReason.ERROR, FinishReason.ABORT, FinishReason.LENGTH, FinishReason.STOP)
_STOPPED: Final = frozenset({Phase.OFFLOADED, Phase.PREEMPTED})


@dataclass(slots=True)
class _Note:
    """What is remembered of an active request beside its job."""

    facts: Facts
    queued: Standing | None = None
    preempted: Standing | None = None
    # When the preemption began that `preempted` is about.
    preempted_at: float = -math.inf
    finished: list[Finished] = field(default_factory=list)


class Journal:
    """The accounts of active requests, and of the newest that ended or were refused."""

    def __init__(self, facts_of: Callable[[Job], Facts]) -> None:
        """`facts_of` describes a job that this process did not admit."""
        self._facts_of = facts_of
        self._notes: dict[str, _Note] = {}
        self._ended: deque[EndedRequest] = deque(maxlen=KEPT)
        # Apart, because an overload may refuse far more requests than it serves.
        self._refused: deque[EndedRequest] = deque(maxlen=KEPT)
        self._at = 0.0

    # --- what happens -----------------------------------------------------------------------------------------------------------------

    def admitted(self, facts: Facts, at: float) -> None:
        """Opens the account of an admitted request. If it is admitted again, its account goes on with the newer facts."""
        self._at = at
        note = self._notes.setdefault(facts.job, _Note(facts))
        note.facts = facts

    def refused(self, facts: Facts, reason: str, message: str, at: float) -> None:
        """Keeps that a request was refused. The log line is that of the answer."""
        self._refused.append(EndedRequest(facts, (), reason, at, message))

    def decided(self, jobs: Sequence[Job], snapshot: Snapshot, policy: Policy, decision: Decision, at: float) -> None:
        """Notes where jobs stand that wait or were preempted since the last decision. `jobs` are in the snapshot's order."""
        self._at = at
        rows = [row for row, job in enumerate(jobs) if job.phase is not Phase.RUNNING and self._is_news(job)]
        for row, standing in zip(rows, standings(snapshot, policy, decision, rows), strict=True):
            job, note = jobs[row], self._note(jobs[row])
            if job.phase is Phase.WAITING:
                note.queued = standing
            else:
                note.preempted, note.preempted_at = standing, job.phase_at

    def ended(self, ended: Ended, at: float) -> None:
        """Takes in that an engine request has finished. With the last one of its job, the account is closed and logged."""
        self._at = at
        if ended.job is None:
            return
        note = self._note(ended.job)
        note.finished.append(ended.finished)
        if ended.last:
            del self._notes[ended.job.id]
            self._close(_account(note, at))

    def forgotten(self, jobs: Sequence[str], outcome: str) -> None:
        """Closes the accounts of jobs that ended without a report of the engine. Jobs without an account are ignored."""
        for job in jobs:
            note = self._notes.pop(job, None)
            if note is not None:
                ids = tuple(finished.request_id for finished in note.finished)
                self._close(EndedRequest(note.facts, ids, outcome, self._at))

    # --- what is known ----------------------------------------------------------------------------------------------------------------

    def facts(self, job: Job) -> Facts:
        """The facts of an active job."""
        note = self._notes.get(job.id)
        return note.facts if note is not None else self._facts_of(job)

    def newest_first(self) -> Iterator[EndedRequest]:
        """The ended and refused requests that are kept."""
        return heapq.merge(reversed(self._ended), reversed(self._refused), key=lambda account: -account.ended_at)

    def _note(self, job: Job) -> _Note:
        note = self._notes.get(job.id)
        if note is None:
            note = self._notes[job.id] = _Note(self._facts_of(job))
        return note

    def _is_news(self, job: Job) -> bool:
        note = self._notes.get(job.id)
        if job.phase is Phase.WAITING:
            # It may have found nothing before it at first, and wait all the same.
            return note is None or note.queued is None or note.queued.rule is Rule.NONE
        return job.phase in _STOPPED and (note is None or note.preempted_at != job.phase_at)

    def _close(self, account: EndedRequest) -> None:
        self._ended.append(account)
        log.info("request ended", extra=_line(account))


def _account(note: _Note, at: float) -> EndedRequest:
    """The account of a request whose engine requests have all finished."""
    finished = note.finished
    reasons = {one.reason for one in finished}
    return EndedRequest(
        facts=note.facts,
        engine_requests=tuple(one.request_id for one in finished[:_IDS_KEPT]),
        outcome=next(reason for reason in _WORST if reason in reasons).value,
        ended_at=at,
        prompt_tokens=max(one.prompt_tokens for one in finished),
        generated_tokens=max(one.generated_tokens for one in finished),
        preemptions=sum(one.preemptions for one in finished),
        age_seconds=max(one.age_seconds for one in finished),
        ttft_seconds=max(one.ttft_seconds for one in finished),
        waited_seconds=max(one.waited_seconds for one in finished),
        preempted_seconds=max(one.preempted_seconds for one in finished),
        queued=note.queued,
        preempted=note.preempted,
    )


def _line(account: EndedRequest) -> dict[str, Any]:
    """The fields of the log line: the account, with the standing at its first wait in fields of its own."""
    fields = ended_json(account)
    for name in ("state", "queued", "preempted"):
        fields.pop(name, None)
    if account.queued is not None:
        fields |= {"job_level": account.queued.level, "rule": account.queued.rule.value, "ahead": account.queued.ahead.total}
    return fields
