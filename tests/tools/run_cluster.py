"""The parts of `make run` that touch the cluster: bring it up, fill it, install the operator, apply the sample, wait."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from alise_contract.names import ENGINE_CONTAINER, ENGINE_LABEL
from tests.cluster import cluster, image_build, images, packages
from tests.cluster.access import Access, user_cluster
from tests.cluster.cluster import Tier
from tests.cluster.errors import ClusterError, UnsupportedMachine
from tests.cluster.gateway import gateway_api
from tests.cluster.image_manifests import Registry, with_registry
from tests.cluster.progress import say, step
from tests.cluster.resource import Resource
from tests.cluster.state import named

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
SAMPLE = MANIFESTS / "samples" / "tiny.yaml"
NAMESPACE = "default"
NAME = "tiny"
READY_SECONDS = 420.0
OPERATOR_SECONDS = 60.0
CRASHING_SECONDS = 60.0
ROLLOUT_SECONDS = 180
POLL_SECONDS = 1.5
NEEDS = (
    "`make run` needs root on Debian 12 (2 cores and 24 GiB are what it was tried with), or a cluster of yours (KUBECONFIG=...) with a "
    "registry that it can pull from (IMAGE_REGISTRY=host/name); `make serve` runs without Kubernetes."
)


# For the user's own kubeconfig in one file; removed with the process.
_OWN_FOLDER = tempfile.TemporaryDirectory(prefix="alise-kubeconfig-")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the demo runs. `started_here`: this run brought the cluster up, so an interrupt takes it down."""

    access: Access
    belongs_to_user: bool
    started_here: bool
    registry: Registry | None


class ImageBuild:
    """`make images` in a process of its own, beside the start of the cluster: both are minutes of work when nothing is cached.

    A context, entered by the main thread. When the build fails, what the main thread does is interrupted by a ClusterError: it may be
    minutes of compiling, for nothing now.
    """

    def __init__(self, argv: Sequence[str] = (sys.executable, "-m", "tests.cluster.image_build")) -> None:
        self._argv = argv
        self._left = False
        self._failed = False

    def __enter__(self) -> "ImageBuild":
        """Start it; its lines appear as they come."""
        # Not SIGINT, which a shell has its background jobs ignore.
        self._handler_before = signal.signal(signal.SIGUSR1, self._interrupted)
        self._process = subprocess.Popen(
            self._argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End it if it still runs."""
        self._left = True
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(30)
        self._reader.join()
        signal.signal(signal.SIGUSR1, self._handler_before)

    def wait(self, timeout_seconds: float = 3600.0) -> None:
        """Return when the images are built. Raises ClusterError."""
        self._reader.join(timeout_seconds)
        if self._reader.is_alive():
            raise ClusterError(f"the images were not built within {timeout_seconds:.0f} s")
        if self._failed:
            self._interrupted()

    def _show(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            say(f"    images: {line.rstrip()}")
        self._failed = self._process.wait() != 0
        if self._failed and not self._left:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _interrupted(self, *_: object) -> NoReturn:
        raise ClusterError("the images could not be built, see above")


def bring_up(name: str) -> Target:
    """The user's own cluster, or ours of this name with the images in it. Raises ClusterError; UnsupportedMachine says what is needed."""
    where = os.environ.get("IMAGE_REGISTRY")
    own = user_cluster()
    if own is not None:
        access = Access(Path(own)).flattened(Path(_OWN_FOLDER.name) / "kubeconfig")
        registry = image_build.push(image_build.build(), where) if where else None
        if registry is None:
            say("IMAGE_REGISTRY is not set: your cluster must have alise's images already (`make images` prints how to load them)")
        return Target(access, belongs_to_user=True, started_here=False, registry=registry)
    try:
        packages.require_supported_machine()
    except UnsupportedMachine:
        raise UnsupportedMachine(NEEDS) from None
    state = named(name)
    started_here = not cluster.status(state).up
    try:
        with ImageBuild() as building:
            access = cluster.up(state, Tier.NODE)
            building.wait()
        archives = [Path(built.archive) for built in image_build.build() if built.archive]
        imported = images.import_images(state, archives)
    except BaseException:
        if started_here:
            cluster.down(state)
        raise
    target = Target(access, belongs_to_user=False, started_here=started_here, registry=None)
    if imported and not started_here:
        forget_old_pods(target)
    return target


def forget_old_pods(target: Target) -> None:
    """In a cluster that was up, pods of images with the same name and other content are started again."""
    if not target.access.kubectl("get", "crd", "aliseengines.alise.dev", "--ignore-not-found", "-o", "name"):
        return
    with step("remove the sample and the operator of older images"):
        gone = ("--ignore-not-found", "--wait=true", "--cascade=foreground")
        target.access.kubectl("delete", "alise", NAME, "-n", NAMESPACE, *gone, timeout_seconds=READY_SECONDS)
        target.access.kubectl("delete", "deployment", "alise-operator", "-n", "alise-system", *gone)


def install(target: Target) -> None:
    """CRD, RBAC and operator, as `kubectl apply -k manifests` does, and wait until the operator runs."""
    access = target.access
    with step("kubectl apply -k manifests"):
        text = with_registry(access.kubectl("kustomize", str(MANIFESTS)), target.registry)
        # Servers before 1.25 do not know the CRD's validation rules: kubectl would refuse them, the server drops them.
        access.kubectl("apply", "--validate=false", "-f", "-", text_in=text)
        access.kubectl("wait", "--for=condition=Established", "crd/aliseengines.alise.dev", "--timeout=30s")
        access.learn_kinds()
    if not target.belongs_to_user:
        # What comes with an ingress controller; the test gateway is one.
        gateway_api.ensure_classes(access)
    with step("operator is ready"):
        wait = f"--timeout={ROLLOUT_SECONDS}s"
        access.kubectl("-n", "alise-system", "rollout", "status", "deployment/alise-operator", wait, timeout_seconds=ROLLOUT_SECONDS + 10)


def apply_sample(target: Target) -> None:
    """`kubectl apply -f manifests/samples/tiny.yaml`; of one that is there already the number of replicas is put back."""
    text = with_registry(SAMPLE.read_text(encoding="utf-8"), target.registry)
    with step(f"kubectl apply -f {SAMPLE.relative_to(ROOT)}"):
        target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=text)


