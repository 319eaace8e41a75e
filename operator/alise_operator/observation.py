"""The cluster's report on one AliseEngine as values, and the conversion of API objects and of a pod's status report to them.

Pure: observe.py fetches the objects and pods.py the pods; status.py decides what the report means for the conditions.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format

from alise_contract.names import ENGINE_CONTAINER
from alise_contract.v1.engine_control_pb2 import ENCODER_STATE_MISSING, AdapterState, StatusReport
from alise_operator.children.meta import DELETION_COST_ANNOTATION, TEMPLATE_ANNOTATION, Manifest
from alise_operator.endings import Ending, is_success, view_ending, wrong_image
from alise_operator.kv_cache import LEAST_SECONDS, KvReport, Window
from alise_operator.missing_secrets import REASON as MISSING_SECRET
from alise_operator.missing_secrets import Gap, gap
from alise_operator.predicted_work import Work, view_work
from alise_operator.refused_pods import explain as explain_refusal
from alise_operator.scheduling import advice
from alise_operator.sentences import clause, words

_IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that keeps a pod or the Deployment from working: a one-word reason and a message that quotes the cluster."""

    reason: str
    message: str
    # The Secret that a pod waits for, if that is the reason.
    gap: Gap | None = None
    # How a container ended, if the events of the pod may still tell why.
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What a pod says about one LoRA adapter."""

    name: str
    # The version of the adapter, as `Adapter.source` has it.
    source: str
    # The name of an AdapterState; a number for one of a later contract.
    state: str
    # Why it could not be loaded.
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodReport:
    """A pod's status report: the fields of the contract's StatusReport that conditions need."""

    boot_id: str
    contract_version: int
    sidecar_connected: bool
    plan_fresh: bool
    # Engine and scheduler use different contract versions; the version is the scheduler's, 0 if unknown.
    contract_refused: bool
    refused_contract_version: int
    # The predictor has no encoder that works.
    encoder_missing: bool
    # API keys are required, but there is none.
    lacks_api_keys: bool
    recent_requests: int
    recent_failed_open: int
    # Totals since the engine started.
    failed_open_by_reason: tuple[tuple[str, int], ...]
    host_limit_bytes: int
    host_used_bytes: int
    # None if it has no KV cache or is of a release that does not report it.
    kv: KvReport | None = None
    # None if its scheduler has no fresh plan, or if it is of a release that does not report it.
    work: Work | None = None
    adapters: tuple[AdapterReport, ...] = ()
    requests_running: int = 0
    requests_waiting: int = 0
    # Preempted requests whose KV cache is in host memory.
    requests_offloaded: int = 0

    @property
    def is_ranked(self) -> bool:
        """Whether the scheduler is connected and its plan is applied."""
        return self.sidecar_connected and self.plan_fresh


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    uid: str
    address: str
    ready: bool
    terminating: bool
    # Scheduled but not ready, and no container status explains why.
    silent: bool
    # The engine's process runs; it may not serve yet.
    running: bool = False
    # The engine has answered since its container started, so there may be open streams.
    served: bool = False
    troubles: tuple[Trouble, ...] = ()
    report: PodReport | None = None
    # Why a ready pod has no report.
    report_error: str | None = None
    # Consecutive polls that found requests unranked.
    unranked_polls: int = 0
    host_full: bool = False
    # Why requests of the last minute were admitted without a rank; empty if there were none or the reason is not known yet.
    failed_open_reasons: tuple[str, ...] = ()
    # The use of its KV cache in the last minutes; None if not known yet.
    kv: Window | None = None
    # Ended for good (evicted, refused by its node): another pod replaces it, and its object remains.
    ended: bool = False
    # The template that it was created from.
    template: str = ""
    # Its annotation pod-deletion-cost; empty if it has none.
    deletion_cost: str = ""
    # Empty until it is scheduled.
    node: str = ""
    # Of all its containers.
    restarts: int = 0
    # As the API server writes it.
    created: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment as its controller sees it."""

    # The controller has seen the newest spec.
    observed: bool
    desired: int
    replicas: int
    updated: int
    ready: int
    # The rollout has made no progress for longer than a pod may take to start.
    stalled: bool
    troubles: tuple[Trouble, ...] = ()
    # The template of the newest spec.
    template: str = ""
    # A rollout starts a new pod before it stops an old one.
    surges: bool = True
    # The resource version of the Deployment.
    version: str = ""

    def pods(self) -> dict[str, int]:
        """Returns the number of pods by state, for metrics."""
        return {"desired": self.desired, "updated": self.updated, "ready": self.ready}


