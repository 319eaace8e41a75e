"""The running dispatcher that many tests use."""

from collections.abc import AsyncIterator

import pytest

from tests.scheduler.builders import make_state
from tests.scheduler.running_dispatcher import Bench, running


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(make_state()) as made:
        made.engine.boot()
        await made.clock.advance(0.1)
        yield made
