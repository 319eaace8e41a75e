"""The errors of the sidecar. `__main__.py`, `config.py`, `dispatcher.py` and files of `core`, `engine`, `predictor` and `rpc` raise or
handle them.

    SchedulerError
    ├── ConfigError            a setting is invalid; the process does not start
    ├── InvalidRequestError    an admission request is invalid (INVALID_ARGUMENT)
    ├── ContractError          the peer uses an unsupported contract version (FAILED_PRECONDITION)
    ├── EncoderError           the sentence encoder cannot be loaded; prediction continues without it
    ├── HistoryError           the history cannot be read or written; prediction continues in memory
    ├── InboxFullError         the dispatcher's inbox is full (RESOURCE_EXHAUSTED); the caller fails open
    ├── IllegalMoveError       the engine reported an impossible change of phase; nothing was changed
    └── EngineError            a call to the engine failed
        ├── EngineUnavailableError   the engine did not answer in time, or the socket is gone; the call can be repeated
        └── SessionLostError         this session may no longer send plans; a new one has to be opened

A *rejected* request (never queued) is an answer and not an error: see `core/admit.py`.
"""


class SchedulerError(Exception):
    """The base of all errors of the sidecar."""


class ConfigError(SchedulerError):
    """A setting is invalid."""


class InvalidRequestError(SchedulerError):
    """An admission request is invalid."""


class ContractError(SchedulerError):
    """The peer uses an unsupported version of the contract."""


class EncoderError(SchedulerError):
    """The sentence encoder cannot be used."""


class HistoryError(SchedulerError):
    """The store of finished requests failed."""


class InboxFullError(SchedulerError):
    """The dispatcher's inbox is full."""


class IllegalMoveError(SchedulerError):
    """A change of phase is not in the table. The state is unchanged."""


class EngineError(SchedulerError):
    """A call to the engine failed."""


class EngineUnavailableError(EngineError):
    """The engine did not answer."""


class SessionLostError(EngineError):
    """The session is not the newest one, or its sequence number is too low."""
