"""The history shared between replicas: PostgreSQL with pgvector, the same Protocol as the local store.

One database serves the replicas of one resource; name another database (or `options=-csearch_path=NAME`) for another model. Tables are made
on first use, which takes the right to create them and the extension `vector` (or somebody who made it before).
"""

import contextlib
import secrets
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import psycopg

from ..errors import HistoryError
from .detail import EMBEDDING, NUMBERS, Row
from .head import HEAD_LAYOUT, LAYOUT
from .recent import RECENT_ROWS, Sample
from .store import KEPT_HEADS, MAX_AGE_SECONDS, SALT_BYTES, pack_numbers, signed, unpack_numbers, unsigned

T = TypeVar("T")

CONNECT_SECONDS: Final = 2
STATEMENT_SECONDS: Final = 5
MAX_SHARED_ROWS: Final = 500_000
# A row becomes visible a moment after its id was drawn: readers keep this distance, so that none is skipped.
SETTLE_SECONDS: Final = 1.0
_PRUNE_EVERY: Final = 5000
_LOCK: Final = 0x616C697365
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS alise_meta (key text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE IF NOT EXISTS alise_requests (
  id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), replica text NOT NULL, layout integer NOT NULL,
  log_tokens real NOT NULL, ended boolean NOT NULL, root bigint NOT NULL, model bigint NOT NULL, now bigint NOT NULL,
  previous bigint NOT NULL, numbers bytea NOT NULL, embedding vector({EMBEDDING})
);
CREATE TABLE IF NOT EXISTS alise_heads (
  at timestamptz PRIMARY KEY DEFAULT clock_timestamp(), layout integer NOT NULL, version integer NOT NULL, data bytea NOT NULL
);
"""
_COLUMNS: Final = "id, log_tokens, ended, root, model, now, previous, numbers, vector_send(embedding)"
# Rows of another layout mean something else.
_LAYOUT: Final = LAYOUT * 100_000 + NUMBERS
_HEAD_LAYOUT: Final = HEAD_LAYOUT * 100_000 + NUMBERS


class PostgresStore:
    """A `SharedStore`. `replica` names this process's rows, so that it does not read its own."""

    def __init__(self, dsn: str, replica: str, salt: bytes | None = None) -> None:
        """Connects, makes what is missing, agrees on the salt (`salt` is proposed). Raises HistoryError; its text never holds the DSN."""
        self._replica = replica
        self._since_pruned = 0
        try:
            self._connection = psycopg.connect(
                dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, options=None, application_name="alise-scheduler",
                keepalives_idle=10, keepalives_interval=5, keepalives_count=2, tcp_user_timeout=1000 * STATEMENT_SECONDS,
            )  # fmt: skip
        except (psycopg.Error, ValueError) as error:
            raise HistoryError(f"the shared history's database cannot be reached: {type(error).__name__}: {_first_line(error)}") from None
        try:
            self._salt = self._call("prepared", lambda: self._prepare(salt or secrets.token_bytes(SALT_BYTES)))
        except HistoryError:
            self.close()
            raise

    @property
    def salt(self) -> bytes:
        return self._salt

    def load(self, rows: int) -> list[Sample]:
        query = f"SELECT {_COLUMNS} FROM alise_requests WHERE layout = %s ORDER BY id DESC LIMIT %s"
        found = self._call("read", lambda: self._connection.execute(query, (_LAYOUT, rows)).fetchall())
        return [_sample(row) for row in reversed(found)]

    def newer(self, position: int | None, rows: int) -> tuple[list[Sample], int]:
        def read() -> tuple[list[Any], int]:
            start = position
            if start is None:
                (top,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM alise_requests").fetchone() or (0,)
                start = max(0, int(top) - RECENT_ROWS)
            query = (
                f"SELECT {_COLUMNS} FROM alise_requests WHERE id > %s AND replica <> %s AND layout = %s"
                " AND at < clock_timestamp() - make_interval(secs => %s) ORDER BY id LIMIT %s"
            )
            return self._connection.execute(query, (start, self._replica, _LAYOUT, SETTLE_SECONDS, rows)).fetchall(), start

        found, start = self._call("read", read)
        return [_sample(row) for row in found], int(found[-1][0]) if found else start

    def append(self, samples: Sequence[Sample]) -> None:
        insert = (
            "INSERT INTO alise_requests (replica, layout, log_tokens, ended, root, model, now, previous, numbers, embedding)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::vector)"
        )
        values = [
            (
                self._replica, _LAYOUT, s.log_tokens, s.ended, signed(s.root), signed(s.model), signed(s.now), signed(s.previous),
                pack_numbers(s.numbers), _vector_text(s.embedding),
            )
            for s in samples
        ]  # fmt: skip

        def write() -> None:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(insert, values)

        self._call("written", write)
        self._since_pruned += len(values)
        if self._since_pruned >= _PRUNE_EVERY:
            self._since_pruned = 0
            self._call("pruned", self._prune)

    def load_head(self) -> bytes | None:
        query = "SELECT data FROM alise_heads WHERE layout = %s ORDER BY at DESC LIMIT 1"
        row = self._call("read", lambda: self._connection.execute(query, (_HEAD_LAYOUT,)).fetchone())
        return bytes(row[0]) if row else None

    def save_head(self, version: int, data: bytes) -> None:
        def write() -> None:
            with self._connection.transaction():
                insert = "INSERT INTO alise_heads (layout, version, data) VALUES (%s, %s, %s)"
                self._connection.execute(insert, (_HEAD_LAYOUT, version, data))
                # Those of replicas of another version are theirs.
                kept = "SELECT at FROM alise_heads WHERE layout = %s ORDER BY at DESC LIMIT %s"
                delete = f"DELETE FROM alise_heads WHERE layout = %s AND at NOT IN ({kept})"
                self._connection.execute(delete, (_HEAD_LAYOUT, _HEAD_LAYOUT, KEPT_HEADS))

        self._call("written", write)

    def note(self, key: str) -> str | None:
        row = self._call(
            "read", lambda: self._connection.execute("SELECT value FROM alise_meta WHERE key = %s", (f"note.{key}",)).fetchone()
        )
        return bytes(row[0]).decode() if row else None

    def save_note(self, key: str, value: str) -> None:
        query = "INSERT INTO alise_meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        self._call("written", lambda: self._connection.execute(query, (f"note.{key}", value.encode())))

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def _prepare(self, salt: bytes) -> bytes:
        execute = self._connection.execute
        execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        with self._connection.transaction():
            # Replicas start together, and CREATE IF NOT EXISTS does not like company.
            execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
                execute("CREATE EXTENSION vector")
            execute(_SCHEMA.encode())
            execute("INSERT INTO alise_meta VALUES ('salt', %s) ON CONFLICT DO NOTHING", (salt,))
        found = execute(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'alise_requests'::regclass AND attname = 'embedding'"
        ).fetchone()
        if found is None or found[0] != EMBEDDING:
            there = "no embedding" if found is None else f"embeddings of {found[0]} dimensions"
            raise HistoryError(f"the table alise_requests has {there}; this version writes {EMBEDDING}: name another database or drop it")
        row = execute("SELECT value FROM alise_meta WHERE key = 'salt'").fetchone()
        assert row is not None
        return bytes(row[0])

    def _prune(self) -> None:
        execute = self._connection.execute
        execute("DELETE FROM alise_requests WHERE id <= (SELECT max(id) FROM alise_requests) - %s", (MAX_SHARED_ROWS,))
        execute("DELETE FROM alise_requests WHERE at < clock_timestamp() - make_interval(secs => %s)", (MAX_AGE_SECONDS,))

    def _call(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except psycopg.Error as error:
            raise HistoryError(f"the shared history could not be {what}: {type(error).__name__}: {_first_line(error)}") from error


def _sample(row: Sequence[Any]) -> Sample:
    _, log_tokens, ended, root, model, now, previous, numbers, embedding = row
    vector = None if embedding is None else _vector(bytes(embedding))
    return Sample(
        unpack_numbers(bytes(numbers)), vector, log_tokens, ended, unsigned(root), unsigned(model), unsigned(now), unsigned(previous)
    )


def _vector(data: bytes) -> Row:
    """pgvector's binary form: dimensions, a spare number, then big-endian floats."""
    (dimensions,) = struct.unpack_from(">h", data)
    if dimensions != EMBEDDING:
        raise HistoryError(f"a shared embedding has {dimensions} dimensions; this encoder makes {EMBEDDING}")
    return np.frombuffer(data, ">f4", dimensions, 4).astype(np.float32)


def _vector_text(vector: Row | None) -> str | None:
    return None if vector is None else "[" + ",".join(f"{value:.5g}" for value in vector.tolist()) + "]"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
