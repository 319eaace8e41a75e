"""Copies in the step and beside it: what is saved comes back, whatever happens to the blocks in the next step."""

import random
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from alise_engine.kv.copies import HostCopies
from alise_engine.kv.int8 import RAW, LayerShape
from alise_engine.kv.slabs import Geometry
from alise_engine.kv.work import AliseMetadata, Drop, Load, Save
from alise_engine.kv.worker import WorkerSide

pytestmark = pytest.mark.engine

LAYERS, BLOCKS = 3, 24
SHAPE = LayerShape(2, 4, 8, torch.float32, None)


class Worker:
    """One worker with its KV cache, whose content the test writes: a number per block and layer."""

    def __init__(self, threaded: bool) -> None:
        self.cache = {f"l{number}": torch.zeros(BLOCKS, 2, 4, 16) for number in range(LAYERS)}
        geometry = Geometry.of(64 * LAYERS * RAW.row_bytes(SHAPE), {"raw": RAW.row_bytes(SHAPE)})
        self.copies = HostCopies(threaded)
        self.side = WorkerSide(SHAPE, RAW.row_bytes(SHAPE), geometry, {"raw": RAW}, lambda device: self.copies)
        self.side.register(self.cache, BLOCKS)

    def fill(self, blocks: list[int], value: float) -> None:
        for number, layer in enumerate(self.cache.values()):
            layer[blocks] = value + number / 10

    def holds(self, blocks: list[int], value: float) -> bool:
        return all(bool((layer[blocks] == value + number / 10).all()) for number, layer in enumerate(self.cache.values()))

    def step(self, *writes: Drop | Save, loads: tuple[Load, ...] = ()) -> None:
        work = AliseMetadata(list(writes), list(loads))
        self.side.begin_step(work)
        self.side.start_loads(work)


@pytest.fixture(params=[pytest.param(False, id="in the step"), pytest.param(True, id="beside the step")])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    worker = Worker(request.param)
    yield worker
    worker.side.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_was_saved_comes_back_although_its_blocks_are_overwritten_in_the_next_step(worker: Worker, seed: int) -> None:
    chance = random.Random(seed)
    saved: dict[str, float] = {}
    for turn in range(60):
        name = f"r{turn % 5}"
        blocks = chance.sample(range(BLOCKS), 8)
        beside = chance.random() < 0.5
        if name in saved and chance.random() < 0.6:
            worker.step(loads=(Load(name, tuple(blocks), 0, ahead=beside),))
            if beside:
                worker.step()
            assert worker.holds(blocks, saved[name])
        else:
            saved[name] = float(turn)
            worker.fill(blocks, saved[name])
            worker.step(Save(name, tuple(blocks), 0, 8 * SHAPE.block_size, "raw", beside=beside))
            if beside:
                # The next step begins, and the blocks are another request's.
                worker.step()
            worker.fill(blocks, -1.0)


def test_what_is_saved_and_loaded_in_one_step_is_loaded_whole(worker: Worker) -> None:
    for turn in range(20):
        worker.fill([0, 1, 2], float(turn))
        worker.step(Save("r", (0, 1, 2), 0, 12, "raw", beside=True), loads=(Load("r", (5, 6, 7), 0),))
        assert worker.holds([5, 6, 7], float(turn))


def test_a_copy_that_is_replaced_while_it_is_read_is_read_as_it_was(worker: Worker) -> None:
    worker.fill([0, 1], 1.0)
    worker.step(Save("r", (0, 1), 0, 8, "raw"))
    worker.step(loads=(Load("r", (4, 5), 0, ahead=True),))
    worker.fill([0, 1], 2.0)
    worker.step(Drop("r"), Save("s", (0, 1), 0, 8, "raw"))
    assert worker.holds([4, 5], 1.0)


def test_a_copy_that_makes_room_for_another_in_the_same_step_writes_nothing_into_it() -> None:
    worker = Worker(threaded=True)
    encode = RAW.encode

    class SlowBeside:
        name, row_bytes, decode = RAW.name, RAW.row_bytes, RAW.decode

        def encode(self, *arguments: object) -> None:
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.1)
            encode(*arguments)  # type: ignore[arg-type]

    worker.side._codecs["raw"] = SlowBeside()
    worker.fill([0, 1], 1.0)
    worker.fill([2, 3], 2.0)
    # Two are preempted; the second needs the first one's room, and its blocks are given to another request in this step.
    worker.step(Save("a", (0, 1), 0, 8, "raw", beside=True), Drop("a", evicted=True), Save("b", (2, 3), 0, 8, "raw"))
    worker.step(loads=(Load("b", (4, 5), 0),))
    assert worker.holds([4, 5], 2.0)
    worker.side.close()


def test_copies_beside_the_step_run_in_another_thread_and_their_time_is_counted_when_they_are_over() -> None:
    worker = Worker(threaded=True)
    go = threading.Event()
    threads = []
    encode = RAW.encode

    class Slow:
        name, row_bytes, decode = RAW.name, RAW.row_bytes, RAW.decode

        def encode(self, *arguments: object) -> None:
            threads.append(threading.current_thread())
            assert go.wait(10)
            encode(*arguments)  # type: ignore[arg-type]

    worker.side._codecs["raw"] = Slow()
    worker.step(Save("r", (0, 1), 0, 8, "raw", beside=True))
    assert worker.side.take_spent().save_us == 0
    go.set()
    worker.side.begin_step(AliseMetadata())
    assert worker.side.take_spent().save_us > 0
    assert threading.main_thread() not in threads
    worker.side.close()


def test_what_fails_beside_the_step_fails_the_next_one() -> None:
    worker = Worker(threaded=True)
    worker.step(Save("r", (BLOCKS + 7,), 0, 4, "raw", beside=True))
    with pytest.raises((IndexError, RuntimeError)):
        worker.step()
    worker.side.close()
