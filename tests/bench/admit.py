"""How long an Admit takes beside live jobs: a real sidecar process, a real unix socket, an engine that reports.

Two loads: one request at a time without any, and open-loop bursts of ten every 100 ms beside 1,000 live jobs whose progress is reported
all the time. `sidecar.py` measures a steady stream beside a long history. `predictor.py` runs it.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1 import engine_control_pb2 as engine_pb
from alise_engine.api.admission_stream import AdmissionStream
from alise_engine.enginecore.tracker import PROGRESS_SECONDS
from alise_scheduler.supervisor import child_environ
from tests.bench.harness import Figure, Row, Settings, percentile
from tests.scheduler.engine_server import EngineServer
from tests.tools.encoder import setting

LIVE_JOBS: Final = 1000
BURST: Final = 10
_START_SECONDS: Final = 30.0
_GOAL_MS: Final = 5.0


def measure(settings: Settings, encoder: Path | None) -> Iterator[Row]:
    """Rows of kind live_admit, one per call: load, seed, milliseconds."""
    calls = 100 if settings.quick else 1000
    for seed in range(settings.seeds):
        for load, live in (("idle", 0), ("busy", LIVE_JOBS)):
            yield from (
                {"kind": "live_admit", "load": load, "seed": seed, "ms": ms} for ms in asyncio.run(_latencies(live, calls, encoder))
            )


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Percentiles per load; none where there are no rows of it."""
    made = []
    for load in ("idle", "busy"):
        values = [float(row["ms"]) for row in rows if row["kind"] == "live_admit" and row["load"] == load]
        if not values:
            continue
        made.append(Figure(f"admit_{load}_p50_ms", percentile(values, 0.50), "ms", "lower"))
        made.append(Figure(f"admit_{load}_p99_ms", percentile(values, 0.99), "ms", "lower", _GOAL_MS))
    return made


async def _latencies(live: int, calls: int, encoder: Path | None) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        engine = await EngineServer(os.path.join(folder, "control.sock"), max_num_seqs=32).start()
        for number in range(live):
            phase = engine_pb.PHASE_RUNNING if number < 32 else engine_pb.PHASE_WAITING
            engine.requests[f"r{number}"] = engine_pb.EngineRequest(
                request_id=f"r{number}", job_id=f"live{number}", phase=phase, prompt_tokens=100, age_ms=number
            )
        env = {
            **child_environ(os.environ), "ALISE_SOCKET_DIR": folder, "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1",
            "ALISE_ENCODER": setting(encoder),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL
        )
        # As the middleware asks.
        stream = AdmissionStream(Path(folder) / "admission.sock")
        progress = asyncio.create_task(_progress(engine, min(live, 32)))
        try:
            async with asyncio.timeout(_START_SECONDS):
                while engine.applies == 0:  # noqa: ASYNC110 the process is another one
                    await asyncio.sleep(0.05)
            await _call(stream, -1)
            if not live:
                return [await _call(stream, number) for number in range(calls)]
            values: list[float] = []
            for start in range(0, calls, BURST):
                burst, _ = await asyncio.gather(
                    asyncio.gather(*(_call(stream, number) for number in range(start, start + BURST))), asyncio.sleep(0.1)
                )
                values += burst
            return values
        finally:
            progress.cancel()
            await stream.close()
            process.terminate()
            await process.wait()
            await engine.stop()


async def _call(stream: AdmissionStream, number: int) -> float:
    request = pb.AdmitRequest(
        contract_version=CONTRACT_VERSION, job_id=f"new{number}", endpoint=pb.ENDPOINT_CHAT_COMPLETIONS,
        prompt=f"Explain in detail why question {number} is hard. " * 20, prompt_chars=1000, turns=2, tenant="t",
    )  # fmt: skip
    began = time.perf_counter()
    await stream.ask(request, timeout_seconds=5.0)
    return (time.perf_counter() - began) * 1000


async def _progress(engine: EngineServer, running: int) -> None:
    """What an engine that decodes reports: the running requests' tokens, a token each 20 ms."""
    generated = 0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        generated += round(PROGRESS_SECONDS / 0.02)
        engine.report_all(
            [
                engine_pb.EngineRequest(
                    request_id=f"r{number}",
                    job_id=f"live{number}",
                    phase=engine_pb.PHASE_RUNNING,
                    prompt_tokens=100,
                    generated_tokens=generated,
                    device_tokens=100 + generated,
                )
                for number in range(running)
            ]
        )
