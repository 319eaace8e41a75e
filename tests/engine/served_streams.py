"""Streams of the tiny model that take the slots of a served engine. `test_served_engine.py` opens them; they end when they are closed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai

from alise_contract.v1 import engine_control_pb2 as pb
from tests.engine.api_fakes import FakeAdmission, eventually
from tests.engine.served import MAX_MODEL_LEN, Observer

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
ENDLESS: dict[str, Any] = {"ignore_eos": True}
SLOTS = 2


async def stream(client: openai.AsyncOpenAI, max_tokens: int = MAX_MODEL_LEN - 100, **extra: Any) -> Any:
    return await client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=max_tokens, stream=True, extra_body={**ENDLESS, **extra}
    )


@contextlib.asynccontextmanager
async def one_slot_taken(client: openai.AsyncOpenAI, sidecar: FakeAdmission, observer: Observer) -> AsyncIterator[None]:
    """Inside, the next request takes the last slot, so that every change of it is polled soon."""
    holding = await stream(client)
    job = sidecar.requests[-1].job_id
    await eventually(lambda: job in observer.rows, "the stream that holds a slot")
    yield
    await holding.close()


# Still running when a plan arrives, on a busy machine too.
ENDURING_TOKENS = 1500


@contextlib.asynccontextmanager
async def displaced(client: openai.AsyncOpenAI, observer: Observer, job: str) -> AsyncIterator[None]:
    """Better-ranked streams take every slot, inside: the job is preempted, and its KV comes back ahead of its turn."""
    await eventually(lambda: job in observer.rows, "the job")
    before = set(observer.rows)
    streams = [asyncio.create_task(stream(client)) for _ in range(SLOTS)]
    await eventually(lambda: len(observer.rows.keys() - before) == SLOTS, "the better-ranked jobs")
    ranks = [pb.Rank(job_id=better, level=-100) for better in observer.rows.keys() - before]
    async with observer.planning(pb.Rank(job_id=job, level=100), *ranks):
        await eventually(lambda: observer.phases(job)[-1:] == [pb.PHASE_RESTORING], "its KV went to the host, and comes back")
        yield
    for better in streams:
        await (await better).close()
