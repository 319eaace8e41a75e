"""Objects as an API server returns them, for the tests of the plugin.

`test_status_text.py`, `test_pods.py` and the other tests of the plugin build them.
"""

from typing import Any

from alise_contract.names import API_GROUP, ENGINE_CONTAINER, ENGINE_LABEL, SCHEDULER_CONTAINER

Object = dict[str, Any]


def condition(kind: str, status: str, reason: str = "AsExpected", message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 3}


def engine(name: str = "chat", *conditions: Object, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "team", "generation": 3, "creationTimestamp": "2026-11-29T10:00:00Z"},
        "spec": {"model": {"uri": "Qwen/Qwen3-4B", "servedName": "qwen"}, "replicas": 2, **spec},
        "status": {
            "replicas": 2,
            "readyReplicas": 1,
            "observedGeneration": 3,
            "url": "http://chat.test/v1",
            "conditions": [*conditions],
        },
    }


def pod(name: str = "chat-1", ready: bool = True, template: str = "new", engine_state: Object | None = None, **meta: Any) -> Object:
    state = engine_state or {"running": {}}
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"uid-{name}",
            "labels": {ENGINE_LABEL: "chat"},
            "annotations": {f"{API_GROUP}/template": template},
            "creationTimestamp": "2026-11-29T11:00:00Z",
            **meta,
        },
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 5},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": ENGINE_CONTAINER, "restartCount": 1, "state": state},
                {"name": SCHEDULER_CONTAINER, "restartCount": 0, "state": {"running": {}}},
            ],
        },
    }


def request(name: str = "req-7", **changes: Any) -> Object:
    """A request in the answer of `alise-scheduler top --json`."""
    return {
        "request_id": name, "job": "job-1", "model": "qwen", "class": "default", "phase": "waiting", "predicted_tokens": 640,
        "generated_tokens": 0, "waited_seconds": 1.25, "preemptions": 0, "preempted_seconds": 0.0, "age_seconds": 1.25,
        "standing": {"job_level": -3, "turn_seconds": 4.0, "rule": "length"}, **changes,
    }  # fmt: skip


def listed(*requests: Object, **changes: Any) -> Object:
    phases = dict.fromkeys(("admitted", "waiting", "running", "offloaded", "preempted", "restoring"), 0)
    for one in requests:
        phases[one["phase"]] += 1
    return {"by_phase": phases, "slots": 8, "connected": True, "backlog_seconds": 12.0, "requests": [*requests], **changes}
