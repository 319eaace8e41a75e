"""The gRPC client of `EngineControl` on the pod's socket: Watch with endless reconnects, Apply with a deadline.

A session is one Watch call. Its first message must be a snapshot and arrive in time; after that the stream may be silent while the engine
is idle. If the engine's process dies, the stream ends at once. If it hangs, Apply misses its deadline, and the dispatcher asks to
reconnect. `run.py` makes the client, `dispatcher.py` uses it.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from alise_contract.names import CONTRACT_VERSION, LOCAL_RPC_OPTIONS
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1.engine_control_pb2_grpc import EngineControlStub

from ..core.plan import Plan
from ..core.reports import EngineEvent, EngineLost, EngineSnapshot, EngineUpdate
from ..errors import EngineUnavailableError, SessionLostError
from . import convert

log = logging.getLogger(__name__)

SNAPSHOT_SECONDS: Final = 5.0
APPLY_SECONDS: Final = 1.0
_BACKOFF_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_OPTIONS: Final = (*LOCAL_RPC_OPTIONS, ("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0))


def backoff_seconds(failures: int) -> float:
    """The pause after this number of failures in a row."""
    return _BACKOFF_SECONDS[min(max(failures - 1, 0), len(_BACKOFF_SECONDS) - 1)]


class EngineClient:
    """The engine behind `control.sock`. Implements `interface.Engine`."""

    def __init__(self, socket_path: str, on_reconnect: Callable[[], None]) -> None:
        self._path = socket_path
        self._on_reconnect = on_reconnect
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._closed = False
        # Whether the predictor has an encoder. None if that is not known yet, or none is configured.
        self.has_encoder: bool | None = None

    async def events(self) -> AsyncIterator[EngineEvent]:
        failures = 0
        while not self._closed:
            detail = "the stream ended"
            try:
                async for event in self._session():
                    failures = 0
                    yield event
            except EngineUnavailableError as error:
                detail = str(error)
            if self._closed:
                return
            failures += 1
            if failures == 1:
                log.info("engine session ended", extra={"detail": detail})
                yield EngineLost(detail)
            self._on_reconnect()
            await asyncio.sleep(backoff_seconds(failures))

    async def _session(self) -> AsyncIterator[EngineSnapshot | EngineUpdate]:
        """One Watch call. Every end of it raises EngineUnavailableError."""
        await self._drop_channel()
        if not os.path.exists(self._path):  # noqa: ASYNC240 a stat of a local socket
            raise EngineUnavailableError(f"{self._path} does not exist (yet)")
        self._channel = grpc.aio.insecure_channel(f"unix:{self._path}", options=_OPTIONS)
        call = self._call = EngineControlStub(self._channel).Watch(
            pb.WatchRequest(contract_version=CONTRACT_VERSION, client=f"alise-scheduler/{os.getpid()}")
        )
        expected = 1
        try:
            while True:
                message = await (asyncio.wait_for(call.read(), SNAPSHOT_SECONDS) if expected == 1 else call.read())
                if not isinstance(message, pb.WatchResponse):
                    raise EngineUnavailableError("the engine ended the stream")
                try:
                    event = convert.from_response(message)
                except Exception as error:
                    # The message may have reported ends. If it were skipped, their jobs would stay active here until the next snapshot.
                    log.exception("a message from the engine cannot be parsed; asking for a snapshot", extra={"sequence": message.sequence})
                    raise EngineUnavailableError(f"message {message.sequence} cannot be parsed: {type(error).__name__}") from error
                if message.sequence != expected or (expected == 1) != isinstance(event, EngineSnapshot):
                    raise EngineUnavailableError(
                        f"message {message.sequence} ({message.WhichOneof('event')}) came; expected number {expected}"
                    )
                expected += 1
                if event is not None:
                    yield event
        except TimeoutError as error:
            raise EngineUnavailableError(f"no snapshot within {SNAPSHOT_SECONDS} s") from error
        except grpc.aio.AioRpcError as error:
            raise EngineUnavailableError(f"{error.code().name}: {error.details()}") from error
        except asyncio.CancelledError:
            # Either reconnect() cancelled the call, or this task was cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise EngineUnavailableError("asked to reconnect") from None
        finally:
            call.cancel()

    async def apply(self, session_id: str, sequence: int, plan: Plan) -> tuple[str, ...]:
        if self._channel is None:
            raise EngineUnavailableError("not connected")
        message = convert.to_apply(session_id, sequence, plan, self.has_encoder)
        try:
            answer = await EngineControlStub(self._channel).Apply(message, timeout=APPLY_SECONDS)
        except grpc.aio.AioRpcError as error:
            reason = f"Apply {sequence}: {error.code().name}: {error.details()}"
            if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT):
                raise SessionLostError(reason) from error
            raise EngineUnavailableError(reason) from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise EngineUnavailableError(f"Apply {sequence}: the channel was closed") from error
        return tuple(answer.unknown_jobs)

    def reconnect(self) -> None:
        if self._call is not None:
            self._call.cancel()

    async def close(self) -> None:
        self._closed = True
        self.reconnect()
        await self._drop_channel()

    async def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.close(None)
