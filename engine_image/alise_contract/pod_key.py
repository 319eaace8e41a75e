"""The pod's key, and what is signed with it. Only the containers of one pod know it.

The container that starts first creates the key in the pod's socket directory (0700, in memory). The key outlives a restart of either
container and goes with the pod. Two things are signed, each for one job: the stamp that the API server puts on an engine request, and the
hint that the scheduler gives out and later gets back. EngineCore and the scheduler ignore what is not signed.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from .names import POD_KEY_BYTES, POD_KEY_FILE

# Of SHA-256; 128 bits are enough for a key that is used for a pod's lifetime.
MAC_BYTES: Final = 16


def pod_key(socket_dir: str | os.PathLike[str]) -> bytes:
    """Reads the pod's key, or creates it. Raises OSError when the directory cannot be used, ValueError when the file holds no key."""
    folder = Path(socket_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / POD_KEY_FILE
    if not path.exists():
        made = folder / f"{POD_KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(POD_KEY_BYTES))
        try:
            # Whole or not at all, and never over the other container's.
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    key = path.read_bytes()
    if len(key) != POD_KEY_BYTES:
        raise ValueError(f"{path} holds {len(key)} bytes, expected {POD_KEY_BYTES}: delete it and restart both containers")
    return key


def derived(key: bytes, purpose: str) -> bytes:
    """Returns a key for one purpose, 32 bytes; it says nothing about the others or about `key`."""
    # A tenant that is named after a file may hold what UTF-8 cannot encode.
    return hmac.new(key, b"alise " + purpose.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def mac(key: bytes, *parts: bytes) -> bytes:
    """Returns MAC_BYTES that only an owner of the key can compute for exactly these parts."""
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.digest()[:MAC_BYTES]


def is_mac(key: bytes, given: bytes, *parts: bytes) -> bool:
    """Whether `given` is `mac(key, *parts)`, in constant time."""
    return hmac.compare_digest(given, mac(key, *parts))