def scale(target: Target, replicas: int) -> None:
    """`kubectl scale`."""
    with step(f"kubectl scale alise/{NAME} --replicas={replicas}"):
        target.access.kubectl("scale", "-n", NAMESPACE, f"alise/{NAME}", f"--replicas={replicas}")


def wait_ready(target: Target, replicas: int) -> None:
    """Wait until this many pods serve, with a line that is updated. Raises ClusterError with the resource's own words at the deadline."""
    resource = Resource(target.access, NAME)
    began = time.monotonic()
    crashing_since = began
    shown = ""
    while True:
        ready = resource.ready_pods()
        condition = resource.condition("Ready")
        waited = time.monotonic() - began
        line = progress_line(len(ready), replicas, condition)
        if sys.stderr.isatty():
            print(f"\r\033[K  {line} ({waited:.0f} s)", end="", file=sys.stderr, flush=True)
        elif line != shown:
            say(f"  {waited:4.0f} s  {line}")
        shown = line
        if condition.get("status") == "True" and len(ready) == replicas == len(resource.pods()):
            break
        if not condition and waited > OPERATOR_SECONDS:
            logs = target.access.kubectl("-n", "alise-system", "logs", "deployment/alise-operator", "--tail=15")
            raise ClusterError(f"the operator has not reported on {NAME} for {OPERATOR_SECONDS:.0f} s. The end of its log:\n{logs}")
        if condition.get("reason") != "PodsCrashing":
            crashing_since = time.monotonic()
        if waited > READY_SECONDS or time.monotonic() - crashing_since > CRASHING_SECONDS:
            pods = target.access.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide")
            logs = target.access.kubectl("logs", "-n", NAMESPACE, "-l", f"{ENGINE_LABEL}={NAME}", "-c", ENGINE_CONTAINER, "--tail=15")
            raise ClusterError(f"{NAME} was not ready after {waited:.0f} s: {line}\n{resource.describe()}\n{pods}\n{logs}")
        time.sleep(POLL_SECONDS)
    if sys.stderr.isatty():
        say("")


def progress_line(ready: int, wanted: int, condition: dict[str, str]) -> str:
    """The line that is shown meanwhile."""
    if not condition:
        return f"{NAME}: the operator has not acted on the change yet"
    return f"{NAME}: {ready} of {wanted} pods ready; the resource says {condition['reason']}: {condition['message'].splitlines()[0][:110]}"
