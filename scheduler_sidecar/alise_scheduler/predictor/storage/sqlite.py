"""Where finished requests are kept over restarts: a Protocol, and SQLite in a folder of the pod. Numbers, vectors, salted hashes; no text.

An embedding says what a prompt is about: who has the encoder can test whether a guessed prompt was asked. So the files are readable by
their owner alone, and `embeddings=False` keeps none, nor heads, which hold some as landmarks. The salt of the hashes is not in here.

SQLite writes ahead (WAL) and does not wait for the disk at every commit: killing the process loses what was not committed yet and never
the file; a power cut may lose the last commits. A file that cannot be read is moved aside and a new one begun.

`start.py` opens the store and reads it once. After that, only the thread of `writer.py` uses it. `postgres.py` keeps rows as it does.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from ...errors import HistoryError
from ..features.row import EMBEDDING, FEATURES_VERSION, NUMBERS, Row
from ..shares import fair_level
from ..training.samples import Sample

log = logging.getLogger(__name__)

FILE: Final = "history.sqlite3"
MAX_ROWS: Final = 100_000
MAX_AGE_SECONDS: Final = 30 * 24 * 3600.0
KEPT_HEADS: Final = 2
_BUSY_SECONDS: Final = 2.0
_PRUNE_EVERY: Final = 2000
_COLUMNS: Final = "log_tokens, ended, root, model, now, previous, tenant, numbers, embedding"
_TABLE: Final = (
    "requests (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, log_tokens REAL NOT NULL, ended INTEGER NOT NULL,"
    " root INTEGER NOT NULL, model INTEGER NOT NULL, now INTEGER NOT NULL, previous INTEGER NOT NULL, tenant INTEGER NOT NULL,"
    " numbers BLOB NOT NULL, embedding BLOB)"
)
_META: Final = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_SCHEMA: Final = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE}",
    "CREATE INDEX IF NOT EXISTS requests_by_tenant ON requests (tenant, id)",
    "CREATE TABLE IF NOT EXISTS heads (version INTEGER PRIMARY KEY, at REAL NOT NULL, data BLOB NOT NULL)",
)


class HistoryStore(Protocol):
    """A place for finished requests. Used by one thread; every call may raise HistoryError and may be tried again then."""

    def load(self, rows: int) -> list[Sample]:
        """The newest rows, oldest first, shared fairly between tenants."""

    def append(self, samples: Sequence[Sample]) -> None:
        """Adds rows, all or none; forgets what is too old or too many."""

    def load_head(self) -> bytes | None:
        """The newest head."""

    def note(self, key: str) -> str | None:
        """A small fact that was kept."""

    def save_note(self, key: str, value: str) -> None:
        """Keeps one."""

    def save_head(self, version: int, data: bytes) -> None:
        """Keeps a head; older ones go."""

    def close(self) -> None:
        """Gives everything back. Never raises."""


def pack_vector(vector: Row | None) -> bytes | None:
    """A vector of length 1 as signed bytes; its length is put right when it is read."""
    if vector is None:
        return None
    top = float(np.abs(vector).max())
    return np.round(vector * (127.0 / top)).astype(np.int8).tobytes() if top > 0 else None


def unpack_vector(data: bytes | None) -> Row | None:
    """The vector that was packed, within 1%; None for None. Raises HistoryError when it has another dimension."""
    if data is None:
        return None
    if len(data) != EMBEDDING:
        raise HistoryError(f"a stored embedding has {len(data)} dimensions; this encoder makes {EMBEDDING}")
    vector = np.frombuffer(data, np.int8).astype(np.float32)
    unit: Row = vector / max(float(np.linalg.norm(vector)), 1e-6)
    return unit


def pack_numbers(numbers: Row) -> bytes:
    return numbers.astype(np.float16).tobytes()


def unpack_numbers(data: bytes) -> Row:
    """Raises HistoryError when there are not NUMBERS of them."""
    if len(data) != 2 * NUMBERS:
        raise HistoryError(f"a stored request has {len(data) // 2} numbers; {NUMBERS} are expected")
    return np.frombuffer(data, np.float16).astype(np.float32)


def signed(value: int) -> int:
    """A 64-bit hash as databases have it."""
    return value - 2**64 if value >= 2**63 else value


def unsigned(value: int) -> int:
    return value % 2**64


class SqliteStore:
    """A `HistoryStore` in `folder`."""

    def __init__(
        self, folder: Path, max_rows: int = MAX_ROWS, max_age_seconds: float = MAX_AGE_SECONDS, embeddings: bool = True
    ) -> None:  # fmt: skip
        """Opens or makes it. Raises HistoryError when the folder cannot be written; `recovered` says whether a bad file was moved aside."""
        self._path = folder / FILE
        self._embeddings = embeddings
        self._max_rows, self._max_age_seconds = max_rows, max_age_seconds
        self._since_pruned = 0
        self.recovered = False
        try:
            _make_private(folder)
            try:
                self._connection = _open(self._path, embeddings)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and not _is_broken(error):
                    raise
                _move_aside(self._path)
                self.recovered = True
                self._connection = _open(self._path, embeddings)
        except (OSError, sqlite3.Error) as error:
            raise HistoryError(f"the history in {folder} cannot be used: {error}; mount a writable folder there") from error

    def load(self, rows: int) -> list[Sample]:
        fair = "SELECT *, row_number() OVER (PARTITION BY tenant ORDER BY id DESC) AS number FROM (SELECT id, tenant FROM requests)"
        query = f"SELECT {_COLUMNS} FROM requests WHERE id IN (SELECT id FROM ({fair}) WHERE number <= ?) ORDER BY id DESC LIMIT ?"
        try:
            level = fair_level(list(self._counts().values()), rows)
            found = self._connection.execute(query, (level, rows)).fetchall()
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be read: {error}") from error
        found.reverse()
        return [
            Sample(
                unpack_numbers(numbers), unpack_vector(embedding), log_tokens, bool(ended), unsigned(root), unsigned(model), unsigned(now),
                unsigned(previous), unsigned(tenant),
            )
            for log_tokens, ended, root, model, now, previous, tenant, numbers, embedding in found
        ]  # fmt: skip

    def _counts(self) -> dict[int, int]:
        """Rows by tenant."""
        return dict(self._connection.execute("SELECT tenant, count(*) FROM requests GROUP BY tenant").fetchall())

    def append(self, samples: Sequence[Sample]) -> None:
        at = time.time()
        values = [
            (
                at, s.log_tokens, s.ended, signed(s.root), signed(s.model), signed(s.now), signed(s.previous), signed(s.tenant),
                pack_numbers(s.numbers), pack_vector(s.embedding) if self._embeddings else None,
            )
            for s in samples
        ]  # fmt: skip
        try:
            with self._connection:
                self._connection.executemany(
                    f"INSERT INTO requests (at, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
                self._since_pruned += len(values)
                if self._since_pruned >= min(_PRUNE_EVERY, self._max_rows // 10 + 1):
                    self._since_pruned = 0
                    self._prune(at)
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be written: {error}") from error

    def _prune(self, at: float) -> None:
        counts = self._counts()
        if sum(counts.values()) > self._max_rows:
            level = fair_level(list(counts.values()), self._max_rows)
            oldest_kept = "SELECT id FROM requests WHERE tenant = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
            for tenant, count in counts.items():
                if count > level:
                    # With level 0 there are more tenants than rows: nothing of this one stays.
                    query = f"DELETE FROM requests WHERE tenant = ? AND id <= ({oldest_kept})"
                    self._connection.execute(query, (tenant, tenant, level))
        # Ids grow with time, so that old rows are a prefix.
        young = "SELECT min(id) FROM requests WHERE at >= ?"
        oldest = self._connection.execute(young, (at - self._max_age_seconds,)).fetchone()[0]
        if oldest is None:
            self._connection.execute("DELETE FROM requests")
        else:
            self._connection.execute("DELETE FROM requests WHERE id < ?", (oldest,))

    def count(self) -> int:
        """Rows in it."""
        return int(self._connection.execute("SELECT count(*) FROM requests").fetchone()[0])

    def load_head(self) -> bytes | None:
        try:
            row = self._connection.execute("SELECT data FROM heads ORDER BY version DESC LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be read: {error}") from error
        return bytes(row[0]) if row else None

    def save_head(self, version: int, data: bytes) -> None:
        if not self._embeddings:
            return
        try:
            with self._connection:
                self._connection.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", (version, time.time(), data))
                self._connection.execute("DELETE FROM heads WHERE version <= ? OR version > ?", (version - KEPT_HEADS, version))
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be written: {error}") from error

    def note(self, key: str) -> str | None:
        try:
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (f"note.{key}",)).fetchone()
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be read: {error}") from error
        return bytes(row[0]).decode() if row else None

    def save_note(self, key: str, value: str) -> None:
        try:
            with self._connection:
                self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note.{key}", value.encode()))
        except sqlite3.Error as error:
            raise HistoryError(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _make_private(folder: Path) -> None:
    """Makes the folder readable by its owner only, unless it holds other files as well (`/tmp`) or is another user's (a volume's root).

    The history's own files are private in any case.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(not path.name.startswith(f"{Path(FILE).stem}.") for path in folder.iterdir()):
        return
    try:
        folder.chmod(0o700)
    except PermissionError as error:
        log.info("the history's folder keeps its mode", extra={"folder": str(folder), "detail": str(error)})


