"""The history: what comes back, what is refused, and what survives a kill."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alise_scheduler.errors import HistoryError
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.storage.sqlite import FILE, SqliteStore, pack_vector, unpack_vector
from alise_scheduler.predictor.training.samples import Recent, Sample
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


def test_a_history_with_other_features_is_discarded_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(tmp_path)
    store.append([make_sample()])
    store.save_head(1, b"a head of these features")
    store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'layout'", (b"9/87/384",))
    again = SqliteStore(tmp_path)
    assert (again.load(10), again.load_head(), again.recovered) == ([], None, False)
    (record,) = caplog.records
    assert (record.getMessage(), record.stored) == ("the stored history has other features and is discarded", "9/87/384")  # type: ignore[attr-defined]
    again.append([make_sample()])
    again.close()
    assert len(SqliteStore(tmp_path).load(10)) == 1


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
from alise_scheduler.predictor.storage.sqlite import SqliteStore
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


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    first = start(Where(str(tmp_path)))
    for _ in range(30):
        first.predictor.learn(make_features(conversation_now="c"), Observation(500, True))
    first.archive.close()
    second = start(Where(str(tmp_path)))
    second.archive.close()
    assert len(second.predictor.recent) == 30


def test_recent_rows_are_the_newest_in_order() -> None:
    recent = Recent(rows=10)
    for number in range(25):
        recent.add(make_sample(tokens=number + 1.0))
    assert np.exp(recent.newest(3).log_tokens) == pytest.approx([23, 24, 25])
    assert len(recent.newest(100).log_tokens) == 10


def test_an_empty_predictor_has_no_version() -> None:
    assert LearnedPredictor().version == 0
