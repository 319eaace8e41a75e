"""The history: what comes back, what is refused, what survives a kill, what never gets there."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alise_scheduler.errors import HistoryError
from alise_scheduler.predictor.archive import MAX_WAITING, RETRY_SECONDS, Archive
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.model import Observation
from alise_scheduler.predictor.recent import Recent, Sample
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.store import FILE, SqliteStore, pack_vector, unpack_vector
from tests.scheduler.predictor_builders import make_features, make_sample

HASHES = st.integers(0, 2**64 - 1)
SAMPLES = st.builds(
    lambda tokens, seed, ended, root, model, now, previous, tenant, blind: make_sample(
        tokens, seed, ended=ended, root=root, model=model, now=now, previous=previous, tenant=tenant,
        **({"embedding": None} if blind else {}),
    ),
    st.integers(1, 10**6), st.integers(0, 5), st.booleans(), HASHES, HASHES, HASHES, HASHES, HASHES, st.booleans(),
)  # fmt: skip


def alike(one: Sample, other: Sample) -> bool:
    same = all(getattr(one, name) == getattr(other, name) for name in ("ended", "root", "model", "now", "previous", "tenant"))
    near = np.allclose(one.numbers, other.numbers, atol=2e-3) and math.isclose(one.log_tokens, other.log_tokens)
    if one.embedding is None or other.embedding is None:
        return same and near and one.embedding is other.embedding
    return same and near and float(one.embedding @ other.embedding) > 0.999


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(SAMPLES, max_size=4), max_size=4))
def test_what_was_written_comes_back_in_order(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Sample]]) -> None:
    folder = tmp_path_factory.mktemp("history")
    store = SqliteStore(folder)
    for batch in batches:
        store.append(batch)
    store.close()
    again = SqliteStore(folder).load(100)
    wanted = [sample for batch in batches for sample in batch]
    assert len(again) == len(wanted)
    assert all(alike(one, other) for one, other in zip(again, wanted, strict=True))


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12), bound=st.integers(10, 60))
def test_the_number_of_rows_is_bounded(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], bound: int) -> None:
    store = SqliteStore(tmp_path_factory.mktemp("history"), max_rows=bound)
    for size in sizes:
        store.append([make_sample()] * size)
    assert store.count() <= bound + bound // 10 + 40


def test_rows_that_are_too_old_go(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, max_rows=10, max_age_seconds=-1.0)
    store.append([make_sample()] * 5)
    assert store.count() == 0


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir())}


def test_nobody_else_can_read_the_history_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "history")
        store.append([make_sample()])
        held = modes(tmp_path / "history")
    finally:
        os.umask(before)
    assert held == {"history": "0o700", FILE: "0o600", f"{FILE}-wal": "0o600", f"{FILE}-shm": "0o600"}


def test_files_that_were_open_to_all_are_closed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.append([make_sample()])
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (tmp_path / "history.corrupt").write_bytes(b"x")
    SqliteStore(tmp_path)
    assert set(modes(tmp_path).values()) == {"0o700", "0o600"}


def test_a_folder_that_holds_other_files_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "of another program").write_bytes(b"x")
    tmp_path.chmod(0o755)
    SqliteStore(tmp_path).append([make_sample()])
    held = modes(tmp_path)
    assert (held[tmp_path.name], held[FILE], held[f"{FILE}-wal"]) == ("0o755", "0o600", "0o600")


def test_a_file_moved_aside_is_private(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    (tmp_path / FILE).chmod(0o644)
    SqliteStore(tmp_path)
    assert modes(tmp_path)["history.corrupt"] == "0o600"


@pytest.mark.parametrize("before", [pytest.param(True, id="by an earlier start"), pytest.param(False, id="just now")])
def test_without_embeddings_no_file_is_kept_aside_because_it_may_hold_some(tmp_path: Path, before: bool) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    if before:
        SqliteStore(tmp_path).close()
        assert "history.corrupt" in modes(tmp_path)
    store = SqliteStore(tmp_path, embeddings=False)
    assert "history.corrupt" not in modes(tmp_path)
    assert store.recovered is not before
    store.close()


def test_a_salt_of_before_is_removed_and_the_history_begins_anew(tmp_path: Path) -> None:
    salt = b"sixteen bytes .."
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, embedding BLOB)")
        connection.execute("INSERT INTO meta VALUES ('salt', ?), ('layout', X'382f')", (salt,))
        connection.execute("INSERT INTO requests (at, embedding) VALUES (1.0, ?)", (b"an old embedding",))
    connection.close()
    store = SqliteStore(tmp_path)
    assert store.load(10) == []
    store.append([make_sample()])
    store.close()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert salt not in held
    assert b"an old embedding" not in held


def test_without_embeddings_none_are_kept_nor_heads_which_hold_some(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, embeddings=False)
    store.append([make_sample(tokens=20)])
    store.save_head(1, b"a head with landmarks")
    (again,) = store.load(10)
    assert again.embedding is None
    assert math.exp(again.log_tokens) == pytest.approx(20)
    assert store.load_head() is None


def test_embeddings_that_are_not_wanted_any_more_leave_the_file(tmp_path: Path) -> None:
    store, sample = SqliteStore(tmp_path), make_sample()
    store.append([sample])
    store.save_head(1, b"a head with landmarks")
    store.close()
    SqliteStore(tmp_path, embeddings=False).close()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    packed = pack_vector(sample.embedding)
    assert packed is not None
    assert packed not in held
    assert b"a head with landmarks" not in held


def test_l6_a_flood_by_one_tenant_leaves_the_others_rows_in_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, max_rows=100)
    store.append([make_sample(tenant=1)] * 30)
    for _ in range(20):
        store.append([make_sample(tenant=2)] * 40)
    assert sum(sample.tenant == 1 for sample in store.load(100)) == 30
    assert sum(sample.tenant == 1 for sample in store.load(60)) == 30


def test_the_newest_head_comes_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for version in (1, 2, 3, 4):
        store.save_head(version, b"head %d" % version)
    assert store.load_head() == b"head 4"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not a database at all, but long enough to be looked at" * 100, id="another kind of file"),
        pytest.param(b"SQLite format 3\x00" + b"\xff" * 4096, id="a destroyed header"),
    ],
)
def test_a_bad_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    store = SqliteStore(tmp_path)
    assert store.recovered
    assert (tmp_path / FILE).with_suffix(".corrupt").read_bytes() == content
    store.append([make_sample()])
    assert len(store.load(10)) == 1


def test_a_file_with_a_destroyed_middle_is_noticed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.append([make_sample()] * 300)
    store.close()
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    content[8192 : len(content) // 2] = b"\xa5" * (len(content) // 2 - 8192)
    path.write_bytes(content)
    assert SqliteStore(tmp_path).recovered


def test_rows_of_another_layout_are_not_used(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.append([make_sample()])
    store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE meta SET value = X'00' WHERE key = 'layout'")
    assert SqliteStore(tmp_path).load(10) == []


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="mount a writable folder"):
        SqliteStore(tmp_path / "file")


def test_without_a_usable_folder_history_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = start(Where(str(tmp_path / "file")))
    parts.predictor.learn(make_features(), Observation(10, True))
    parts.archive.close()
    assert len(parts.predictor.recent) == 1


def test_a_stored_vector_of_another_dimension_is_refused() -> None:
    with pytest.raises(HistoryError, match="has 3 dimensions"):
        unpack_vector(b"abc")


def test_a_packed_vector_keeps_its_direction() -> None:
    vector = make_sample().embedding
    assert vector is not None
    again = unpack_vector(pack_vector(vector))
    assert again is not None
    assert float(vector @ again) > 0.9999


WRITER = """
import sys
from pathlib import Path
from alise_scheduler.predictor.store import SqliteStore
from tests.scheduler.predictor_builders import make_sample
store = SqliteStore(Path(sys.argv[1]))
sample = make_sample()
while True:
    store.append([sample] * 5)
    print(store.count(), flush=True)
