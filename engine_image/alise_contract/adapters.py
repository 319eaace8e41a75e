"""The list of LoRA adapters that the operator gives a pod, as one JSON file in a mounted ConfigMap; pure.

The operator writes it with `dump()`, and the engine's API server reads it with `load()` whenever it changes.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

FILE: Final = "adapters.json"
# As many as a resource may list, and as the engine keeps in host memory.
MAX_ADAPTERS: Final = 32
# Of a text that says why an adapter could not be loaded.
MAX_MESSAGE_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: the model name that clients send, and where its files are."""

    name: str
    # A Hugging Face repository, or a folder in the pod.
    uri: str
    # Of the repository; empty for its default branch.
    revision: str = ""

    @property
    def source(self) -> str:
        """Tells versions of an adapter apart in a pod's status."""
        return hashlib.sha256(f"{self.uri}\0{self.revision}".encode()).hexdigest()[:16]


def dump(adapters: Iterable[Adapter]) -> str:
    return json.dumps([asdict(adapter) for adapter in adapters], indent=1) + "\n"


def load(text: str) -> tuple[Adapter, ...]:
    """Returns the adapters in a file. Fields of later versions are ignored. Raises ValueError."""
    listed = json.loads(text)
    if not isinstance(listed, list) or len(listed) > MAX_ADAPTERS:
        raise ValueError(f"expected a list of at most {MAX_ADAPTERS} adapters")
    adapters = tuple(_adapter(one) for one in listed)
    if len({adapter.name for adapter in adapters}) < len(adapters):
        raise ValueError("two adapters have the same name")
    return adapters


def _adapter(one: object) -> Adapter:
    fields = one if isinstance(one, dict) else {}
    values = [fields.get("name", ""), fields.get("uri", ""), fields.get("revision", "")]
    if not all(isinstance(value, str) for value in values) or not (values[0] and values[1]):
        raise ValueError(f"expected a name and a uri, got {one!r}")
    return Adapter(*values)
