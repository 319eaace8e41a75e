"""The cluster's report on one resource, as a value: its Deployment, its pods in their own words, and what each pod says of itself.

`view_*` are pure and turn API objects into values; `Poller` asks pods over HTTP; `observe` puts it together. What it means for the resource
is decided in status.py.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
from google.protobuf import json_format

from alise_contract.names import ENGINE_CONTAINER, ENGINE_PORT, STATUS_PATH
from alise_contract.v1.engine_control_pb2 import StatusReport
from alise_operator import metrics
from alise_operator.apply import OWNED_KINDS
from alise_operator.build.meta import Manifest, Owner, selector_text
from alise_operator.errors import ClusterError, Gone
from alise_operator.kube import Kube, Resource

POLL_SECONDS: Final = 2.0
# A poll younger than this is good enough for a reconcile that something else asked for.
POLL_FRESH_SECONDS: Final = 10.0
PODS: Final = Resource("v1", "pods")
EVENTS: Final = Resource("v1", "events")

_IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"})
# Warning events of a pod that has no container status to say it (volumes, sandbox).
_EVENT_REASONS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
_MAX_WORDS: Final = 300


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that keeps a pod or the Deployment from working: a reason of one word and the cluster's own words."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodReport:
    """What a pod says of itself (the contract's StatusReport, as far as conditions need it)."""

    contract_version: int
    sidecar_connected: bool
    plan_fresh: bool
    refused_contract_version: int
    recent_requests: int
    recent_failed_open: int
    failed_open_reasons: tuple[str, ...]
    host_limit_bytes: int
    host_used_bytes: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    uid: str
    address: str
    ready: bool
    terminating: bool
    # Scheduled, not ready, and no container says why.
    silent: bool
    troubles: tuple[Trouble, ...] = ()
    report: PodReport | None = None
    # Why there is no report although the pod is ready.
    report_error: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment as its controller sees it."""

    # The controller has seen the newest spec.
    observed: bool
    desired: int
    replicas: int
    updated: int
    ready: int
    # The rollout made no progress for longer than a pod may take to start.
    stalled: bool
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    workload: Workload | None
    pods: tuple[Pod, ...] = ()


NOTHING: Final = Observation(None)


def view_workload(deployment: Manifest) -> Workload:
    status = deployment.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    troubles = (Trouble("PodsRefused", _words(failure.get("message", ""))),) if failure.get("status") == "True" else ()
    return Workload(
        observed=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
        desired=deployment["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        stalled=progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded",
        troubles=troubles,
    )


def view_pod(pod: Manifest) -> Pod:
    meta, status = pod["metadata"], pod.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    ready = conditions.get("Ready", {}).get("status") == "True"
    terminating = "deletionTimestamp" in meta
    troubles = () if ready or terminating else tuple(_troubles(meta["name"], status, conditions))
    started = any(one.get("started") or "running" in one.get("state", {}) for one in _containers(status))
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        address=status.get("podIP", ""),
        ready=ready,
        terminating=terminating,
        silent=not (ready or terminating or troubles or started) and conditions.get("PodScheduled", {}).get("status") == "True",
        troubles=troubles,
    )


def view_report(text: str) -> PodReport:
    """Raises ValueError when the text is no StatusReport; fields of newer contracts are ignored."""
    try:
        told = json.loads(text)
        if not isinstance(told, dict):
            raise ValueError(f"expected an object, got {type(told).__name__}")
        report = json_format.ParseDict(told, StatusReport(), ignore_unknown_fields=True)
    except (ValueError, json_format.ParseError) as error:
        raise ValueError(f"the pod's status cannot be read: {_words(str(error))}") from error
    return PodReport(
        contract_version=report.contract_version,
        sidecar_connected=report.sidecar.connected,
        plan_fresh=report.sidecar.plan_fresh,
        refused_contract_version=report.sidecar.refused_contract_version,
        recent_requests=report.admission.recent_requests,
        recent_failed_open=report.admission.recent_failed_open,
        failed_open_reasons=tuple(sorted(reason for reason, count in report.admission.failed_open_by_reason.items() if count)),
        host_limit_bytes=report.host_memory.limit_bytes,
        host_used_bytes=report.host_memory.used_bytes,
        draining=report.draining,
    )


class Poller:
    """Asks ready pods for their status; remembers the answer for a few seconds. Use as an asynchronous context manager."""

    def __init__(self, port: int = ENGINE_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None
        self._seen: dict[str, tuple[float, PodReport | None, str | None]] = {}

    async def __aenter__(self) -> "Poller":
        # Pods are inside the cluster: no proxy of the environment applies.
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POLL_SECONDS), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def poll(self, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """The pods with their reports; only pods that are ready and stay are asked, all at the same time."""
        return tuple(await asyncio.gather(*(self._poll_one(pod) for pod in pods)))

    async def _poll_one(self, pod: Pod) -> Pod:
        if not pod.ready or pod.terminating or not pod.address:
            self._seen.pop(pod.uid, None)
            return pod
        now = time.monotonic()
        seen = self._seen.get(pod.uid)
        if seen is None or now - seen[0] > POLL_FRESH_SECONDS:
            seen = (now, *await self._ask(pod.address))
            self._seen[pod.uid] = seen
            self._forget_old(now)
        return replace(pod, report=seen[1], report_error=seen[2])

    async def _ask(self, address: str) -> tuple[PodReport | None, str | None]:
        if self._session is None:
            raise RuntimeError("Poller is used outside its context")
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"http://{host}:{self._port}{STATUS_PATH}") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.POLLS.labels("unreachable").inc()
            return None, f"no answer from {STATUS_PATH} within {POLL_SECONDS:.0f} s ({type(error).__name__})"
        if response.status != 200:
            metrics.POLLS.labels("unreadable").inc()
            return None, f"{STATUS_PATH} answered {response.status}; is it an alise engine image?"
        try:
            report = view_report(text)
        except ValueError as error:
            metrics.POLLS.labels("unreadable").inc()
            return None, str(error)
        metrics.POLLS.labels("ok").inc()
        return report, None

    def _forget_old(self, now: float) -> None:
        """Pods come and go; what was not polled for minutes is gone."""
        for uid in [uid for uid, (at, _, _) in self._seen.items() if now - at > 300]:
            del self._seen[uid]


async def observe(kube: Kube, poller: Poller, owner: Owner) -> Observation:
    """Raises ClusterError."""
    try:
        workload = view_workload(await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name))
    except Gone:
        workload = None
    listed = await kube.list(PODS, owner.namespace, labels=selector_text(owner.name))
    pods = await poller.poll(view_pod(pod) for pod in sorted(listed, key=lambda pod: str(pod["metadata"]["name"])))
    return Observation(workload, tuple([await _with_events(kube, owner, pod) for pod in pods]))


async def _with_events(kube: Kube, owner: Owner, pod: Pod) -> Pod:
    """A pod whose containers were never started says why only in events."""
    if not pod.silent:
        return pod
    try:
        events = await kube.list(EVENTS, owner.namespace, fields=f"involvedObject.uid={pod.uid},type=Warning")
    except ClusterError:
        # Without its events the pod still counts as starting.
        return pod
    relevant = [one for one in events if one.get("reason") in _EVENT_REASONS]
    if not relevant:
        return pod
    latest = max(relevant, key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    return replace(pod, troubles=(Trouble("PodNotStarting", f"pod {pod.name}: {latest['reason']}: {_words(latest.get('message', ''))}"),))


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _troubles(name: str, status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Iterator[Trouble]:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        yield Trouble("Unschedulable", f"pod {name} cannot be scheduled: {_words(scheduled.get('message', ''))}")
    if status.get("phase") == "Failed":
        yield Trouble("PodsCrashing", f"pod {name} failed: {_words(status.get('reason', ''))} {_words(status.get('message', ''))}".rstrip())
    for container in _containers(status):
        where = f"container {container['name']} of pod {name}"
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), _words(waiting.get("message", ""))
        if reason in _IMAGE_REASONS:
            yield Trouble("ImagePull", f"{where}: image {container.get('image', '')!r}: {reason}: {message}")
        elif reason in _CONFIG_REASONS:
            yield Trouble("PodNotStarting", f"{where}: {reason}: {message}")
        else:
            ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
            if ended and not container.get("ready") and (ended.get("exitCode") or container.get("restartCount")):
                logs = f"see kubectl logs {name} -c {container['name']} --previous"
                yield Trouble("PodsCrashing", f"{where} {_ending(container['name'], ended)}; {logs}")


def _ending(container: str, ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        field = "spec.engine.resources" if container == ENGINE_CONTAINER else "spec.scheduling.resources"
        return f"was killed for using more memory than its limit (OOMKilled); raise {field}.limits.memory"
    words = _words(ended.get("message", ""))
    return f"ended with exit code {ended.get('exitCode')} ({ended.get('reason', 'Error')})" + (f": {words}" if words else "")


def _words(text: str) -> str:
    """The cluster's words on one line; the end of a long text, which is where a log says what happened."""
    joined = " ".join(text.split())
    return joined if len(joined) <= _MAX_WORDS else "…" + joined[1 - _MAX_WORDS :]
