"""The one client that is hostile, in a process of its own: `python -m tests.bench.hostile_client`, with orders on stdin, a JSON line each.

For each it sends one input as fast as its connections allow, or honest requests at a given pace, prints `began` when it begins, and what it
was answered when its time has run out. It talks to a port of this machine and to nothing else.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from tests.bench.hostile_inputs import BY_ID, GOOD, Build, Input
from tests.bench.hostile_wire import exchange

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Orders:
    """`pace` 0: the hostile input, as fast as it goes; else honest requests of that many a second."""

    port: int
    input: str
    seconds: float
    pace: float
    headers: dict[str, str]


async def run(orders: Orders) -> dict[str, object]:
    """Send until the time has run out; requests that are open then are given up. Returns how many were sent and the statuses that came."""
    one = BY_ID[orders.input]
    build = (one.good or GOOD) if orders.pace else one.build
    build(0, orders.headers)
    statuses: Counter[int] = Counter()
    numbers = count()
    print("began", flush=True)
    ends = time.monotonic() + orders.seconds
    workers = [asyncio.create_task(_work(orders, one, build, numbers, statuses, ends)) for _ in range(one.connections)]
    await asyncio.wait(workers, timeout=orders.seconds)
    for worker in workers:
        worker.cancel()
    ended = await asyncio.gather(*workers, return_exceptions=True)
    failures = sorted({f"{type(error).__name__}: {error}" for error in ended if isinstance(error, Exception)})
    return {"sent": next(numbers), "statuses": {str(status): times for status, times in sorted(statuses.items())}, "failures": failures}


async def _work(orders: Orders, one: Input, build: Build, numbers: Iterator[int], statuses: Counter[int], ends: float) -> None:
    began = ends - orders.seconds
    while time.monotonic() < ends:
        number = next(numbers)
        if orders.pace:
            await asyncio.sleep(max(0.0, began + number / orders.pace - time.monotonic()))
        held = one.hold_seconds if not orders.pace else 0.0
        answer = await exchange(orders.port, build(number, orders.headers), held or ANSWER_SECONDS)
        statuses[answer.status] += 1


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(Orders(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
