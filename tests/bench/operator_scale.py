"""A thousand AliseEngines: what the operator takes beside plain server-side apply of the same children, and what it costs once they exist.

Each size has a control plane of its own: etcd, the API server and the controller manager on the cores on which the operator runs, too. The
children are first applied without an operator, by as many workers as it has, with its client and its field manager, without owners and with
nothing read or tried before. Then the same AliseEngines are created, and the operator makes the children. The benchmark sees by the same
watches that the children are there, so both have these beside them.

Counted are the operator's requests in the API server's audit log, those of its watches included. The AliseEngines have no pods, because a
control plane has no node: what pods add is polls of the pods, which the API server does not see, and an event for each change of a pod.
`operator.py` runs it.
"""

import asyncio
import itertools
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

from alise_operator.app import WORKERS
from alise_operator.apply import OWNED_KINDS
from alise_operator.children import Owner, children
from alise_operator.children.meta import MANAGED_BY, MANAGER
from alise_operator.cluster import Images
from alise_operator.kube import HttpKube, Resource
from alise_operator.reconcile import ENGINES
from alise_operator.spec import parse
from tests.bench.harness import Figure, Row, Settings, percentile
from tests.bench.operator_children import engine
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import OperatorProcess, eventually, install, running_operator

SIZES: Final = (100, 300, 1000)
QUICK_SIZES: Final = (20, 60)
PLAIN, SCALED = "plain", "scaled"
# Two of the operator's verifications of all children, and eight rounds of its clock.
WATCHED_SECONDS: Final = 120.0
CONVERGE_SECONDS: Final = 900.0
# If no status is written for three rounds of the clock and no AliseEngine waits, all work of a burst is done.
QUIET_SECONDS: Final = 45.0
# Some wait for a moment in each round.
AGAIN_SECONDS: Final = 4.0
EDITS: Final = 100
EDIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.005
ACCOUNT: Final = "system:serviceaccount:alise-system:alise-operator"
POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
    "rules": [{"level": "Metadata", "users": [ACCOUNT]}, {"level": "None"}],
}
OURS: Final = f"{MANAGED_BY}={MANAGER}"
DEPLOYMENTS: Final = OWNED_KINDS["Deployment"][0]
KINDS: Final = ("ServiceAccount", "NetworkPolicy", "Service", "Deployment", "Ingress")


def measure(settings: Settings) -> Iterator[Row]:
    """A row per size for each thing that is measured, and one per edit."""
    for size in QUICK_SIZES if settings.quick else SIZES:
        with tempfile.TemporaryDirectory(prefix="alise-") as name:
            yield from ({"seed": 0, "resources": size, **row} for row in _one_size(Path(name), size))


def _one_size(folder: Path, size: int) -> Iterator[Row]:
    policy, log = folder / "policy.json", folder / "audit.log"
    policy.write_text(json.dumps(POLICY))
    with ControlPlane(f"--audit-policy-file={policy}", f"--audit-log-path={log}") as cp:
        if cp.belongs_to_user:
            raise SystemExit("the benchmark of 1,000 resources needs a control plane of its own: unset KUBECONFIG")
        install(cp)
        for namespace in (PLAIN, SCALED):
            cp.access.kubectl("create", "namespace", namespace)
        yield {"what": "plain_apply", "seconds": asyncio.run(_plain(cp.kubeconfig, size))}
        # The resync as it is by default.
        with running_operator(cp, folder, ALISE_RESYNC_SECONDS="15") as operator:
            eventually("the operator acts", operator.is_active)
            time.sleep(5.0)
            yield {"what": "memory", "when": "empty", "mb": memory_mb(operator, "VmRSS")}
            before = len(requests(log))
            cpu, seconds = _cpu_seconds(operator), asyncio.run(_converged(cp.kubeconfig, size))
            yield {"what": "converge", "seconds": seconds, "cpu_seconds": _cpu_seconds(operator) - cpu}
            yield {"what": "requests", "when": "converging", "by": Counter(requests(log)[before:])}
            asyncio.run(_settled(cp.kubeconfig, operator))
            before, cpu = len(requests(log)), _cpu_seconds(operator)
            time.sleep(WATCHED_SECONDS)
            found = requests(log)[before:]
            yield {"what": "requests", "when": "quiet", "seconds": WATCHED_SECONDS, "by": Counter(found),
                   "cpu_seconds": _cpu_seconds(operator) - cpu}  # fmt: skip
            for seconds in asyncio.run(_edits(cp.kubeconfig, size)):
                yield {"what": "edit", "seconds": seconds}
            yield {"what": "memory", "when": "peak", "mb": memory_mb(operator, "VmHWM")}
            yield {"what": "memory", "when": "end", "mb": memory_mb(operator, "VmRSS")}


