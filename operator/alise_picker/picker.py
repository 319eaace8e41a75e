"""One request: which replicas are there, how long is its answer, which one gets it. Holds requests while there is no replica.

`server.py` calls `decide()` for every request, and `web.py` reads what is counted. It reaches replicas through `replicas.py` alone. What
takes time here has a deadline, and what fails costs the quality of the choice, never the request.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from alise_contract.describe import Description
from alise_contract.describe import Endpoint as Form
from alise_contract.names import MAX_LEVEL
from alise_picker.affinity import Homes
from alise_picker.choose import (
    Chosen,
    Decision,
    Endpoint,
    NoEndpoint,
    Request,
    Sent,
    Shed,
    choose,
    free_slots,
    is_fresh,
    needs_length,
    usable,
)
from alise_picker.exchange import Asked
from alise_picker.metrics import Metrics
from alise_picker.question import described, generates, is_described, question_of
from alise_picker.replicas import Prediction, Replicas

# A gateway learns of a ready pod later than the picker does, in a busy cluster by a second or two. If it knows no other, it would answer
# 503 until then.
SETTLE_SECONDS: Final = 3.0
# How often a held request looks whether gateways know a replica, while one is ready.
LOOK_SECONDS: Final = 0.25
# What Envoy waits longer than a request is held at most, and the longest time that it waits at all.
_MARGIN_SECONDS: Final = 1.0
_ENVOY_SECONDS: Final = 3600.0
# The work of a request that no replica says anything about.
ASSUMED_WORK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How many requests are held at a time while no replica is ready, and for how long. 0 requests: none is held."""

    max_requests: int = 0
    seconds: float = 0.0
    # Only requests that bring something like an API key: the replicas refuse all others anyway.
    needs_key: bool = False


