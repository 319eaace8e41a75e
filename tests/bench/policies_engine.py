"""The whole loop on the real engine under a virtual clock: the sidecar's own state, real scheduler, real KV, invented seconds.

vLLM runs in this process on the tiny model. A step takes what the cost model says of the tokens that it computed, so a busy machine
changes nothing; everything else is real: queues, blocks, preemption, the host store, admission, prediction (prompts are embedded unless
ALISE_ENCODER is `none`), plans. The same requests are replayed in the simulator, which has to agree, and wall-clock and CPU times
of the same steps are kept, which a fitted cost model has to explain.

The flood: a quiet tenant at a twentieth of the capacity beside two others and one that is calm or sends a hundred times as much; the
sidecar lets in as many as it does by default.

`python -m tests.bench.policies_engine REQUESTS [SEEDS]` prints a JSON line per run; the policies suite (`policies.py`) starts it and reads
them.
"""

import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from alise_scheduler import config
from alise_scheduler.admissions import Admitted, Ask
from alise_scheduler.core import exec_time
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.exec_time import Coefficients, CostModel
from alise_scheduler.core.lengths import QUANTILES
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineRequest, EngineShape, EngineSnapshot, EngineUpdate, Finished, FinishReason, Phase, Step
from alise_scheduler.dispatcher import PLAN_SECONDS
from alise_scheduler.metrics import Metrics
from alise_scheduler.predictor.features.request import Question
from alise_scheduler.predictor.hint import decode
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models import prior
from alise_scheduler.predictor.models.encoder import Encoder, OnnxEncoder
from alise_scheduler.predictor.models.prior import Prior
from alise_scheduler.predictor.served_head import serve_head
from alise_scheduler.predictor.training import prior_fit
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.state import State
from alise_simulator.model import EngineModel
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, core_driver, driver_named
from alise_simulator.trace import Trace, at_load, make_trace, poisson
from tests.bench import policies_flood
from tests.bench.workload import Prompt, load
from tests.tools import encoder as encoders

_HINT_KEY: Final = b"of no pod"
SLOTS: Final = 16
LOAD: Final = 0.9
_CAP_TOKENS: Final = 512
_MAX_LEN: Final = 1024
COST: Final = Coefficients()


@dataclass(slots=True)
class Served:
    """Times of one request, in virtual seconds."""

    row: int
    arrived: float
    tokens: int
    first: float = 0.0
    ended: float = 0.0


def shape_of(engine: Any) -> EngineShape:
    """The engine's own word."""
    said = engine.snapshot().shape
    return EngineShape(
        said.max_num_seqs, said.max_num_batched_tokens, said.max_model_len, said.block_size, said.num_device_blocks, said.block_bytes,
        said.host_limit_bytes, said.model,
    )  # fmt: skip


