"""The active jobs, as admitted here and as reported by the engine. Mutable; `state.py` owns it, and time is an argument.

The engine is the source of truth: a snapshot replaces what was known, and a phase changes only on a report. Unusual input:
    a job id admitted twice           the same job, with its order and age and the newer prediction
    an event for an unknown job       the job is built from its hint, or as an average one
    a request without a job id        counted under `request:<id>` and never ranked
    the end of an unknown request     ignored here (the caller may still learn from it)
    an impossible change of phase     the request stays as it was, and the caller asks for a snapshot
    a request twice in a snapshot     the last mention counts
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ..errors import IllegalMoveError
from .job import Job
from .lengths import Lengths
from .reports import EngineRequest, EngineSnapshot, EngineUpdate, Finished, Phase

_AROUND: Final = "request:"


@dataclass(frozen=True, slots=True)
class Prior:
    """What is assumed about a job before the engine reports more."""

    lengths: Lengths
    weight: float = 1.0
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished request. `job` is its job before the end, None if unknown. `last` is True if the job has finished with it."""

    finished: Finished
    job: Job | None
    last: bool


@dataclass(frozen=True, slots=True)
class Changes:
    ended: tuple[Ended, ...] = ()
    # Messages about moves that the table does not allow.
    refused: tuple[str, ...] = ()


def job_key(job_id: str, request_id: str) -> str:
    """The key of a request's job in the book."""
    return job_id or _AROUND + request_id


Describe = Callable[[EngineRequest], Prior]


class JobBook:
    """The active jobs by id, in arrival order."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        # (id, order) in the order of admission. Some have reached the engine since, or have finished.
        self._coming: deque[tuple[str, int]] = deque()
        self._next_order = 0

    def __len__(self) -> int:
        return len(self.jobs)

    def admit(self, job_id: str, prior: Prior, max_tokens: int, samples: int, prompt_tokens: int, at: float) -> Job:
        """The admitted job. If the id is known, that job with the new prediction."""
        known = self.jobs.get(job_id)
        if known is not None:
            job = replace(known, lengths=prior.lengths, weight=prior.weight)
        else:
            job = Job(
                id=job_id,
                order=self._arrival(),
                lengths=prior.lengths,
                weight=prior.weight,
                tenant=prior.tenant,
                max_tokens=max_tokens,
                samples=max(1, samples),
                prompt_tokens=max(1, prompt_tokens),
                arrived_at=at,
                phase_at=at,
            )
            self._coming.append((job_id, job.order))
        self.jobs[job_id] = job
        return job

    def replace_all(self, snapshot: EngineSnapshot, at: float, describe: Describe) -> tuple[str, ...]:
        """Replaces every job that was in the engine by what the snapshot says. Returns the ids of the jobs that are gone.

        Admitted jobs that are not in the snapshot stay, because they may still be on their way to the engine.
        """
        reported = {job_key(r.job_id, r.request_id) for r in snapshot.requests}
        gone = tuple(key for key, job in self.jobs.items() if key not in reported and job.phase is not Phase.ADMITTED)
        for key in gone:
            del self.jobs[key]
        for key in reported & self.jobs.keys():
            # Their requests are replaced, not moved: a snapshot may follow a gap or come from a new engine process.
            self.jobs[key] = replace(self.jobs[key], requests={})
        once = {(request.job_id, request.request_id): request for request in snapshot.requests}
        for request in sorted(once.values(), key=lambda r: (-r.age_seconds, r.request_id)):
            self._report(request, at, describe)
        return gone

    def update(self, update: EngineUpdate, at: float, describe: Describe) -> Changes:
        """Takes in the reports and then the ends, because one update may hold both for the same request."""
        ended_ids = {f.request_id for f in update.finished}
        refused: list[str] = []
        for request in update.requests:
            key = job_key(request.job_id, request.request_id)
            if request.request_id in ended_ids and key not in self.jobs:
                continue
            try:
                self._report(request, at, describe)
            except IllegalMoveError as error:
                refused.append(str(error))
        return Changes(tuple(self._end(f, at) for f in update.finished), tuple(refused))

    def expire(self, at: float, after_seconds: float) -> tuple[str, ...]:
        """Forgets admitted jobs that did not reach the engine in time. Returns their ids. `at` never decreases."""
        late = []
        while self._coming:
            key, order = self._coming[0]
            job = self.jobs.get(key)
            if job is not None and job.order == order and job.phase is Phase.ADMITTED:
                if at - job.arrived_at < after_seconds:
                    break
                del self.jobs[key]
                late.append(key)
            self._coming.popleft()
        return tuple(late)

    def withdraw(self, job_id: str) -> Job | None:
        """Forgets an admitted job that the engine has not reported, and returns it. Returns None for any other job."""
        job = self.jobs.get(job_id)
        if job is None or job.phase is not Phase.ADMITTED:
            return None
        return self.jobs.pop(job_id)

    def in_order(self) -> tuple[Job, ...]:
        """All jobs."""
        return tuple(self.jobs.values())

    def counts(self) -> dict[Phase, int]:
        """The number of jobs in each phase, including phases without jobs."""
        counts = dict.fromkeys(Phase, 0)
        for job in self.jobs.values():
            counts[job.phase] += 1
        return counts

    def _report(self, request: EngineRequest, at: float, describe: Describe) -> None:
        key = job_key(request.job_id, request.request_id)
        job = self.jobs.get(key) or self._discovered(key, request, at, describe)
        self.jobs[key] = job.with_request(request, at)

    def _discovered(self, key: str, request: EngineRequest, at: float, describe: Describe) -> Job:
        """A job that this process did not admit: it failed open, bypassed the middleware, or was admitted before a restart.

        It is unknown how long it has run. Its whole age except the present phase counts as waiting, which favours the job.
        """
        prior = describe(request)
        age = max(request.age_seconds, request.phase_seconds, 0.0)
        before = age - request.phase_seconds if request.phase is Phase.RUNNING else 0.0
        return Job(
            id=key,
            order=self._arrival(),
            lengths=prior.lengths,
            weight=prior.weight,
            tenant=prior.tenant,
            max_tokens=request.max_tokens,
            prompt_tokens=max(1, request.prompt_tokens),
            rankable=bool(request.job_id),
            phase=Phase.ADMITTED,
            arrived_at=at - age,
            waited_seconds=max(0.0, before),
            phase_at=at - max(0.0, request.phase_seconds) if request.phase is Phase.RUNNING else at - age,
        )

    def _end(self, finished: Finished, at: float) -> Ended:
        key = job_key(finished.job_id, finished.request_id)
        job = self.jobs.get(key)
        if job is None:
            return Ended(finished, None, False)
        rest = job.without_request(finished.request_id, at)
        if rest is None:
            del self.jobs[key]
        else:
            self.jobs[key] = rest
        return Ended(finished, job, rest is None)

    def _arrival(self) -> int:
        self._next_order += 1
        return self._next_order
