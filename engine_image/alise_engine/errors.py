"""The engine's errors, as one tree. Files of `api`, `compat`, `enginecore`, `kv`, `serve` and `wire` raise or handle them.

AliseEngineError
├── ConfigError            the engine cannot start like this; the message names the setting, its value and what to do
│   └── UnsupportedVllm    another vLLM than the one the plugin was written against
├── PayloadError           a utility call carried something that is not in `wire.calls`; nothing was changed
├── CoreUnavailable        EngineCore did not answer in time, refused the call, or is shutting down
├── AdapterError           a LoRA adapter cannot be served; the message says why, and everything else is served
└── ControlError           a call to the control server is refused; nothing was changed
    ├── VersionRefused     the caller has another contract version
    ├── InvalidCall        a field is outside the contract
    ├── StaleSession       not the newest session's call
    ├── StaleSequence      an Apply that is not above the last one
    └── WatcherTooSlow     the watcher left too many endings unread
"""


class AliseEngineError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(AliseEngineError, ValueError):
    """The engine must not start with this configuration."""


class UnsupportedVllm(ConfigError):
    """vLLM does not have what `compat` relies on."""


class PayloadError(AliseEngineError, ValueError):
    """A utility call is malformed."""


class CoreUnavailable(AliseEngineError):
    """A utility call got no answer."""


class AdapterError(AliseEngineError):
    """A LoRA adapter cannot be served."""


class ControlError(AliseEngineError):
    """A control call is refused."""


class VersionRefused(ControlError):
    """Another contract version."""


class InvalidCall(ControlError, ValueError):
    """A field is outside the contract."""


class StaleSession(ControlError):
    """A newer session is open."""


class StaleSequence(ControlError):
    """Applied already, or overtaken."""


class WatcherTooSlow(ControlError):
    """The watcher has to reconnect and start from a snapshot."""
