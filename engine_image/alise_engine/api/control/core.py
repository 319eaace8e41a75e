"""Calls our scheduler in EngineCore. Its only way there is a utility call, and each call has a deadline.

`progress.py` and `server.py` call it.
"""

import asyncio
from typing import Any, Final, Protocol

from ...errors import CoreUnavailable
from ...wire.calls import ApplyAnswer, ApplyCall, Call, PollAnswer, PollCall, SnapshotAnswer, SnapshotCall, decode_answer, encode

# A call lands between two steps; the longest step is one prefill chunk on a slow CPU.
CALL_SECONDS: Final = 30.0


class Core(Protocol):
    """Carries a call to the scheduler and its answer back: the engine's client here, a fake in tests."""

    async def call(self, call: Call) -> bytes:
        """Returns the encoded answer. Raises CoreUnavailable."""
        ...


class EngineCoreClient:
    """`Core` over vLLM's engine client. In vLLM 0.32.0 a utility named `scheduler` is EngineCore's attribute, which is callable."""

    def __init__(self, engine_client: Any) -> None:
        self._engine_core = engine_client.engine_core

    async def call(self, call: Call) -> bytes:
        name = type(call).__name__
        try:
            answer: bytes = await asyncio.wait_for(self._engine_core.call_utility_async("scheduler", encode(call)), CALL_SECONDS)
        except TimeoutError as error:
            raise CoreUnavailable(f"EngineCore did not answer {name} within {CALL_SECONDS:.0f} s") from error
        except Exception as error:
            # vLLM raises bare Exceptions for a failed or refused utility call.
            raise CoreUnavailable(f"EngineCore refused {name}: {error}") from error
        return answer


async def snapshot(core: Core) -> SnapshotAnswer:
    return decode_answer(SnapshotAnswer, await core.call(SnapshotCall()))


async def poll(core: Core) -> PollAnswer:
    return decode_answer(PollAnswer, await core.call(PollCall()))


async def apply(core: Core, call: ApplyCall) -> ApplyAnswer:
    return decode_answer(ApplyAnswer, await core.call(call))
