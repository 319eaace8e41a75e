"""Trains in the background and takes in what other replicas learned: one task beside the dispatcher, on its loop.

Training runs in a process of its own (`train.py`), at the lowest priority, and first to go when memory is short. What the loop does itself
takes milliseconds: copying the newest rows, switching heads.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from .archive import Archive
from .learned import LearnedPredictor, equip
from .rules import LEARNED, Rule

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 1.0
TRAIN_SECONDS: Final = 900.0
REST_SECONDS: Final = 10.0
# Of other replicas, per turn: a few milliseconds' worth.
MAX_ARRIVALS: Final = 200
_MAX_LOG_CHARS: Final = 500

Train = Callable[[bytes, int, str], Awaitable[bytes]]


class TrainingError(Exception):
    """The training process ended without a head."""


async def train_in_process(history: bytes, version: int, rule: str) -> bytes:
    """The bytes of a head by this rule. Raises TrainingError, or TimeoutError after TRAIN_SECONDS."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = (sys.executable, "-m", "alise_scheduler.predictor.train", str(version), rule)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    try:
        async with asyncio.timeout(TRAIN_SECONDS):
            head, said = await process.communicate(history)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise TrainingError(f"training ended with status {process.returncode}: {said.decode(errors='replace').strip()[-_MAX_LOG_CHARS:]}")
    return head


class Learner:
    """`run()` is the task."""

    def __init__(
        self,
        predictor: LearnedPredictor,
        archive: Archive,
        count: Callable[[str], None] = lambda outcome: None,
        train: Train = train_in_process,
        rule: Rule = LEARNED,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._predictor = predictor
        self._archive = archive
        self._count = count
        self._train = train
        self._rule = rule
        self._on_turn = on_turn
        self._versions = predictor.version

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if await self.turn():
                await asyncio.sleep(REST_SECONDS)
            self._on_turn()
            await asyncio.sleep(TURN_SECONDS)

    async def turn(self) -> bool:
        """Takes in what arrived and trains when it is time; whether it trained."""
        for sample in self._archive.arrived(MAX_ARRIVALS):
            self._predictor.take(sample)
        if not self._predictor.wants_training():
            return False
        history, seen = self._predictor.newest()
        self._versions = version = self._versions + 1
        began = time.monotonic()
        try:
            data = await self._train(await asyncio.to_thread(history.to_bytes), version, self._rule.name)
            equipped = await asyncio.to_thread(lambda: equip(self._rule.read(data), history))
        except (TrainingError, TimeoutError, OSError, ValueError) as error:
            self._count("failed")
            log.warning("training failed, the head in use stays", extra={"version": version, "detail": str(error)})
            return True
        self._predictor.install(equipped, seen)
        self._archive.save_head(version, data)
        self._count("trained")
        seconds = round(time.monotonic() - began, 1)
        log.info("new head in use", extra={"version": version, "rows": len(history.log_tokens), "seconds": seconds})
        return True