@dataclass(frozen=True, slots=True)
class Observation:
    workload: Workload | None
    pods: tuple[Pod, ...] = ()
    # Troubles of other objects that the AliseEngine names.
    troubles: tuple[Trouble, ...] = ()
    # There are more pods than were checked.
    is_cut: bool = False

    @property
    def kv_windows(self) -> tuple[Window | None, ...]:
        """Returns the use of each KV cache that is reported; None for each that has not been reported for long enough."""
        return tuple(pod.kv for pod in self.pods if not pod.terminating and pod.report is not None and pod.report.kv is not None)

    @property
    def kv_silence(self) -> str:
        """Returns why the KV cache of no pod is known."""
        pods = [pod for pod in self.pods if not (pod.terminating or pod.ended)]
        if not pods:
            return f"no pod is running; the KV cache is judged once a pod has reported its use for {LEAST_SECONDS / 60:.0f} minutes"
        if any(pod.report_error is not None for pod in pods):
            return "the operator cannot read the KV cache usage of the pods; the condition Degraded says why (StatusUnavailable)"
        if not any(pod.ready for pod in pods):
            return "no pod is ready, so no pod reports its KV cache yet"
        if any(pod.report is not None for pod in pods):
            return "no pod reports its KV cache: the model has none, or the engine's image is of an older release"
        return "the operator has not read the KV cache usage of any pod yet"


