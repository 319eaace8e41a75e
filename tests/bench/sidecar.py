"""What the predictor costs where it runs: a real sidecar process with an encoder, a head and a history of 100,000 rows, over its socket.

Open-loop admissions at 50 a second, then as many as it takes; how long a restart is from the start of the process to its first answer; and
the memory it has then. Also in CPU seconds, which other load on the machine changes less.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import grpc

from alise_contract.names import ADMISSION_SOCKET, CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionStub
from alise_scheduler.predictor.store import SqliteStore
from alise_scheduler.predictor.train import train
from tests.bench.harness import Figure, Row, percentile
from tests.scheduler.predictor_builders import make_history, make_sample

ROWS: Final = 100_000
RATE: Final = 50.0
_HEAD_ROWS: Final = 4000
_START_SECONDS: Final = 60.0
_BATCH: Final = 64


def measure(prompts: Sequence[str], encoder: str, quick: bool) -> Iterator[Row]:
    """Rows of kind restart, admit, batch and memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "history")
        samples = [make_sample(seed=number, now=number + 1) for number in range(200)]
        for _ in range(ROWS // len(samples)):
            store.append(samples)
        store.save_head(1, train(make_history(_HEAD_ROWS), 1).to_bytes())
        store.close()
        yield from asyncio.run(_run(folder, prompts, encoder, 250 if quick else 2000))


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Figures of these rows; none where there are none."""
    admits = [row["ms"] for row in rows if row["kind"] == "admit"]
    if not admits:
        return []
    restart, batch, memory = (next(row for row in rows if row["kind"] == kind) for kind in ("restart", "batch", "memory"))
    return [
        Figure("admit_p50_ms", percentile(admits, 0.50), "ms", "lower", 2.5),
        Figure("admit_p99_ms", percentile(admits, 0.99), "ms", "lower", 15.0),
        Figure("admit_cpu_ms", batch["cpu_ms"], "ms", "lower"),
        Figure("admit_batched_per_s", batch["per_second"], "1/s", "higher", 300.0),
        Figure("restart_100k_s", restart["seconds"], "s", "lower", 2.0),
        Figure("restart_100k_cpu_s", restart["cpu_seconds"], "s", "lower"),
        Figure("sidecar_rss_mb", memory["mb"], "MB", "lower", 400.0),
    ]


async def _run(folder: str, prompts: Sequence[str], encoder: str, calls: int) -> list[Row]:
    env = {
        **os.environ, "ALISE_SOCKET_DIR": folder, "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1", "ALISE_MAX_PENDING": "0",
        "ALISE_HISTORY_DIR": f"{folder}/history", "ALISE_ENCODER": encoder,
    }  # fmt: skip
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with grpc.aio.insecure_channel(f"unix:{Path(folder) / ADMISSION_SOCKET}") as channel:
            stub = AdmissionStub(channel)
            async with asyncio.timeout(_START_SECONDS):
                while not await _answers(stub):  # noqa: ASYNC110 the process is another one
                    await asyncio.sleep(0.02)
            started = time.monotonic() - began
            rows: list[Row] = [{"kind": "restart", "seconds": started, "cpu_seconds": _cpu_seconds(process.pid)}]
            tasks = []
            for number in range(calls):
                tasks.append(asyncio.create_task(_admit(stub, number, prompts[number % len(prompts)])))
                await asyncio.sleep(max(0.0, began + started + (number + 1) / RATE - time.monotonic()))
            rows += [{"kind": "admit", "ms": ms} for ms in await asyncio.gather(*tasks)]
            before, at = _cpu_seconds(process.pid), time.monotonic()
            for start in range(0, calls, _BATCH):
                asks = [_request(calls + number, prompts[number % len(prompts)]) for number in range(start, start + _BATCH)]
                await stub.AdmitBatch(pb.AdmitBatchRequest(requests=asks), timeout=10.0)
            asked = -(-calls // _BATCH) * _BATCH
            cpu_ms = 1000 * (_cpu_seconds(process.pid) - before) / asked
            rows.append({"kind": "batch", "per_second": asked / (time.monotonic() - at), "cpu_ms": cpu_ms})
            rows.append({"kind": "memory", "mb": _rss_mb(process.pid)})
            return rows
    finally:
        process.terminate()
        await process.wait()


async def _answers(stub: AdmissionStub) -> bool:
    try:
        await stub.Admit(_request(-1, "hello"), timeout=1.0)
    except grpc.aio.AioRpcError:
        return False
    return True


def _request(number: int, prompt: str) -> pb.AdmitRequest:
    return pb.AdmitRequest(
        contract_version=CONTRACT_VERSION, job_id=f"job{number}", endpoint=pb.ENDPOINT_CHAT_COMPLETIONS, prompt=prompt,
        prompt_chars=len(prompt), turns=1,
    )  # fmt: skip


async def _admit(stub: AdmissionStub, number: int, prompt: str) -> float:
    began = time.perf_counter()
    await stub.Admit(_request(number, prompt), timeout=10.0)
    return (time.perf_counter() - began) * 1000


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
