"""A replica whose EngineCore and device are paced by the clock: `python -m tests.picker.paced_replica --port N …`.

Real: alise's half of the API server (middleware, admission over its socket, stamps, control server), HTTP, streaming, and beside it the
real sidecar with its predictor, plans and Lengths service (`replica_processes.py`). Stands in for vLLM: `PacedCore`, which has a fixed
number of slots and steps of fixed length, runs requests by the sidecar's ranks, and preempts without a cost for the copies of KV.
"""

import argparse
import asyncio
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alise_contract.names import STATUS_PATH, unpack_priority
from alise_contract.pod_key import pod_key
from alise_engine.api.engine_api import ApiSettings, EngineApi
from alise_engine.api.metrics import Metrics
from alise_engine.api.middleware import AliseMiddleware
from alise_engine.api.status import as_json
from alise_engine.wire import calls, terms
from alise_engine.wire.stamp import read_stamp, stamp_key

# The length of an answer, which neither the picker nor the sidecar reads; the model decides it.
LENGTH_HEADER: Final = "x-answer-tokens"
# After the first token, the stream has one piece for this number of tokens.
PIECE_HEADER: Final = "x-piece-tokens"
_PREFILL_SECONDS: Final = 0.0001


@dataclass
class Job:
    """A request in the engine."""

    request_id: str
    job_id: str
    hint: str
    priority: int
    rank: tuple[int, int]
    prompt_tokens: int
    answer_tokens: int
    arrived_at: float
    phase: str = terms.PHASE_WAITING
    phase_at: float = 0.0
    generated: int = 0
    preemptions: int = 0
    first_at: float = 0.0
    gone: bool = False
    tokens: "asyncio.Queue[bool]" = field(default_factory=asyncio.Queue)


class PacedCore:
    """EngineCore as far as `wire.calls` shows it."""

    def __init__(self, slots: int, step_seconds: float) -> None:
        self._slots = slots
        self._step_seconds = step_seconds
        self._jobs: dict[str, Job] = {}
        self._changed: set[str] = set()
        self._new: set[str] = set()
        self._finished: list[calls.FinishedRow] = []
        self._steps: list[calls.StepRow] = []
        self._preempt_levels = 0
        self._work = asyncio.Event()
        self._count = 0

    async def call(self, call: calls.Call) -> bytes:
        match call:
            case calls.SnapshotCall():
                self._changed.clear()
                self._new.clear()
                shape = calls.EngineShape(self._slots, 2048, 8192, 32, 4096, 65536, 1 << 30, "paced", 16)
                return calls.encode(calls.SnapshotAnswer(shape, tuple(map(self._row, self._jobs.values())), self._counters()))
            case calls.PollCall():
                rows = tuple(self._row(self._jobs[name]) for name in self._changed if name in self._jobs)
                answer = calls.PollAnswer(rows, tuple(self._finished), tuple(self._steps[-64:]), self._counters())
                self._changed, self._finished, self._steps = set(), [], []
                return calls.encode(answer)
            case calls.ApplyCall(ranks, limits):
                by_job = {job.job_id: job for job in self._jobs.values()}
                for rank in ranks:
                    if rank.job_id in by_job:
                        by_job[rank.job_id].rank = (rank.level, rank.order)
                if limits is not None:
                    self._preempt_levels = limits.preempt_levels
                return calls.encode(calls.ApplyAnswer(tuple(rank.job_id for rank in ranks if rank.job_id not in by_job)))

    def add(self, job: Job) -> None:
        self._jobs[job.request_id] = job
        self._changed.add(job.request_id)
        self._work.set()

    async def run(self) -> None:
        """Steps for as long as there is work."""
        ends = time.monotonic()
        while True:
            if not self._jobs:
                self._work.clear()
                await self._work.wait()
                ends = time.monotonic()
            running = self._schedule()
            prefill = sum(job.prompt_tokens for job in running if not job.generated)
            seconds = self._step_seconds + _PREFILL_SECONDS * prefill
            context = sum(job.prompt_tokens + job.generated for job in running)
            ends = max(ends + seconds, time.monotonic() - seconds)
            await asyncio.sleep(max(0.0, ends - time.monotonic()))
            self._steps.append(calls.StepRow(round(seconds * 1e6), prefill, len(running), context))
            self._count += 1
            for job in running:
                self._token(job)

    def _schedule(self) -> list[Job]:
        now = time.monotonic()
        for job in [one for one in self._jobs.values() if one.gone]:
            self._end(job, terms.FINISH_ABORT)
        running = [job for job in self._jobs.values() if job.phase == terms.PHASE_RUNNING]
        waiting = sorted((job for job in self._jobs.values() if job.phase != terms.PHASE_RUNNING), key=lambda one: one.rank)
        for job in waiting:
            worst = max(running, key=lambda one: one.rank, default=None)
            if len(running) >= self._slots:
                if worst is None or not self._preempt_levels or job.rank[0] + self._preempt_levels > worst.rank[0]:
                    break
                running.remove(worst)
                self._move(worst, terms.PHASE_OFFLOADED, now)
                worst.preemptions += 1
            running.append(job)
            self._move(job, terms.PHASE_RUNNING, now)
        return running

    def _move(self, job: Job, phase: str, now: float) -> None:
        job.phase, job.phase_at = phase, now
        self._changed.add(job.request_id)

    def _token(self, job: Job) -> None:
        job.generated += 1
        job.first_at = job.first_at or time.monotonic()
        self._changed.add(job.request_id)
        job.tokens.put_nowait(True)
        if job.generated >= job.answer_tokens:
            self._end(job, terms.FINISH_STOP)

    def _end(self, job: Job, reason: str) -> None:
        del self._jobs[job.request_id]
        self._changed.discard(job.request_id)
        age, first = time.monotonic() - job.arrived_at, max(0.0, job.first_at - job.arrived_at)
        milliseconds = round(age * 1e3), round(first * 1e3), 0, 0
        row = calls.FinishedRow(job.request_id, job.job_id, reason, job.prompt_tokens, job.generated, job.preemptions, *milliseconds)
        self._finished.append(row)
        job.tokens.put_nowait(False)

    def _row(self, job: Job) -> calls.RequestRow:
        now = time.monotonic()
        there = job.prompt_tokens + job.generated if job.generated else 0
        on_host = job.phase == terms.PHASE_OFFLOADED
        return calls.RequestRow(
            job.request_id, job.job_id, job.phase, job.prompt_tokens, job.generated, 0 if on_host else there, there if on_host else 0,
            there * 2048 if on_host else 0, 0, job.preemptions, job.priority, round((now - job.arrived_at) * 1e3),
            round((now - (job.phase_at or job.arrived_at)) * 1e3), job.hint,
        )  # fmt: skip

    def _counters(self) -> calls.Counters:
        return calls.Counters(steps=self._count, free_device_blocks=2048)


