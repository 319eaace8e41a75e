"""How long an Admit takes, beside the sidecar of the commit before everything that this suite is about.

Both sidecars run on one core with a history of their own making, and are asked the same questions in turn, so that whatever else the
machine does meets both. The commit before is checked out for the time of the run; where it is not to be had (a shallow clone), there are
no rows, and the figure is left out. `hostile.py` runs it.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import grpc

from alise_contract.names import ADMISSION_GRPC_SOCKET, ADMISSION_SOCKET, CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionStub
from alise_scheduler.supervisor import child_environ
from tests.bench.harness import ROOT, Figure, Row, Settings, median
from tests.bench.sidecar import kept_off
from tests.bench.workload import load
from tests.tools import encoder as encoders

BEFORE: Final = "5a9e288"
SIDES: Final = ("before", "now")
# Both are asked over gRPC, a call each: before, there was nothing else.
_SOCKETS: Final = {"before": ADMISSION_SOCKET, "now": ADMISSION_GRPC_SOCKET}
GOAL: Final = 1.1
_PAUSE_SECONDS: Final = 0.02
_PARTS: Final = 10
_START_SECONDS: Final = 60.0
_GIT_SECONDS: Final = 120
_MAKE_SECONDS: Final = 900
_CORE: Final = max(os.sched_getaffinity(0))
# Run with each tree's own code: layouts of the store may differ.
_HISTORY: Final = """
import sys
from pathlib import Path
from alise_scheduler.predictor.storage.sqlite import SqliteStore
from alise_scheduler.predictor.training.fit import train
from tests.scheduler.predictor_builders import make_history, make_sample
store = SqliteStore(Path(sys.argv[1]))
samples = [make_sample(seed=number, now=number + 1) for number in range(200)]
for _ in range(int(sys.argv[2]) // len(samples)):
    store.append(samples)
store.save_head(1, train(make_history(4000), 1).to_bytes())
store.close()
"""
_ROWS: Final = 20_000


def measure(settings: Settings) -> Iterator[Row]:
    """Rows of kind admit_turn, one per question: milliseconds of both sides."""
    calls = 400 if settings.quick else 2000
    prompts = [prompt.text for prompt in load(settings.dataset, calls, 0).prompts]
    with tempfile.TemporaryDirectory(prefix="alise-") as folder, _checked_out(Path(folder) / "tree") as tree:
        if tree is None:
            return
        trees = dict(zip(SIDES, (tree, ROOT), strict=True))
        # With QUICK=1 by features alone: to make two encoders takes minutes.
        encoded = not settings.quick and os.environ.get(encoders.VARIABLE) != encoders.NONE
        environs = {}
        for side, where in trees.items():
            environ, home = _environ(where), Path(folder) / side
            home.mkdir()
            _run(where, environ, "-c", _HISTORY, f"{home}/history", str(_ROWS))
            encoder = _run(where, environ, "-m", "tests.tools.encoder").strip().splitlines()[-1] if encoded else ""
            environs[side] = {
                **child_environ(environ), "ALISE_SOCKET_DIR": str(home), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1",
                # Only the scheduler of the commit before reads this one.
                "ALISE_MAX_PENDING": "0", "ALISE_HISTORY_DIR": f"{home}/history", "ALISE_ENCODER": encoder,
            }  # fmt: skip
        with kept_off(_CORE):
            rows = asyncio.run(_rows(environs, trees, Path(folder), prompts, encoded))
        yield from rows


@contextlib.contextmanager
def _checked_out(folder: Path) -> Iterator[Path | None]:
    """The tree of the commit before, removed afterwards; None where there is no such commit."""
    added = subprocess.run(
        ["git", "worktree", "add", "--detach", "--force", str(folder), BEFORE],
        cwd=ROOT,
        capture_output=True,
        timeout=_GIT_SECONDS,
        check=False,
    )
    if added.returncode:
        print(f"\nadmit_p50_vs_before is left out: {added.stderr.decode(errors='replace').strip()}", file=sys.stderr)
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(
            ["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, capture_output=True, timeout=_GIT_SECONDS, check=False
        )


def _environ(tree: Path) -> dict[str, str]:
    paths = [tree / "operator", tree / "scheduler_sidecar", tree / "engine_image", tree]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ALISE_")}
    kept = {name: os.environ[name] for name in ("ALISE_CACHE",) if name in os.environ}
    return {**inherited, **kept, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def _run(tree: Path, environ: Mapping[str, str], *arguments: str) -> str:
    """What a program of the tree prints. Raises subprocess.CalledProcessError."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=dict(environ), stdout=subprocess.PIPE, timeout=_MAKE_SECONDS, check=True, text=True
    ).stdout


