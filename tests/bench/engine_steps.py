"""What alise costs per step: the time in our scheduler's two calls, less the time in vLLM's own that they call; the model is a constant.

CPU time. Not the difference between two schedulers: at 1,000 requests two identical ones of vLLM's differ by 5% from one another, ten
times what is to be seen. With 1,000 live requests either all of them run or 256 run and the others wait; those are a level better than
the ones that run, and two would be needed to take a place, so every step asks.

An engine that serves is polled every twentieth of a second. Every fourth poll looks at all requests for their progress (`poll`): the
clock is moved so that the one after a plan does. The ones between (`quiet poll`) look at the requests to which something has happened.
`engine.py` runs it.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.harness import Figure, Row, Settings, median

# (live requests, of which run)
LOADS: Final = ((16, 16), (256, 256), (1000, 256), (1000, 1000))
STEPS: Final = 60
# Steps between two plans: the sidecar sends one per 50 ms or so.
PLAN_STEPS: Final = 5
_PROMPT: Final = list(range(40, 44))


def measure(settings: Settings) -> Iterator[Row]:
    """One row per step, apply and poll: the load, the CPU seconds of it, and of vLLM's own part of it."""
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR")
    from alise_engine.serve import tiny_model
    from tests.engine.harness import Engine, EngineOptions

    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(tiny_model.write_model(Path(folder)), EngineOptions(max_num_seqs=1000, blocks=2305, max_model_len=256))
        with _Base(engine.scheduler) as base:
            for seed in range(1 if settings.quick else settings.seeds):
                for live, running in LOADS:
                    yield from ({"live": live, "running": running, "seed": seed, **row} for row in _run(engine, base, live, running))
        engine.close()


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Overheads per load; at 1,000 requests those of the worse of the two loads."""

    def microseconds(what: str, part: str, live: int, running: int) -> float:
        chosen = [row for row in rows if (row["what"], row["live"], row["running"]) == (what, live, running)]
        return median(row["vllm_seconds"] if part == "vllm" else row["seconds"] - row["vllm_seconds"] for row in chosen) * 1e6

    def worst(live: int, what: str) -> float:
        return max(microseconds(what, "ours", live, running) for load, running in LOADS if load == live)

    found = [
        Figure(f"step_overhead_{live}_us", worst(live, "step"), "us", "lower", goal=100.0 if live == 1000 else None)
        for live in sorted({live for live, _ in LOADS})
    ]
    found.append(Figure("step_vllm_1000_us", microseconds("step", "vllm", 1000, 1000), "us", "lower"))
    for what in ("step with a new plan", "apply", "poll", "quiet poll"):
        found.append(Figure(f"{what.replace(' ', '_')}_1000_us", worst(1000, what), "us", "lower"))
    return found


def plot(rows: Sequence[Row], axes: Any) -> None:
    """Our part of a step by the number of live requests."""
    ours = [
        median(row["seconds"] - row["vllm_seconds"] for row in rows if (row["what"], row["live"], row["running"]) == ("step", *load)) * 1e6
        for load in LOADS
    ]
    axes.bar([f"{live} live,\n{running} run" for live, running in LOADS], ours)
    axes.set(ylabel="us of CPU per step", title="What alise adds to a step")


class _Base:
    """Counts the time inside vLLM's own methods, less the time in our connector that they call. A context: it wraps, and unwraps."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.seconds = 0.0

    def __enter__(self) -> "_Base":
        from vllm.v1.core.sched.scheduler import Scheduler

        self._originals = [(Scheduler, name, getattr(Scheduler, name)) for name in ("schedule", "update_from_output")]
        connector = type(self.scheduler.connector)
        self._originals += [(connector, "build_connector_meta", connector.build_connector_meta)]
        for owner, name, original in self._originals:
            setattr(owner, name, self._timed(original, 1 if owner is Scheduler else -1))
        return self

    def __exit__(self, *exception: object) -> None:
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def _timed(self, original: Any, sign: int) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += sign * (time.thread_time() - began)

        return timed


def _run(engine: Any, base: _Base, live: int, running: int) -> Iterator[Row]:
    from vllm.v1.request import RequestStatus

    from alise_engine.enginecore.tracker import PROGRESS_SECONDS
    from alise_engine.wire.calls import ApplyCall, LimitsRow, PollCall, RankRow

    scheduler = base.scheduler
    scheduler.max_num_active_reqs = running
    for index in range(live):
        scheduler.add_request(_request(index, engine.stamped(f"job{index}")))
    _step(scheduler)
    for step in range(STEPS):
        planned = step % PLAN_STEPS == 0
        if planned:
            ranks = tuple(RankRow(f"job{index}", int(index < running), index + step, 100) for index in range(live))
            engine.clock.seconds += PROGRESS_SECONDS
            yield {"what": "apply", "seconds": _call(scheduler, ApplyCall(ranks, LimitsRow(preempt_levels=2))), "vllm_seconds": 0.0}
            yield {"what": "poll", "seconds": _call(scheduler, PollCall()), "vllm_seconds": 0.0}
        base.seconds = 0.0
        spent = _step(scheduler)
        yield {"what": "step with a new plan" if planned else "step", "seconds": spent, "vllm_seconds": base.seconds}
        if planned:
            yield {"what": "quiet poll", "seconds": _call(scheduler, PollCall()), "vllm_seconds": 0.0}
    scheduler.finish_requests([f"r{index}" for index in range(live)], RequestStatus.FINISHED_ABORTED)
    _step(scheduler)


def _call(scheduler: Any, call: Any) -> float:
    """The CPU seconds of one utility call."""
    from alise_engine.wire.calls import encode

    payload, began = encode(call), time.thread_time()
    scheduler(payload)
    return time.thread_time() - began


def _request(index: int, stamp: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    sampling = SamplingParams(temperature=0.0, max_tokens=STEPS + 2, ignore_eos=True, extra_args=stamp)
    return Request(f"r{index}", _PROMPT, sampling, None, arrival_time=float(index))


def _step(scheduler: Any) -> float:
    """The CPU seconds of both calls; in between every scheduled request is answered with the same token."""
    from vllm.v1.outputs import ModelRunnerOutput

    began = time.thread_time()
    output = scheduler.schedule()
    spent = time.thread_time() - began
    names = list(output.num_scheduled_tokens)
    answer = ModelRunnerOutput(names, {name: index for index, name in enumerate(names)}, [[65]] * len(names))
    began = time.thread_time()
    # Kept until the clock is read: to free a thousand outputs takes as long as all that is measured here.
    outputs = scheduler.update_from_output(output, answer)
    spent += time.thread_time() - began
    del outputs
    return spent
