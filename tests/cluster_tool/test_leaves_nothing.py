"""Whatever happens to a cluster, `down` leaves the machine as it was.

Each test has a network namespace and a cache of its own, so that what it compares is not changed by others, and a cluster that is in
use on this machine is not touched.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import build, cgroups
from tests.cluster.commands import run
from tests.cluster.footprint import BUILT_IN_PATHS, SYSCTLS, cgroup_name
from tests.cluster.node import PAUSE_IMAGE
from tests.cluster.programs import kubectl_path
from tests.cluster.state import State

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]
UP_SECONDS = 240.0
# A documentation range: the node's address inside of the namespace.
ADDRESS = "198.51.100.2/24"


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace and a cache, and the tool in them."""

    namespace: str
    cache: Path

    @property
    def state(self) -> Path:
        return self.cache / "clusters" / "local"

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *argv]

    def environment(self) -> dict[str, str]:
        return {**{key: value for key, value in os.environ.items() if key != "KUBECONFIG"}, "ALISE_CACHE": str(self.cache)}

    def tool(self, *arguments: str) -> str:
        done = subprocess.run(
            self.inside(sys.executable, "-m", "tests.cluster", *arguments),
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_tool(self, *arguments: str) -> "subprocess.Popen[bytes]":
        argv = self.inside(sys.executable, "-m", "tests.cluster", *arguments)
        return subprocess.Popen(argv, cwd=ROOT, env=self.environment(), stderr=subprocess.DEVNULL)

    def kubectl(self, *arguments: str) -> str:
        return run(self.inside(kubectl_path(), "--kubeconfig", str(self.state / "admin.kubeconfig"), *arguments), timeout_seconds=120)

    def start_pod(self) -> None:
        self.kubectl("run", "idle", f"--image={PAUSE_IMAGE}", "--restart=Never", "--port=80")
        self.kubectl("wait", "--for=condition=Ready", "pod/idle", "--timeout=60s")

    def processes(self) -> list[str]:
        """Those that mention this cache in their environment or command line, the test's own aside."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(self.cache).encode() in words:
                found.append(f"{entry.name} {(entry / 'cmdline').read_text(errors='replace')}")
        return found

    def footprint(self) -> dict[str, object]:
        """All that a cluster could leave on the machine."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        paths = (str(self.cache), *BUILT_IN_PATHS)
        tops = cgroups.hierarchies("\n".join(mounts))
        return {
            "processes": self.processes(),
            "mounts": [line for line in mounts if line.split()[1].startswith(paths) and self.namespace not in line],
            "links": [line.split(":")[1] for line in run(self.inside("ip", "-o", "link"), timeout_seconds=10).splitlines()],
            "routes": run(self.inside("ip", "-4", "route", "show", "table", "all"), timeout_seconds=10),
            "rules": [run(self.inside(command), timeout_seconds=10) for command in ("iptables-save", "ip6tables-save")],
            "control groups": [str(top) for top in tops if (top / cgroup_name(State(self.state))).exists()],
            "settings": {name: _read(self.inside("cat", f"/proc/sys/{name}")) for name in SYSCTLS if name.startswith("net/")},
            "built-in paths": {path: Path(path).exists() for path in BUILT_IN_PATHS},
            "clusters": sorted(path.name for path in (self.cache / "clusters").glob("*") if path.is_dir()),
        }


def _read(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    binaries = build.build().folder
    cache = tmp_path / "cache"
    (cache / "kubernetes").mkdir(parents=True)
    (cache / "kubernetes" / build.build_dir().name).symlink_to(binaries.parent)
    made = Place(f"alise-test-{os.getpid()}", cache)
    run(["ip", "netns", "add", made.namespace], timeout_seconds=10)
    try:
        for command in (
            "link set lo up",
            "link add wire type veth peer name wire-end",
            "link set wire-end up",
            f"address add {ADDRESS} dev wire",
            "link set wire up",
            "route add default dev wire",
        ):
            run(made.inside("ip", *command.split()), timeout_seconds=10)
        yield made
    finally:
        try:
            made.tool("down")
        finally:
            run(["ip", "netns", "delete", made.namespace], timeout_seconds=10)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the start did not get that far"
        time.sleep(0.02)


def lasting(place: Place) -> list[str]:
    """The processes, once two looks in a row find the same ones: some live for a moment only."""
    looks = [place.processes()]

    def two_alike() -> bool:
        looks.append(place.processes())
        return looks[-1] == looks[-2]

    wait_for(two_alike)
    return looks[-1]


def test_down_after_a_pod_ran_leaves_nothing(place: Place) -> None:
    before = place.footprint()
    place.tool("up")
    place.start_pod()
    place.tool("down")
    assert place.footprint() == before


@pytest.mark.parametrize(
    "reached",
    [
        pytest.param("footprint.json", id="right after the record was written"),
        pytest.param("logs/kube-apiserver.log", id="while the API server starts"),
        pytest.param("logs/containerd.log", id="while containerd starts"),
        pytest.param("logs/kube-proxy.log", id="while the node registers"),
    ],
)
def test_down_after_the_start_was_killed_leaves_nothing(place: Place, reached: str) -> None:
    before = place.footprint()
    starting = place.start_tool("up")
    wait_for(lambda: (place.state / reached).exists())
    starting.send_signal(signal.SIGKILL)
    starting.wait(timeout=10)
    place.tool("down")
    assert place.footprint() == before


def test_down_after_containerd_was_killed_under_a_running_pod_leaves_nothing(place: Place) -> None:
    before = place.footprint()
    place.tool("up")
    place.start_pod()
    for line in place.processes():
        pid, _, command = line.partition(" ")
        if command.startswith(("containerd\0", "/usr/bin/containerd\0")):
            os.kill(int(pid), signal.SIGKILL)
    place.tool("down")
    assert place.footprint() == before


def test_up_after_everything_was_killed_makes_a_fresh_cluster(place: Place) -> None:
    before = place.footprint()
    place.tool("up")
    place.start_pod()
    for line in place.processes():
        with contextlib.suppress(ProcessLookupError):  # some live for a moment only
            os.kill(int(line.split()[0]), signal.SIGKILL)
    place.tool("up")
    assert place.kubectl("get", "pods", "--ignore-not-found") in ("", "No resources found in default namespace.\n")
    place.start_pod()
    place.tool("down")
    assert place.footprint() == before


def test_a_second_up_changes_nothing(place: Place) -> None:
    place.tool("up")
    first = lasting(place)
    place.tool("up")
    assert lasting(place) == first
