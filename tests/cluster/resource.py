"""An AliseEngine in a cluster, as `make run` and the end-to-end tests use it: kubectl, its pods, and a client of the gateway."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from openai import OpenAI

from alise_contract.names import API_GROUP, ENGINE_CONTAINER, ENGINE_LABEL, ENGINE_PORT, PLURAL, SCHEDULER_CONTAINER, STATUS_PATH
from tests.cluster.access import Access

Seen = TypeVar("Seen")

NAMESPACE = "default"


def wait_until(what: str, look: Callable[[], Seen], timeout_seconds: float, every_seconds: float = 1.0) -> Seen:
    """The first truthy thing `look` returns. Raises TimeoutError that says what never came and what was seen last.

    A look may be a kubectl, which takes a third of a second of a core: more often, and waiting starves what is waited for.
    """
    ends = time.monotonic() + timeout_seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not happen within {timeout_seconds:.0f} s; last seen: {seen!r}")
        time.sleep(every_seconds)


@dataclass(frozen=True, slots=True)
class Resource:
    """One AliseEngine and its pods."""

    access: Access
    name: str

    def kubectl(self, *arguments: str, timeout_seconds: float = 60.0) -> str:
        return self.access.kubectl("-n", NAMESPACE, *arguments, timeout_seconds=timeout_seconds)

    def read(self) -> dict[str, Any]:
        return self.access.get(f"/apis/{API_GROUP}/v1alpha1/namespaces/{NAMESPACE}/{PLURAL}/{self.name}")

    def patch(self, spec: dict[str, Any]) -> None:
        """Merge-patch the spec."""
        self.kubectl("patch", "alise", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def describe(self) -> str:
        return self.kubectl("describe", "alise", self.name)

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition of the newest generation, or {} when the operator has not reported it yet."""
        resource = self.read()
        for condition in resource.get("status", {}).get("conditions", []):
            if condition["type"] == kind and condition["observedGeneration"] == resource["metadata"]["generation"]:
                return dict(condition)
        return {}

    def wait_condition(self, kind: str, status: str, timeout_seconds: float, reason: str | None = None) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            condition = self.condition(kind)
            matches = condition.get("status") == status and reason in (None, condition.get("reason"))
            return condition if matches else None

        try:
            found = wait_until(f"{kind}={status} ({reason or 'any reason'}) of {self.name}", look, timeout_seconds)
        except TimeoutError as error:
            pods = self.kubectl("get", "pods", "-o", "wide")
            raise TimeoutError(f"{error}\n{self.describe()}\n{pods}") from None
        assert found is not None
        return found

    def pods(self) -> list[dict[str, Any]]:
        """Pods of the resource that are not on their way out."""
        found = self.access.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={ENGINE_LABEL}%3D{self.name}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.pods() if _is_ready(pod))

    def only_pod(self) -> str:
        (name,) = self.ready_pods()
        return name

    def status(self, pod: str) -> dict[str, Any]:
        """The pod's StatusReport, through the API server; 64-bit numbers as int."""
        report = self.access.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{ENGINE_PORT}/proxy{STATUS_PATH}")
        return {key: _numbers(value) for key, value in report.items()}

    def counter(self, pod: str, name: str) -> int:
        return int(self.status(pod).get("counters", {}).get(name, 0))

    def requests_in_engine(self, pod: str) -> int:
        report = self.status(pod)
        return sum(int(report.get(f"requests_{phase}", 0)) for phase in ("running", "waiting", "offloaded"))

    def run_in_scheduler(self, pod: str, program: str, timeout_seconds: float = 60.0) -> str:
        """Run a Python program in the scheduler's container."""
        return self.kubectl("exec", pod, "-c", SCHEDULER_CONTAINER, "--", "python3", "-c", program, timeout_seconds=timeout_seconds)

    def engine_restarts(self, pod: str) -> int:
        found = self.access.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["status"]["containerStatuses"]
        return next(int(status["restartCount"]) for status in found if status["name"] == ENGINE_CONTAINER)


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _numbers(value: Any) -> Any:
    """Protobuf's JSON writes 64-bit integers as strings."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, str) and value.isdigit() else value


def openai_client(base_url: str, host: str, timeout_seconds: float = 300.0) -> OpenAI:
    """A client of the gateway that asks for the resource's host. No retries: a retried failure would hide a cut stream."""
    return OpenAI(base_url=f"{base_url}/v1", api_key="unused", default_headers={"Host": host}, max_retries=0, timeout=timeout_seconds)
