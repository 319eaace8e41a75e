"""Writes the table of `vllm serve`'s flags by which the operator judges `spec.engine.args`: `make flags`.

The table is read off vLLM's own parser, so that the operator needs no vLLM. A type or an action that is not known here stops the
generator: it is new in this vLLM, and the operator has to learn it (`alise_operator/flag_values.py`).
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).resolve().parents[2] / "operator/alise_operator/vllm_flags.json"
# How many values an action takes, by `nargs`.
_VALUES: Final = {None: "one", 0: "none", "?": "optional", "+": "many"}
_WRAPPERS: Final = ("optional_type.<locals>._optional_type", "parse_type.<locals>._parse_type")
_ACTIONS: Final = (
    "_StoreAction",
    "_StoreTrueAction",
    "_AppendAction",
    "_HelpAction",
    "BooleanOptionalAction",
    "DeprecatedLogConfigFileAction",
    "LoRAParserAction",
)


def render() -> str:
    """Returns the table of the installed vLLM as JSON, one flag per line."""
    from vllm.version import __version__

    flags = sorted((_entry(action) for action in serve_parser()._actions if action.option_strings), key=lambda flag: flag["names"])
    lines = ",\n".join("    " + json.dumps(flag) for flag in flags)
    return f'{{\n  "vllm": "{__version__.partition("+")[0]}",\n  "flags": [\n{lines}\n  ]\n}}\n'


def serve_parser() -> argparse.ArgumentParser:
    """Returns vLLM's parser of what follows `vllm serve`."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: argparse.ArgumentParser = ServeSubcommand().subparser_init(FlexibleArgumentParser(prog="vllm").add_subparsers(dest="subparser"))
    return parser


def _entry(action: argparse.Action) -> dict[str, Any]:
    kind = type(action).__name__
    if kind not in _ACTIONS or action.nargs not in _VALUES:
        raise SystemExit(f"{action.option_strings}: {kind} with nargs {action.nargs!r} is new; teach tests/tools/flags.py what it takes")
    entry: dict[str, Any] = {"names": list(action.option_strings), "values": _VALUES[action.nargs]}
    if action.nargs == 0:
        return entry
    entry |= {"type": "lora"} if kind == "LoRAParserAction" else _type(action)
    choices = [choice for choice in action.choices or () if choice is not None]
    if choices:
        entry["choices"] = choices
    if kind == "_AppendAction":
        entry["repeats"] = True
    return entry


def _type(action: argparse.Action) -> dict[str, Any]:
    from vllm.engine import arg_utils
    from vllm.utils.argparse_utils import human_readable_int, human_readable_int_or_auto

    function: Any = action.type
    entry: dict[str, Any] = {}
    while getattr(function, "__qualname__", "") in _WRAPPERS:
        if function.__qualname__ == _WRAPPERS[0]:
            entry["optional"] = True
        function = function.__closure__[0].cell_contents
    known = {
        None: "text",
        str: "text",
        int: "int",
        float: "float",
        human_readable_int: "size",
        human_readable_int_or_auto: "size_or_auto",
        json.loads: "json",
        arg_utils.union_dict_and_str: "json_or_text",
    }
    if function in known:
        return {"type": known[function]} | entry
    name = function.__qualname__
    if name.endswith("parse_dataclass"):
        fields = [field for field in dataclasses.fields(function.__defaults__[0]) if field.init]
        required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
        return {"type": "object", "keys": sorted(field.name for field in fields), "required": required} | entry
    if name.endswith("<lambda>") and function("A-B") == "a_b":
        return {"type": "lowered"} | entry
    if name.endswith("<lambda>") and function("1, GPU-x") == [1, "GPU-x"]:
        return {"type": "text"} | entry
    raise SystemExit(f"{action.option_strings}: values of type {name} are new; teach tests/tools/flags.py and flag_values.py what they are")


if __name__ == "__main__":
    TABLE.write_text(render())
    print(TABLE, file=sys.stderr)
