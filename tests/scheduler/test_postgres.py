"""The shared history, on a real PostgreSQL with pgvector."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from alise_scheduler.errors import HistoryError
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models.arrays import MAX_FILE_BYTES
from alise_scheduler.predictor.served_head import serve_head
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.storage import postgres
from alise_scheduler.predictor.storage.postgres import PostgresStore
from alise_scheduler.predictor.storage.sqlite import SqliteStore
from alise_scheduler.predictor.storage.writer import RETRY_SECONDS, Archive
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.trial import FIRST_TRAINING
from tests.scheduler.postgres_server import PostgresServer
from tests.scheduler.predictor_builders import make_features, make_history, make_sample, make_task

KEY = b"the key of the shared heads"
pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def running() -> Iterator[PostgresServer]:
    # A socket's path may have 107 characters, which pytest's folders exceed.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        made = PostgresServer(Path(folder))
        made.start()
        yield made
        made.stop()


@pytest.fixture
def server(running: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresServer:
    """With an empty database, and readers that do not keep their distance."""
    monkeypatch.setattr(postgres, "SETTLE_SECONDS", 0.0)
    running.execute("DROP TABLE IF EXISTS alise_requests, alise_heads, alise_meta")
    return running


class Replica:
    """A predictor with both histories and a clock of its own."""

    def __init__(self, server: PostgresServer, folder: Path, name: str) -> None:
        self.now = 0.0
        local = SqliteStore(folder / name)
        self.archive = Archive(local, None, lambda: PostgresStore(server.dsn, name, KEY), clock=lambda: self.now)
        self.predictor = LearnedPredictor(self.archive.keep)

    def answer(self, count: int, tokens: int = 30) -> None:
        for _ in range(count):
            self.predictor.learn(make_features(), Observation(tokens, True))

    def turn(self) -> None:
        self.now += RETRY_SECONDS
        self.archive.step()
        for sample in self.archive.arrived(10_000):
            self.predictor.take(sample)


def test_what_was_written_comes_back(server: PostgresServer) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    samples = [make_sample(10, 1, root=2**63 + 5, now=7), make_sample(20, 2, embedding=None, ended=False)]
    store.append(samples)
    again = store.load(10)
    assert [round(float(np.exp(sample.log_tokens))) for sample in again] == [10, 20]
    assert (again[0].root, again[0].now, again[1].embedding, again[1].ended) == (2**63 + 5, 7, None, False)
    assert again[0].embedding == pytest.approx(samples[0].embedding, abs=1e-4)
    store.close()


def test_the_newest_head_comes_back(server: PostgresServer) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    for version in (1, 2, 3):
        store.save_head(version, b"head %d" % version)
    assert store.load_head() == b"head 3"


def test_a_head_that_is_not_signed_with_the_key_is_not_looked_into(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    PostgresStore(server.dsn, "two", b"of another resource").save_head(1, b"not ours")
    assert store.load_head() is None
    assert "none is signed" in caplog.text
    store.save_head(1, b"ours")
    server.execute("UPDATE alise_heads SET data = data || 'x'")
    assert store.load_head() is None


def test_an_endless_head_is_not_fetched(server: PostgresServer) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    store.save_head(1, b"x" * (MAX_FILE_BYTES + 1))
    assert store.load_head() is None


def test_without_embeddings_none_are_shared_and_those_there_go(server: PostgresServer) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    store.append([make_sample()])
    store.save_head(1, b"a head")
    blind = PostgresStore(server.dsn, "two", KEY, embeddings=False)
    blind.append([make_sample()])
    blind.save_head(2, b"a head")
    assert [sample.embedding for sample in store.load(10)] == [None, None]
    assert store.load_head() is None


def test_embeddings_that_an_older_pod_still_writes_are_removed_when_they_are_read(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.storage.postgres.SETTLE_SECONDS", 0.0)
    blind = PostgresStore(server.dsn, "new", KEY, embeddings=False)
    older = PostgresStore(server.dsn, "older", KEY)
    older.append([make_sample()])
    older.save_head(1, b"a head")
    (sample,), _ = blind.newer(0, 10)
    assert sample.embedding is not None
    assert [sample.embedding for sample in older.load(10)] == [None]
    assert older.load_head() is None


def test_a_salt_of_before_is_removed_and_old_rows_with_it(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    PostgresStore(server.dsn, "one", KEY).append([make_sample()])
    server.execute("INSERT INTO alise_meta VALUES ('salt', 'x'); UPDATE alise_requests SET layout = 1;")
    server.execute("ALTER TABLE alise_requests DROP COLUMN tenant")
    store = PostgresStore(server.dsn, "one", KEY)
    store.append([make_sample(tenant=2**64 - 1)])
    (only,) = store.load(10)
    assert only.tenant == 2**64 - 1
    assert server.execute("SELECT key FROM alise_meta WHERE key = 'salt'") == ""
    assert [record.requests for record in caplog.records if "features of an older version" in record.getMessage()] == [1]  # type: ignore[attr-defined]


def test_a_row_that_cannot_be_read_is_left_out(server: PostgresServer) -> None:
    store = PostgresStore(server.dsn, "one", KEY)
    store.append([make_sample(10), make_sample(20), make_sample(30)])
    server.execute("UPDATE alise_requests SET numbers = 'x' WHERE id = (SELECT min(id) FROM alise_requests)")
    server.execute("UPDATE alise_requests SET log_tokens = 'NaN' WHERE id = (SELECT max(id) FROM alise_requests)")
    assert [round(float(np.exp(sample.log_tokens))) for sample in store.load(10)] == [20]


def test_l6_a_flood_by_one_tenant_leaves_the_others_rows(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "MAX_SHARED_ROWS", 50)
    monkeypatch.setattr(postgres, "_PRUNE_EVERY", 20)
    store = PostgresStore(server.dsn, "one", KEY)
    store.append([make_sample(tenant=1)] * 10)
    for _ in range(6):
        store.append([make_sample(tenant=2)] * 20)
    assert sum(sample.tenant == 1 for sample in store.load(1000)) == 10


def test_two_sidecars_learn_from_each_other(server: PostgresServer, tmp_path: Path) -> None:
    one, two = Replica(server, tmp_path, "one"), Replica(server, tmp_path, "two")
    one.answer(30)
    two.answer(20)
    for _ in range(2):
        one.turn()
        two.turn()
    assert (len(one.predictor.recent), len(two.predictor.recent)) == (50, 50)


def test_what_one_sidecar_saw_the_other_predicts(server: PostgresServer, tmp_path: Path) -> None:
    one, two = Replica(server, tmp_path, "one"), Replica(server, tmp_path, "two")
    rng = np.random.default_rng(0)
    for _ in range(FIRST_TRAINING):
        prompt, tokens = make_task(rng)
        one.predictor.learn(make_features(prompt), Observation(tokens, True))
    one.turn()
    two.turn()
    two.turn()
    assert two.predictor.wants_training()
    history = two.predictor.newest()
    two.predictor.install(serve_head(train(history, 1), history))
    short, long = (
        two.predictor.predict(make_features(f"{verb} bridges 7"), 0).median for verb in ("Name one fact about", "Write an essay about")
    )
    assert short < 40 < 200 < long


def test_a_new_sidecar_starts_warm(server: PostgresServer, tmp_path: Path) -> None:
    one = Replica(server, tmp_path, "one")
    one.answer(40)
    one.turn()
    late = Replica(server, tmp_path, "late")
    late.turn()
    late.turn()
    assert len(late.predictor.recent) == 40


def test_a_sidecar_that_has_learned_nothing_begins_with_the_others_head(server: PostgresServer, tmp_path: Path) -> None:
    rng, one = np.random.default_rng(0), LearnedPredictor()
    for _ in range(FIRST_TRAINING):
        prompt, tokens = make_task(rng)
        one.learn(make_features(prompt), Observation(tokens, True))
    PostgresStore(server.dsn, "one", KEY).save_head(4, train(one.newest(), 4).to_bytes())
    late = start(Where(str(tmp_path / "late"), server.dsn, KEY))
    late.archive.close()
    short, long = (
        late.predictor.predict(make_features(f"{verb} bridges 7"), 0).median for verb in ("Name one fact about", "Write an essay about")
    )
    assert (late.predictor.version, len(late.predictor.recent)) == (4, 0)
    assert short < long / 3


def test_a_sidecar_with_a_head_keeps_it(server: PostgresServer, tmp_path: Path) -> None:
    history = make_history(FIRST_TRAINING)
    PostgresStore(server.dsn, "one", KEY).save_head(4, train(history, 4).to_bytes())
    own = SqliteStore(tmp_path / "own")
    own.save_head(2, train(history, 2).to_bytes())
    own.close()
    started = start(Where(str(tmp_path / "own"), server.dsn, KEY))
    started.archive.close()
    assert started.predictor.version == 2


def test_reading_goes_on_where_it_stopped_after_a_restart(server: PostgresServer, tmp_path: Path) -> None:
    one, two = Replica(server, tmp_path, "one"), Replica(server, tmp_path, "two")
    one.answer(10)
    one.turn()
    two.turn()
    two.turn()
    again = Replica(server, tmp_path, "two")
    one.answer(5)
    one.turn()
    again.turn()
    assert len(again.predictor.recent) == 5


def test_a_database_that_stops_costs_nothing_and_is_caught_up_with(server: PostgresServer, tmp_path: Path) -> None:
    one, two = Replica(server, tmp_path, "one"), Replica(server, tmp_path, "two")
    one.answer(10)
    one.turn()
    assert one.archive.shared is not None
    server.stop()
    try:
        one.answer(10)
        one.turn()
        assert not one.archive.shared.up
        assert one.archive.local.up
        assert one.predictor.predict(make_features(), 0).median == pytest.approx(30, rel=0.3)
    finally:
        server.start()
    one.turn()
    two.turn()
    assert one.archive.shared.up
    assert len(two.predictor.recent) == 20


def test_a_table_of_another_dimension_is_refused(server: PostgresServer) -> None:
    server.execute("CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE alise_requests (id bigserial, embedding vector(3))")
    with pytest.raises(HistoryError, match="embeddings of 3 dimensions; this version writes 384"):
        PostgresStore(server.dsn, "one", KEY)


def test_a_database_out_of_reach_delays_nothing(tmp_path: Path) -> None:
    parts = start(Where(str(tmp_path), f"host={tmp_path} password=hunter2 dbname=nowhere", KEY))
    parts.predictor.learn(make_features(), Observation(10, True))
    parts.archive.close()
    assert len(parts.predictor.recent) == 1


def test_an_error_does_not_tell_the_password(tmp_path: Path) -> None:
    with pytest.raises(HistoryError) as caught:
        PostgresStore(f"host={tmp_path} password=hunter2 dbname=nowhere", "one", KEY)
    assert "hunter2" not in str(caught.value)