class Replica:
    """The HTTP application."""

    def __init__(self, folder: Path, slots: int, step_seconds: float) -> None:
        self.core = PacedCore(slots, step_seconds)
        key = pod_key(folder)
        self._stamps = stamp_key(key)
        self.api = EngineApi(ApiSettings(folder, 0.25, "0.32.0", key), Metrics(CollectorRegistry()))
        self._add = self.api.stamping(self._add_request)
        routes = [
            Route("/health", lambda _: Response("ok")),
            Route(STATUS_PATH, lambda _: JSONResponse(as_json(self.api.report()))),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        self.app = AliseMiddleware(Starlette(routes=routes), self.api)

    async def _add_request(self, request_id: str, prompt: dict[str, Any], params: "_Params", priority: int = 0) -> None:
        stamp = read_stamp(params.extra_args, self._stamps)
        job = Job(
            request_id, stamp.job_id if stamp else "", stamp.hint if stamp else "", priority, unpack_priority(priority),
            prompt["tokens"], prompt["answer_tokens"], time.monotonic(),
        )  # fmt: skip
        self.core.add(job)
        params.job = job

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        text = "".join(str(message.get("content")) for message in body["messages"])
        tokens = int(request.headers.get(LENGTH_HEADER) or body.get("max_tokens") or 16)
        params = _Params()
        await self._add(uuid.uuid4().hex, {"tokens": max(1, len(text) // 4), "answer_tokens": tokens}, params)
        assert params.job is not None
        piece = int(request.headers.get(PIECE_HEADER) or 1)
        return StreamingResponse(self._stream(params.job, piece), media_type="text/event-stream")

    async def _stream(self, job: Job, piece: int) -> AsyncIterator[bytes]:
        number = 0
        try:
            while await job.tokens.get():
                number += 1
                if number % piece and number > 1:
                    continue
                yield b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "x "}}]}).encode() + b"\n\n"
            yield b"data: [DONE]\n\n"
        finally:
            job.gone = True


@dataclass
class _Params:
    extra_args: dict[str, Any] | None = None
    job: Job | None = None


async def _main(options: argparse.Namespace) -> None:
    replica = Replica(options.folder, options.slots, options.step_ms / 1000)
    await replica.api.connect(replica.core, text_only=True)
    steps = asyncio.create_task(replica.core.run())
    config = uvicorn.Config(
        replica.app, host="127.0.0.1", port=options.port, log_level="warning", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: setattr(server, "should_exit", True))
    try:
        await server.serve()
    finally:
        steps.cancel()
        await replica.api.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the pod's sockets")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--step-ms", type=float, default=20.0)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
