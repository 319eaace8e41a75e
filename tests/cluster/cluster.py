"""Bring a cluster up, take it down, say how it is. One lock per cluster, so that two commands never work on it at once.

`cli.py`, `tests/tools/run_cluster.py` and the fixtures of `tests/e2e` call it.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import build, control_plane, footprint, images, machine, node, packages, processes
from tests.cluster.access import Access, user_cluster
from tests.cluster.cache import locked
from tests.cluster.control_plane import Addresses
from tests.cluster.errors import ClusterError, CommandFailed
from tests.cluster.programs import Programs, control_plane_programs
from tests.cluster.progress import say, step
from tests.cluster.state import State, named


class Tier(StrEnum):
    """How much of a cluster."""

    CONTROL_PLANE = "control-plane"
    NODE = "node"


PROCESSES = {
    Tier.CONTROL_PLANE: frozenset(control_plane.NAMES),
    Tier.NODE: frozenset((*control_plane.NAMES, *node.NAMES)),
}


@dataclass(frozen=True, slots=True)
class Status:
    """What is there of a cluster. It is up when it has a tier, nothing of the tier is missing, and the API server answers."""

    state: State
    tier: Tier | None
    running: frozenset[str]
    answers: bool

    @property
    def missing(self) -> frozenset[str]:
        """Processes that should run and do not."""
        return PROCESSES[self.tier] - self.running if self.tier is not None else frozenset()

    @property
    def up(self) -> bool:
        """Whether it can be used."""
        return self.tier is not None and not self.missing and self.answers


def status(at: State) -> Status:
    """Look, and change nothing."""
    tier_file = at.folder / "tier"
    tier = Tier(tier_file.read_text(encoding="utf-8")) if tier_file.exists() else None
    running = frozenset(process.name for process in processes.find(at))
    return Status(at, tier, running, _answers(at) if at.kubeconfig.exists() and running else False)


def _answers(at: State) -> bool:
    try:
        return Access(at.kubeconfig).kubectl("get", "--raw", "/readyz", "--request-timeout=5s", timeout_seconds=10) == "ok"
    except CommandFailed:
        return False


def up(at: State, tier: Tier) -> Access:
    """Bring the cluster up and return access to it; nothing is done when it is up already (a whole node serves as control plane too).

    What is left of a crash, or of the other tier, is taken down first. A start that fails leaves nothing.
    """
    with locked(at.lock):
        now = status(at)
        if now.up and now.tier in (tier, Tier.NODE):
            say(f"cluster {at.folder.name} is up already")
            return Access(at.kubeconfig)
        if at.folder.exists():
            say(f"cluster {at.folder.name}: cleaning up what is left of it")
            _clean(at)
        if tier is Tier.NODE:
            packages.require_supported_machine()
            packages.install((*packages.CONTROL_PLANE, *packages.NODE, *packages.BUILD))
        programs = control_plane_programs()
        binaries = build.build() if tier is Tier.NODE else None
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            return _start(at, programs, binaries, running)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                _keep_logs(at)
            _clean(at)
            raise


def _start(at: State, programs: Programs, binaries: build.Binaries | None, running: dict[str, "subprocess.Popen[bytes]"]) -> Access:
    at.create()
    if binaries is None:
        with step("start the control plane"):
            started = control_plane.start(at, programs, Addresses(), running)
    else:
        address = machine.node_address()
        changed = footprint.prepare(at)
        with step("start the control plane"):
            addresses = Addresses(address, address, changed.services, changed.first_service)
            started = control_plane.start(at, programs, addresses, running)
        with step("start the node"):
            node.start(node.Node(at, binaries, changed, started, address), running)
    (at.folder / "tier").write_text(Tier.CONTROL_PLANE if binaries is None else Tier.NODE, encoding="utf-8")
    return started.access


def down(at: State) -> None:
    """Take the cluster down: no process, mount, link, rule, control group or file of it is left, after any crash. The caches stay."""
    control_plane.sweep()
    with locked(at.lock):
        if not at.folder.exists():
            say(f"cluster {at.folder.name} is not there")
            return
        with step(f"take cluster {at.folder.name} down"):
            _clean(at)


def _clean(at: State) -> None:
    # kubelet first, or it would start again what ends; the folder last, since it says what there is to undo.
    processes.end(at, ["kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager"])
    processes.end(at)
    changed = footprint.load(at)
    if changed is not None:
        footprint.undo(changed)
    at.remove()
    if at.folder.exists():
        raise ClusterError(f"{at.folder} could not be removed; is something mounted or open in it?")


def _keep_logs(at: State) -> None:
    kept = at.folder.with_name(f"{at.folder.name}-failed-logs")
    shutil.rmtree(kept, ignore_errors=True)
    if at.logs.exists():
        shutil.copytree(at.logs, kept)
        say(f"logs of the failed start are in {kept}")


class NodeCluster:
    """The whole node for the length of a `with` block, with images in it.

    With `KUBECONFIG` set it is the user's cluster, whose images the user has loaded. A cluster that is up already is used and left up.
    """

    def __init__(self, archives: Sequence[Path] = (), name: str | None = None) -> None:
        """Start nothing yet. `archives` are image archives to import."""
        self._archives = archives
        self._state = named(name) if name is not None else named()
        self._started_here = False
        self._own = user_cluster()
        self._access: Access | None = None

    def __enter__(self) -> Self:
        """Bring it up if it is not, and import what it does not have."""
        if self._own is not None:
            self._access = Access(Path(self._own))
            return self
        self._started_here = not status(self._state).up
        self._access = up(self._state, Tier.NODE)
        try:
            images.import_images(self._state, self._archives)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take it down if it was not up before."""
        if self._started_here:
            down(self._state)

    @property
    def access(self) -> Access:
        """kubectl and more, as administrator. Raises ClusterError outside of the block."""
        if self._access is None:
            raise ClusterError("the cluster is not up: use it inside `with NodeCluster() as cluster:`")
        return self._access

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.access.kubeconfig