"""


def test_killing_the_writer_loses_no_committed_row_and_never_the_file(tmp_path: Path) -> None:
    for pause_seconds in (0.0, 0.003, 0.011):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause_seconds)
        os.kill(process.pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=10)
        committed = [int(line) for line in said.split("\n")[:-1] if line]
        store = SqliteStore(tmp_path)
        assert not store.recovered
        assert store.count() >= max(committed, default=5)
        assert store.count() % 5 == 0
        store.close()


def test_no_text_of_a_prompt_is_on_disk(tmp_path: Path) -> None:
    parts = start(Where(str(tmp_path)))
    secret = "Xylophonequartz"
    for number in range(20):
        names: dict[str, Any] = dict.fromkeys(("tenant", "model", "objective", "conversation_now", "conversation_previous"), secret)
        features = make_features(f"{secret} tell me {number}", **names)
        parts.predictor.learn(features, Observation(10, True))
    parts.archive.close()
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(held) > 4096
    assert secret.lower().encode() not in held.lower()


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    first = start(Where(str(tmp_path)))
    for _ in range(30):
        first.predictor.learn(make_features(conversation_now="c"), Observation(500, True))
    first.archive.close()
    second = start(Where(str(tmp_path)))
    second.archive.close()
    assert len(second.predictor.recent) == 30


class Flaky:
    """A store that works when told to."""

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
    monkeypatch.setattr("alise_scheduler.predictor.archive.WRITE_SECONDS", 0.001)
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


def test_a_thread_that_ended_is_started_again() -> None:
    archive = Archive(None, None)
    assert not archive.alive
    archive._thread = threading.Thread(target=lambda: None)
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


def test_recent_rows_are_the_newest_in_order() -> None:
    recent = Recent(rows=10)
    for number in range(25):
        recent.add(make_sample(tokens=number + 1.0))
    assert np.exp(recent.newest(3).log_tokens) == pytest.approx([23, 24, 25])
    assert len(recent.newest(100).log_tokens) == 10


def test_an_empty_predictor_has_no_version() -> None:
    assert LearnedPredictor().version == 0
