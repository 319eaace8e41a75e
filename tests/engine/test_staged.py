"""Copies of a GPU, run on the CPU with two streams that lag behind each other in every order that their events allow."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from alise_engine.kv.int8 import INT8, RAW, Codec, KeyLayout, LayerShape
from alise_engine.kv.slabs import Geometry
from alise_engine.kv.staged import StagedCopies
from alise_engine.kv.work import AliseMetadata, Drop, Load, Save
from alise_engine.kv.worker import WorkerSide

pytestmark = pytest.mark.engine

LAYERS, BLOCKS = 2, 20
SHAPE = LayerShape(2, 8, 8, torch.float32, KeyLayout.PER_TOKEN)
CODECS: dict[str, Codec] = {"raw": RAW, "int8": INT8}


@dataclass(eq=False)
class Mark:
    happened: bool = False


@dataclass
class LaggingStreams:
    """Does nothing of what it is asked until it must; then a random one of the two streams, as far as its events let it.

    `deaf`: waits are forgotten, as if they had been left out of the code.
    """

    seed: int
    deaf: bool = False
    queues: dict[bool, deque[Callable[[], None] | Mark]] = field(default_factory=lambda: {False: deque(), True: deque()})

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def run(self, side: bool, work: Callable[[], None]) -> None:
        self.queues[side].append(work)
        while self._chance.random() < 0.3 and self._advance():
            pass

    def record(self, side: bool) -> Mark:
        mark = Mark()

        def happens() -> None:
            mark.happened = True

        self.queues[side].append(happens)
        return mark

    def wait(self, side: bool, event: Mark) -> None:
        if not self.deaf:
            self.queues[side].append(event)

    def elapsed_us(self, start: Mark, end: Mark) -> float | None:
        return 1.0 if end.happened else None

    def synchronize(self) -> None:
        while self._advance():
            pass
        assert not self.queues[False]
        assert not self.queues[True]

    def compute(self, work: Callable[[], None]) -> None:
        """The forward pass: what the model's own stream does."""
        self.run(False, work)

    def _advance(self) -> bool:
        for side in self._chance.sample([False, True], 2):
            queue = self.queues[side]
            while queue and isinstance(queue[0], Mark) and queue[0].happened:
                queue.popleft()
            if queue and not isinstance(queue[0], Mark):
                work: Any = queue.popleft()
                work()
                return True
        return False


class Worker:
    def __init__(self, streams: LaggingStreams, staging_bytes: int) -> None:
        self.streams = streams
        self.cache = {f"l{number}": torch.zeros(BLOCKS, 2, 8, 16) for number in range(LAYERS)}
        row_bytes = {name: codec.row_bytes(SHAPE) for name, codec in CODECS.items()}
        copies = StagedCopies(streams, lambda size: torch.zeros(size, dtype=torch.uint8), staging_bytes)
        geometry = Geometry.of(40 * LAYERS * row_bytes["raw"], row_bytes)
        self.side = WorkerSide(SHAPE, row_bytes["raw"], geometry, CODECS, lambda device: copies)
        self.side.register(self.cache, BLOCKS)

    def step(self, *writes: Drop | Save, loads: tuple[Load, ...] = (), forward: Callable[[], None] = lambda: None) -> None:
        work = AliseMetadata(list(writes), list(loads))
        self.side.begin_step(work)
        if work.feeds_this_step():
            self.side.start_loads(work)
        self.streams.compute(forward)
        if not work.feeds_this_step():
            self.side.start_loads(work)

    def filling(self, blocks: list[int], value: float) -> Callable[[], None]:
        """A forward pass that writes these blocks."""

        def forward() -> None:
            for number, layer in enumerate(self.cache.values()):
                layer[blocks] = value + number

        return forward


def diverged(seed: int, staging_rows: int, deaf: bool = False) -> int:
    """Turns of saves, loads, and forward passes that overwrite what was given away; how many loads brought something else."""
    chance = random.Random(seed)
    worker = Worker(LaggingStreams(seed, deaf), staging_rows * RAW.row_bytes(SHAPE))
    saved: dict[str, float] = {}
    wrong: list[str] = []

    def looking(blocks: list[int], value: float) -> Callable[[], None]:
        def forward() -> None:
            layers = enumerate(worker.cache.values())
            wrong.extend("" for number, layer in layers if (layer[blocks] - value - number).abs().max() > 0.05)

        return forward

    for turn in range(40):
        name, blocks, codec = f"r{turn % 4}", chance.sample(range(BLOCKS), 6), chance.choice(["raw", "int8"])
        ahead = chance.random() < 0.5
        if name in saved and chance.random() < 0.6:
            load = Load(name, tuple(blocks), 0, ahead=ahead)
            if ahead:
                worker.step(loads=(load,))
                worker.step(forward=looking(blocks, saved[name]))
            else:
                worker.step(loads=(load,), forward=looking(blocks, saved[name]))
        else:
            saved[name] = float(turn)
            worker.step(forward=worker.filling(blocks, saved[name]))
            save = Save(name, tuple(blocks), 0, 6 * SHAPE.block_size, codec, beside=ahead)
            if ahead:
                worker.step(Drop(name), save)
                worker.step(forward=worker.filling(blocks, -1.0))
            else:
                worker.step(Drop(name), save, forward=worker.filling(blocks, -1.0))
    worker.streams.synchronize()
    assert worker.side.take_spent().save_us > 0
    return len(wrong)


@pytest.mark.parametrize("staging_rows", [pytest.param(1, id="a row at a time"), pytest.param(64, id="whole pieces at a time")])
@pytest.mark.parametrize("seed", range(10))
def test_every_order_that_the_events_allow_gives_back_what_was_saved(seed: int, staging_rows: int) -> None:
    assert diverged(seed, staging_rows) == 0


def test_without_the_events_it_would_not() -> None:
    assert sum(diverged(seed, 1, deaf=True) for seed in range(5)) > 0


def test_time_is_counted_when_a_copy_is_over() -> None:
    streams = LaggingStreams(0)
    worker = Worker(streams, 1 << 16)
    worker.step(Save("r", (0, 1), 0, 16, "raw", beside=True))
    worker.step(loads=(Load("r", (3, 4), 0),))
    streams.synchronize()
    spent = worker.side.take_spent()
    assert (spent.save_us, spent.restore_us) == (1.0, 1.0)
    assert not worker.side.take_spent()
