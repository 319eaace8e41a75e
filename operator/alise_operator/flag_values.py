"""Checks the values of flags of `vllm serve` as vLLM's parser does.

Pure: flags.py calls `value_problem()` and `key_problem()`; `shown()` and `short()` cut values in messages of several files. Of a JSON
object only the keys are checked; the engine checks the rest at its start.
"""

import json
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from alise_operator.flag_table import Flag, Type

# Kubernetes replaces it by the value of an environment variable, which is not known here.
VARIABLE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$\([-._a-zA-Z][-._a-zA-Z0-9]*\)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_NUMBER_WITH_UNIT: Final = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b")
_STRING_IN_JSON: Final = re.compile(r'("(?:[^"\\]|\\.)*")')
_DECIMAL: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY: Final = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LORA_KEYS: Final = ("name", "path", "base_model_name", "is_3d_lora_weight")
_SHOWN_CHARS: Final = 80


class _Wrong(ValueError):
    """States what a value must be."""


def short(text: str) -> str:
    """Returns the text for a message, at most one line long."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def shown(text: str) -> str:
    """Returns the text in quotes, at most one line long."""
    return repr(short(text))


def value_problem(flag: Flag, value: str, *, all_choices_known: bool = True) -> str | None:
    """Returns what a value of the flag must be if this one is wrong; None if vLLM's parser accepts it."""
    if VARIABLE.search(value) or (flag.optional and value in ("", "None")):
        return None
    try:
        parsed = _PARSERS[flag.type](flag, value)
    except _Wrong as wrong:
        return str(wrong)
    if flag.choices and all_choices_known and parsed not in flag.choices:
        return f"must be one of {', '.join(map(str, flag.choices))}"
    return None


def key_problem(flag: Flag, key: str) -> str | None:
    """Returns what is wrong with a key of the flag's JSON object."""
    if not flag.keys or key in flag.keys:
        return None
    close = get_close_matches(key, flag.keys, n=1)
    return f"there is no key {key!r}; " + (f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(flag.keys)}")


def _text(_flag: Flag, value: str) -> str:
    return value


def _lowered(_flag: Flag, value: str) -> str:
    return value.lower().replace("-", "_")


def _int(_flag: Flag, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise _Wrong("must be a whole number") from None


def _float(_flag: Flag, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise _Wrong("must be a number") from None


def _size(_flag: Flag, value: str) -> int:
    try:
        return _human_readable(value.strip())
    except (ValueError, OverflowError):
        raise _Wrong("must be a whole number; 4k (4,000), 25.6k and 4K (4,096) are allowed as well") from None


def _size_or_auto(flag: Flag, value: str) -> int:
    if value.strip() == "-1" or value.strip().lower() == "auto":
        return -1
    try:
        return _size(flag, value)
    except _Wrong as wrong:
        raise _Wrong(f"{wrong}, or auto") from None


def _human_readable(text: str) -> int:
    """Returns the number. As in vLLM, only decimal units may have decimals. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return int(text)
    number, unit = match.groups()
    return int(float(number) * _DECIMAL[unit]) if unit in _DECIMAL else int(number) * _BINARY[unit]


def _json(_flag: Flag, value: str) -> Any:
    return _loads(value)


def _json_or_text(_flag: Flag, value: str) -> Any:
    return _loads(value) if re.fullmatch(r"\s*\{.*\}\s*", value, re.DOTALL) else value


def _loads(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise _Wrong(f"must be JSON: {error}") from None
    except RecursionError:
        raise _Wrong("must be JSON that is nested less deeply") from None


def _object(flag: Flag, value: str) -> Any:
    """Returns the object. As in vLLM, its numbers may have units."""
    parts = _STRING_IN_JSON.split(value)
    try:
        parts[::2] = [_NUMBER_WITH_UNIT.sub(lambda found: str(_human_readable(found[0])), part) for part in parts[::2]]
    except (ValueError, OverflowError):
        raise _Wrong("must be JSON; only numbers with the units k, m, g and t may have decimals") from None
    found = _loads("".join(parts))
    if not isinstance(found, dict):
        raise _Wrong('must be a JSON object such as {"key": 1}')
    for key in found:
        if (problem := key_problem(flag, key)) is not None:
            raise _Wrong(problem)
    if missing := [key for key in flag.required if key not in found]:
        raise _Wrong(f"needs the key {missing[0]!r}")
    return found


def _lora(_flag: Flag, value: str) -> Any:
    """Returns the adapter. As in vLLM, an empty item is ignored."""
    if value in ("", "None") or ("=" in value and "," not in value):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"name", "path"} <= found.keys() <= set(_LORA_KEYS):
        raise _Wrong('must be name=path or JSON such as {"name": "a", "path": "/adapters/a"}')
    return found


_PARSERS: Final[Mapping[Type, Callable[[Flag, str], Any]]] = {
    "text": _text,
    "lowered": _lowered,
    "int": _int,
    "float": _float,
    "size": _size,
    "size_or_auto": _size_or_auto,
    "json": _json,
    "json_or_text": _json_or_text,
    "object": _object,
    "lora": _lora,
}
