"""The history shared between replicas: PostgreSQL with pgvector, the same Protocol as the local store.

One database serves the replicas of one resource; name another database (or `options=-csearch_path=NAME`) for another model. The first use
creates the tables, for which the user needs that right, and the right to create the extension `vector` unless it exists already.

The database is believed as far as it has to be: rows are lengths and numbers, bounded where they are used; heads are signed with a key that
it does not have. The salt of the hashes is not in it. No text of libpq about a connection gets out, because it quotes the password.
`start.py` opens it.
"""

import contextlib
import logging
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import psycopg

from alise_contract.pod_key import MAC_BYTES, is_mac, mac

from ...errors import HistoryError
from ..features.row import EMBEDDING, FEATURES_VERSION, NUMBERS, Row
from ..models.arrays import MAX_FILE_BYTES
from ..models.head import HEAD_LAYOUT, MAX_LOG_TOKENS
from ..shares import fair_level
from ..training.samples import RECENT_ROWS, Sample
from .dsn import where
from .sqlite import KEPT_HEADS, MAX_AGE_SECONDS, pack_numbers, signed, unpack_numbers, unsigned

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS: Final = 2
STATEMENT_SECONDS: Final = 5
# For statements that scan the whole table. After an upgrade these are the new index and the removal of older rows.
CLEANUP_SECONDS: Final = 60
MAX_SHARED_ROWS: Final = 500_000
# A row becomes visible a moment after its id was drawn: readers keep this distance, so that none is skipped.
SETTLE_SECONDS: Final = 1.0
_PRUNE_EVERY: Final = 5000
_HEAD_PURPOSE: Final = b"shared head"
_LOCK: Final = 0x616C697365
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS alise_meta (key text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE IF NOT EXISTS alise_requests (
  id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), replica text NOT NULL, layout integer NOT NULL,
  log_tokens real NOT NULL, ended boolean NOT NULL, root bigint NOT NULL, model bigint NOT NULL, now bigint NOT NULL,
  previous bigint NOT NULL, tenant bigint NOT NULL DEFAULT 0, numbers bytea NOT NULL, embedding vector({EMBEDDING})
);
ALTER TABLE alise_requests ADD COLUMN IF NOT EXISTS tenant bigint NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS alise_requests_by_tenant ON alise_requests (tenant, id);
CREATE TABLE IF NOT EXISTS alise_heads (
  at timestamptz PRIMARY KEY DEFAULT clock_timestamp(), layout integer NOT NULL, version integer NOT NULL, data bytea NOT NULL
);
"""
_COLUMNS: Final = "id, log_tokens, ended, root, model, now, previous, tenant, numbers, vector_send(embedding)"
# Rows of another layout mean something else.
_LAYOUT: Final = FEATURES_VERSION * 100_000 + NUMBERS
_HEAD_LAYOUT: Final = HEAD_LAYOUT * 100_000 + NUMBERS


class PostgresStore:
    """A `SharedStore`. `replica` names this process's rows, so that it does not read its own."""

    def __init__(self, dsn: str, replica: str, head_key: bytes, embeddings: bool = True) -> None:
        """Connects and makes what is missing; `head_key` signs heads. Raises HistoryError; its text never holds a part of the password."""
        self._replica = replica
        self._head_key = head_key
        self._embeddings = embeddings
        self._since_pruned = 0
        try:
            self._connection = psycopg.connect(
                dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, options=None, application_name="alise-scheduler",
                keepalives_idle=10, keepalives_interval=5, keepalives_count=2, tcp_user_timeout=1000 * STATEMENT_SECONDS,
            )  # fmt: skip
        except Exception as error:
            # Not psycopg's errors alone: what a malformed string raises is documented nowhere, and its text may hold the password.
            state = getattr(error, "sqlstate", None)
            reason = type(error).__name__ + (f" {state}" if state else "")
            raise HistoryError(f"the shared history's database{where(dsn)} cannot be reached: {reason}; check ALISE_HISTORY_DSN") from None
        try:
            self._call("prepared", self._prepare)
        except HistoryError:
            self.close()
            raise

    def load(self, rows: int) -> list[Sample]:
        query = f"SELECT {_COLUMNS} FROM alise_requests WHERE layout = %s ORDER BY id DESC LIMIT %s"
        found = self._call("read", lambda: self._connection.execute(query, (_LAYOUT, rows)).fetchall())
        return _samples(reversed(found))

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
        if not self._embeddings and any(row[-1] is not None for row in found):
            # While pods are replaced, older ones still write embeddings.
            self._call("written", lambda: self._forget_embeddings(start))
        return _samples(found), int(found[-1][0]) if found else start

    def append(self, samples: Sequence[Sample]) -> None:
        insert = (
            "INSERT INTO alise_requests (replica, layout, log_tokens, ended, root, model, now, previous, tenant, numbers, embedding)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::vector)"
        )
        values = [
            (
                self._replica, _LAYOUT, s.log_tokens, s.ended, signed(s.root), signed(s.model), signed(s.now), signed(s.previous),
                signed(s.tenant), pack_numbers(s.numbers), _vector_text(s.embedding) if self._embeddings else None,
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
        """The newest head that a replica with the same key signed; others are not looked into."""
        query = "SELECT data FROM alise_heads WHERE layout = %s AND octet_length(data) <= %s ORDER BY at DESC LIMIT %s"
        bounds = (_HEAD_LAYOUT, MAX_FILE_BYTES + MAC_BYTES, KEPT_HEADS)
        rows = self._call("read", lambda: self._connection.execute(query, bounds).fetchall())
        for row in rows:
            signature, data = bytes(row[0][:MAC_BYTES]), bytes(row[0][MAC_BYTES:])
            if is_mac(self._head_key, signature, _HEAD_PURPOSE, data):
                return data
        if rows:
            log.warning("shared heads are not used: none is signed with this resource's history key", extra={"heads": len(rows)})
        return None

    def save_head(self, version: int, data: bytes) -> None:
        if not self._embeddings:
            return
        sealed = mac(self._head_key, _HEAD_PURPOSE, data) + data

        def write() -> None:
            with self._connection.transaction():
                insert = "INSERT INTO alise_heads (layout, version, data) VALUES (%s, %s, %s)"
                self._connection.execute(insert, (_HEAD_LAYOUT, version, sealed))
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

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
        with self._connection.transaction():
            # Replicas start together, and CREATE IF NOT EXISTS does not like company.
            execute(f"SET LOCAL statement_timeout = '{CLEANUP_SECONDS}s'")
            execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
                execute("CREATE EXTENSION vector")
            execute(_SCHEMA.encode())
            found = execute(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = 'alise_requests'::regclass AND attname = 'embedding'"
            ).fetchone()
            if found is None or found[0] != EMBEDDING:
                there = "no embedding" if found is None else f"embeddings of {found[0]} dimensions"
                raise HistoryError(
                    f"the table alise_requests has {there}; this version writes {EMBEDDING}: name another database or drop it"
                )
            # Versions before this one kept the salt of their hashes here.
            execute("DELETE FROM alise_meta WHERE key = 'salt'")
        with self._connection.transaction():
            # After an upgrade this is every row. The table's lock above has been given back, so other replicas can go on.
            execute(f"SET LOCAL statement_timeout = '{CLEANUP_SECONDS}s'")
            gone = execute("DELETE FROM alise_requests WHERE layout < %s", (_LAYOUT,)).rowcount
        if gone:
            log.warning("shared requests have features of an older version and are discarded", extra={"requests": gone})
        if not self._embeddings:
            self._forget_embeddings()

    def _forget_embeddings(self, after: int = 0) -> None:
        """Removes the embeddings of the rows after this one, and all heads, which hold some."""
        with self._connection.transaction():
            self._connection.execute(f"SET LOCAL statement_timeout = '{CLEANUP_SECONDS}s'")
            self._connection.execute("UPDATE alise_requests SET embedding = NULL WHERE id > %s AND embedding IS NOT NULL", (after,))
            self._connection.execute("DELETE FROM alise_heads")

    def _prune(self) -> None:
        execute = self._connection.execute
        counts: dict[int, int] = dict(execute("SELECT tenant, count(*) FROM alise_requests GROUP BY tenant").fetchall())
        if sum(counts.values()) > MAX_SHARED_ROWS:
            level = fair_level(list(counts.values()), MAX_SHARED_ROWS)
            last = "SELECT id FROM alise_requests WHERE tenant = %s ORDER BY id DESC LIMIT 1 OFFSET %s"
            for tenant in [tenant for tenant, count in counts.items() if count > level]:
                execute(f"DELETE FROM alise_requests WHERE tenant = %s AND id <= ({last})", (tenant, tenant, level))
        execute("DELETE FROM alise_requests WHERE at < clock_timestamp() - make_interval(secs => %s)", (MAX_AGE_SECONDS,))

    def _call(self, what: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except psycopg.Error as error:
            raise HistoryError(f"the shared history could not be {what}: {type(error).__name__}: {_first_line(error)}") from error


def _samples(rows: Iterable[Sequence[Any]]) -> list[Sample]:
    """Samples of rows; one that holds anything else is left out, for it would be read again and again."""
    found, bad = [], 0
    for row in rows:
        try:
            found.append(_sample(row))
        except (HistoryError, ValueError, TypeError, struct.error):
            bad += 1
    if bad:
        log.warning("shared requests that cannot be read are left out", extra={"requests": bad})
    return found


def _sample(row: Sequence[Any]) -> Sample:
    """Raises HistoryError or what reading raises when it is none."""
    _, log_tokens, ended, root, model, now, previous, tenant, numbers, embedding = row
    vector = None if embedding is None else _vector(bytes(embedding))
    sample = Sample(
        unpack_numbers(bytes(numbers)), vector, log_tokens, ended, unsigned(root), unsigned(model), unsigned(now), unsigned(previous),
        unsigned(tenant),
    )  # fmt: skip
    if not 0.0 <= log_tokens <= MAX_LOG_TOKENS or (vector is not None and not np.isfinite(vector).all()) or np.isinf(sample.numbers).any():
        raise HistoryError("a shared request of no possible length or numbers")
    return sample


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
