"""What the dispatcher needs of an engine. `client.py` implements it over gRPC; the tests have one in memory."""

from collections.abc import AsyncIterator
from typing import Protocol

from ..core.plan import Plan
from ..core.reports import EngineEvent


class Engine(Protocol):
    def events(self) -> AsyncIterator[EngineEvent]:
        """Snapshots and updates, for ever: an EngineLost, then a new session's snapshot, wherever a session ends."""

    async def apply(self, session_id: str, sequence: int, plan: Plan) -> tuple[str, ...]:
        """Sends a plan; returns the ids of jobs the engine does not have.

        Raises EngineUnavailableError (try again) or SessionLostError (reconnect first).
        """

    def reconnect(self) -> None:
        """Ends the session that is open, so that a fresh one begins with a snapshot."""

    async def close(self) -> None:
        """Ends everything."""