async def _rows(
    environs: Mapping[str, Mapping[str, str]], trees: Mapping[str, Path], folder: Path, prompts: Sequence[str], encoded: bool
) -> list[Row]:
    async with contextlib.AsyncExitStack() as stack:
        channels = {}
        for side in SIDES:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "alise_scheduler", "run"),
                cwd=trees[side],
                env=dict(environs[side]),
                stderr=asyncio.subprocess.DEVNULL,
                preexec_fn=lambda: os.sched_setaffinity(0, {_CORE}),
            )
            stack.push_async_callback(_end, process)
            channels[side] = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{folder / side / _SOCKETS[side]}"))
        async with asyncio.timeout(_START_SECONDS):
            for side in SIDES:
                while not await _answers(channels[side]):  # noqa: ASYNC110 the process is another one
                    await asyncio.sleep(0.1)
        # The head comes from disk, the encoder from its own thread.
        for number in range(100):
            for side in SIDES:
                await _ask(channels[side], f"warm{number}", prompts[number % len(prompts)])
                await asyncio.sleep(_PAUSE_SECONDS)
        rows: list[Row] = []
        for number, prompt in enumerate(prompts):
            # Who goes first changes: the second finds the core's caches as the first left them.
            turn = SIDES if number % 2 == 0 else SIDES[::-1]
            took = {}
            for side in turn:
                took[side] = await _ask(channels[side], f"job{number}", prompt)
                await asyncio.sleep(_PAUSE_SECONDS)
            spent = {f"{side}_ms": round(took[side], 4) for side in SIDES}
            rows.append({"kind": "admit_turn", "number": number, "encoder": encoded, **spent})
        return rows


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    await process.wait()


async def _answers(channel: grpc.aio.Channel) -> bool:
    with contextlib.suppress(grpc.aio.AioRpcError):
        await _ask(channel, "first", "hello", 1.0)
        return True
    return False


async def _ask(channel: grpc.aio.Channel, job_id: str, prompt: str, timeout_seconds: float = 30.0) -> float:
    """Milliseconds until the answer. Raises grpc.aio.AioRpcError."""
    request = pb.AdmitRequest(
        contract_version=CONTRACT_VERSION, job_id=job_id, endpoint=pb.ENDPOINT_CHAT_COMPLETIONS, prompt=prompt, prompt_chars=len(prompt),
        turns=1,
    )  # fmt: skip
    began = time.perf_counter()
    await AdmissionStub(channel).Admit(request, timeout=timeout_seconds)
    return (time.perf_counter() - began) * 1000


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The ratio of medians, with the least and the most of ten parts of the run; none without rows."""
    own = [row for row in rows if row["kind"] == "admit_turn"]
    if not own:
        return []
    size = -(-len(own) // _PARTS)
    parts = [_ratio(own[start : start + size]) for start in range(0, len(own), size)]
    told = "with" if own[0]["encoder"] else "without"
    unit = f"ratio [{min(parts):.2f}–{max(parts):.2f} in {len(parts)} parts], {told} encoder"
    return [
        Figure("admit_p50_vs_before", _ratio(own), unit, "lower", GOAL),
        *(Figure(f"admit_p50_{side}_ms", median(row[f"{side}_ms"] for row in own), "ms", "lower") for side in SIDES),
    ]


def _ratio(rows: Sequence[Row]) -> float:
    before, now = (median(row[f"{side}_ms"] for row in rows) for side in SIDES)
    return before and now / before
