"""Asks each ready pod for its status over HTTP and remembers the answer for a few seconds."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import aiohttp

from alise_contract.names import ENGINE_PORT, STATUS_PATH
from alise_operator import metrics, polls
from alise_operator.observation import Pod, PodReport, view_report

POLL_SECONDS: Final = 2.0
# Polls at a time, over all resources; one that waits for its turn has not begun.
_POLLS_AT_A_TIME: Final = 100
# A poll younger than this is good enough for a reconcile that something else asked for.
POLL_FRESH_SECONDS: Final = 10.0
# Pods come and go; one that was not polled for this long is gone.
_FORGET_SECONDS: Final = 300.0


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
