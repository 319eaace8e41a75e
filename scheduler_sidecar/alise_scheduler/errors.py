"""Everything that can go wrong in this room.

    SchedulerError
    ├── ConfigError            a setting that cannot be used; the process does not start
    ├── InvalidRequestError    an Admit that says nothing usable (INVALID_ARGUMENT)
    ├── ContractError          the other side speaks another contract version (FAILED_PRECONDITION)
    ├── EncoderError           the sentence encoder cannot be loaded; prediction goes on without it
    ├── HistoryError           the history cannot be read or written; prediction goes on in memory
    ├── InboxFullError         more events than the dispatcher takes in; the caller rejects or fails open
    ├── IllegalMoveError       the engine reported a phase change that no life of a request contains; nothing was changed
    └── EngineError            a call to the engine that did not work
        ├── EngineUnavailableError   nobody answered in time, or the socket is gone: worth trying again
        └── SessionLostError         this session may not Apply any more: open a new one

*Rejected* (never queued) is an answer, not an error: see `core/admit.py`.
"""


class SchedulerError(Exception):
    """Base of this room's errors."""


class ConfigError(SchedulerError):
    """A setting cannot be used."""


class InvalidRequestError(SchedulerError):
    """An admission request that cannot be understood."""


class ContractError(SchedulerError):
    """The peer speaks another version of the contract."""


class EncoderError(SchedulerError):
    """No usable sentence encoder."""


class HistoryError(SchedulerError):
    """The store of past requests does not work."""


class InboxFullError(SchedulerError):
    """The dispatcher has more to do than it may hold."""


class IllegalMoveError(SchedulerError):
    """A phase change outside the table; the state was left as it was."""


class EngineError(SchedulerError):
    """A call to the engine failed."""


class EngineUnavailableError(EngineError):
    """The engine did not answer."""


class SessionLostError(EngineError):
    """The session is not the newest any more, or its sequence is behind."""
