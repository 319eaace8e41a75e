"""Parses bodies and describes them; large ones in a process of their own.

Parsing holds Python's interpreter lock, so a thread would not help: a body of several megabytes would delay every stream of the pod.
`middleware.py` calls it.
"""

import asyncio
import json
import logging
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final

from alise_contract.describe import Description, Endpoint, describe
from alise_contract.prompts import JSON

logger = logging.getLogger("vllm.alise.parsing")

# A body of this size takes about a millisecond.
INLINE_BYTES: Final = 256 * 1024
# Longer than the largest body takes, others before it and a start of the process included.
PARSE_SECONDS: Final = 10.0
# Bodies in the process or before it.
MAX_QUEUED: Final = 16


@dataclass(frozen=True, slots=True)
class Parsed:
    """The description of a body, and the CPU time of parsing it."""

    # None: it is no JSON.
    description: Description | None
    cpu_seconds: float = 0.0


class Busy(Exception):
    """A large body cannot be parsed now, because others are waiting or the parsing process has ended."""


def parse(endpoint: Endpoint, data: bytes) -> Parsed:
    """Returns the description of a body. Never raises."""
    began = time.thread_time()
    try:
        body: JSON = json.loads(data)
    except (ValueError, RecursionError):
        return Parsed(None, time.thread_time() - began)
    spent = time.thread_time() - began
    return Parsed(describe(endpoint, body), spent)


class Parser:
    """Parses small bodies at once and large ones elsewhere."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._queued = 0

    async def parse(self, endpoint: Endpoint, data: bytes) -> Parsed:
        """Returns the description of a body. Raises Busy if a large body cannot be parsed now; it must not pass unchecked."""
        if len(data) <= INLINE_BYTES:
            return parse(endpoint, data)
        if self._queued >= MAX_QUEUED:
            raise Busy(f"{self._queued} large requests are being parsed")
        self._queued += 1
        pool = None
        try:
            pool = self._opened()
            async with asyncio.timeout(PARSE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(pool, parse, endpoint, data)
        except TimeoutError:
            logger.warning("a body of %d bytes was not parsed within %.0f s", len(data), PARSE_SECONDS)
            raise Busy("large requests are parsed too slowly") from None
        except (BrokenProcessPool, RuntimeError, OSError) as error:
            # Killed for memory, perhaps, or there is no room for another process. The next body gets a new process; other bodies of the old
            # one, whose failures arrive here later, leave that alone.
            logger.error("the process that parses large bodies has ended or cannot start (%s); alise starts it again", error)
            if self._pool is pool:
                self._pool = None
            raise Busy("the process that parses large requests has ended") from error
        finally:
            self._queued -= 1

    def close(self) -> None:
        """Ends the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Not forked: this process has threads, and gRPC's do not survive a fork.
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return self._pool
