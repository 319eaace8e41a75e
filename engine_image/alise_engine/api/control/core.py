"""Calls EngineCore: the only way there is a utility call to our scheduler, and each has a deadline."""

import asyncio
from typing import Any, Final, Protocol

from ...errors import CoreUnavailable
from ...wire.calls import ApplyAnswer, ApplyCall, PollAnswer, PollCall, SnapshotAnswer, SnapshotCall

# A call lands between two steps; the longest step is one prefill chunk on a slow CPU.
CALL_SECONDS: Final = 30.0


class Core(Protocol):
    """Whatever carries a payload to the scheduler; the engine's client here, a fake in tests."""

    async def call(self, payload: dict[str, Any]) -> Any:
        """Raises CoreUnavailable."""
        ...


class EngineCoreClient:
    """`Core` over vLLM's engine client. In vLLM 0.32.0 a utility named `scheduler` is EngineCore's attribute, which is callable."""

    def __init__(self, engine_client: Any) -> None:
        self._engine_core = engine_client.engine_core

    async def call(self, payload: dict[str, Any]) -> Any:
        try:
            return await asyncio.wait_for(self._engine_core.call_utility_async("scheduler", payload), CALL_SECONDS)
        except TimeoutError as error:
            raise CoreUnavailable(f"EngineCore did not answer {payload.get('op')!r} within {CALL_SECONDS:.0f} s") from error
        except Exception as error:
            # vLLM raises bare Exceptions for a failed or refused utility call.
            raise CoreUnavailable(f"EngineCore refused {payload.get('op')!r}: {error}") from error


async def snapshot(core: Core) -> SnapshotAnswer:
    return SnapshotAnswer.from_wire(await core.call(SnapshotCall().to_wire()))


async def poll(core: Core) -> PollAnswer:
    return PollAnswer.from_wire(await core.call(PollCall().to_wire()))


async def apply(core: Core, call: ApplyCall) -> ApplyAnswer:
    return ApplyAnswer.from_wire(await core.call(call.to_wire()))
