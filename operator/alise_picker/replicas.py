"""Each replica's load, which it streams, and its predictions, for which it is asked: gRPC to the replicas' sidecars.

`__main__.py` creates it and hands in the replicas that `endpoints.py` finds; `picker.py` asks it about each request. One task per replica
keeps its stream; a replica whose stream ends or falls silent is asked again after a second, and until then its figures grow old.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_contract.v1 import admission_pb2, lengths_pb2
from alise_contract.v1.lengths_pb2_grpc import LengthsStub
from alise_picker.choose import STALE_SECONDS, Endpoint, LevelLoad, Load, Sent, is_fresh, unreported

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0
# How long questions to a replica that leaves may still take.
LEAVE_SECONDS: Final = 1.0
MAX_SENT: Final = 1024
# A report is a few kilobytes; a replica runs whatever its namespace put there.
MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_LEVELS: Final = 256
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A ready replica: where requests go, and where its sidecar answers."""

    address: str
    lengths: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a replica expects of a request: its rank there, and the seconds of one slot for all of its samples; 0 if it does not say."""

    level: int
    work_seconds: float


@dataclass
class _Replica:
    target: Target
    channel: grpc.aio.Channel
    since: float = -math.inf
    load: Load | None = None
    sent: deque[Sent] = field(default_factory=lambda: deque(maxlen=MAX_SENT))
    task: "asyncio.Task[None] | None" = None
    dropped: bool = False


class Replicas:
    """The replicas that are ready now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, leave_seconds: float = LEAVE_SECONDS) -> None:
        self._clock = clock
        self._leave_seconds = leave_seconds
        self._replicas: dict[Target, _Replica] = {}
        self._asked = 0
        # Set while there is a replica.
        self.any_ready = asyncio.Event()
        # Whether the list of replicas was read once.
        self.listed = False

    def set(self, targets: Sequence[Target]) -> None:
        """Follows these replicas from now on, and no others."""
        # Those of the first list were there before, for all that is known.
        since = self._clock() if self.listed else -math.inf
        self.listed = True
        for target in [one for one in self._replicas if one not in targets]:
            self._drop(self._replicas.pop(target))
        for target in targets:
            if target not in self._replicas:
                replica = _Replica(target, grpc.aio.insecure_channel(target.lengths, options=_OPTIONS), since=since)
                replica.task = asyncio.create_task(self._follow(replica), name=f"load of {target.address}")
                self._replicas[target] = replica
        if self._replicas:
            self.any_ready.set()
        else:
            self.any_ready.clear()

    def endpoints(self) -> list[Endpoint]:
        """Returns the replicas as `choose()` reads them, in a fixed order."""
        found = [Endpoint(replica.target.address, replica.load, tuple(replica.sent), replica.since) for replica in self._replicas.values()]
        return sorted(found, key=lambda one: one.address)

    def note(self, address: str, sent: Sent) -> None:
        """Counts a request that goes to a replica."""
        for replica in self._replicas.values():
            if replica.target.address == address:
                replica.sent.append(sent)

    async def predict(self, question: admission_pb2.AdmitRequest, prefer: str, seconds: float) -> Prediction | None:
        """Returns the prediction of one replica with fresh figures, of `prefer` if it is one; None without an answer in time."""
        now = self._clock()
        fresh = [one for one in self._replicas.values() if is_fresh(Endpoint(one.target.address, one.load), now)]
        if not fresh:
            return None
        self._asked += 1
        replica = next((one for one in fresh if one.target.address == prefer), fresh[self._asked % len(fresh)])
        # The replica that gets the request embeds its prompt once more; here a rough length is enough.
        request = lengths_pb2.PredictRequest(request=question, without_embedding=True)
        try:
            found: lengths_pb2.PredictResponse = await LengthsStub(replica.channel).Predict(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            log.debug("no prediction", extra={"replica": replica.target.address, "code": error.code().name})
            return None
        except asyncio.CancelledError:
            # The replica left and its connection was closed. Only the caller's own cancellation goes on.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None
        return prediction_of(found)

    async def close(self) -> None:
        """Ends every connection."""
        tasks = [replica.task for replica in self._replicas.values() if replica.task is not None]
        for replica in self._replicas.values():
            self._drop(replica)
        self._replicas.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, replica: _Replica) -> None:
        # gRPC may report the cancellation as the stream's own end.
        replica.dropped = True
        if replica.task is not None:
            replica.task.cancel()

    async def _follow(self, replica: _Replica) -> None:
        try:
            while not replica.dropped:
                with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, StopAsyncIteration):
                    await self._watch(replica)
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            await replica.channel.close(self._leave_seconds)

    async def _watch(self, replica: _Replica) -> None:
        """Takes reports in until the stream ends or is silent for too long."""
        call = LengthsStub(replica.channel).WatchLoad(lengths_pb2.WatchLoadRequest())
        try:
            reports = aiter(call)
            while True:
                # wait_for would lose a cancellation that comes together with the end of the stream.
                async with asyncio.timeout(STALE_SECONDS):
                    report = await anext(reports)
                load = load_of(report, self._clock())
                replica.sent = deque(unreported(tuple(replica.sent), replica.load, load), maxlen=MAX_SENT)
                replica.load = load
        finally:
            call.cancel()


def load_of(report: lengths_pb2.LoadReport, at: float) -> Load:
    """Returns a report as a value. Numbers that no replica has become harmless ones: a hostile replica can only describe itself."""
    rows = tuple(LevelLoad(_level(row.level), _number(row.samples), _number(row.work_seconds)) for row in list(report.levels)[:MAX_LEVELS])
    limit = _number(report.max_wait_seconds)
    return Load(at, rows, max(1.0, _number(report.slots)), report.draining, report.connected, limit, report.arrivals)


def prediction_of(answer: lengths_pb2.PredictResponse) -> Prediction:
    """Returns an answer as a value, bounded as a report is."""
    return Prediction(_level(answer.level), _number(answer.work_seconds))


def _level(value: int) -> int:
    return min(max(value, MIN_LEVEL), MAX_LEVEL)


def _number(value: float) -> float:
    """The value, or 0 for NaN and for what is negative; at most 1e9."""
    return min(value, 1e9) if value > 0 else 0.0
