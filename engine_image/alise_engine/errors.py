"""What can go wrong in the engine, as one tree.

AliseEngineError
├── ConfigError            the engine cannot start like this; the message names the setting, its value and what to do
│   └── UnsupportedVllm    another vLLM than the one the plugin was written against
└── PayloadError           a utility call carried something that is not in `core_protocol`; nothing was changed
"""


class AliseEngineError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(AliseEngineError, ValueError):
    """The engine must not start with this configuration."""


class UnsupportedVllm(ConfigError):
    """vLLM does not have what `compat` relies on."""


class PayloadError(AliseEngineError, ValueError):
    """A utility call is malformed."""
