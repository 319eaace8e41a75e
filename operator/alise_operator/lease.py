"""Leader election: the operator that holds a Lease (coordination.k8s.io) in its own namespace acts, and the others wait.

__main__.py acquires, holds and releases the lease; kube.py checks it before every write. It reads and writes only the Lease object. As in
client-go, clocks of different machines are never compared. A candidate takes the lease over if it has not changed for its duration by the
candidate's own clock; the holder stops acting if its last renewal is older than two thirds of the duration, whatever its requests do.

The Kubernetes Python client has a leader election too, but its requests have no deadline, so a request that hangs keeps an expired leader
acting.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from alise_operator import metrics
from alise_operator.children.meta import Manifest
from alise_operator.errors import ApplyError, ClusterError, Gone, LeaseLost
from alise_operator.kube import Kube, Resource
from alise_operator.settings import LEASE_SECONDS

log = logging.getLogger(__name__)

LEASES: Final = Resource("coordination.k8s.io/v1", "leases")
LEASE_NAME: Final = "alise-operator"


class Step(Enum):
    """What a candidate does with the lease in its present state."""

    CREATE = auto()
    TAKE = auto()
    RENEW = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of the lease, and the time at which the candidate first saw it, by the candidate's own clock."""

    version: str
    since_seconds: float


def look(lease: Manifest | None, before: Seen | None, now_seconds: float) -> Seen | None:
    """Returns what the candidate remembers about the lease after reading it."""
    if lease is None:
        return None
    version = str(lease["metadata"].get("resourceVersion", ""))
    return before if before is not None and before.version == version else Seen(version, now_seconds)


def decide(lease: Manifest | None, seen: Seen | None, me: str, now_seconds: float) -> Step:
    """Returns the next step. `seen` is the result of `look` for this lease."""
    if lease is None or seen is None:
        return Step.CREATE
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder == me:
        return Step.RENEW
    is_over = now_seconds - seen.since_seconds >= float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
    return Step.TAKE if not holder or is_over else Step.WAIT


def written(lease: Manifest | None, namespace: str, me: str, seconds: float, now: datetime) -> Manifest:
    """Returns the lease as its new holder writes it. It names the version it replaces, so the API server refuses one of two candidates."""
    before = (lease or {}).get("spec") or {}
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    is_new = before.get("holderIdentity") != me
    meta = (lease or {}).get("metadata") or {"name": LEASE_NAME, "namespace": namespace}
    return {
        "apiVersion": LEASES.group_version,
        "kind": "Lease",
        "metadata": {key: meta[key] for key in ("name", "namespace", "resourceVersion", "labels", "annotations") if key in meta},
        "spec": {
            "holderIdentity": me,
            "leaseDurationSeconds": max(1, round(seconds)),
            "acquireTime": stamp if is_new else before.get("acquireTime", stamp),
            "renewTime": stamp,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if is_new and before.get("holderIdentity") else 0),
        },
    }


class Lease:
    """This process as a candidate. Call `acquire`, then `hold` beside the work, then `release`."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        me: str,
        *,
        seconds: float = LEASE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._me = me
        self._seconds = seconds
        self._monotonic = monotonic
        self._now = now
        self._seen: Seen | None = None
        # The start of the last renewal that succeeded.
        self._renewed: float | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process may act now."""
        return self._renewed is not None and self._monotonic() - self._renewed < self._seconds * 2 / 3

    def require(self) -> None:
        """Raises LeaseLost if this process may not act (any more)."""
        if not self.is_held:
            raise LeaseLost("another operator holds the lease, or it was not renewed in time, so this operator may not act")

    async def acquire(self) -> None:
        """Waits until this process holds the lease."""
        is_logged = False
        while not await self.try_once():
            if not is_logged:
                log.info("another operator is active; waiting for its lease", extra={"lease": f"{self._namespace}/{LEASE_NAME}"})
                is_logged = True
            await asyncio.sleep(self._pause_seconds)
        metrics.ACTIVE.set(1)
        log.info("this operator is active", extra={"lease": f"{self._namespace}/{LEASE_NAME}", "holder": self._me})

    async def hold(self) -> None:
        """Renews the lease until it is lost. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            await self.try_once()
            self.require()

    async def release(self) -> None:
        """Releases the lease if this process holds it, so that another operator can act at once."""
        metrics.ACTIVE.set(0)
        if self._renewed is None:
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self._call_seconds):
                lease = await self._kube.get(LEASES, self._namespace, LEASE_NAME)
                if (lease.get("spec") or {}).get("holderIdentity") == self._me:
                    given_up = written(lease, self._namespace, self._me, 1, self._now())
                    given_up["spec"]["holderIdentity"] = ""
                    await self._kube.replace(LEASES, given_up)
        except (ClusterError, ApplyError, TimeoutError) as error:
            log.warning("the lease could not be released and will expire", extra={"error": str(error)})

    @property
    def _pause_seconds(self) -> float:
        return self._seconds * 2 / 15

    @property
    def _call_seconds(self) -> float:
        return self._seconds * 4 / 15

    async def try_once(self) -> bool:
        """Reads the lease, writes what follows from it, and returns whether this process holds it."""
        began = self._monotonic()
        try:
            async with asyncio.timeout(self._call_seconds):
                lease = await self._get()
                self._seen = look(lease, self._seen, self._monotonic())
                step = decide(lease, self._seen, self._me, self._monotonic())
                if step is Step.WAIT:
                    self._renewed = None
                    return False
                manifest = written(lease, self._namespace, self._me, self._seconds, self._now())
                await (self._kube.create if step is Step.CREATE else self._kube.replace)(LEASES, manifest)
        except (ClusterError, ApplyError, TimeoutError) as error:
            log.warning("the lease could not be read or written", extra={"error": str(error) or type(error).__name__})
            return False
        self._renewed = began
        return True

    async def _get(self) -> Manifest | None:
        try:
            return await self._kube.get(LEASES, self._namespace, LEASE_NAME)
        except Gone:
            return None