def view_workload(deployment: Manifest) -> Workload:
    status = deployment.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    refusal = explain_refusal(failure.get("message", ""), deployment["metadata"].get("namespace", ""))
    troubles = (Trouble("PodsRefused", refusal),) if failure.get("status") == "True" else ()
    return Workload(
        observed=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
        desired=deployment["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        stalled=progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded",
        troubles=troubles,
        template=_template(deployment["spec"].get("template", {})),
        surges=deployment["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 1) != 0,
        version=str(deployment["metadata"].get("resourceVersion", "")),
    )


def _template(pod: Manifest) -> str:
    return str((pod.get("metadata", {}).get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))


def view_pod(pod: Manifest) -> Pod:
    meta, status = pod["metadata"], pod.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    ready = conditions.get("Ready", {}).get("status") == "True"
    terminating = "deletionTimestamp" in meta
    troubles = () if ready or terminating else tuple(_troubles(pod, status, conditions))
    started = any(one.get("started") or "running" in one.get("state", {}) for one in _containers(status))
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        address=status.get("podIP", ""),
        ready=ready,
        terminating=terminating,
        silent=not (ready or terminating or troubles or started) and conditions.get("PodScheduled", {}).get("status") == "True",
        running=any(one["name"] == ENGINE_CONTAINER and "running" in one.get("state", {}) for one in _containers(status)),
        served=ready or any(one["name"] == ENGINE_CONTAINER and one.get("started") is True for one in _containers(status)),
        troubles=troubles,
        ended=status.get("phase") in ("Failed", "Succeeded"),
        template=_template(pod),
        deletion_cost=str((meta.get("annotations") or {}).get(DELETION_COST_ANNOTATION, "")),
        node=str(pod.get("spec", {}).get("nodeName", "")),
        restarts=sum(int(one.get("restartCount", 0)) for one in _containers(status)),
        created=str(meta.get("creationTimestamp", "")),
    )


def view_report(text: str) -> PodReport:
    """Returns the report in a JSON text. Raises ValueError if it is no StatusReport; fields of newer contracts are ignored."""
    try:
        parsed = json.loads(text)
        if not isinstance(parsed, dict):
            raise ValueError(f"expected an object, got {type(parsed).__name__}")
        report = json_format.ParseDict(parsed, StatusReport(), ignore_unknown_fields=True)
    except (ValueError, json_format.ParseError) as error:
        raise ValueError(f"the pod's status cannot be read: {words(str(error))}") from error
    return PodReport(
        boot_id=report.boot_id,
        contract_version=report.contract_version,
        sidecar_connected=report.sidecar.connected,
        plan_fresh=report.sidecar.plan_fresh,
        contract_refused=report.sidecar.contract_refused or report.sidecar.refused_contract_version != 0,
        refused_contract_version=report.sidecar.refused_contract_version,
        encoder_missing=report.sidecar.encoder == ENCODER_STATE_MISSING,
        lacks_api_keys=report.lacks_api_keys,
        recent_requests=report.admission.recent_requests,
        recent_failed_open=report.admission.recent_failed_open,
        failed_open_by_reason=tuple(sorted(report.admission.failed_open_by_reason.items())),
        host_limit_bytes=report.host_memory.limit_bytes,
        host_used_bytes=report.host_memory.used_bytes,
        kv=_view_kv(report) if report.kv.limit_tokens else None,
        work=view_work(report),
        adapters=tuple(AdapterReport(one.name, one.source, _state(one.state), one.message) for one in report.adapters),
        requests_running=report.requests_running,
        requests_waiting=report.requests_waiting,
        requests_offloaded=report.requests_offloaded,
    )


def _state(number: int) -> str:
    return AdapterState.Name(number) if number in AdapterState.values() else str(number)


def _view_kv(report: StatusReport) -> KvReport:
    return KvReport(
        limit_tokens=report.kv.limit_tokens,
        used_tokens=report.kv.used_tokens,
        bits=report.kv.bits,
        running=report.requests_running,
        full_seconds=report.counters.kv_full_us / 1e6,
        computed_tokens=report.counters.computed_tokens,
        recomputed_tokens=report.counters.recomputed_tokens,
        preemptions=report.counters.preemptions_memory,
    )


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _troubles(pod: Manifest, status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Iterator[Trouble]:
    name = pod["metadata"]["name"]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        refusal = scheduled.get("message", "")
        yield Trouble("Unschedulable", f"pod {name} cannot be scheduled: {clause(refusal)}{advice(refusal, pod)}")
    if status.get("phase") == "Failed":
        why = f"{words(status.get('reason', ''))} {clause(status.get('message', ''))}".strip() or "no reason given"
        yield Trouble(
            "PodsCrashing",
            f"pod {name} failed: {why}; the cluster starts another pod; kubectl delete pod {name} removes this one",
        )
        return
    for container in _containers(status):
        where = f"container {container['name']} of pod {name}"
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        if reason in _IMAGE_REASONS:
            yield Trouble("ImagePull", f"{where}: image {container.get('image', '')!r}: {reason}: {clause(message)}")
        elif reason in _CONFIG_REASONS:
            wrong = wrong_image(container["name"], container.get("image", ""), message)
            yield not_starting(where, reason, message) if wrong is None else Trouble("PodNotStarting", f"{where}: {wrong}")
        else:
            ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
            if ended and not container.get("ready") and (ended.get("exitCode") or container.get("restartCount")):
                ending = view_ending(pod, container, ended)
                if not is_success(ending):
                    yield Trouble("PodsCrashing", ending.explain(), ending=ending)


def not_starting(where: str, reason: str, message: str) -> Trouble:
    """Returns why a container cannot be created or a volume cannot be mounted. A missing Secret has its own reason."""
    missing = gap(message)
    return Trouble(MISSING_SECRET if missing is not None else "PodNotStarting", f"{where}: {reason}: {clause(message)}", missing)