class Loop:
    """Arrivals, engine and sidecar in virtual time. `policy` None: stock order, without a sidecar."""

    def __init__(
        self, engine: Any, policy: Policy | None, prompts: Sequence[Prompt], arrivals: Sequence[float], tenants: Sequence[str] = (),
        limits: AdmitLimits | None = None, encoder: Encoder | None = None, known: Prior | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.prompts, self.arrivals = engine, prompts, arrivals
        self.tenants = tenants or [""] * len(prompts)
        self.encoder = encoder
        self.predictor = LearnedPredictor()
        self.predictor.prior = known
        self.state = None if policy is None else State(policy, limits or AdmitLimits(), {}, self.predictor, Metrics(), b"bench", _HINT_KEY)
        self.now = 0.0
        self.served: dict[str, Served] = {}
        # Of each row: what was predicted at its admission, and its name in the engine; a row that was refused has neither.
        self.told: dict[int, tuple[float, ...]] = {}
        self.named: dict[int, str] = {}
        # Seconds, prefilled tokens, decoding requests and context of each step; by CPU time too, for a busy machine stretches the wall's.
        self.steps: dict[str, list[tuple[float, int, int, int]]] = {"wall": [], "cpu": []}
        self.preemptions = 0
        self._names: dict[str, str] = {}
        self._next = 0
        self._planned_at = -1.0

    def run(self, until: Sequence[int] = ()) -> None:
        """Until every answer has ended, or each of the rows `until`."""
        engine = self.engine
        wanted = set(until)
        engine.poll()
        if self.state is not None:
            self.state.snapshot(EngineSnapshot("boot", "session", shape_of(engine)), self.now)
        open_: set[str] = set()
        while (self._next < len(self.prompts) or open_) and not (until and not wanted):
            if not open_ and self.arrivals[self._next] > self.now:
                self.now = self.arrivals[self._next]
            while self._next < len(self.prompts) and self.arrivals[self._next] <= self.now:
                name = self._ask(self._next)
                open_.update([name] if name else [])
                self._next += 1
            began, cpu_began = time.perf_counter(), time.process_time()
            engine.step()
            self._account(time.perf_counter() - began, time.process_time() - cpu_began)
            for name in [name for name in open_ if engine.answers[name].tokens]:
                served = self.served[name]
                served.first = served.first or self.now
                if engine.answers[name].finished:
                    served.ended = self.now
                    open_.discard(name)
                    wanted.discard(served.row)

    def _ask(self, row: int) -> str:
        """Its name in the engine; empty when it was refused."""
        prompt, job = self.prompts[row], f"job-{row}"
        text = list(prompt.text.encode()[: _MAX_LEN - _CAP_TOKENS - 1]) or [32]
        priority, hint = 0, ""
        if self.state is not None:
            embedding = self.encoder.encode([prompt.text])[0] if self.encoder else None
            question = Question(
                endpoint=1, prompt=prompt.text, prompt_chars=len(prompt.text), max_tokens=0, tenant=self.tenants[row], embedding=embedding
            )
            admitted = self.state.admit(Ask(job, question), self.now)
            if not isinstance(admitted, Admitted):
                return ""
            said = decode(admitted.hint, _HINT_KEY, job)
            assert said is not None
            self.told[row] = said.lengths.tokens
            priority, hint = admitted.priority, base64.b64encode(admitted.hint).decode()
        name: str = self.engine.ask(text, prompt.output_tokens, job=job, hint=hint, priority=priority)
        self.served[name] = Served(row, self.arrivals[row], prompt.output_tokens)
        self.named[row] = name
        return name

    def _account(self, wall_seconds: float, cpu_seconds: float) -> None:
        """Lets the step's virtual time pass, tells the sidecar, and carries its plan over when one is due."""
        answer = self.engine.poll()
        steps = []
        for step in answer.steps:
            seconds = COST.step(step.prefill_tokens, step.decode_requests, step.context_tokens)
            self.now += seconds
            self.engine.clock.seconds += seconds
            steps.append(Step(seconds, step.prefill_tokens, step.decode_requests, step.context_tokens))
            self.steps["wall"].append((wall_seconds, step.prefill_tokens, step.decode_requests, step.context_tokens))
            self.steps["cpu"].append((cpu_seconds, step.prefill_tokens, step.decode_requests, step.context_tokens))
        self.preemptions = answer.counters.preemptions_rank
        if self.state is None:
            return
        requests = tuple(self._report(row) for row in answer.requests)
        ended = tuple(
            # The test's length is an answer's end, not a cap that anybody knew.
            Finished(row.request_id, row.job_id, FinishReason.STOP, row.generated_tokens)
            for row in answer.finished
        )
        self.state.update(EngineUpdate(requests, ended, tuple(steps)), self.now)
        self._train()
        if self.now - self._planned_at >= PLAN_SECONDS:
            self._planned_at = self.now
            self._apply()

    def _report(self, row: Any) -> EngineRequest:
        return EngineRequest(
            row.request_id, row.job_id, Phase[row.phase.upper()], prompt_tokens=row.prompt_tokens, generated_tokens=row.generated_tokens,
            device_tokens=row.device_tokens, host_tokens=row.host_tokens, host_bytes=row.host_bytes, preemptions=row.preemptions,
            priority=row.priority, age_seconds=row.age_ms / 1000, phase_seconds=row.phase_ms / 1000, hint=base64.b64decode(row.hint),
        )  # fmt: skip

    def _train(self) -> None:
        if self.predictor.wants_training():
            history = self.predictor.newest()
            self.predictor.install(serve_head(train(history, self.predictor.version + 1), history))

    def _apply(self) -> None:
        from alise_engine.wire.calls import LimitsRow, RankRow

        assert self.state is not None
        plan = self.state.decide(self.now).plan
        ranks = [RankRow(job, rank.level, rank.order, rank.ewt_ms) for job, rank in plan.ranks.items()]
        limits = None
        if plan.limits is not None:
            said = plan.limits
            limits = LimitsRow(
                said.preempt_levels,
                said.min_quantum_steps,
                said.int8_ewt_ms,
                said.int8_host_fraction,
                said.host_budget_bytes,
                said.spared_levels,
            )
        unknown = self.engine.apply(*ranks, limits=limits).unknown
        self.state.applied("session", plan, tuple(unknown))


def trace_of(prompts: Sequence[Prompt], seed: int, model: EngineModel) -> Trace:
    """The prompts at Poisson times, LOAD of what the engine can do."""
    inputs = np.array([max(1, min(len(prompt.text.encode()), _MAX_LEN - _CAP_TOKENS - 1)) for prompt in prompts])
    outputs = np.array([prompt.output_tokens for prompt in prompts])
    arrivals = poisson(len(prompts), np.random.default_rng([seed, 2]))
    return at_load(make_trace("real", arrivals, inputs, outputs), LOAD, model)


def measure(count: int, dataset: Path | None, seeds: int) -> Iterator[dict[str, Any]]:
    """Rows: latencies by policy and seed, on the engine and in the simulator; the steps' times; and a quiet tenant's beside a flood."""
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR")
    from alise_engine.serve import tiny_model
    from tests.engine.harness import Engine, EngineOptions

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_model(Path(folder))
        engine = Engine(model, EngineOptions(max_num_seqs=SLOTS, blocks=1025, max_model_len=_MAX_LEN))
        for seed in range(seeds):
            yield from _compared(engine, count, dataset, seed)
        for seed in range(seeds):
            yield from _flooded(engine, min(count, 30), seed)
        engine.close()


def _compared(engine: Any, count: int, dataset: Path | None, seed: int) -> Iterator[dict[str, Any]]:
    workload = load(dataset, count, seed)
    prompts = [replace(p, output_tokens=min(p.output_tokens, _CAP_TOKENS)) for p in workload.prompts]
    simulated = EngineModel(shape_of(engine), COST, save_seconds_per_byte=0.0, restore_seconds_per_byte=0.0)
    trace = trace_of(prompts, seed, simulated)
    folder = encoders.wanted()
    encoder = OnnxEncoder(folder) if folder else None
    known = prior.from_bytes(prior_fit.obtain(folder))
    for policy in (None, Policy()):
        loop = Loop(engine.fresh(), policy, prompts, trace.arrival_seconds.tolist(), encoder=encoder, known=known)
        loop.run()
        served = list(loop.served.values())
        row = {
            "kind": "engine", "data": workload.name, "policy": "fcfs" if policy is None else policy.name, "seed": seed,
            "encoder": encoder is not None,
        }  # fmt: skip
        yield {**row, "where": "engine", **_latencies(served), "preemptions": loop.preemptions}
        yield {**row, "where": "simulator", **_simulated(trace, simulated, policy, loop)}
        if policy is None:
            for clock, steps in loop.steps.items():
                yield {"kind": "cost", "clock": clock, "seed": seed, **cost_error(steps)}


def _flooded(engine: Any, quiet_requests: int, seed: int) -> Iterator[dict[str, Any]]:
    shape = EngineModel(shape_of(engine), COST)
    for kind, loud in (("calm", policies_flood.CALM_LOAD), ("flood", policies_flood.FLOOD_LOAD)):
        prompts, arrivals, tenants = flood_requests(quiet_requests, loud, seed, shape)
        quiet = [row for row, tenant in enumerate(tenants) if tenant == "tenant-0"]
        loop = Loop(engine.fresh(), Policy(), prompts, arrivals, tenants, config.load({}, {}).to_admit_limits())
        loop.run(until=quiet)
        ttft = [loop.served[loop.named[row]].first - arrivals[row] for row in quiet]
        yield policies_flood.row("engine", Policy().name, kind, seed, ttft)


def flood_requests(quiet_requests: int, loud: float, seed: int, model: EngineModel) -> tuple[list[Prompt], list[float], list[str]]:
    """Prompts, arrivals and tenants: answers of 1 to 256 tokens (lognormal, median 30), prompts of 1 to 500."""
    loads = (policies_flood.QUIET_LOAD, loud, *policies_flood.OTHER_LOADS)
    rows: list[tuple[float, str, Prompt]] = []
    span = 0.0
    for number, load_ in enumerate(loads):
        rng = np.random.default_rng([seed, number])
        count = round(quiet_requests * load_ / loads[0])
        outputs = np.clip(rng.lognormal(np.log(30), 1.0, count), 1, 256).astype(np.int64)
        inputs = np.clip(rng.lognormal(np.log(80), 1.0, count), 1, 500).astype(np.int64)
        trace = at_load(make_trace("flood", poisson(count, rng), inputs, outputs), load_, model)
        span = span or float(trace.arrival_seconds[-1])
        sizes = zip(trace.arrival_seconds.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
        rows += [(at, f"tenant-{number}", Prompt("x" * size, tokens)) for at, size, tokens in sizes if at <= span]
    rows.sort(key=lambda row: row[0])
    return [row[2] for row in rows], [row[0] for row in rows], [row[1] for row in rows]


def _latencies(served: Sequence[Served]) -> dict[str, float]:
    return latencies(np.array([one.ended - one.arrived for one in served]), np.array([one.tokens for one in served]))


def latencies(e2e: Any, tokens: Any) -> dict[str, float]:
    """Mean and p99 end to end, mean normalized latency."""
    p99 = float(np.quantile(e2e, 0.99))
    return {"e2e_mean_seconds": float(e2e.mean()), "e2e_p99_seconds": p99, "normalized_mean_seconds": float((e2e / tokens).mean())}


def _simulated(trace: Trace, model: EngineModel, policy: Policy | None, loop: Loop) -> dict[str, float]:
    """The same requests in the simulator, with what the sidecar predicted at their admission."""
    told = np.array([loop.told[row] for row in range(len(trace))]) if policy is not None else np.ones((len(trace), QUANTILES))
    setup = Setup(trace, model, told)
    outcome = simulate(trace, model, driver_named("vllm-fcfs", setup) if policy is None else core_driver(setup, policy))
    return {**latencies(outcome.e2e_seconds, trace.output_tokens), "preemptions": float(outcome.preemptions.sum())}


def cost_error(steps: Sequence[tuple[float, int, int, int]]) -> dict[str, float]:
    """Median relative errors of the fitted cost model: as the sidecar uses it, each step predicted before it is learned (eight at a time,
    counted on the second half); and of its coefficients at an average pace, learned from every other 64 steps, on the others.
    """
    rows = [Step(*step) for step in steps]
    online, errors = CostModel(), []
    for start in range(0, len(rows), 8):
        part = rows[start : start + 8]
        errors += _errors(online.coefficients, part)
        online = exec_time.observe(online, part)
    fitted, unseen = CostModel(), []
    for start in range(0, len(rows), 128):
        fitted = exec_time.observe(fitted, rows[start : start + 64])
        unseen += rows[start + 64 : start + 128]
    return {
        "median_error": float(np.median(errors[len(errors) // 2 :])),
        "frozen_median_error": float(np.median(_errors(fitted.coefficients.times(1 / fitted.pace), unseen))),
        "steps": float(len(steps)),
        "median_step_ms": float(np.median([s[0] for s in steps]) * 1e3),
    }


def _errors(coefficients: Coefficients, steps: Sequence[Step]) -> list[float]:
    predicted = (coefficients.step(step.prefill_tokens, step.decode_requests, step.context_tokens) for step in steps)
    return [abs(seconds - step.duration_seconds) / step.duration_seconds for seconds, step in zip(predicted, steps, strict=True)]


if __name__ == "__main__":
    named = os.environ.get("DATASET") or os.environ.get("ALISE_DATA")
    for row in measure(int(sys.argv[1]), Path(named) if named else None, int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        print(json.dumps(row), flush=True)
