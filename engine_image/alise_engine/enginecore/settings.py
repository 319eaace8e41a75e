"""Reads the scheduler's settings from vLLM's configuration. `scheduler.py` calls it once, at start."""

import secrets
from typing import Any, Final

from alise_contract.names import POD_KEY_BYTES
from alise_contract.pod_key import pod_key

from ..errors import ConfigError
from ..kv.connector import AliseKVConnector
from ..wire import stamp
from ..wire.terms import CODEC_AUTO, CODEC_INT8, CODEC_RAW

# What `--additional-config '{"alise": {"codec": …}}'` may say.
CODEC_SETTINGS: Final = {"auto": CODEC_AUTO, "int8": CODEC_INT8, "none": CODEC_RAW}


def configured_codec(additional_config: Any) -> str:
    """Returns the codec in `--additional-config`, by default "auto". Raises ConfigError."""
    settings = additional_config.get("alise", {}) if isinstance(additional_config, dict) else {}
    name = settings.get("codec", "auto")
    if name not in CODEC_SETTINGS:
        raise ConfigError(f"additional-config alise.codec is {name!r}: use one of {', '.join(CODEC_SETTINGS)}")
    return CODEC_SETTINGS[name]


def stamp_key(additional_config: Any) -> bytes:
    """Returns the key that verifies stamps. Raises ConfigError when the pod's key cannot be read.

    Without a socket directory in `--additional-config` there is no API server of alise before this engine, and no stamp is trusted.
    """
    settings = additional_config.get("alise", {}) if isinstance(additional_config, dict) else {}
    socket_dir = settings.get("socket_dir")
    try:
        return stamp.stamp_key(pod_key(socket_dir) if socket_dir else secrets.token_bytes(POD_KEY_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the pod's key cannot be read in {socket_dir}: {error}; use another --alise-socket-dir") from error


def check_connector(connector: Any) -> None:
    """Raises ConfigError when there is a KV connector that is not ours."""
    if connector is not None and not isinstance(connector, AliseKVConnector):
        raise ConfigError(f"the KV connector is {type(connector).__name__}: use AliseKVConnector, or none")


def check_codec(codec: str, connector: Any) -> None:
    """Raises ConfigError when the connector's KV cache cannot be stored with this codec."""
    if codec == CODEC_INT8 and connector is not None and CODEC_INT8 not in connector.codecs():
        raise ConfigError("codec int8 does not support this KV cache layout and dtype: use auto or none, which store KV unchanged")
