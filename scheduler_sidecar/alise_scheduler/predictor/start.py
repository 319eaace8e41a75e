"""Puts the predictor together from what there is: encoder or none, folder or none, database or none. Says what is missing, never fails."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import EncoderError, HistoryError
from .archive import Archive, SharedStore
from .encoder import Encoder, OnnxEncoder
from .learned import LearnedPredictor, equip
from .recent import RECENT_ROWS
from .rules import LEARNED, Rule
from .store import SALT_BYTES, SqliteStore

log = logging.getLogger(__name__)

_REPLICA_NOTE = "replica"
_AGREED_NOTE = "salt agreed"


@dataclass(frozen=True, slots=True)
class Parts:
    """What `run.py` needs. `salt` keys all hashes."""

    predictor: LearnedPredictor
    archive: Archive
    salt: bytes
    # A history file that could not be read was moved aside.
    recovered: bool


def load_encoder(folder: str) -> Encoder | None:
    """The encoder in a folder; None, with a reason in the log, when there is none that works."""
    if not folder:
        log.info("no encoder: prediction rests on features", extra={"setting": "ALISE_ENCODER"})
        return None
    try:
        return OnnxEncoder(Path(folder))
    except EncoderError as error:
        log.warning("no encoder: prediction rests on features", extra={"detail": str(error)})
        return None


def start(history_dir: str, dsn: str, rule: Rule = LEARNED) -> Parts:
    """Opens the stores, takes in what they hold, starts the archive's thread. `history_dir` empty: in memory; `dsn` empty: not shared."""
    local = _open_local(history_dir)
    salt = local.salt if local else secrets.token_bytes(SALT_BYTES)
    replica = _replica(local)
    head = None
    if dsn:
        salt, head = _from_replicas(local, dsn, replica, salt, rule)
    reopen: Callable[[], SqliteStore] | None = (lambda: SqliteStore(Path(history_dir))) if history_dir else None
    share: Callable[[], SharedStore] | None = (lambda: _connect(dsn, replica, salt)) if dsn else None
    archive = Archive(local, reopen, share)
    predictor = LearnedPredictor(archive.keep)
    if local is not None:
        own = _restore(predictor, local)
        if own is not None and _use(predictor, rule, own):
            head = None
    if head is not None:
        _use(predictor, rule, head)
    log.info("history taken in", extra={"rows": len(predictor.recent), "head": predictor.version})
    archive.start()
    return Parts(predictor, archive, salt, local is not None and local.recovered)


def _open_local(folder: str) -> SqliteStore | None:
    if not folder:
        return None
    try:
        store = SqliteStore(Path(folder))
    except HistoryError as error:
        log.warning("history is kept in memory only", extra={"detail": str(error)})
        return None
    if store.recovered:
        log.error("the history could not be read: moved aside, started afresh", extra={"folder": folder})
    return store


def _replica(local: SqliteStore | None) -> str:
    """A name that stays with the local history."""
    try:
        known = local.note(_REPLICA_NOTE) if local else None
        if known:
            return known
        made = secrets.token_hex(8)
        if local:
            local.save_note(_REPLICA_NOTE, made)
    except HistoryError as error:
        log.warning("history has no name", extra={"detail": str(error)})
        return secrets.token_hex(8)
    return made


def _connect(dsn: str, replica: str, salt: bytes) -> SharedStore:
    from .postgres import PostgresStore

    return PostgresStore(dsn, replica, salt)


def _from_replicas(local: SqliteStore | None, dsn: str, replica: str, own: bytes, rule: Rule) -> tuple[bytes, bytes | None]:
    """The replicas' common salt, and their newest head for a replica that has none.

    With the database out of reach the own salt: conversations are then not found across replicas.
    """
    try:
        if local is not None and local.note(_AGREED_NOTE) and _reads(rule, local.load_head()):
            return own, None
        shared = _connect(dsn, replica, own)
        try:
            head = shared.load_head()
        finally:
            shared.close()
        if local is not None and not local.note(_AGREED_NOTE):
            local.adopt_salt(shared.salt)
            local.save_note(_AGREED_NOTE, "yes")
        return shared.salt, head
    except HistoryError as error:
        log.warning("shared history is out of reach, local history serves", extra={"detail": str(error)})
        return own, None


def _restore(predictor: LearnedPredictor, store: SqliteStore) -> bytes | None:
    """Takes in the rows; returns the head, where there is one."""
    try:
        for sample in store.load(RECENT_ROWS):
            predictor.take(sample)
        return store.load_head()
    except HistoryError as error:
        log.warning("history could not be taken in", extra={"detail": str(error)})
        return None


def _reads(rule: Rule, head: bytes | None) -> bool:
    try:
        return head is not None and rule.read(head) is not None
    except ValueError:
        return False


def _use(predictor: LearnedPredictor, rule: Rule, head: bytes) -> bool:
    """Whether it could be used."""
    try:
        predictor.restore(equip(rule.read(head), predictor.recent.newest(RECENT_ROWS)))
    except ValueError as error:
        log.info("the head that was kept is of another kind: one is trained from the history", extra={"detail": str(error)})
        return False
    return True
