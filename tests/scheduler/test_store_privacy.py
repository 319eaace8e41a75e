"""What the stored history reveals: file modes, embeddings, salts and texts."""

import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.storage.sqlite import FILE, SqliteStore, pack_vector
from tests.scheduler.predictor_builders import make_features, make_sample


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir())}


def test_other_users_cannot_read_the_history_whatever_the_umask(tmp_path: Path) -> None:
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
