"""The keys of the sidecar: they sign hints, salt hashes and sign shared heads. None of them is ever stored with the data.

Hints are signed with a key of the pod. The history's salt and the heads' key are derived from `history_key` if it is set, so that all
replicas share them; else from the database's password, which the replicas share too. Without a database they are derived from the pod's
key, so that one pod's hashes mean nothing in another. `run.py` calls it once, at the start.
"""

import hashlib
import logging
import secrets
from dataclasses import dataclass, field
from typing import Final

from alise_contract.pod_key import derived, pod_key

from .config import Settings

log = logging.getLogger(__name__)

SALT_BYTES: Final = 16
# A password may be short, and guesses can be tested against the hashes in the database. This makes a guess take 0.1 s, and a start as well.
_PASSWORD_ROUNDS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Keys:
    """The derived keys."""

    # Empty if there is none. Then no hints are given out and none are accepted.
    hint: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    head: bytes = field(repr=False)


def keys_of(settings: Settings) -> Keys:
    """Reads or creates the pod's key and derives the others. Never raises: without the pod's key the sidecar continues and logs it."""
    pod = b""
    try:
        pod = pod_key(settings.socket_dir)
    except (OSError, ValueError) as error:
        log.error(
            "no pod key: jobs are not recognised after a restart of this container",
            extra={"detail": str(error), "setting": "ALISE_SOCKET_DIR"},
        )
    shared = _shared_key(settings)
    # Without any key, the hashes are valid for this process only.
    history = shared or pod or secrets.token_bytes(32)
    return Keys(derived(pod, "hint") if pod else b"", derived(history, "history")[:SALT_BYTES], derived(history, "head"))


def _shared_key(settings: Settings) -> bytes:
    """A secret that all replicas share and the database does not contain. Empty without a key and a database."""
    if settings.history_key:
        return settings.history_key.encode("utf-8", "surrogateescape")
    if not settings.history_dsn:
        return b""
    from .predictor.storage.dsn import password_of

    password = password_of(settings.history_dsn)
    if not password:
        log.warning("the shared history has no secret key: set one", extra={"setting": "ALISE_HISTORY_KEY"})
    known = (password or settings.history_dsn).encode("utf-8", "surrogateescape")
    return hashlib.pbkdf2_hmac("sha256", known, b"alise history", _PASSWORD_ROUNDS)
