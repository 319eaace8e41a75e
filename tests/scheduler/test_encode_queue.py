"""The queue of prompts to embed: an admission never waits long for its embedding."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from alise_scheduler.predictor.encode_queue import MAX_WAITING, EncodeQueue
from tests.scheduler.hash_encoder import HashEncoder

pytestmark = pytest.mark.process


class Slow:
    """An encoder that waits to be let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.go.wait(5)
        self.texts += texts
        return np.ones((len(texts), 384), np.float32)


async def test_a_text_is_encoded() -> None:
    queue = EncodeQueue(HashEncoder(), timeout_seconds=5)
    vector = await queue.encode("hello world")
    queue.close()
    assert vector is not None
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0)


async def test_no_text_has_no_vector() -> None:
    queue = EncodeQueue(HashEncoder(), timeout_seconds=5)
    assert await queue.encode("") is None
    queue.close()


class Recording:
    """An encoder that notes which thread it was called from, and how long it took on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = 0.0
        self.threads: list[bool] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.at += self.seconds
        self.threads.append(threading.current_thread() is not threading.main_thread())
        return np.ones((len(texts), 384), np.float32)


async def test_a_text_that_comes_alone_is_encoded_on_the_loop_once_the_encoder_is_known_to_be_quick() -> None:
    encoder = Recording(seconds=0.001)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    for _ in range(3):
        await queue.encode("hello")
        encoder.at += 0.1
    queue.close()
    assert encoder.threads == [True, False, False]


async def test_a_text_that_is_less_urgent_is_encoded_in_the_thread_although_the_encoder_is_quick() -> None:
    encoder = Recording(seconds=0.001)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    await queue.encode("hello")
    encoder.at += 0.1
    vector = await queue.encode_aside("a forecast")
    queue.close()
    assert vector is not None
    assert encoder.threads == [True, True]


async def test_a_text_that_is_less_urgent_is_left_out_while_another_waits() -> None:
    encoder = Slow()
    queue = EncodeQueue(encoder, timeout_seconds=5)
    admission = asyncio.create_task(queue.encode("an admission"))
    await asyncio.sleep(0)
    left_out = await queue.encode_aside("a forecast")
    encoder.go.set()
    await admission
    queue.close()
    assert (left_out, encoder.texts) == (None, ["an admission"])


async def test_texts_that_are_less_urgent_take_a_tenth_of_the_threads_time_and_more_are_left_out_until_it_has_passed() -> None:
    encoder, outcomes = Recording(seconds=0.06), list[str]()
    now = 0.0
    queue = EncodeQueue(encoder, 5.0, outcomes.append, clock=lambda: now, work_clock=lambda: encoder.at)
    for _ in range(3):
        await queue.encode_aside("a forecast")
    assert await queue.encode("an admission") is not None
    now = 1.0
    assert await queue.encode_aside("a forecast") is not None
    queue.close()
    assert outcomes == ["encoded", "encoded", "busy", "encoded", "encoded"]


async def test_a_slow_encoder_never_holds_up_the_loop() -> None:
    encoder = Recording(seconds=2.0)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    for _ in range(3):
        await queue.encode("hello")
        encoder.at += 10.0
    queue.close()
    assert encoder.threads == [True, True, True]


async def test_the_loop_rests_from_encoding_for_as_long_as_it_took() -> None:
    encoder = Recording(seconds=0.001)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    await queue.encode("the first is timed in the thread")
    encoder.at += 1.0
    await queue.encode("on the loop")
    await queue.encode("at once after it")
    queue.close()
    assert encoder.threads == [True, False, True]


async def test_a_late_encoder_is_not_waited_for() -> None:
    slow, outcomes = Slow(), list[str]()
    queue = EncodeQueue(slow, 0.01, outcomes.append)
    assert await queue.encode("hello") is None
    slow.go.set()
    queue.close()
    assert outcomes == ["late"]


async def test_too_many_at_once_go_without() -> None:
    slow, outcomes = Slow(), list[str]()
    queue = EncodeQueue(slow, 5.0, outcomes.append)
    waiting = [asyncio.create_task(queue.encode(f"text {number}")) for number in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert await queue.encode("one more") is None
    slow.go.set()
    await asyncio.gather(*waiting)
    queue.close()
    assert outcomes.count("busy") == 1
    assert outcomes.count("encoded") == MAX_WAITING


async def test_an_encoder_that_fails_costs_the_vector_only() -> None:
    class Broken:
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise RuntimeError("out of memory")

    queue = EncodeQueue(Broken(), 5.0)
    assert await queue.encode("hello") is None
    queue.close()


async def test_without_a_thread_a_text_goes_unembedded_and_the_next_has_one() -> None:
    outcomes: list[str] = []
    failures: list[int] = []
    queue = EncodeQueue(HashEncoder(), 5.0, outcomes.append, on_failure=lambda: failures.append(1))
    queue.close()
    assert await queue.encode("a text") is None
    assert await queue.encode("a text") is not None
    assert (outcomes, failures) == (["failed", "encoded"], [1])
