"""From the bytes of a body to its description; large ones in a process of their own.

Parsing holds Python's interpreter lock, so that a thread would not help: a body of some megabytes would hold up every stream of the pod.
"""

import asyncio
import json
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from .describe import JSON, Description, Endpoint, describe

logger = logging.getLogger("vllm.alise.parsing")

# A body of this size takes about a millisecond.
INLINE_BYTES: Final = 256 * 1024
# Longer than the largest body takes, others before it included. A request that is not described by then is ranked neutral.
PARSE_SECONDS: Final = 2.0
# Bodies in the process or before it; what comes on top is ranked neutral at once.
MAX_QUEUED: Final = 8
UNREADABLE: Final = Description(Endpoint.OTHER)


def parse(endpoint: Endpoint, data: bytes) -> Description | None:
    """Returns what a body says; None when it is no JSON. Never raises."""
    try:
        body: JSON = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return describe(endpoint, body)


class Parser:
    """Parses small bodies at once and large ones elsewhere."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._queued = 0
        # Bodies that were not described: the process was busy, slow or gone.
        self.given_up = 0

    async def parse(self, endpoint: Endpoint, data: bytes) -> Description | None:
        """Returns what a body says; None when it is no JSON."""
        if len(data) <= INLINE_BYTES:
            return parse(endpoint, data)
        if self._queued >= MAX_QUEUED:
            self.given_up += 1
            return UNREADABLE
        self._queued += 1
        try:
            async with asyncio.timeout(PARSE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._opened(), parse, endpoint, data)
        except TimeoutError:
            logger.warning("a body of %d bytes was not parsed within %.0f s; its request is ranked neutral", len(data), PARSE_SECONDS)
        except (BrokenProcessPool, RuntimeError) as error:
            # Killed for memory, perhaps: the next body gets a new one.
            logger.error("the process that parses large bodies has ended (%s); it is started again", error)
            self._pool = None
        finally:
            self._queued -= 1
        self.given_up += 1
        return UNREADABLE

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