class Picker:
    """Decides for one resource's requests."""

    def __init__(
        self,
        replicas: Replicas,
        metrics: Metrics,
        hold: HoldLimits = HoldLimits(),
        predict_seconds: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._replicas = replicas
        self._metrics = metrics
        self._hold = hold
        self._predict_seconds = predict_seconds
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._homes = Homes()
        self._turn = 0
        self._holds: set[asyncio.Timeout] = set()
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many requests are held now."""
        return len(self._holds)

    def must_hold(self, asked: Asked) -> bool:
        """Returns whether a request that comes now has to wait for a replica, and may."""
        return not self._gateways_know_one() and self._refusal(asked) is None

    @property
    def hold_seconds(self) -> float:
        """How long Envoy has to wait for the decision about a request that is held."""
        return min(self._hold.seconds + _MARGIN_SECONDS, _ENVOY_SECONDS)

    def stop_holding(self) -> None:
        """Holds no requests any longer: those that are held are refused, or sent on if a replica is ready."""
        self._stopping = True
        for hold in self._holds:
            if not hold.expired():
                hold.reschedule(asyncio.get_running_loop().time())

    async def decide(self, asked: Asked) -> Decision:
        """Returns the decision about one request, held first if gateways know no replica yet. One that may not be held is refused only if
        no replica is ready."""
        refusal = None if self._gateways_know_one() else await self._held(asked)
        if refusal is not None and not usable(self._replicas.endpoints()):
            self._metrics.decisions.labels(refusal).inc()
            return NoEndpoint()
        began = time.perf_counter()
        decision = await self._choose(asked)
        self._metrics.decision_seconds.observe(time.perf_counter() - began)
        self._metrics.decisions.labels(_name(decision)).inc()
        return decision

    def count_states(self) -> None:
        """Sets the gauges."""
        endpoints = self._replicas.endpoints()
        states = [_state(one, self._clock()) for one in endpoints]
        for state in ("fresh", "stale", "draining"):
            self._metrics.replicas.labels(state).set(states.count(state))
        self._metrics.waiting.set(self.waiting)
        free = [free_slots(one) for one, state in zip(endpoints, states, strict=True) if state == "fresh"]
        self._metrics.free_slots.set(sum(free))

    async def _choose(self, asked: Asked) -> Decision:
        self._turn += 1
        endpoints = self._replicas.endpoints()
        description = described(asked.path, asked.body) if is_described(asked.method, asked.path) else Description(Form.OTHER)
        home = self._homes.home(description.conversation_previous)
        request = Request(samples=float(max(1, min(description.n, 1024))), home=home)
        level, work = request.level, 0.0
        if asked.crowded:
            self._metrics.predictions.labels("no_room").inc()
        elif description.endpoint is Form.OTHER:
            self._metrics.predictions.labels("not_described").inc()
        elif not needs_length(endpoints, request, self._clock()):
            # It goes where a request of any length would start at once.
            request = replace(request, level=MAX_LEVEL)
            self._metrics.predictions.labels("not_needed").inc()
        else:
            found = await self._predicted(description, home)
            self._metrics.predictions.labels("failed" if found is None else "ok").inc()
            if found is not None:
                level, work = found.level, found.work_seconds
                request = replace(request, level=level)
            # They may have changed meanwhile.
            endpoints = self._replicas.endpoints()
        decision = choose(endpoints, request, self._clock(), self._turn)
        if isinstance(decision, Chosen):
            if generates(asked.method, asked.path):
                # Others do not ask the replica's sidecar for admission, and take no slot.
                work = work or request.samples * _typical_work(endpoints)
                self._replicas.note(decision.address, Sent(self._clock(), level, request.samples, work))
            self._homes.remember(description.conversation_now, decision.address)
        return decision

    async def _predicted(self, description: Description, home: str) -> Prediction | None:
        return await self._replicas.predict(question_of(description), home, self._predict_seconds)

    def _gateways_know_one(self) -> bool:
        """Returns whether a replica has been ready for so long that gateways know it."""
        settled = self._clock() - self._settle_seconds
        return any(one.since <= settled for one in usable(self._replicas.endpoints()))

    def _refusal(self, asked: Asked) -> str | None:
        """Returns why a request is not held; None if it may be."""
        worth_it = generates(asked.method, asked.path) and (asked.has_key or not self._hold.needs_key)
        if self._stopping or not self._hold.max_requests or not worth_it:
            return "no_endpoint"
        return "hold_full" if asked.crowded or self.waiting >= self._hold.max_requests else None

    async def _held(self, asked: Asked) -> str | None:
        """Waits until gateways know a replica. Returns why it did not wait any longer; None if there is a replica."""
        if (refusal := self._refusal(asked)) is not None:
            return refusal
        hold = asyncio.timeout(self._hold.seconds)
        try:
            async with hold:
                self._holds.add(hold)
                goes_at = math.inf
                # Replicas may come and go: once it has waited for one to be known, it goes to any.
                while not self._gateways_know_one() and not (self._clock() >= goes_at and usable(self._replicas.endpoints())):
                    await self._replicas.any_ready.wait()
                    if usable(self._replicas.endpoints()):
                        goes_at = min(goes_at, self._clock() + self._settle_seconds)
                    # All of those that are ready may drain.
                    await asyncio.sleep(min(LOOK_SECONDS, self._settle_seconds))
        except TimeoutError:
            return "no_endpoint" if self._stopping else "hold_expired"
        finally:
            self._holds.discard(hold)
        return None


def _typical_work(endpoints: list[Endpoint]) -> float:
    rows = [row for one in endpoints if one.load is not None for row in one.load.levels]
    samples = sum(row.samples for row in rows)
    return sum(row.work_seconds for row in rows) / samples if samples > 0 else ASSUMED_WORK_SECONDS


def _name(decision: Decision) -> str:
    match decision:
        case Chosen():
            return decision.reason.value
        case Shed():
            return "shed"
        case NoEndpoint():
            return "no_endpoint"


def _state(endpoint: Endpoint, at: float) -> str:
    if endpoint.load is not None and endpoint.load.draining:
        return "draining"
    return "fresh" if is_fresh(endpoint, at) else "stale"
