"""The thread that writes the history: stores that fail are opened again, and what waits is bounded."""

import threading

import pytest

from alise_scheduler.errors import HistoryError
from alise_scheduler.predictor.storage.writer import MAX_WAITING, RETRY_SECONDS, Archive
from alise_scheduler.predictor.training.samples import Sample
from tests.scheduler.predictor_builders import make_sample


class Flaky:
    """A store that works while a test wants it to."""

    def __init__(self) -> None:
        self.works = True
        self.rows: list[Sample] = []

    def load(self, rows: int) -> list[Sample]:
        return self.rows[-rows:]

    def append(self, samples: list[Sample]) -> None:
        if not self.works:
            raise HistoryError("down")
        self.rows += samples

    def load_head(self) -> bytes | None:
        return None

    def save_head(self, version: int, data: bytes) -> None:
        if not self.works:
            raise HistoryError("down")

    def note(self, key: str) -> str | None:
        return None

    def save_note(self, key: str, value: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_store_that_was_down_gets_what_waited() -> None:
    now = [0.0]
    flaky = Flaky()
    archive = Archive(flaky, lambda: flaky, clock=lambda: now[0])  # type: ignore[arg-type, return-value]
    flaky.works = False
    archive.keep(make_sample())
    archive.step()
    assert not archive.local.up
    flaky.works = True
    archive.keep(make_sample())
    archive.step()
    assert flaky.rows == []
    now[0] += RETRY_SECONDS
    archive.step()
    assert archive.local.up
    assert len(flaky.rows) == 2


class Buggy(Flaky):
    """A store that fails with an unexpected error."""

    def append(self, samples: list[Sample]) -> None:
        if not self.works:
            raise ZeroDivisionError("a bug")
        super().append(samples)


def test_a_store_with_a_bug_is_down_and_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    now, buggy = [0.0], Buggy()
    archive = Archive(buggy, lambda: buggy, clock=lambda: now[0])  # type: ignore[arg-type, return-value]
    buggy.works = False
    archive.keep(make_sample())
    archive.step()
    assert not archive.local.up
    assert archive.local.failures == 1
    buggy.works = True
    now[0] += RETRY_SECONDS
    archive.step()
    assert archive.local.up
    assert len(buggy.rows) == 1


def test_the_historys_thread_outlives_what_it_stumbles_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.storage.writer.WRITE_SECONDS", 0.001)
    rounds, enough = [0], threading.Event()

    def step() -> None:
        rounds[0] += 1
        if rounds[0] > 3:
            enough.set()
        raise RuntimeError("a bug")

    archive = Archive(None, None)
    monkeypatch.setattr(archive, "step", step)
    archive.start()
    assert enough.wait(20)
    assert archive.alive
    archive.close()
    assert archive.failures >= 3


class EndsAtOnce(threading.Thread):
    """A thread that has ended when it has been started."""

    def start(self) -> None:
        super().start()
        self.join()

    def run(self) -> None:
        pass


def test_a_thread_that_ended_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(None, None)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", EndsAtOnce)
        archive.start()
    assert not archive.alive
    archive.start()
    assert archive.alive
    assert archive.failures == 1
    archive.close()


def test_what_waits_is_bounded() -> None:
    archive = Archive(None, None)
    sample = make_sample()
    for _ in range(MAX_WAITING + 10):
        archive.keep(sample)
    assert archive.local.dropped == 10
