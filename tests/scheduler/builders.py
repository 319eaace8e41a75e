"""Builders that hide what does not matter to a test. The tests of `tests/scheduler` build with it."""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from alise_scheduler.admissions import Ask, ClassRule
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.decide import Decision
from alise_scheduler.core.exec_time import CostModel
from alise_scheduler.core.job import Job, Snapshot, columns
from alise_scheduler.core.lengths import sane
from alise_scheduler.core.level import BASE_SPAN, LEVELS_PER_DOUBLING
from alise_scheduler.core.plan import Rank
from alise_scheduler.core.rank import AgeingRule, Policy
from alise_scheduler.core.reports import EngineRequest, EngineShape, EngineSnapshot, Phase
from alise_scheduler.metrics import Metrics
from alise_scheduler.predictor.features.request import Question
from alise_scheduler.predictor.interface import Predictor
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.state import State

HINT_KEY = b"the hints' key of a pod in tests"
SHAPE = EngineShape(max_num_seqs=2, max_model_len=4096, num_device_blocks=256, block_bytes=32 * 1024, host_limit_bytes=1 << 24)


def make_request(job_id: str = "a", phase: Phase = Phase.WAITING, request_id: str | None = None, **fields: object) -> EngineRequest:
    request = EngineRequest(request_id=f"r-{job_id}" if request_id is None else request_id, job_id=job_id, phase=phase)
    return replace(request, **({"prompt_tokens": 10} | fields))  # type: ignore[arg-type]


def make_job(
    job_id: str = "a", tokens: float = 100, phase: Phase = Phase.WAITING, generated: int = 0, waited: float = 0.0, **fields: object
) -> Job:
    """A job whose length is known to be `tokens`."""
    request = make_request(job_id, phase, generated_tokens=generated, device_tokens=10 + generated if phase is Phase.RUNNING else 0)
    job = Job(
        id=job_id, order=0, lengths=sane([tokens] * 10), prompt_tokens=10, phase=phase, waited_seconds=waited,
        requests={} if phase is Phase.ADMITTED else {request.request_id: request},
    )  # fmt: skip
    return replace(job, **fields)  # type: ignore[arg-type]


def make_snapshot(
    jobs: Sequence[Job], shape: EngineShape = SHAPE, sent: Mapping[str, Rank] | None = None, neutral: float = 1.0
) -> Snapshot:
    """Jobs in the order given; time 0, so that a job has waited what it says."""
    ordered = tuple(replace(job, order=number) for number, job in enumerate(jobs, start=1))
    return columns(ordered, 0.0, shape, CostModel(), neutral, sent or {})


def starvation_bound_seconds(rule: AgeingRule) -> float:
    """With ageing alone, a job that arrived this much earlier than another one is not behind it; core/rank.py proves it."""
    return (2 * BASE_SPAN + 1) / LEVELS_PER_DOUBLING * rule.max_seconds


def ranks_of(decision: Decision) -> dict[str, Rank]:
    """The rank of every job that an Apply can name, by job."""
    return decision.ranks.at(decision.ranks.known)


def make_ask(job_id: str = "a", **fields: object) -> Ask:
    names = {"samples", "objective", "slo_ttft_ms", "neutral", "request_id"}
    outer = {key: value for key, value in fields.items() if key in names}
    question = replace(Question(endpoint=1, prompt="say something", prompt_chars=40), **{k: v for k, v in fields.items() if k not in names})  # type: ignore[arg-type]
    return Ask(job_id, question, **outer)  # type: ignore[arg-type]


def make_state(
    policy: Policy | None = None,
    limits: AdmitLimits | None = None,
    predictor: Predictor | None = None,
    classes: Mapping[str, ClassRule] | None = None,
    hint_key: bytes = HINT_KEY,
) -> State:
    rules = classes or {}
    return State(policy or Policy(), limits or AdmitLimits(), rules, predictor or LearnedPredictor(), Metrics(rules), b"salt", hint_key)


def opened(state: State, *requests: EngineRequest, **shape: int) -> State:
    """The state after a session with these requests has opened, by default with four slots."""
    state.snapshot(EngineSnapshot("boot", "session", EngineShape(**({"max_num_seqs": 4} | shape)), tuple(requests)), 0.0)  # type: ignore[arg-type]
    return state


@dataclass(order=True)
class _Timer:
    at: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.time = 100.0
        self._timers: list[_Timer] = []
        self._count = 0

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        self._count += 1
        timer = _Timer(self.time + seconds, self._count, callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def advance(self, seconds: float) -> None:
        """Lets time pass, timer by timer, and the tasks they wake run."""
        await settle()
        end = self.time + seconds
        while self._timers and self._timers[0].at <= end:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self.time = max(self.time, timer.at)
                timer.callback()
                await settle()
        self.time = end
        await settle()


async def settle() -> None:
    """Runs what is ready in the loop."""
    for _ in range(12):
        await asyncio.sleep(0)
