"""Why an engine ended (D3): its server says it among its last words, and its exit code is not 0."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire import last_words
from tests.engine.served import ServedEngine, serving

ENGINE_CORE = b"EngineCore"
# Characters of a log that Kubernetes shows as a container's last words.
KUBELETS_TAIL = 2048


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALISE_SOCKET_DIR", str(tmp_path))
    return tmp_path


def test_the_last_words_are_the_error_that_enginecore_left(folder: Path) -> None:
    last_words.leave(RuntimeError("CPU Generator does not use offset"))
    assert last_words.last_words().endswith("RuntimeError: CPU Generator does not use offset")


def test_who_left_nothing_was_killed(folder: Path) -> None:
    assert last_words.KILLED in last_words.last_words()


def test_what_an_engine_before_has_left_is_forgotten(folder: Path) -> None:
    last_words.leave(RuntimeError("long ago"))
    last_words.forget()
    assert last_words.KILLED in last_words.last_words()


def test_an_endless_error_is_cut_and_an_unwritable_folder_ends_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last_words.leave(RuntimeError("x" * 100_000))
    assert len(last_words.last_words()) < 2 * last_words.MAX_CHARS
    monkeypatch.setenv("ALISE_SOCKET_DIR", str(folder / "missing"))
    last_words.leave(RuntimeError("nowhere to go"))
    last_words.forget()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ServedEngine]:
    tiny_model.write_model(tmp_path / "tiny")
    with serving(tmp_path / "tiny", "--served-model-name", "tiny", "--max-model-len", "2048") as engine:
        yield engine


def core_of(engine: ServedEngine) -> int:
    """The process id of EngineCore, which is in the server's session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, session = stat.with_name("cmdline").read_bytes(), int(stat.read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        if ENGINE_CORE in name and session == engine.process.pid:
            return int(stat.parent.name)
    raise AssertionError("there is no EngineCore")


@pytest.mark.engine
def test_a_server_whose_engine_was_killed_says_so_last_and_exits_with_1(engine: ServedEngine) -> None:
    os.kill(core_of(engine), signal.SIGKILL)
    assert engine.process.wait(60) == 1
    assert last_words.KILLED in engine.log.read_text(errors="replace")[-KUBELETS_TAIL:]
