"""What is known of one request, from its admission to its end, as frozen data and as JSON.

`journal.py` keeps the accounts, `sentences.py` puts them into words. Neither holds any text of a prompt or an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alise_contract.names import DEFAULT_CLASS

from .decide import Decision
from .job import Job, Snapshot
from .rank import Policy, view_of
from .reports import Phase
from .standing import Standing, standings

PREEMPTED_PHASES = frozenset({Phase.OFFLOADED, Phase.PREEMPTED, Phase.RESTORING})


@dataclass(frozen=True, slots=True)
class Facts:
    """A request as it was admitted."""

    # Its own id, and the one in the header of its answer: the client's, if it sent one.
    job: str
    request_id: str
    model: str = ""
    klass: str = ""
    tenant: str = ""
    weight: float = 1.0
    # The median of the predicted lengths of one answer.
    predicted_tokens: float = 0.0
    # False if nothing was known of its text, so that it counts as a typical request.
    described: bool = True


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A request that has not ended. If it has several samples, tokens are those of the longest answer."""

    facts: Facts
    # vLLM's ids.
    engine_requests: tuple[str, ...]
    phase: Phase
    phase_seconds: float
    prompt_tokens: int
    generated_tokens: int
    # Expected further tokens, and the work of all samples.
    left_tokens: float
    work_seconds: float
    preemptions: int
    age_seconds: float
    # Before its first step, and between its preemptions and its returns.
    waited_seconds: float
    preempted_seconds: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A request that has ended or was refused."""

    facts: Facts
    engine_requests: tuple[str, ...]
    outcome: str
    ended_at: float
    # For a refusal: the message that the client got.
    message: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    # In the engine, from its arrival there; the longest time if it has several samples.
    age_seconds: float = 0.0
    ttft_seconds: float = 0.0
    waited_seconds: float = 0.0
    preempted_seconds: float = 0.0
    # Where it stood when it began to wait, and after its last preemption; None if it did not.
    queued: Standing | None = None
    preempted: Standing | None = None

    @property
    def ran_seconds(self) -> float:
        return max(0.0, self.age_seconds - self.waited_seconds - self.preempted_seconds)


def live_requests(
    jobs: Sequence[Job], facts: Sequence[Facts], snapshot: Snapshot, policy: Policy, decision: Decision, wanted: Sequence[int], at: float
) -> tuple[LiveRequest, ...]:
    """The requests in these rows of the snapshot. `jobs` and `facts` are in the snapshot's order."""
    view = view_of(snapshot)
    places = standings(snapshot, policy, decision, wanted)
    return tuple(
        _live(
            jobs[row],
            facts[row],
            float(view.left_tokens[row]),
            float(view.remaining_seconds[row] * snapshot.samples[row]),
            place,
            at,
        )
        for row, place in zip(wanted, places, strict=True)
    )


def _live(job: Job, facts: Facts, left_tokens: float, work_seconds: float, standing: Standing, at: float) -> LiveRequest:
    requests = job.requests.values()
    age = job.age_seconds(at)
    waited = age if job.started_at is None else max(0.0, job.started_at - job.arrived_at)
    return LiveRequest(
        facts=facts,
        engine_requests=tuple(job.requests),
        phase=job.phase,
        phase_seconds=max(0.0, at - job.phase_at),
        prompt_tokens=job.prompt_tokens,
        generated_tokens=max((request.generated_tokens for request in requests), default=0),
        left_tokens=left_tokens,
        work_seconds=work_seconds,
        preemptions=sum(request.preemptions for request in requests),
        age_seconds=age,
        waited_seconds=waited,
        preempted_seconds=0.0 if job.started_at is None else max(0.0, job.waiting_seconds(at) - waited),
        standing=standing,
    )


def live_json(request: LiveRequest) -> dict[str, Any]:
    """Seconds are rounded to milliseconds, tokens to whole ones."""
    return {
        **facts_json(request.facts),
        "state": "live",
        "engine_requests": [printable(one) for one in request.engine_requests],
        "phase": request.phase.name.lower(),
        "phase_seconds": round(request.phase_seconds, 3),
        "is_preempted": request.phase in PREEMPTED_PHASES,
        "prompt_tokens": request.prompt_tokens,
        "generated_tokens": request.generated_tokens,
        "left_tokens": round(request.left_tokens),
        "work_seconds": round(request.work_seconds, 3),
        "preemptions": request.preemptions,
        "age_seconds": round(request.age_seconds, 3),
        "waited_seconds": round(request.waited_seconds, 3),
        "preempted_seconds": round(request.preempted_seconds, 3),
        "standing": standing_json(request.standing),
    }


def ended_json(request: EndedRequest) -> dict[str, Any]:
    """The fields of the log line as well. Seconds are rounded to milliseconds, tokens to whole ones."""
    result: dict[str, Any] = {
        **facts_json(request.facts),
        "state": "ended",
        "outcome": request.outcome,
        "engine_requests": [printable(one) for one in request.engine_requests],
        "prompt_tokens": request.prompt_tokens,
        "generated_tokens": request.generated_tokens,
        "preemptions": request.preemptions,
        "age_seconds": round(request.age_seconds, 3),
        "ttft_seconds": round(request.ttft_seconds, 3),
        "waited_seconds": round(request.waited_seconds, 3),
        "preempted_seconds": round(request.preempted_seconds, 3),
        "ran_seconds": round(request.ran_seconds, 3),
    }
    if request.message:
        result["refusal"] = request.message
    if request.queued is not None:
        result["queued"] = standing_json(request.queued)
    if request.preempted is not None:
        result["preempted"] = standing_json(request.preempted)
    return result


def printable(name: str) -> str:
    """The name as it may be printed on a terminal: clients choose ids, models and tenants, and some characters are commands there."""
    return "".join(character if character.isprintable() else "?" for character in name)


def facts_json(facts: Facts) -> dict[str, Any]:
    result: dict[str, Any] = {
        "request_id": printable(facts.request_id),
        "job": printable(facts.job),
        "model": printable(facts.model),
        "class": printable(facts.klass or DEFAULT_CLASS),
        "predicted_tokens": round(facts.predicted_tokens),
    }
    return result | ({"tenant": printable(facts.tenant)} if facts.tenant else {})


def standing_json(standing: Standing) -> dict[str, Any]:
    ahead = standing.ahead
    return {
        "rule": standing.rule.value,
        "job_level": standing.level,
        "ahead": ahead.total,
        "ahead_running": ahead.running,
        "ahead_by": {"share": ahead.share, "overdue": ahead.overdue, "length": ahead.length, "arrival": ahead.arrival},
        "running_behind": standing.running_behind,
        "slots": round(standing.slots),
        "turn_seconds": round(standing.turn_seconds, 3),
    }
