"""Fetches the cluster's report on one resource: its Deployment, its pods, and what each pod says of itself over HTTP."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import aiohttp

from alise_contract.names import ENGINE_PORT, STATUS_PATH
from alise_operator import metrics, polls
from alise_operator.apply import OWNED_KINDS
from alise_operator.build.meta import Owner, selector_text
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import Kube, Resource
from alise_operator.observation import Observation, Pod, PodReport, Trouble, view_pod, view_report, view_workload, words

POLL_SECONDS: Final = 2.0
# Polls at a time, over all resources; one that waits for its turn has not begun.
_POLLS_AT_A_TIME: Final = 100
# A poll younger than this is good enough for a reconcile that something else asked for.
POLL_FRESH_SECONDS: Final = 10.0
# Pods come and go; one that was not polled for this long is gone.
_FORGET_SECONDS: Final = 300.0
PODS: Final = Resource("v1", "pods")
EVENTS: Final = Resource("v1", "events")
SECRETS: Final = Resource("v1", "secrets")
# Warning events of a pod that has no container status to say it (volumes, sandbox).
_EVENT_REASONS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})


class Poller:
    """Asks ready pods for their status; remembers the answer for a few seconds. Use as an asynchronous context manager."""

    def __init__(self, port: int = ENGINE_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Semaphore(_POLLS_AT_A_TIME)
        self._seen: dict[str, polls.Poll] = {}

    async def __aenter__(self) -> "Poller":
        # Pods are inside the cluster: no proxy of the environment applies. The wait for a connection of a bounded pool would count into the
        # deadline, so the semaphore bounds instead.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=POLL_SECONDS), trust_env=False
        )
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
        if seen is None or now - seen.at_seconds > POLL_FRESH_SECONDS:
            async with self._turn:
                told = await self._ask(pod.address)
            seen = polls.failed(seen, told, now) if isinstance(told, str) else polls.answered(seen, told, now)
            self._seen[pod.uid] = seen
            self._forget_old(now)
        return replace(
            pod,
            report=seen.report,
            report_error=seen.error,
            unranked_polls=seen.unranked,
            host_full=seen.host_full,
            failed_open_reasons=tuple(seen.recent_failed_open),
        )

    async def _ask(self, address: str) -> PodReport | str:
        """The report, or in words why there is none."""
        if self._session is None:
            raise RuntimeError("Poller is used outside its context")
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"http://{host}:{self._port}{STATUS_PATH}") as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.POLLS.labels("unreachable").inc()
            return _unreachable(error, self._port)
        if response.status != 200:
            metrics.POLLS.labels("unreadable").inc()
            return f"{STATUS_PATH} answered {response.status}; is it an alise engine image?"
        try:
            report = view_report(content.decode(errors="replace"))
        except ValueError as error:
            metrics.POLLS.labels("unreadable").inc()
            return str(error)
        metrics.POLLS.labels("ok").inc()
        return report

    def _forget_old(self, now: float) -> None:
        for uid in [uid for uid, poll in self._seen.items() if now - poll.at_seconds > _FORGET_SECONDS]:
            del self._seen[uid]


def _unreachable(error: Exception, port: int) -> str:
    """One text per way to fail, whatever the error's own words, so that the condition stays as it is."""
    if isinstance(error, TimeoutError):
        return (
            f"no answer from {STATUS_PATH} within {POLL_SECONDS:.0f} s at two polls in a row; may the operator reach pods on port {port}? "
            "See the namespace's NetworkPolicies"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"port {port} takes no connection from the operator: {error.os_error.strerror or 'refused'}; does the engine listen there?"
    return f"the connection for {STATUS_PATH} broke ({type(error).__name__}); see the engine's log"


async def observe(kube: Kube, poller: Poller, owner: Owner, *, tls_secret: str | None = None) -> Observation:
    """`tls_secret`: the one that the Ingress names. Raises ClusterError."""
    try:
        workload = view_workload(await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name))
    except Gone:
        workload = None
    listed = await kube.list(PODS, owner.namespace, labels=selector_text(owner.name))
    pods = await poller.poll(view_pod(pod) for pod in sorted(listed, key=lambda pod: str(pod["metadata"]["name"])))
    with_events = [await _with_events(kube, owner, pod) for pod in pods]
    return Observation(workload, tuple(with_events), tuple(await _tls_troubles(kube, owner, tls_secret)))


async def _tls_troubles(kube: Kube, owner: Owner, name: str | None) -> list[Trouble]:
    """The Ingress is made all the same: cert-manager makes the secret from it."""
    if name is None:
        return []
    try:
        await kube.get(SECRETS, owner.namespace, name)
    except ApplyError:
        # Not allowed to look: nothing to say.
        return []
    except Gone:
        create = f"kubectl create secret tls {name} -n {owner.namespace} --cert=FILE --key=FILE"
        return [
            Trouble(
                "MissingTlsSecret",
                f"spec.route.tlsSecret: Secret {owner.namespace}/{name} does not exist (yet): the Ingress has no certificate; if nothing "
                f"like cert-manager makes it, create it: {create}",
            )
        ]
    return []


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
    return replace(pod, troubles=(Trouble("PodNotStarting", f"pod {pod.name}: {latest['reason']}: {words(latest.get('message', ''))}"),))
