"""What the predictor costs where it runs: a real sidecar process with an encoder, a head and a history of 100,000 rows, over its socket.

Open-loop admissions at 50 a second, then as many as it takes; how long a restart is from the start of the process to its first answer, to
the head from disk and to the encoder; and the memory it has then. The sidecar is kept to one core, as a container with a whole one is; who
asks has the others.

Times are by the clock. Other load on the machine lengthens them, so beside them stand the CPU time that the sidecar spent, and how long
its threads were ready and waited for a core, per admission: what a machine with a free core would not see. Neighbours on the same processor
lengthen even that: the least and the most of the medians of ten parts of the load say by how much, and a question that is refused at
once, asked at the same pace, what of an admission is the way there and back. `predictor.py` runs it.
"""

import asyncio
import contextlib
import math
import os
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from alise_contract.names import ADMISSION_SOCKET, CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_engine.api.admission_stream import AdmissionStream, AskError
from alise_scheduler.predictor.storage.sqlite import SqliteStore
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.supervisor import child_environ
from tests.bench.harness import Figure, Row, percentile
from tests.scheduler.predictor_builders import make_history, make_sample
from tests.tools.encoder import setting

ROWS: Final = 100_000
RATE: Final = 50.0
_HEAD_ROWS: Final = 4000
_START_SECONDS: Final = 60.0
_AT_ONCE: Final = 64
_PARTS: Final = 10
_REFUSED: Final = 200
_CORE: Final = max(os.sched_getaffinity(0))
_ENCODED: Final = 'alise_scheduler_encodings_total{outcome="encoded"}'


