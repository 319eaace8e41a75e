"""API keys from a mounted Secret, read again when the kubelet has put new ones there. `engine_api.py` owns the folder."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .identity import Keyring, digest

logger = logging.getLogger("vllm.alise.keys")

# How often the folder is looked at. The kubelet itself takes up to a minute and a half to bring a new Secret.
CHECK_SECONDS: Final = 2.0
# A larger file is a mistake.
MAX_FILE_BYTES: Final = 1 << 20

_Seen = tuple[tuple[str, int, int], ...]


class KeyFolder:
    """A folder with one file per tenant, named after the tenant; each line is a key. If no key can be read, every request is refused."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._checked_seconds = float("-inf")
        self._seen: _Seen | None = None
        self._keyring = Keyring()

    def keyring(self) -> Keyring:
        """Returns the keys of now, at most CHECK_SECONDS old."""
        now = self._clock()
        if now - self._checked_seconds >= CHECK_SECONDS:
            self._checked_seconds = now
            self._look()
        return self._keyring

    def _look(self) -> None:
        try:
            try:
                self._read_folder()
            except FileNotFoundError:
                # The kubelet has exchanged the files since they were listed; the new ones are there by now.
                self._read_folder()
        except OSError as error:
            logger.error("API keys cannot be read from %s (%s): every request is refused until they can", self._folder, error.strerror)
            self._seen, self._keyring = None, Keyring()

    def _read_folder(self) -> None:
        """Raises OSError."""
        files = sorted(path for path in self._folder.iterdir() if not path.name.startswith(".") and path.is_file())
        seen = tuple((path.name, (found := path.stat()).st_mtime_ns, found.st_size) for path in files)
        if seen == self._seen:
            return
        tenants: dict[bytes, str] = {}
        for path in files:
            self._read(path, tenants)
        self._seen, self._keyring = seen, Keyring(tenants)
        logger.info("API keys read tenants=%d keys=%d", len(files), len(tenants))
        if not tenants:
            logger.error("there is no API key in %s: every request is refused; put one entry per tenant into the Secret", self._folder)

    def _read(self, path: Path, tenants: dict[bytes, str]) -> None:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            logger.error("the keys of tenant %s take %d bytes and are left out; at most %d are read", path.name, len(data), MAX_FILE_BYTES)
            return
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            key = line.strip()
            if not key:
                continue
            owner = tenants.setdefault(digest(key), path.name)
            if owner != path.name:
                logger.error("tenants %s and %s have the same API key; it counts as the first one's", owner, path.name)
