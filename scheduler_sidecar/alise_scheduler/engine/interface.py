"""What the dispatcher (`dispatcher.py`) needs of an engine. `client.py` implements it over gRPC, and the tests have an engine in memory."""

from collections.abc import AsyncIterator
from typing import Protocol

from ..core.plan import Plan
from ..core.reports import EngineEvent


class Engine(Protocol):
    """An engine that reports its requests and applies plans."""

    def events(self) -> AsyncIterator[EngineEvent]:
        """Snapshots and updates, without end. Where a session ends, an EngineLost comes and then the snapshot of a new session."""

    async def apply(self, session_id: str, sequence: int, plan: Plan) -> tuple[str, ...]:
        """Sends a plan. Returns the ids of jobs that the engine does not know.

        Raises EngineUnavailableError (the call can be repeated) or SessionLostError (reconnect first).
        """

    def reconnect(self) -> None:
        """Ends the open session, so that a new one begins with a snapshot."""

    async def close(self) -> None:
        """Ends the session and the connection."""
