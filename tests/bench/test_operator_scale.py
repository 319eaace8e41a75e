"""When the operator counts as settled in the benchmark of a thousand AliseEngines."""

import asyncio

import prometheus_client

from alise_operator import metrics
from tests.bench.operator_scale import queue_length, quiet


async def test_the_operator_has_settled_once_nothing_changes_and_nothing_waits() -> None:
    changes, lengths, looks = asyncio.Queue[str](), iter((3.0, 1.0, 0.0)), list[float]()

    async def waiting() -> float:
        looks.append(next(lengths))
        if len(looks) == 1:
            # A change begins the quiet time anew.
            changes.put_nowait("tiny")
        return looks[-1]

    changes.put_nowait("tiny")
    await asyncio.wait_for(quiet(changes, waiting, 0.02, 0.01), 10)
    assert (looks, changes.empty()) == ([3.0, 1.0, 0.0], True)


async def test_the_queue_is_not_looked_at_while_anything_changes() -> None:
    changes, looks = asyncio.Queue[str](), list[float]()

    async def waiting() -> float:
        looks.append(0.0)
        return 0.0

    settled = asyncio.create_task(quiet(changes, waiting, 3600.0, 3600.0))
    for _ in range(100):
        changes.put_nowait("tiny")
        await asyncio.sleep(0)
    assert not looks
    assert not settled.done()
    settled.cancel()


def test_the_length_of_the_queue_is_read_from_the_operators_metrics() -> None:
    metrics.QUEUE_LENGTH.set(7)
    try:
        assert queue_length(prometheus_client.generate_latest(metrics.REGISTRY).decode()) == 7
    finally:
        metrics.QUEUE_LENGTH.set(0)
