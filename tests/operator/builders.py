"""Specs and cluster objects for tests; what does not matter to a test has a value here. The tests of `tests/operator` build with it."""

from typing import Any

from google.protobuf import json_format

from alise_contract.v1.engine_control_pb2 import StatusReport
from alise_operator.children import Owner
from alise_operator.cluster import Cluster
from alise_operator.observation import Pod, PodReport, Workload
from alise_operator.spec import Spec, parse

OWNER = Owner("tiny", "default", "uid-tiny")
GATEWAY_API = "gateway.networking.k8s.io/v1/HTTPRoute"
CURRENT = Cluster(34, frozenset({"policy/v1/PodDisruptionBudget", GATEWAY_API}))
OLD = Cluster(20, frozenset({"policy/v1beta1/PodDisruptionBudget"}))


def raw_spec(**changes: Any) -> dict[str, Any]:
    """The `spec` of a small CPU engine as a user writes it."""
    return {"model": {"uri": "/models/tiny"}, "engine": {"device": "cpu"}} | changes


def make_spec(**changes: Any) -> Spec:
    return parse(raw_spec(**changes))


def make_workload(**changes: Any) -> Workload:
    """A Deployment whose only pod is ready."""
    fields: dict[str, Any] = {"observed": True, "desired": 1, "replicas": 1, "updated": 1, "ready": 1, "stalled": False}
    return Workload(**(fields | changes))


def make_report(**changes: Any) -> PodReport:
    """What a pod says when all is well."""
    fields: dict[str, Any] = {
        "boot_id": "boot-1",
        "contract_version": 1,
        "sidecar_connected": True,
        "plan_fresh": True,
        "contract_refused": False,
        "refused_contract_version": 0,
        "encoder_missing": False,
        "lacks_api_keys": False,
        "recent_requests": 0,
        "recent_failed_open": 0,
        "failed_open_by_reason": (),
        "host_limit_bytes": 1 << 30,
        "host_used_bytes": 0,
    }
    return PodReport(**(fields | changes))


def make_pod(**changes: Any) -> Pod:
    """A ready pod with a good report."""
    fields: dict[str, Any] = {
        "name": "tiny-1",
        "uid": "uid-1",
        "address": "10.0.0.1",
        "ready": True,
        "terminating": False,
        "silent": False,
        "served": True,
        "report": make_report(),
    }
    return Pod(**(fields | changes))


def pod_object(
    *,
    ready: bool = False,
    containers: list[dict[str, Any]] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    phase: str = "Pending",
    deleted: bool = False,
) -> dict[str, Any]:
    """A pod as the API server gives it."""
    meta: dict[str, Any] = {"name": "tiny-1", "uid": "uid-1", "labels": {"alise.dev/engine": "tiny"}}
    meta["ownerReferences"] = [{"kind": "ReplicaSet", "uid": "uid-set", "controller": True}]
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    given = conditions or [{"type": "PodScheduled", "status": "True"}]
    status = {
        "phase": phase,
        "podIP": "10.0.0.1",
        "conditions": [*given, {"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": containers or [],
    }
    return {"metadata": meta, "status": status}


def deployment_object(**status: Any) -> dict[str, Any]:
    """The Deployment of OWNER as the API server gives it."""
    owners = [{"kind": "AliseEngine", "uid": OWNER.uid, "controller": True}]
    meta = {"name": "tiny", "namespace": "default", "uid": "uid-deployment", "generation": 2, "ownerReferences": owners}
    return {"metadata": meta, "spec": {"replicas": 3}, "status": status}


def set_object() -> dict[str, Any]:
    """The ReplicaSet between that Deployment and the pod of `pod_object`."""
    owners = [{"kind": "Deployment", "uid": "uid-deployment", "controller": True}]
    return {"metadata": {"name": "tiny-set", "uid": "uid-set", "labels": {"alise.dev/engine": "tiny"}, "ownerReferences": owners}}


def report_text(**changes: Any) -> str:
    """A status report as a pod answers it."""
    report = StatusReport(contract_version=1, **changes)
    return json_format.MessageToJson(report, preserving_proto_field_name=True)


def container(state: dict[str, Any], *, last: dict[str, Any] | None = None, name: str = "engine", restarts: int = 0) -> dict[str, Any]:
    """A container's status, as a pod has it."""
    return {"name": name, "image": "reg/engine:1", "ready": False, "restartCount": restarts, "state": state, "lastState": last or {}}
