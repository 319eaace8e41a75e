"""What one namespace costs the operator and the others: pods that answer with too much (N2), ten thousand pods (N3), an edit loop (N5).

Against a real API server and controller manager, without a node: pods are objects, and the hostile ones answer on loopback. `operator.py`
runs it.
"""

import asyncio
import copy
import gzip
import itertools
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from alise_operator.kube import HttpKube
from alise_operator.pods import PODS, REPLICA_SETS
from alise_operator.reconcile import ENGINES
from tests.bench.harness import Row, Settings
from tests.bench.operator_children import engine, until_children
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, OperatorProcess, eventually, install, running_operator

HOSTILE_PODS: Final = 100
# The kubelet's own timeout for the probe (manifests/operator/deployment.yaml).
PROBE_SECONDS: Final = 5.0
PROBE_EVERY_SECONDS: Final = 0.5
# Two rounds of polls: one is good for ten seconds.
WATCHED_SECONDS: Final = 25.0
SETTLE_SECONDS: Final = 2.5
AT_A_TIME: Final = 24
NAMESPACES: Final = ("crowd", "others")
OK: Final = b"HTTP/1.1 200 OK\r\n"


def measure(settings: Settings) -> Iterator[Row]:
    """One control plane for all three."""
    with ControlPlane() as cp, tempfile.TemporaryDirectory() as name:
        install(cp)
        for namespace in NAMESPACES:
            cp.access.kubectl("create", "namespace", namespace)
        folder = Path(name)
        yield from _hostile_pods(cp, folder)
        yield from _edit_loop(cp, folder, 10 if settings.quick else 20)
        yield from _many_pods(cp, folder, 1_000 if settings.quick else 10_000)


def _hostile_pods(cp: ControlPlane, folder: Path) -> Iterator[Row]:
    """N2: every pod of a resource sends what the operator of before kept in memory."""

    async def served() -> Row:
        async with _server() as port:
            return await asyncio.to_thread(_polled, cp, folder, port)

    yield asyncio.run(served())


def _polled(cp: ControlPlane, folder: Path, port: int) -> Row:
    engine = Engine(cp.access, "crowd", "hostile")
    with running_operator(cp, folder, module="tests.bench.operator_process", POD_PORT=str(port)) as operator:
        engine.apply(replicas=HOSTILE_PODS)
        for pod in engine.wait_for_pods(HOSTILE_PODS):
            engine.make_ready(pod)
            engine.set_pod_status(pod["metadata"]["name"], {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]})
        eventually("the condition names the pods", lambda: engine.condition("Degraded").get("reason") == "StatusUnavailable", seconds=120)
        time.sleep(WATCHED_SECONDS)
        row = {"seed": 0, "what": "peak_rss", "case": "N2", "pods": HOSTILE_PODS, "mb": _peak_mb(operator)}
    engine.kubectl("delete", "alise", engine.name, "--wait=true")
    return row


