"""Trains in the background and takes in what other replicas learned: one task beside the dispatcher, on its event loop.

Training runs in a process of its own (`process.py`) at the lowest priority, which is the first to be killed when memory is short; so does
the fitting of a prior (`prior_fit.py`). What the loop does itself takes milliseconds: copying the newest rows and switching heads. `run.py`
starts it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..learned import LearnedPredictor
from ..models import head, prior
from ..served_head import serve_head
from ..storage.writer import Archive
from .background import BackgroundError, run_module

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 1.0
REST_SECONDS: Final = 10.0
# The most samples of other replicas in a turn, and the number after which admissions are handled: about two milliseconds.
MAX_ARRIVALS: Final = 200
_AT_ONCE: Final = 10

Train = Callable[[bytes, int], Awaitable[bytes]]
Know = Callable[[], Awaitable[bytes]]


async def train_in_process(history: bytes, version: int) -> bytes:
    """Trains a head of this version on a history and returns its bytes. Raises BackgroundError or TimeoutError."""
    return await run_module("process", str(version), given=history)


async def prior_in_process(encoder: str) -> bytes:
    """Returns the bytes of a prior with the encoder in this folder; empty is without one. Raises BackgroundError or TimeoutError."""
    return await run_module("prior_fit", encoder)


class Learner:
    """`run()` is the task."""

    def __init__(
        self,
        predictor: LearnedPredictor,
        archive: Archive,
        count: Callable[[str], None] = lambda outcome: None,
        train: Train = train_in_process,
        on_turn: Callable[[], None] = lambda: None,
        know: Know | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`know` returns the bytes of a prior; None: there is no prior. `on_failure` is called at unexpected errors."""
        self._on_failure = on_failure
        self._predictor = predictor
        self._archive = archive
        self._count = count
        self._train = train
        self._on_turn = on_turn
        self._know = know
        self._versions = predictor.version
        self._is_fitting = know is not None

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.prepare(), name="prior")
            group.create_task(self._look(), name="look")
            while True:
                try:
                    if await self.turn():
                        await asyncio.sleep(REST_SECONDS)
                except Exception:
                    # Samples that cannot be learned from must not end the process: they would be there again after a restart.
                    log.exception("learning failed, the head in use stays")
                    self._count("failed")
                    self._on_failure()
                    await asyncio.sleep(REST_SECONDS)
                await asyncio.sleep(TURN_SECONDS)

    async def _look(self) -> None:
        """Calls `on_turn` about once a second, also while a training takes minutes, because it watches the archive's thread."""
        while True:
            try:
                self._on_turn()
            except Exception:
                log.exception("the learner's state could not be measured")
                self._on_failure()
            await asyncio.sleep(TURN_SECONDS)

    async def prepare(self) -> None:
        """Obtains the prior and uses it. Without one, predictions are a fixed distribution and its calibration until the first training."""
        if self._know is None:
            return
        try:
            result = await asyncio.to_thread(prior.from_bytes, await self._know())
        except Exception as error:
            if not isinstance(error, (BackgroundError, TimeoutError, OSError, ValueError)):
                self._on_failure()
            log.warning("no prior: lengths are learned from nothing", extra={"detail": str(error)})
            return
        finally:
            self._is_fitting = False
        self._predictor.prior = result
        log.info("prior in use", extra={"landmarks": 0 if result.worded is None else len(result.worded.weights)})

    async def turn(self) -> bool:
        """Takes in what arrived and trains if it is time. Returns whether it trained.

        Nothing is trained while the prior is fitted, which takes the same spare CPU, and may do for some time.
        """
        for number, sample in enumerate(self._archive.arrived(MAX_ARRIVALS), start=1):
            self._predictor.take(sample)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if self._is_fitting or not self._predictor.wants_training():
            return False
        history = self._predictor.newest()
        self._versions = version = self._versions + 1
        began = time.monotonic()
        try:
            data = await self._train(await asyncio.to_thread(history.to_bytes), version)
            equipped = await asyncio.to_thread(lambda: serve_head(head.from_bytes(data), history))
        except (BackgroundError, TimeoutError, OSError, ValueError) as error:
            self._count("failed")
            log.warning("training failed, the head in use stays", extra={"version": version, "detail": str(error)})
            return True
        self._predictor.install(equipped)
        self._archive.save_head(version, data)
        self._count("trained")
        seconds = round(time.monotonic() - began, 1)
        log.info("new head in use", extra={"version": version, "rows": len(history.log_tokens), "seconds": seconds})
        return True
