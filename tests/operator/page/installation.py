"""A cluster in memory with AliseEngines in several states, pods that report, and requests: what the page is looked at with.

`test_in_chromium.py`, `test_server.py` and `test_view.py` use it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from alise_contract.names import ENGINE_LABEL
from alise_operator.kube import Resource
from alise_operator.kv_cache import KvReport
from alise_operator.load import Load, Loads
from alise_operator.observation import Pod
from alise_operator.page.read import Reader
from alise_operator.poller import Poller
from alise_operator.predicted_work import Work
from alise_operator.reconcile import ENGINES
from kubectl_alise.forward import Answer, fetch
from tests.operator.builders import make_report
from tests.operator.fake_kube import FakeKube
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import listed, request
from tests.operator.plugin.objects import pod as seen_by_kubectl

Object = dict[str, Any]
Conditions = Mapping[str, tuple[str, str, str]]
NOW: Final = datetime(2026, 11, 29, 20, 51, 3, tzinfo=UTC)
NAMESPACE: Final = "team-chat"
NAME: Final = "chat"
# What a client or a user may choose, against a page that would run it. Each changes the title if it runs.
HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
DEGRADED: Final = (
    "pod draft-7c9d6f5b8-4xk2p: container engine: image 'registry.example.com/team/engine:9': ImagePullBackOff: not found; "
    "correct spec.engine.image, or push the image"
)


class AnsweringPoller(Poller):
    """Pods answer with these reports by name; the others do not. The real poll is in test_poller.py."""

    def __init__(self, reports: dict[str, Any]) -> None:
        super().__init__()
        self._reports = reports

    async def poll(self, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        silent = "no answer from /alise/v1/status within 2 s in two polls in a row; do the namespace's NetworkPolicies allow it?"
        return tuple(
            replace(pod, report=self._reports.get(pod.name), report_error=None if pod.name in self._reports or not pod.ready else silent)
            for pod in pods
        )


class LocalOperator:
    """An operator whose page is on this machine already. The one in a cluster is in the e2e tests."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Answer:
        return fetch(self.port, path)


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")


def engine(
    name: str = NAME,
    namespace: str = NAMESPACE,
    *,
    ready: int = 1,
    replicas: int = 1,
    model: str = "qwen3-4b",
    conditions: Conditions = MappingProxyType({}),
) -> Object:
    """An AliseEngine. A condition is its status, its reason and its message."""
    given: dict[str, tuple[str, str, str]] = {
        "Ready": ("True", "Serving", f"{ready} of {replicas} pods are ready"),
        "Progressing": ("False", "Complete", "all pods have the current spec"),
        "Degraded": ("False", "AsExpected", ""),
        "RouteReady": ("True", "Applied", f"the Ingress {name} exists and its class nginx does"),
        "KVCacheShort": ("False", "EnoughRoom", "requests seldom wait for KV memory"),
    }
    listed_conditions = [
        {"type": kind, "status": one[0], "reason": one[1], "message": one[2], "lastTransitionTime": ago(hours=2)}
        for kind, one in (given | dict(conditions)).items()
    ]
    return {
        "metadata": {
            "name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 3, "creationTimestamp": ago(days=9, hours=2),
        },
        "spec": {"model": {"uri": "Qwen/Qwen3-4B", "servedName": model}, "replicas": replicas},
        "status": {
            "readyReplicas": ready, "observedGeneration": 3, "conditions": listed_conditions,
            "url": f"https://{name}.example.com/v1",
        },
    }  # fmt: skip