@asynccontextmanager
async def _server() -> AsyncIterator[int]:
    """A port at which each connection is answered by the next kind of too much."""
    bomb = gzip.compress(b"[" + b" " * 300_000_000 + b"]", 1)
    kinds = itertools.cycle(
        [
            (OK + b"\r\n", b" " * 65536),
            (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb, b""),
            (OK + b"Content-Length: 60000\r\n\r\n" + b"[" * 30000 + b"]" * 30000, b""),
            (OK, b"X-Filler: " + b"a" * 1000 + b"\r\n"),
            (OK + b"Content-Length: 60000\r\n\r\n", b" "),
        ]
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, more = next(kinds)
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            await writer.drain()
            while more and not writer.is_closing():
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _edit_loop(cp: ControlPlane, folder: Path, engines: int) -> Iterator[Row]:
    """N5: seconds until another namespace's engine has its children, beside a resource that is edited without a pause and without it."""
    # The clock as it is by default: what a resource may ask for beside its rounds depends on it.
    with running_operator(cp, folder, ALISE_RESYNC_SECONDS="15") as operator:
        eventually("the operator acts", operator.is_active)
        for is_edited, seconds in asyncio.run(_beside(cp.kubeconfig, engines)):
            yield {"seed": 0, "what": "beside_edits" if is_edited else "alone", "seconds": seconds}


async def _beside(kubeconfig: Path, engines: int) -> list[tuple[bool, float]]:
    found: list[tuple[bool, float]] = []
    async with HttpKube(kubeconfig) as kube:
        await until_children(kube, engine("edited", "crowd"))
        for number in range(engines):
            # The work of the last edits is done, as the loop has been running for a while when the other edit comes.
            await asyncio.sleep(SETTLE_SECONDS)
            found.append((False, await until_children(kube, engine(f"alone-{number}", "others"))))
            editing = asyncio.create_task(_edit(kube))
            await asyncio.sleep(SETTLE_SECONDS)
            found.append((True, await until_children(kube, engine(f"beside-{number}", "others"))))
            editing.cancel()
            await asyncio.wait({editing})
    return found


async def _edit(kube: HttpKube) -> None:
    """Each edit changes the Deployment."""
    for number in itertools.count():
        resource = await kube.get(ENGINES, "crowd", "edited")
        resource["spec"]["drainSeconds"] = 5 + number % 50
        with suppress(Exception):
            # The operator's status was faster: the next round has the newer version.
            await kube.replace(ENGINES, resource)


def _many_pods(cp: ControlPlane, folder: Path, pods: int) -> Iterator[Row]:
    """N3: what `replicas: 10000` costs, and whether the operator answers its probe all the while."""
    engine = Engine(cp.access, "crowd", "many")
    with running_operator(cp, folder, ALISE_RESYNC_SECONDS="5") as operator:
        eventually("the operator acts", operator.is_active)
        asked, failed, slowest = asyncio.run(_probing(operator, lambda: _fill(cp, engine, pods)))
        yield {"seed": 0, "what": "healthz", "pods": pods, "asked": asked, "failed": failed, "slowest_seconds": slowest}
        yield {"seed": 0, "what": "peak_rss", "case": "N3", "pods": pods, "mb": _peak_mb(operator)}


async def _fill(cp: ControlPlane, engine: Engine, pods: int) -> None:
    """Makes the pods, faster than the controller manager does, those that are looked at without a word of why they do not start."""
    await asyncio.to_thread(engine.apply, replicas=pods)
    async with HttpKube(cp.kubeconfig) as kube:
        await asyncio.to_thread(eventually, "there is a pod", engine.pods)
        sets = await kube.list(REPLICA_SETS, engine.namespace, labels=f"alise.dev/engine={engine.name}")
        turn = asyncio.Semaphore(AT_A_TIME)
        await asyncio.gather(*(_make(kube, turn, sets[0], number) for number in range(pods)))
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        scheduled = {"phase": "Pending", "conditions": [condition]}
        for number in range(min(pods, 300)):
            await asyncio.to_thread(engine.set_pod_status, f"{engine.name}-{number:05}", scheduled)
    await asyncio.sleep(WATCHED_SECONDS)


async def _make(kube: HttpKube, turn: asyncio.Semaphore, of: dict[str, Any], number: int) -> None:
    template, meta = copy.deepcopy(of["spec"]["template"]), of["metadata"]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": meta["name"], "uid": meta["uid"], "controller": True}
    name = f"{meta['labels']['alise.dev/engine']}-{number:05}"
    given = template["metadata"] | {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]}
    async with turn:
        with suppress(Exception):
            # The controller deletes what is one too many; a name that is taken is as good.
            await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": given, "spec": template["spec"]})


async def _probing(operator: OperatorProcess, work: Callable[[], Awaitable[None]]) -> tuple[int, int, float]:
    """Probes that were sent while the work ran, those that failed, and the slowest answer in seconds."""
    working = asyncio.ensure_future(work())
    asked, failed, slowest = 0, 0, 0.0
    url = f"http://127.0.0.1:{operator.port()}/healthz"
    while not working.done():
        began = time.monotonic()
        failed += not await asyncio.to_thread(_is_healthy, url)
        asked, slowest = asked + 1, max(slowest, time.monotonic() - began)
        await asyncio.sleep(PROBE_EVERY_SECONDS)
    await working
    return asked, failed, slowest


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _peak_mb(operator: OperatorProcess) -> float:
    """The most memory that the process has had, as the kernel counts it."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