def _files(path: Path) -> tuple[Path, ...]:
    return (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm"), _aside(path))


def _aside(path: Path) -> Path:
    return path.with_suffix(".corrupt")


def _open(path: Path, embeddings: bool) -> sqlite3.Connection:
    # Before SQLite does, which would go by the umask; it gives its other files the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in _files(path):
        if file.exists():
            file.chmod(0o600)
    if not embeddings:
        # A file that was moved aside holds the embeddings of before.
        _aside(path).unlink(missing_ok=True)
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA journal_size_limit=16777216")
        # What is deleted is overwritten: old embeddings must not stay in free pages.
        connection.execute("PRAGMA secure_delete=ON")
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("the database is malformed")
        removed = _prepare(connection, embeddings)
        if removed:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, embeddings: bool) -> bool:
    """Makes what is missing; whether something was removed that must not stay in the file."""
    with connection:
        connection.execute(_META)
        layout = connection.execute("SELECT value FROM meta WHERE key = 'layout'").fetchone()
        wanted = f"{FEATURES_VERSION}/{NUMBERS}/{EMBEDDING}".encode()
        anew = layout is None or bytes(layout[0]) != wanted
        if anew:
            # Columns of another meaning teach nothing, and files of before hold the salt of their hashes.
            if layout is not None:
                stored, written = bytes(layout[0]).decode(errors="replace"), wanted.decode()
                log.warning("the stored history has other features and is discarded", extra={"stored": stored, "expected": written})
            connection.execute("DROP TABLE IF EXISTS requests")
            connection.execute("DROP TABLE IF EXISTS heads")
            connection.execute("DELETE FROM meta")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('layout', ?)", (wanted,))
        for statement in _SCHEMA:
            connection.execute(statement)
        removed = anew and layout is not None
        if not embeddings:
            cleared = connection.execute("UPDATE requests SET embedding = NULL WHERE embedding IS NOT NULL").rowcount
            removed |= cleared + connection.execute("DELETE FROM heads").rowcount > 0
    return removed


def _is_broken(error: sqlite3.Error) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _move_aside(path: Path) -> None:
    """Keeps the newest bad file only: it is for people to look at."""
    os.replace(path, _aside(path))
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
