"""Decides which session may Apply, and in which order; pure.

Watch opens a session. Only the newest session may Apply: when a sidecar restarts, a late message of its predecessor must not undo the new
plan. Sequence numbers start with the session and only increase. `server.py` calls it.
"""

from dataclasses import dataclass, replace

from ...errors import StaleSequence, StaleSession


@dataclass(frozen=True, slots=True)
class Sessions:
    # Empty: none was opened yet.
    newest: str = ""
    # Of the newest session's last Apply; 0: none.
    sequence: int = 0


def opened(_: Sessions, session_id: str) -> Sessions:
    return Sessions(newest=session_id)


def check(sessions: Sessions, session_id: str, sequence: int) -> None:
    """Raises StaleSession or StaleSequence."""
    if not session_id or session_id != sessions.newest:
        raise StaleSession(f"session {session_id!r} may not Apply: the newest is {sessions.newest!r}; open a Watch and use its session id")
    if sequence <= sessions.sequence:
        raise StaleSequence(f"sequence {sequence} is not above the last one applied, {sessions.sequence}")


def applied(sessions: Sessions, sequence: int) -> Sessions:
    return replace(sessions, sequence=sequence)
