"""The three names of vLLM that the engine's copies import, for a machine without vLLM: a logger and two base classes without behaviour.

They stand in where vLLM is installed, too, so that the figures are of the same code everywhere; nothing else of vLLM can be imported then.
`parts.py` installs them in its process.
"""

import importlib.util
import logging
import sys
from abc import ABC
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final


class KVConnectorMetadata(ABC):  # noqa: B024
    """vLLM's has no behaviour either."""


class KVConnectorWorkerMetadata(ABC):  # noqa: B024
    """vLLM's has one abstract method, which the engine's class defines."""


_BASE: Final = "vllm.distributed.kv_transfer.kv_connector.v1.base"
_MEMBERS: Final[dict[str, dict[str, Any]]] = {
    "vllm.logger": {"init_logger": logging.getLogger},
    _BASE: {"KVConnectorMetadata": KVConnectorMetadata, "KVConnectorWorkerMetadata": KVConnectorWorkerMetadata},
}


def install() -> None:
    """Puts the stand-ins where Python looks for vLLM. Raises RuntimeError when vLLM itself has been imported already."""
    if "vllm" in sys.modules:
        raise RuntimeError("vLLM is imported in this process; the parts without vLLM run in processes of their own")
    for name in _MEMBERS:
        words = name.split(".")
        for length in range(1, len(words)):
            _add(".".join(words[:length]))
        vars(_add(name)).update(_MEMBERS[name])


def _add(name: str) -> ModuleType:
    if name not in sys.modules:
        # A package without a place to look in: what is not among the members is not found.
        sys.modules[name] = importlib.util.module_from_spec(ModuleSpec(name, None, is_package=True))
    return sys.modules[name]
