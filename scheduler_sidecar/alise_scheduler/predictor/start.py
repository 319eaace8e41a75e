"""Assembles the predictor from what is available: an encoder or none, a folder or none, a database or none.

It logs what is missing and goes on without it. `run.py` calls `start` and `load_encoder` in a thread, and catches any other error of
`start`.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EncoderError, HistoryError
from .learned import LearnedPredictor
from .models import head
from .models.encoder import Encoder, OnnxEncoder
from .served_head import serve_head
from .storage.sqlite import SqliteStore
from .storage.writer import Archive, SharedStore
from .training.samples import RECENT_ROWS

log = logging.getLogger(__name__)

_REPLICA_NOTE = "replica"


@dataclass(frozen=True, slots=True)
class Where:
    """Where the history is kept. An empty `folder` is in memory, an empty `dsn` not shared. `head_key` signs shared heads. Without
    `embeddings`, neither embeddings nor heads are written."""

    folder: str = ""
    dsn: str = field(default="", repr=False)
    head_key: bytes = field(default=b"", repr=False)
    embeddings: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """What `start` returns to `run.py`."""

    predictor: LearnedPredictor
    archive: Archive
    # A history file that could not be read was moved aside.
    recovered: bool


def load_encoder(folder: str) -> Encoder | None:
    """Returns the encoder in a folder; None, with a reason in the log, if none works."""
    if not folder:
        log.info("no encoder: prediction rests on features", extra={"setting": "ALISE_ENCODER"})
        return None
    try:
        return OnnxEncoder(Path(folder))
    except EncoderError as error:
        log.warning("no encoder: prediction rests on features", extra={"detail": str(error)})
        return None


def start(where: Where) -> Parts:
    """Opens the stores, takes in what they hold, and starts the archive's thread."""
    local = _open_local(where)
    replica = _replica(local)
    reopen: Callable[[], SqliteStore] | None = (lambda: _sqlite(where)) if where.folder else None
    share: Callable[[], SharedStore] | None = (lambda: _connect(where, replica)) if where.dsn else None
    archive = Archive(local, reopen, share)
    predictor = LearnedPredictor(archive.keep)
    own = _restore(predictor, local) if local is not None else None
    if (own is None or not _use(predictor, own)) and share is not None:
        shared = _head_of_replicas(share)
        if shared is not None:
            _use(predictor, shared)
    if not predictor.version:
        predictor.put_off()
    log.info("history taken in", extra={"rows": len(predictor.recent), "head": predictor.version})
    archive.start()
    return Parts(predictor, archive, local is not None and local.recovered)


def _sqlite(where: Where) -> SqliteStore:
    return SqliteStore(Path(where.folder), embeddings=where.embeddings)


def _open_local(where: Where) -> SqliteStore | None:
    if not where.folder:
        return None
    try:
        store = _sqlite(where)
    except HistoryError as error:
        log.warning("history is kept in memory only", extra={"detail": str(error)})
        return None
    if store.recovered:
        log.error("the history could not be read: moved aside, started afresh", extra={"folder": where.folder})
    return store


def _replica(local: SqliteStore | None) -> str:
    """Returns a name that stays with the local history."""
    try:
        known = local.note(_REPLICA_NOTE) if local else None
        if known:
            return known
        result = secrets.token_hex(8)
        if local:
            local.save_note(_REPLICA_NOTE, result)
    except HistoryError as error:
        log.warning("history has no name", extra={"detail": str(error)})
        return secrets.token_hex(8)
    return result


def _connect(where: Where, replica: str) -> SharedStore:
    from .storage.postgres import PostgresStore

    return PostgresStore(where.dsn, replica, where.head_key, where.embeddings)


def _head_of_replicas(connect: Callable[[], SharedStore]) -> bytes | None:
    """Returns the replicas' newest head; None if there is none."""
    try:
        shared = connect()
        try:
            return shared.load_head()
        finally:
            shared.close()
    except HistoryError as error:
        log.warning("shared history is out of reach, local history serves", extra={"detail": str(error)})
        return None


def _restore(predictor: LearnedPredictor, store: SqliteStore) -> bytes | None:
    """Takes in the rows and returns the head; None if there is none."""
    try:
        for sample in store.load(RECENT_ROWS):
            predictor.take(sample)
        return store.load_head()
    except HistoryError as error:
        log.warning("history could not be taken in", extra={"detail": str(error)})
        return None


def _use(predictor: LearnedPredictor, data: bytes) -> bool:
    """Uses a stored head. Returns whether it could be used."""
    try:
        predictor.restore(serve_head(head.from_bytes(data), predictor.recent.newest(RECENT_ROWS)))
    except ValueError as error:
        log.info("the head that was kept is of another kind: one is trained from the history", extra={"detail": str(error)})
        return False
    return True