def put_pods(kube: FakeKube, name: str, namespace: str, pods: Sequence[Object]) -> None:
    """A Deployment of this AliseEngine, its ReplicaSet and these pods."""
    owner = [{"kind": "AliseEngine", "uid": f"uid-{name}", "controller": True}]
    labels = {ENGINE_LABEL: name}
    template = {"metadata": {"annotations": {"alise.dev/template": "new"}}}
    meta: Object = {"name": name, "namespace": namespace, "uid": f"uid-deployment-{name}", "generation": 1, "ownerReferences": owner}
    kube.put(Resource("apps/v1", "deployments"), {"metadata": meta, "spec": {"replicas": len(pods), "template": template}, "status": {}})
    of_deployment = [{"kind": "Deployment", "uid": f"uid-deployment-{name}", "controller": True}]
    meta = {"name": f"{name}-set", "namespace": namespace, "uid": f"uid-set-{name}", "labels": labels, "ownerReferences": of_deployment}
    kube.put(Resource("apps/v1", "replicasets"), {"metadata": meta})
    for pod in pods:
        of_set = [{"kind": "ReplicaSet", "uid": f"uid-set-{name}", "controller": True}]
        kube.put(Resource("v1", "pods"), pod | {"metadata": pod["metadata"] | {"labels": labels, "ownerReferences": of_set}})


def pod(name: str, *, namespace: str = NAMESPACE, ready: bool = True, template: str = "new", minutes: float = 190) -> Object:
    found = seen_by_kubectl(name, ready=ready, template=template, namespace=namespace, creationTimestamp=ago(minutes=minutes))
    found["status"] |= {"podIP": "10.0.0.7"}
    return found


def event(reason: str, message: str, *, kind: str = "Normal", count: int = 1, owner: str = NAME, **since: float) -> Object:
    return {
        "metadata": {"name": f"{owner}.{reason}.{sum(since.values())}", "namespace": NAMESPACE},
        "involvedObject": {"kind": "AliseEngine", "name": owner, "uid": f"uid-{owner}"},
        "type": kind, "reason": reason, "message": message, "lastTimestamp": ago(**since), "count": count,
    }  # fmt: skip


PODS: Final = ("chat-7c9d6f5b8-4xk2p", "chat-7c9d6f5b8-m8v7q", "chat-6b8f94d7c-x2l9s")
REPORTS: Final = {
    PODS[0]: make_report(
        requests_running=8, requests_waiting=5, requests_offloaded=2, host_limit_bytes=16 << 30, host_used_bytes=5 << 30,
        kv=KvReport(131072, 118000, 16, 8, 40.0, 900000, 200, 0), work=Work(94.0, 1.1),
    ),
    PODS[1]: make_report(
        requests_running=6, requests_waiting=0, requests_offloaded=0, host_limit_bytes=16 << 30, host_used_bytes=1 << 30,
        kv=KvReport(131072, 52000, 16, 6, 0.0, 900000, 200, 0), work=Work(21.0, 0.7),
    ),
}  # fmt: skip


def installation() -> FakeKube:
    """The cluster as the operator sees it."""
    kube = FakeKube()
    rolling = {"Progressing": ("True", "RollingOut", "1 of 3 pods has the previous spec; the rollout replaces it")}
    kube.put(ENGINES, engine(ready=3, replicas=3, conditions=rolling))
    kube.put(ENGINES, engine("code", "team-code", model="qwen3-coder-30b", ready=2, replicas=2))
    kube.put(
        ENGINES,
        engine(
            "summaries",
            "batch",
            model="qwen3-1.7b",
            ready=4,
            replicas=4,
            conditions={"KVCacheShort": ("True", "KVCacheFull", "requests wait for KV memory")},
        ),
    )
    stopped = {"Ready": ("False", "ScaledToZero", "no pods run because no request came for 600 s; a held request starts one")}
    kube.put(ENGINES, engine("nightly", "batch", model="llama-3.1-8b", ready=0, replicas=0, conditions=stopped))
    broken = {"Ready": ("False", "ImagePull", DEGRADED), "Degraded": ("True", "ImagePull", DEGRADED)}
    kube.put(ENGINES, engine("draft", NAMESPACE, model="qwen3-0.6b", ready=0, conditions=broken))
    route = "the host search.example.com belongs to team-web/search, which is older; choose another one in spec.route.hosts"
    taken = {"RouteReady": ("False", "HostTaken", route), "Degraded": ("True", "HostTaken", route)}
    kube.put(ENGINES, engine("search", "team-search", model="qwen3-4b", ready=1, conditions=taken))
    put_pods(kube, NAME, NAMESPACE, [pod(PODS[0]), pod(PODS[1]), pod(PODS[2], template="old", minutes=9 * 24 * 60)])
    events = Resource("v1", "events")
    kube.put(events, event("RollingOut", "1 of 3 pods has the previous spec; the rollout replaces it", minutes=4))
    kube.put(events, event("ScaledUp", "3 instead of 2 pods: the predicted work needs 2.6 pods", minutes=12))
    kube.put(
        events,
        event(
            "ReplicasReset",
            "kubectl-edit set 5 replicas of the Deployment; 3 were set again; use kubectl scale alise chat",
            kind="Warning",
            count=2,
            minutes=41,
        ),
    )
    return kube


