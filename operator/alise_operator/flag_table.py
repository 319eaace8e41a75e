"""The table of the flags of `vllm serve`: their names, number of values and types, as in vLLM's own parser.

It reads `vllm_flags.json`, which `make flags` generates from the parser of the vLLM in alise's images, so the operator needs no vLLM. The
flags of `alise-engine`, which share the command line, are added here. flag_reader.py and flag_values.py use the table.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Values = Literal["none", "one", "optional", "many"]
Type = Literal["text", "int", "float", "size", "size_or_auto", "json", "json_or_text", "object", "lowered", "lora"]


@dataclass(frozen=True, slots=True)
class Flag:
    # All spellings: --tensor-parallel-size, -tp; for a switch --x and --no-x.
    names: tuple[str, ...]
    values: Values
    type: Type = "text"
    choices: tuple[str | int | float, ...] = ()
    # Whether an empty value and None count as no value.
    optional: bool = False
    # For type object: the keys that exist, and those that are required.
    keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    # Whether it may be given several times.
    repeats: bool = False

    @property
    def name(self) -> str:
        """The first long name, without dashes."""
        return next(name for name in self.names if name.startswith("--"))[2:]

    @property
    def is_json(self) -> bool:
        """Whether the keys of the value can be given one by one: --flag.key value."""
        return self.type in ("json", "json_or_text", "object")


def _flag(entry: Mapping[str, Any]) -> Flag:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Flag(**values)


_TABLE: Final = json.loads(Path(__file__).with_name("vllm_flags.json").read_text())
VLLM_VERSION: Final[str] = _TABLE["vllm"]
VLLM_FLAGS: Final = tuple(_flag(entry) for entry in _TABLE["flags"])
# alise-engine's own (engine_image/alise_engine/serve/cli.py).
ALISE_FLAGS: Final = tuple(
    Flag((name,), "one") for name in ("--alise-host-memory", "--alise-host-memory-at-most", "--alise-kv-codec", "--alise-socket-dir")
)
BY_NAME: Final[Mapping[str, Flag]] = {name: flag for flag in (*VLLM_FLAGS, *ALISE_FLAGS) for name in flag.names}
