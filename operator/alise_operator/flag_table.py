"""The flags of `vllm serve`, as vLLM's own parser has them: names, how many values, of which type.

`vllm_flags.json` is generated from the parser of the vLLM in alise's images (`make flags`), so that the operator needs no vLLM. The flags
of `alise-engine` itself, which sit on the same command line, are added here.
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
    # As they are written: --tensor-parallel-size, -tp; of a switch --x and --no-x.
    names: tuple[str, ...]
    values: Values
    type: Type = "text"
    choices: tuple[str | int | float, ...] = ()
    # An empty value, and None, count as no value.
    optional: bool = False
    # Of type object: the keys that there are, and those that must be there.
    keys: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    # May be given several times.
    repeats: bool = False

    @property
    def name(self) -> str:
        """The first long name, without dashes."""
        return next(name for name in self.names if name.startswith("--"))[2:]

    @property
    def is_json(self) -> bool:
        """Whether parts of the value can be given one by one: --flag.key value."""
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