def _resource(number: int, namespace: str) -> dict[str, Any]:
    return engine(f"of-{number:04}", namespace)


async def _plain(kubeconfig: Path, size: int) -> float:
    """Seconds to apply the children of that many AliseEngines, without any."""
    async with HttpKube(kubeconfig) as kube:
        cluster = await kube.discover(Images())
        given = []
        for number in range(size):
            name = f"of-{number:04}"
            made = children(parse(_resource(number, PLAIN)["spec"]), Owner(name, PLAIN, "none"), cluster)
            for child in made:
                # The garbage collector would delete the children of an owner that does not exist.
                del child["metadata"]["ownerReferences"]
                # The operator, which is started later, would take them for its own.
                child["metadata"]["labels"][MANAGED_BY] = PLAIN
            given.append(made)

        async def apply(made: Sequence[dict[str, Any]]) -> None:
            for child in made:
                await kube.apply(_kind(child), child)

        return await _until_seen(kube, PLAIN, f"{MANAGED_BY}={PLAIN}", [lambda made=made: apply(made) for made in given])  # type: ignore[misc]


def _kind(child: dict[str, Any]) -> Resource:
    return next(one for one in OWNED_KINDS[child["kind"]] if one.group_version == child["apiVersion"])


async def _in_turns(work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Does all of it, as many at a time as the operator has workers."""
    left = iter(work)

    async def worker() -> None:
        for one in left:
            await one()

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


async def _converged(kubeconfig: Path, size: int) -> float:
    """Seconds from the first `create` until the children of all AliseEngines exist."""
    async with HttpKube(kubeconfig) as kube:
        work = [lambda number=number: kube.create(ENGINES, _resource(number, SCALED)) for number in range(size)]
        return await _until_seen(kube, SCALED, OURS, work)


async def _until_seen(kube: HttpKube, namespace: str, labels: str, work: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """Seconds from the first of the work until there is a child of each kind for each piece of it.

    Watches look on, because each look at a thousand objects, or at the operator's metrics, would take time from the operator.
    """
    watching = [asyncio.create_task(_until_there(kube, OWNED_KINDS[kind][0], namespace, labels, len(work))) for kind in KINDS]
    # The watches begin before the first child.
    await asyncio.sleep(1.0)
    began = time.monotonic()
    await _in_turns(work)
    async with asyncio.timeout(CONVERGE_SECONDS):
        await asyncio.gather(*watching)
    return time.monotonic() - began


async def _until_there(kube: HttpKube, resource: Resource, namespace: str, labels: str, size: int) -> None:
    """Until that many objects of the kind have been created."""
    names = set[str]()
    async for thing in _changes(kube, resource, namespace, labels):
        names.add(thing["metadata"]["name"])
        if len(names) == size:
            return


async def _changes(kube: HttpKube, resource: Resource, namespace: str, labels: str = "") -> AsyncIterator[dict[str, Any]]:
    """Each change of an object of the kind from now on."""
    since = await kube.version(resource, namespace, labels=labels)
    while True:
        # The API server ends each watch after some minutes.
        async for thing in kube.watch(resource, namespace, labels=labels, since=since):
            since = thing["metadata"]["resourceVersion"]
            if "name" in thing["metadata"]:
                yield thing


async def _settled(kubeconfig: Path, operator: OperatorProcess) -> None:
    """Until no AliseEngine has changed for a while and none waits in the operator's queue."""
    async with HttpKube(kubeconfig) as kube, asyncio.timeout(CONVERGE_SECONDS):
        changes = asyncio.Queue[str]()

        async def watch() -> None:
            async for thing in _changes(kube, ENGINES, SCALED):
                changes.put_nowait(thing["metadata"]["name"])

        async def waiting() -> float:
            if watching.done():
                # With the error that ended it.
                watching.result()
            return queue_length(await asyncio.to_thread(operator.get, "/metrics"))

        watching = asyncio.create_task(watch())
        await quiet(changes, waiting, QUIET_SECONDS, AGAIN_SECONDS)
        watching.cancel()


async def quiet(changes: asyncio.Queue[str], waiting: Callable[[], Awaitable[float]], quiet_seconds: float, again_seconds: float) -> None:
    """Until nothing has changed for the first time and nothing waits; that is asked only then, and again after the second time."""
    seconds = quiet_seconds
    while True:
        try:
            await asyncio.wait_for(changes.get(), seconds)
            seconds = quiet_seconds
        except TimeoutError:
            if not await waiting():
                return
            seconds = again_seconds


def queue_length(metrics: str) -> float:
    """How many AliseEngines wait in the operator's queue, in the text of its metrics."""
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("alise_operator_queue_length "))


