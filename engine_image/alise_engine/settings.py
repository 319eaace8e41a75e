"""What vLLM's own configuration says to the scheduler."""

from typing import Any, Final

from .core_protocol import CODEC_AUTO, CODEC_INT8, CODEC_RAW
from .errors import ConfigError
from .kv.connector import AliseKVConnector

# What `--additional-config '{"alise": {"codec": …}}'` may say.
CODEC_SETTINGS: Final = {"auto": CODEC_AUTO, "int8": CODEC_INT8, "none": CODEC_RAW}


def configured_codec(additional_config: Any) -> str:
    """The codec that `--additional-config` asks for, "auto" when it says nothing. Raises ConfigError."""
    settings = additional_config.get("alise", {}) if isinstance(additional_config, dict) else {}
    name = settings.get("codec", "auto")
    if name not in CODEC_SETTINGS:
        raise ConfigError(f"additional-config alise.codec is {name!r}: use one of {', '.join(CODEC_SETTINGS)}")
    return CODEC_SETTINGS[name]


def check_connector(connector: Any) -> None:
    """Raises ConfigError when there is a KV connector that is not ours."""
    if connector is not None and not isinstance(connector, AliseKVConnector):
        raise ConfigError(f"the KV connector is {type(connector).__name__}: use AliseKVConnector, or none")