def measure(prompts: Sequence[str], encoder: Path | None, quick: bool) -> Iterator[Row]:
    """Rows of kind restart, admit, cost50, refused, at_once and memory."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "history")
        samples = [make_sample(seed=number, now=number + 1) for number in range(200)]
        for _ in range(ROWS // len(samples)):
            store.append(samples)
        store.save_head(1, train(make_history(_HEAD_ROWS), 1).to_bytes())
        store.close()
        with kept_off(_CORE):
            yield from asyncio.run(_run(folder, prompts, encoder, 250 if quick else 2000))


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Figures of these rows; none where there are none."""
    admits = [row["ms"] for row in rows if row["kind"] == "admit"]
    if not admits:
        return []
    size = -(-len(admits) // _PARTS)
    parts = [percentile(admits[start : start + size], 0.50) for start in range(0, len(admits), size)]
    restart, cost, at_once, memory = (
        next(row for row in rows if row["kind"] == kind) for kind in ("restart", "cost50", "at_once", "memory")
    )
    return [
        Figure("admit_p50_ms", percentile(admits, 0.50), "ms", "lower", 2.5),
        Figure("admit_p50_least_ms", min(parts), "ms", "lower"),
        Figure("admit_p50_most_ms", max(parts), "ms", "lower"),
        Figure("admit_p99_ms", percentile(admits, 0.99), "ms", "lower", 15.0),
        Figure("admit_refused_p50_ms", percentile((row["ms"] for row in rows if row["kind"] == "refused"), 0.50), "ms", "lower"),
        Figure("admit_cpu_ms", cost["cpu_ms"], "ms", "lower"),
        Figure("admit_waited_for_core_ms", cost["waited_ms"], "ms", "lower"),
        Figure("admit_at_once_per_s", at_once["per_second"], "1/s", "higher", 300.0),
        Figure("admit_at_once_encoded", at_once["encoded"], "share", "higher"),
        Figure("admit_encoded", cost["encoded"], "share", "higher"),
        Figure("restart_100k_s", restart["seconds"], "s", "lower", 2.0),
        Figure("restart_100k_learned_s", restart["learned_seconds"], "s", "lower"),
        Figure("restart_100k_encoder_s", restart["encoder_seconds"], "s", "lower"),
        Figure("restart_100k_cpu_s", restart["cpu_seconds"], "s", "lower"),
        Figure("sidecar_rss_mb", memory["mb"], "MB", "lower", 400.0),
    ]


async def _run(folder: str, prompts: Sequence[str], encoder: Path | None, calls: int) -> list[Row]:
    port = _free_port()
    env = {
        **child_environ(os.environ), "ALISE_SOCKET_DIR": folder, "ALISE_HTTP_PORT": str(port), "ALISE_HTTP_HOST": "127.0.0.1",
        "ALISE_HISTORY_DIR": f"{folder}/history", "ALISE_ENCODER": setting(encoder),
    }  # fmt: skip
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {_CORE}),
    )  # fmt: skip
    # As the middleware asks.
    stream = AdmissionStream(Path(folder) / ADMISSION_SOCKET)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not await _answers(stream):  # noqa: ASYNC110 the process is another one
                await asyncio.sleep(0.02)
            answered = time.monotonic()
            await _metric_is(port, "alise_scheduler_head_version", 1)
            learned = time.monotonic()
            if encoder is not None:
                await _metric_is(port, "alise_scheduler_encoder_ready", 1)
            ready = time.monotonic()
        restart = {"seconds": answered - began, "learned_seconds": learned - began, "encoder_seconds": ready - began}
        rows: list[Row] = [{"kind": "restart", **restart, "cpu_seconds": _cpu(process.pid)[0]}]
        (cpu, waited), encoded = _cpu(process.pid), await _metric(port, _ENCODED)
        tasks = []
        for number in range(calls):
            tasks.append(asyncio.create_task(_admit(stream, number, prompts[number % len(prompts)])))
            await asyncio.sleep(max(0.0, ready + (number + 1) / RATE - time.monotonic()))
        rows += [{"kind": "admit", "ms": ms} for ms in await asyncio.gather(*tasks)]
        (cpu_now, waited_now), encoded_now = _cpu(process.pid), await _metric(port, _ENCODED)
        spent = {"cpu_ms": 1000 * (cpu_now - cpu) / calls, "waited_ms": 1000 * (waited_now - waited) / calls}
        rows.append({"kind": "cost50", **spent, "encoded": (encoded_now - encoded) / calls})
        for _ in range(_REFUSED):
            rows.append({"kind": "refused", "ms": await _refused(stream)})
            await asyncio.sleep(1 / RATE)
        at = time.monotonic()
        for start in range(0, calls, _AT_ONCE):
            asks = [_request(calls + number, prompts[number % len(prompts)]) for number in range(start, start + _AT_ONCE)]
            await asyncio.gather(*(stream.ask(ask, timeout_seconds=60.0) for ask in asks))
        asked = -(-calls // _AT_ONCE) * _AT_ONCE
        per_second = asked / (time.monotonic() - at)
        rows.append({"kind": "at_once", "per_second": per_second, "encoded": (await _metric(port, _ENCODED) - encoded_now) / asked})
        rows.append({"kind": "memory", "mb": _rss_mb(process.pid)})
        return rows
    finally:
        await stream.close()
        process.terminate()
        await process.wait()


@contextlib.contextmanager
def kept_off(core: int) -> Iterator[None]:
    """This thread, and those it starts, on other cores, if there are any."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - {core} or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _metric(port: int, name: str) -> float:
    """A series of /metrics; NaN while no server answers there. Raises KeyError when there is no such series."""
    try:
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2.0).read().decode())
    except OSError:
        return math.nan
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values[name])


async def _metric_is(port: int, name: str, value: float) -> None:
    while await _metric(port, name) != value:  # noqa: ASYNC110 the process is another one
        await asyncio.sleep(0.02)


async def _answers(stream: AdmissionStream) -> bool:
    try:
        await stream.ask(_request(-1, "hello"), timeout_seconds=1.0)
    except AskError:
        return False
    return True


def _request(number: int, prompt: str) -> pb.AdmitRequest:
    return pb.AdmitRequest(
        contract_version=CONTRACT_VERSION, job_id=f"job{number}", endpoint=pb.ENDPOINT_CHAT_COMPLETIONS, prompt=prompt,
        prompt_chars=len(prompt), turns=1,
    )  # fmt: skip


async def _admit(stream: AdmissionStream, number: int, prompt: str) -> float:
    began = time.perf_counter()
    await stream.ask(_request(number, prompt), timeout_seconds=60.0)
    return (time.perf_counter() - began) * 1000


async def _refused(stream: AdmissionStream) -> float:
    """Milliseconds until a question of another version of the contract is refused."""
    began = time.perf_counter()
    with contextlib.suppress(AskError):
        await stream.ask(pb.AdmitRequest(contract_version=CONTRACT_VERSION + 1, job_id="refused"), timeout_seconds=60.0)
    return (time.perf_counter() - began) * 1000


def _cpu(pid: int) -> tuple[float, float]:
    """Seconds on a core, and seconds ready and waiting for one, of all its threads that live."""
    on = waiting = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            spent, waited, _ = (task / "schedstat").read_text().split()
            on, waiting = on + int(spent), waiting + int(waited)
    return on / 1e9, waiting / 1e9


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