def requests(log: Path) -> list[str]:
    """The operator's requests so far, as `verb resource`. A watch that is open is not among them yet."""
    found = []
    with log.open() as lines:
        for line in lines:
            with_object = json.loads(line)
            what = with_object.get("objectRef") or {}
            path = "/".join(filter(None, (what.get("resource"), what.get("subresource")))) or with_object["requestURI"].partition("?")[0]
            is_dry = "dryRun=" in with_object["requestURI"]
            found.append(f"{with_object['verb']} {path}{' (dry run)' if is_dry else ''}")
    return found


async def _edits(kubeconfig: Path, size: int) -> list[float]:
    """For each edit, seconds until the Deployment has it. One after another, on AliseEngines drawn by a fixed seed."""
    rng, found = random.Random(0), []
    async with HttpKube(kubeconfig) as kube:
        for number in itertools.islice(itertools.count(), EDITS):
            name, seconds = f"of-{rng.randrange(size):04}", 100 + number
            began = time.monotonic()
            await kube.patch(ENGINES, SCALED, name, {"spec": {"drainSeconds": seconds}})
            while True:
                there = await kube.get(DEPLOYMENTS, SCALED, name)
                if there["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= seconds:
                    break
                if time.monotonic() - began > EDIT_SECONDS:
                    raise TimeoutError(f"an edit of {name} did not reach its Deployment within {EDIT_SECONDS:.0f} s")
                await asyncio.sleep(LOOK_SECONDS)
            found.append(time.monotonic() - began)
            # So that edits do not always come at the same moment of the clock's rounds.
            await asyncio.sleep(rng.uniform(0.0, 0.4))
    return found


def memory_mb(operator: OperatorProcess, field: str) -> float:
    """VmRSS, the memory of the process, or VmHWM, the most that it has had."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _cpu_seconds(operator: OperatorProcess) -> float:
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The figures of the largest size, and how time and memory grow over the sizes."""
    mine = [row for row in rows if row.get("resources")]
    sizes = sorted({row["resources"] for row in mine})

    def value(what: str, size: int, field: str, **more: str) -> float:
        wanted = {"what": what, "resources": size, **more}
        return float(next(row[field] for row in mine if wanted.items() <= row.items()))

    most = sizes[-1]
    quiet = {size: _per_minute(mine, size) for size in sizes}
    edits = [row["seconds"] for row in mine if row["what"] == "edit" and row["resources"] == most]
    grown = {size: value("memory", size, "mb", when="peak") - value("memory", size, "mb", when="empty") for size in sizes}
    return [
        Figure(f"converge_ratio_{most}", value("converge", most, "seconds") / value("plain_apply", most, "seconds"), "", "lower", 1.5),
        *(Figure(f"converge_seconds_{size}", value("converge", size, "seconds"), "s", "lower") for size in sizes),
        *(Figure(f"plain_apply_seconds_{size}", value("plain_apply", size, "seconds"), "s", "lower") for size in sizes),
        Figure("edit_p50_s", percentile(edits, 0.5), "s", "lower"),
        Figure("edit_p99_s", percentile(edits, 0.99), "s", "lower", 1.0),
        Figure("operator_rss_mb", value("memory", most, "mb", when="peak"), "MB", "lower", 250),
        Figure("operator_rss_empty_mb", value("memory", most, "mb", when="empty"), "MB", "lower"),
        *(Figure(f"requests_per_resource_minute_{size}", quiet[size], "", "lower", 1.0 if size == most else None) for size in sizes),
        Figure("quiet_cpu_share", value("requests", most, "cpu_seconds", when="quiet") / WATCHED_SECONDS, "cores", "lower"),
        Figure("converge_growth", exponent({size: value("converge", size, "seconds") for size in sizes}), "power of n", "lower", 1.1),
        Figure("memory_growth", exponent(grown), "power of n", "lower", 1.1),
    ]  # fmt: skip


def _per_minute(rows: Sequence[Row], size: int) -> float:
    row = next(row for row in rows if row["what"] == "requests" and row["when"] == "quiet" and row["resources"] == size)
    return float(sum(row["by"].values()) / size * 60 / row["seconds"])


def exponent(values: dict[int, float]) -> float:
    """The slope of a line through the logarithms: 1 for what grows with the number, 2 for what grows with its square."""
    sizes, grown = [math.log(size) for size in values], [math.log(value) for value in values.values()]
    return float(linear_regression(sizes, grown).slope)
