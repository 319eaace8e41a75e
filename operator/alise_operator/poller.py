"""Polls the status of each ready pod over HTTP, and remembers the answer for a few seconds.

It opens connections to pods and nothing else; observe.py, leaving.py and reconcile.py call `Poller.poll()`, pod_answer.py validates the
answers and polls.py combines them. Pods are not trusted: the whole exchange has one deadline, headers and body have bounds, redirects are
not followed, nothing is decompressed and cookies are dropped.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Self

import aiohttp

from alise_contract.names import ENGINE_PORT, STATUS_PATH
from alise_operator import metrics, polls
from alise_operator.kv_cache import window
from alise_operator.observation import Pod, PodReport
from alise_operator.pod_answer import MAX_BODY_BYTES, read_answer

POLL_SECONDS: Final = 2.0
# Concurrent polls for one AliseEngine; the deadline of a poll starts when its turn comes. There is no limit over all AliseEngines, because
# pods that do not answer would then delay the polls of others; workqueue.py bounds how many AliseEngines are reconciled at once.
_POLLS_AT_A_TIME: Final = 25
# Pods of one AliseEngine that are polled; for the others only their readiness counts.
MAX_POLLED: Final = 100
_MAX_HEADERS: Final = 64
_MAX_HEADER_BYTES: Final = 4096
# A poll younger than this is reused by a reconcile that something else triggered.
POLL_FRESH_SECONDS: Final = 10.0
# A pod that was not polled for this long is gone.
_FORGET_SECONDS: Final = 300.0


class Poller:
    """Polls ready pods, and remembers the answers for a few seconds. Use as an asynchronous context manager."""

    def __init__(self, port: int = ENGINE_PORT, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._port = port
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None
        self._seen: dict[str, polls.Poll] = {}

    async def __aenter__(self) -> Self:
        # Pods are inside the cluster, so no proxy of the environment applies. The wait for a connection of a bounded pool would count
        # against the deadline, so semaphores bound the polls. A connection serves one poll: what a pod sends after its answer is not read.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=POLL_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def poll(self, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """Returns the pods with their reports. It polls the first MAX_POLLED pods that are ready and not being deleted."""
        turn, given = asyncio.Semaphore(_POLLS_AT_A_TIME), list(pods)
        asked = {pod.uid for pod in [pod for pod in given if _may_be_asked(pod)][:MAX_POLLED]}
        return tuple(await asyncio.gather(*(self._poll_one(pod, turn) if pod.uid in asked else self._skip(pod) for pod in given)))

    async def _skip(self, pod: Pod) -> Pod:
        self._seen.pop(pod.uid, None)
        return pod

    async def _poll_one(self, pod: Pod, turn: asyncio.Semaphore) -> Pod:
        seen = self._seen.get(pod.uid)
        if seen is None or self._monotonic() - seen.at_seconds > POLL_FRESH_SECONDS:
            async with turn:
                answer = await self._ask(pod.address)
            now = self._monotonic()
            seen = polls.failed(seen, answer, now) if isinstance(answer, str) else polls.answered(seen, answer, now)
            self._seen[pod.uid] = seen
            self._forget_old(now)
        return replace(
            pod,
            report=seen.report,
            report_error=seen.error,
            unranked_polls=seen.unranked,
            host_full=seen.host_full,
            failed_open_reasons=tuple(seen.recent_failed_open),
            kv=window(seen.kv),
        )

    async def _ask(self, address: str) -> PodReport | str:
        """Returns the report, or why there is none."""
        try:
            status, encoding, body = await self._fetch(address)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            metrics.POLLS.labels("unreachable").inc()
            return _unreachable(error, self._port)
        try:
            report = read_answer(status, encoding, body)
        except ValueError as error:
            metrics.POLLS.labels("unreadable").inc()
            return str(error)
        metrics.POLLS.labels("ok").inc()
        return report

    async def _fetch(self, address: str) -> tuple[int, str, bytes]:
        """Returns status, content encoding and body. It stops reading a body that is longer than MAX_BODY_BYTES."""
        if self._session is None:
            raise RuntimeError("Poller is used outside its context")
        host = f"[{address}]" if ":" in address else address
        async with self._session.get(f"http://{host}:{self._port}{STATUS_PATH}", allow_redirects=False) as response:
            body = bytearray()
            if response.status == 200:
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        break
            return response.status, response.headers.get("Content-Encoding", ""), bytes(body)

    def _forget_old(self, now: float) -> None:
        for uid in [uid for uid, poll in self._seen.items() if now - poll.at_seconds > _FORGET_SECONDS]:
            del self._seen[uid]


def _may_be_asked(pod: Pod) -> bool:
    return pod.ready and not pod.terminating and bool(pod.address)


def _unreachable(error: Exception, port: int) -> str:
    """Returns one text per kind of failure, whatever the error's own text, so that the condition does not change with each poll."""
    if isinstance(error, TimeoutError):
        return (
            f"no answer from {STATUS_PATH} within {POLL_SECONDS:.0f} s in two polls in a row; do the namespace's NetworkPolicies allow the "
            f"operator to connect to port {port}?"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"port {port} accepts no connection from the operator: {error.os_error.strerror or 'refused'}; does the engine listen there?"
    return (
        f"the connection to {STATUS_PATH} broke ({type(error).__name__}); see the engine's log; if a service mesh requires mTLS, "
        f"exclude port {port} from it for these pods (with Istio, by an annotation in spec.podTemplate: "
        "traffic.sidecar.istio.io/excludeInboundPorts)"
    )
