"""A real API server with the real operator process against it, running with the rights of its own ServiceAccount and no others.

The fixtures of `conftest.py` and the benchmarks of the operator in `tests/bench` start it.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from alise_operator.crd import custom_resource_definition
from tests.cluster.access import Access
from tests.cluster.control_plane import ControlPlane
from tests.cluster.gateway import gateway_api
from tests.operator.old_crd import crd_without_rules

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "manifests"
CONTAINERS = ("engine", "scheduler")
T = TypeVar("T")
Object = dict[str, Any]


def eventually(what: str, probe: Callable[[], T | None], *, seconds: float = 60.0) -> T:
    """The first true answer of the probe. Raises AssertionError that says what did not happen, and the last answer."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        last = probe()
        if last:
            return last
        time.sleep(0.1)
    raise AssertionError(f"within {seconds:.0f} s: {what}; last seen: {last!r}")


def whole_lines(log: Path) -> list[str]:
    """The lines of a file that a process writes, without one that it is just writing."""
    return [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def install_crd(cp: ControlPlane) -> None:
    """The CRD as a user installs it; without CEL rules, which kubectl refuses on old servers."""
    minor = int(cp.access.get("/version")["gitVersion"].split(".")[1])
    cp.access.apply(custom_resource_definition() if minor >= 25 else crd_without_rules())
    cp.access.kubectl("wait", "--for=condition=Established", "crd/aliseengines.alise.dev", "--timeout=30s")
    cp.access.learn_kinds()


def install(cp: ControlPlane) -> None:
    """CRD and RBAC as a user installs them."""
    install_crd(cp)
    for name in ("namespace", "rbac"):
        cp.access.kubectl("apply", "-f", str(MANIFESTS / "operator" / f"{name}.yaml"))
    gateway_api.ensure_classes(cp.access)


def install_into(cp: ControlPlane, namespace: str) -> None:
    """The account and the Roles of an operator for this namespace alone, which has no right in the cluster."""
    documents = yaml.safe_load_all((MANIFESTS / "operator" / "rbac.yaml").read_text())
    shared = [one for one in documents if one["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    own = list(yaml.safe_load_all((MANIFESTS / "overlays" / "namespaced" / "rbac.yaml").read_text()))
    text = yaml.safe_dump_all([*shared, *own]).replace("namespace: alise-system", f"namespace: {namespace}")
    cp.access.kubectl("apply", "-f", "-", text_in=text)


def operator_environment(cp: ControlPlane, namespace: str = "") -> dict[str, str]:
    """The environment of an operator with the rights of its ServiceAccount; with a namespace, of one for it alone."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    return env | {
        "KUBECONFIG": str(cp.kubeconfig_for(namespace or "alise-system", "alise-operator")),
        "ALISE_HTTP_HOST": "127.0.0.1",
        "ALISE_HTTP_PORT": "0",
        "ALISE_PAGE_PORT": "0",
        "ALISE_RESYNC_SECONDS": "1",
        "ALISE_WATCH_NAMESPACE": namespace,
    }


@contextmanager
def running_operator(
    cp: ControlPlane, folder: Path, *, namespace: str = "", module: str = "alise_operator", **settings: str
) -> Iterator["OperatorProcess"]:
    """The operator, as its ServiceAccount, from here to the end of the block.

    `namespace`: looks after this one alone, with the rights that `install_into` gave; `settings`: further environment variables.
    """
    log = folder / f"operator-{time.monotonic_ns()}.log"
    env = operator_environment(cp, namespace)
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", module], env=env | settings, stdout=out, stderr=out)
        try:
            operator = OperatorProcess(process, log)
            eventually("the operator serves", operator.port)
            yield operator
        finally:
            operator_end(process)


def operator_end(process: subprocess.Popen[bytes]) -> None:
    """Ends it as a kubelet does; it may have ended."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)


class OperatorProcess:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def lines(self) -> list[Object]:
        """Its log, one JSON object per line."""
        return [json.loads(line) for line in whole_lines(self._log) if line.strip()]

    def port(self) -> int | None:
        if self.process.poll() is not None:
            raise AssertionError(f"the operator ended with {self.process.returncode}: {self._log.read_text()[-3000:]}")
        started = [json.loads(line) for line in whole_lines(self._log) if '"operator started"' in line]
        return int(started[0]["port"]) if started else None

    def said(self, message: str) -> bool:
        """Whether its log has a line with this message."""
        return any(line.get("message") == message for line in self.lines())

    def is_active(self) -> bool:
        return "\nalise_operator_active 1.0\n" in self.get("/metrics")

    def forbidden(self) -> list[str]:
        """Lines of its log that say that a right is missing. A namespace that goes away takes its Roles with it."""
        return [text for line in self.lines() if "forbidden" in (text := json.dumps(line)) and "being terminated" not in text]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def reconciles(self, outcome: str | None = None) -> float:
        """How many reconciles have ended, in all or with this outcome."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith("alise_operator_reconciles_total{")]
        return sum(float(line.split()[-1]) for line in lines if outcome is None or f'outcome="{outcome}"' in line)


class Engine:
    """One AliseEngine in a namespace of its own, and what the cluster holds around it."""

    def __init__(self, access: Access, namespace: str, name: str = "tiny") -> None:
        self.access, self.namespace, self.name = access, namespace, name

    def kubectl(self, *arguments: str, text_in: str | None = None) -> str:
        return self.access.kubectl("-n", self.namespace, *arguments, text_in=text_in)

    def apply(self, **changes: Any) -> None:
        """The CPU sample with some fields of its spec replaced."""
        resource = yaml.safe_load((MANIFESTS / "samples" / "tiny.yaml").read_text())
        resource["metadata"]["name"] = self.name
        # A host of its own: the engines of other tests may still have theirs.
        resource["spec"]["route"]["hosts"] = [f"{self.name}.{self.namespace}.test"]
        resource["spec"] |= changes
        self.kubectl("apply", "-f", "-", text_in=json.dumps(resource))

    def patch(self, spec: Object) -> None:
        self.kubectl("patch", f"alise/{self.name}", "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self) -> Object:
        return self.one("aliseengines.alise.dev")

    def one(self, kind: str) -> Object:
        """The object of the kind that is named like the engine; empty when there is none."""
        # `-o json` has the managed fields or has them not, by the version of kubectl.
        text = self.kubectl("get", kind, self.name, "-o", "jsonpath={$}", "--ignore-not-found")
        found: Object = json.loads(text) if text.strip() else {}
        return found

    def child(self, kind: str) -> Object:
        return eventually(f"{kind} {self.name} exists", lambda: self.one(kind) or None)

    def condition(self, kind: str) -> Object:
        found = self.get().get("status", {}).get("conditions", ())
        return next((one for one in found if one["type"] == kind), {})

    def until(self, kind: str, status: str, reason: str) -> Object:
        """The condition, once it has that status and reason."""

        def probe() -> Object | None:
            condition = self.condition(kind)
            generation = self.get()["metadata"]["generation"]
            fits = (condition.get("status"), condition.get("reason")) == (status, reason)
            return condition if fits and condition["observedGeneration"] == generation else None

        try:
            return eventually(f"condition {kind} is {status} {reason}", probe)
        except AssertionError as error:
            raise AssertionError(f"{error}; conditions: {json.dumps(self.get().get('status'))}") from None

    def events(self) -> list[Object]:
        uid = self.get()["metadata"]["uid"]
        listed = json.loads(self.kubectl("get", "events", "--field-selector", f"involvedObject.uid={uid}", "-o", "json"))
        return list(listed["items"])

    def pods(self) -> list[Object]:
        listed = json.loads(self.kubectl("get", "pods", "-l", f"alise.dev/engine={self.name}", "-o", "json"))
        return list(listed["items"])

    def wait_for_pods(self, count: int) -> list[Object]:
        return eventually(f"{count} pods exist", lambda: pods if len(pods := self.pods()) == count else None)

    def set_pod_status(self, pod: str, status: Object) -> None:
        """Says of a pod what a kubelet would say."""
        self.access.patch(f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status", {"status": status})

    def make_ready(self, pod: Object) -> None:
        """The pod runs, as a kubelet would report it."""
        name, now = pod["metadata"]["name"], "2026-01-01T00:00:00Z"
        containers = [
            {
                "name": container,
                "image": "x",
                "imageID": "x",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in CONTAINERS
        ]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("PodScheduled", "ContainersReady", "Ready")]
        self.set_pod_status(name, {"phase": "Running", "conditions": conditions, "containerStatuses": containers})
