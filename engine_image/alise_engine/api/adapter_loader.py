"""Keeps the served LoRA adapters as the operator wants them: reads its list, finds the files, and has vLLM load and drop adapters.

`engine_api.py` runs it. The list is a mounted ConfigMap, so clients have no way to load anything. Nothing here stops a running request: it
keeps the version of the adapter with which it began.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from alise_contract import adapters as contract
from alise_contract.adapters import Adapter

from ..errors import AdapterError
from . import adapters

logger = logging.getLogger("vllm.alise.adapters")

# How often the list is looked at. The kubelet itself takes up to a minute and a half to bring a new one.
CHECK_SECONDS: Final = 2.0
# The server starts to answer without the adapters that take longer.
FIRST_SECONDS: Final = 1800.0


class Server(Protocol):
    """vLLM's table of served adapters; `compat/served_adapters.py` in the server."""

    @property
    def max_rank(self) -> int: ...
    async def serve(self, name: str, folder: Path) -> None:
        """Loads the adapter and lets clients ask for it. Raises AdapterError."""
        ...

    async def drop(self, name: str) -> None:
        """Refuses new requests for the adapter, with 404."""
        ...


Find = Callable[[Adapter, int], Awaitable[Path]]


class AdapterLoader:
    def __init__(
        self,
        folder: Path,
        server: Server,
        find: Find,
        clock: Callable[[], float] = time.monotonic,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._file = folder / contract.FILE
        self._server = server
        self._find = find
        self._clock = clock
        self._check_seconds = check_seconds
        self._books = adapters.Books()
        self._text: str | None = None
        self._complaint = ""

    def rows(self) -> list[adapters.Row]:
        return adapters.rows(self._books)

    async def first(self) -> None:
        """Loads the adapters that are listed now, before the server answers: a pod that is ready serves them."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                await self.turn()
        except TimeoutError:
            logger.error("not all adapters were loaded within %.0f s; the server starts without the others", FIRST_SECONDS)

    async def run(self) -> None:
        """Follows the list until it is cancelled."""
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self.turn()
            except Exception:
                logger.exception("the adapters could not be brought to the listed ones; trying again")

    async def turn(self) -> None:
        """Drops and loads until everything that can be done now is done. The list is read again before each step."""
        while True:
            await self._follow()
            if (adapter := adapters.to_load(self._books, self._clock())) is None:
                return
            await self._load(adapter)

    async def _follow(self) -> None:
        """Reads the list, and drops what it does not have."""
        self._read()
        while (name := adapters.to_drop(self._books)) is not None:
            await self._server.drop(name)
            self._books = adapters.dropped(self._books, name)
            logger.info("adapter dropped name=%s", name)

    async def _load(self, adapter: Adapter) -> None:
        began = self._clock()
        try:
            folder = await self._found(adapter)
            if folder is None:
                logger.info("adapter no longer wanted, its files are not looked for any more name=%s", adapter.name)
                return
            await self._server.serve(adapter.name, folder)
        except AdapterError as error:
            self._failed(adapter, str(error))
            return
        except Exception as error:
            # A bug, or files of an unexpected kind. It must not keep the model and the other adapters from being served.
            logger.exception("adapter %s (%s) failed unexpectedly", adapter.name, adapter.uri)
            self._failed(adapter, f"unexpected {type(error).__name__}: {error}")
            return
        self._books = adapters.loaded(self._books, adapter)
        logger.info("adapter loaded name=%s uri=%s seconds=%.1f", adapter.name, adapter.uri, self._clock() - began)

    async def _found(self, adapter: Adapter) -> Path | None:
        """Returns the folder with the files, or None once the list does not have the adapter any more.

        A download may take minutes; adapters that are taken off the list meanwhile are dropped all the same. Raises AdapterError.
        """
        finding = asyncio.ensure_future(self._find(adapter, self._server.max_rank))
        try:
            while not (await asyncio.wait({finding}, timeout=self._check_seconds))[0]:
                await self._follow()
                if adapter not in self._books.wanted:
                    return None
            return finding.result()
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)

    def _failed(self, adapter: Adapter, why: str) -> None:
        message = " ".join(why.split())[: contract.MAX_MESSAGE_CHARS]
        logger.error("adapter %s (%s) cannot be served: %s", adapter.name, adapter.uri, message)
        self._books = adapters.failed(self._books, adapter, message, self._clock())

    def _read(self) -> None:
        """An unreadable list changes nothing: what is served stays."""
        try:
            text = self._file.read_text(encoding="utf-8")
            if text != self._text:
                self._text = text
                self._books = adapters.wanting(self._books, contract.load(text))
                self._complaint = ""
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.error("the list of adapters in %s cannot be read, so the adapters stay as they are: %s", self._file, error)