def loads() -> Loads:
    """What the operator last observed."""
    found = Loads()
    found.set(NAMESPACE, NAME, Load(14, 5, 2, 115.0, 1))
    found.set("team-code", "code", Load(3, 0, 0, 9.0))
    found.set("batch", "summaries", Load(64, 210, 0, 5400.0))
    found.set("team-search", "search", Load(0, 0, 0, 0.0))
    return found


def reader(kube: FakeKube | None = None, reports: dict[str, Any] | None = None) -> Reader:
    return Reader(kube or installation(), AnsweringPoller(dict(REPORTS) if reports is None else reports), loads(), now=lambda: NOW)


def cluster(*requests: Object, first: str = PODS[0], silent: str = PODS[2]) -> FakeCluster:
    """The cluster as kubectl shows it: the first pod has these requests, one is an older image, the rest have none."""
    objects = {"pods": {"items": [seen_by_kubectl(name) for name in PODS]}}
    sentences = (
        "It has waited 6.2 s for its first step.",
        "14 requests rank before it (8 of them run now), and about 8 run at once: 3 overdue, 11 with less work left.",
        "Its turn is expected in about 9 s.",
    )
    name = next((one["request_id"] for one in requests if one["phase"] != "running"), "req-1")
    account = {"matches": [{"request_id": name, "job": "job-1", "model": "qwen3-4b", "class": "default", "sentences": sentences}]}
    outputs = {(name, "alise-scheduler"): (0, json.dumps(listed() | {"matches": []}), "") for name in PODS}
    outputs[(first, "alise-scheduler")] = (0, json.dumps(listed(*requests, backlog_seconds=94.0) | account), "")
    outputs[(silent, "alise-scheduler")] = (1, "", "alise-scheduler top: the scheduler process does not answer. It may be starting")
    return FakeCluster(objects, {}, outputs)


def some_requests() -> list[Object]:
    """Requests of one pod by rank."""

    def one(name: str, phase: str, level: int, predicted: int, done: int, age: float, rule: str = "none", **more: Any) -> Object:
        standing = {"job_level": level, "turn_seconds": max(0.0, level + 12.0), "rule": rule}
        times = {"waited_seconds": age if phase == "waiting" else 0.4, "age_seconds": age}
        return request(name, phase=phase, predicted_tokens=predicted, generated_tokens=done, standing=standing, **times, **more)

    return [
        one("01HF3Q8ZK4-nina", "running", -41, 120, 96, 4.2),
        one("chatcmpl-8f1c2d", "running", -33, 180, 60, 3.0),
        one("req-7b29", "running", -30, 240, 201, 11.8, **{"class": "interactive"}),
        one("req-7b30", "running", -22, 310, 12, 2.1),
        one("batch-2211", "running", -9, 900, 455, 38.5, **{"class": "batch"}),
        one("req-7b34", "waiting", -6, 410, 0, 6.2, "length"),
        one("batch-2212", "offloaded", 3, 1400, 380, 61.0, "length", preemptions=1, preempted_seconds=14.5, **{"class": "batch"}),
        one("req-7b36", "waiting", 4, 760, 0, 5.1, "length"),
        one("batch-2214", "preempted", 9, 2100, 122, 70.3, "share", preemptions=2, preempted_seconds=33.1, **{"class": "batch"}),
        one("req-7b39", "waiting", 12, 1900, 0, 1.3, "arrival"),
    ]
