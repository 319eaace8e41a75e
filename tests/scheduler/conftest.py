"""Timings never fail a test: the machine may be busy. And the running dispatcher that many tests use."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.scheduler.builders import make_state
from tests.scheduler.running_dispatcher import Bench, running

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(make_state()) as made:
        made.engine.boot()
        await made.clock.advance(0.1)
        yield made
