"""Reads a list of arguments as vLLM's parser does, but more strictly: what vLLM would guess or misunderstand is a mistake here.

Pure: flags.py calls `read()`, which only knows spellings; flags.py decides what is allowed. vLLM accepts underscores for dashes,
--flag=value, --flag.key value, -q=value and -qvalue, abbreviations, and -O3. Every spelling is recognized, so that no flag that alise sets
itself can pass unnoticed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from alise_operator.flag_table import BY_NAME, VLLM_VERSION, Flag
from alise_operator.flag_values import VARIABLE, short, shown

_FLAG: Final = re.compile(r"\s*--?[A-Za-z]")
_NEGATIVE_NUMBER: Final = re.compile(r"-[0-9]+")
_SWITCH_WORDS: Final = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
# vLLM turns -O3, -O=3 and -O 3 into this flag.
_OPTIMIZATION: Final = "--optimization-level"
_OPTIMIZATION_LEVELS: Final = ("0", "1", "2", "3")
_NAMES_SHOWN: Final = 5
# difflib's ratio: names that differ more are not suggested.
_CLOSE: Final = 0.75


@dataclass(frozen=True, slots=True)
class Given:
    """One flag with its values, or an item that is not a flag."""

    index: int
    # As the user wrote it, without its value, and with dashes for underscores.
    spelled: str
    # None if the table does not have it.
    flag: Flag | None = None
    # The part after the first dot of --flag.key; None without a dot.
    key: str | None = None
    values: tuple[str, ...] = ()
    # What is wrong with its spelling, and how to write it.
    mistake: str | None = None
    # The only mistake is that the table does not have the flag.
    unknown: bool = False
    # The abbreviation that the user wrote instead of the flag's name.
    abbreviation: str | None = None
    # The number of following items that are its values.
    taken: int = 0

    @property
    def name(self) -> str:
        """The flag's first long name without dashes, or what the user wrote if the table does not have the flag."""
        return self.flag.name if self.flag is not None else self.spelled.lstrip("-")

    @property
    def is_off(self) -> bool:
        """Whether a switch is turned off: --no-x."""
        return self.flag is not None and self.flag.values == "none" and self.spelled == f"--no-{self.flag.name}"


@dataclass(frozen=True, slots=True)
class _Item:
    """The parts of an item that is written as a flag."""

    spelled: str
    key: str | None = None
    # The part after the equals sign, or directly after a flag of one letter.
    glued: str | None = None
    joined: bool = False

    @property
    def shown(self) -> str:
        return self.spelled if self.key is None else f"{self.spelled}.{self.key}"


def read(args: Sequence[str]) -> Iterator[Given]:
    """Yields the flags in order. Each item of the list belongs to exactly one of them."""
    index, before = 0, None
    while index < len(args):
        before, taken = _read_one(args, index, before)
        yield replace(before, taken=taken)
        index += 1 + taken


def _read_one(args: Sequence[str], index: int, before: Given | None) -> tuple[Given, int]:
    """Returns the flag that begins at the item, and the number of following items that are its values."""
    text, following = args[index], list(_values_from(args, index + 1))
    if _FLAG.match(text) is None:
        return Given(index, text, mistake=_stray(text, before)), 0
    head = text.partition("=")[0]
    if VARIABLE.search(head):
        return Given(index, text, mistake=f"{shown(text)}: the name of a flag cannot come from a variable; write it out"), len(following)
    blank = _blank(text) if re.search(r"\s", head) else None
    item = _taken_apart(text.split()[0] if blank else text)
    flag = _find(item.spelled)
    if flag is None:
        unknown = blank is None and not _meant(item.spelled)
        return Given(index, item.spelled, key=item.key, mistake=blank or _not_found(item.spelled), unknown=unknown), len(following)
    values, taken, mistake = _values(flag, item, following)
    if mistake is not None and not values and not following and _reads_as_a_flag(args[index + 1 : index + 2]):
        mistake, taken = f"{item.shown} needs a value; one that begins with a dash is written {shown(f'{item.shown}={args[index + 1]}')}", 1
    abbreviated = None if item.spelled in ("-O", *flag.names) else f"{item.spelled} is an abbreviation; write {_meant(item.spelled)[0]}"
    given = Given(index, item.spelled, flag, item.key, tuple(values), blank or abbreviated or mistake)
    return (replace(given, spelled=_meant(item.spelled)[0], abbreviation=item.spelled) if abbreviated else given), taken


def _values_from(args: Sequence[str], start: int) -> Iterator[str]:
    """Yields the items that vLLM's parser takes as values: up to the first that begins with a dash."""
    for item in args[start:]:
        if item.startswith("-") and not _NEGATIVE_NUMBER.fullmatch(item):
            return
        yield item


def _reads_as_a_flag(items: Sequence[str]) -> bool:
    """Returns whether the next item is meant as a value but would be read as a flag, because it begins with a dash."""
    return any(item.startswith("-") and _find(_taken_apart(item).spelled) is None for item in items)


def _taken_apart(text: str) -> _Item:
    if text.startswith("-O"):
        return _Item("-O", glued=text[3:] if text[2:3] == "=" else text[2:] or None)
    head, equals, value = text.partition("=")
    name, dot, key = head.partition(".")
    if name.startswith("--"):
        name = name.replace("_", "-")
    elif name not in BY_NAME and name[:2] in BY_NAME:
        return _Item(name[:2], glued=text[2:], joined=True)
    return _Item(name, key if dot else None, value if equals else None)


def _find(spelled: str) -> Flag | None:
    """Returns the flag of this name or of this abbreviation."""
    if spelled == "-O":
        return BY_NAME[_OPTIMIZATION]
    flags = {BY_NAME[name].name: BY_NAME[name] for name in _meant(spelled)}
    return BY_NAME.get(spelled) or (next(iter(flags.values())) if len(flags) == 1 else None)


def _meant(spelled: str) -> list[str]:
    """Returns the names that an abbreviation can stand for in vLLM's parser."""
    return [name for name in BY_NAME if name.startswith(spelled) and name.startswith("--") == spelled.startswith("--")]


def _not_found(spelled: str) -> str:
    if names := _meant(spelled):
        some = ", ".join(names[:_NAMES_SHOWN] + ["…"] * (len(names) > _NAMES_SHOWN))
        return f"{spelled} may be {some}; write the one that you mean"
    close = _closest(spelled)
    hint = f"did you mean {close}?" if close is not None else "remove it"
    return f"vLLM {VLLM_VERSION} has no flag {short(spelled)}; {hint}"


@lru_cache(maxsize=256)
def _closest(spelled: str) -> str | None:
    """Returns the most similar name among those that share a word or have a similar length. A comparison takes milliseconds."""
    words = set(spelled.split("-")) - {""}
    near = [name for name in BY_NAME if not words.isdisjoint(name.split("-"))]
    near = near or [name for name in BY_NAME if abs(len(name) - len(spelled)) <= 2]
    return next(iter(get_close_matches(spelled, near, n=1, cutoff=_CLOSE)), None)


def _values(flag: Flag, item: _Item, following: list[str]) -> tuple[list[str], int, str | None]:
    """Returns the values, the number of following items that they take, and what is wrong with their spelling."""
    if item.key is not None and not flag.is_json:
        return [], len(following), f"{item.shown}: {item.spelled} has no keys; write {item.spelled}=VALUE"
    if flag.values == "none":
        return _no_value(flag, item, following)
    if item.joined:
        return [item.glued or ""], 0, f"{shown(f'{item.spelled}{item.glued}')}: write {shown(f'{item.spelled}={item.glued}')}"
    if item.glued is not None:
        return [item.glued], 0, None
    wanted = following if flag.values == "many" and item.key is None else following[:1]
    if not wanted:
        needed = flag.values != "optional" or item.key is not None
        return [], 0, f"{item.shown} needs a value; write {item.shown}=VALUE, or the value as the next item" if needed else None
    mistake = None
    if item.spelled == "-O" and wanted[0] not in _OPTIMIZATION_LEVELS:
        mistake = f"-O {short(wanted[0])}: must be one of {', '.join(_OPTIMIZATION_LEVELS)}"
    elif (variable := next(filter(VARIABLE.search, wanted), None)) is not None:
        mistake = f"{shown(variable)} could become a flag of its own; write both as one item, {shown(f'{item.shown}={variable}')}"
    return wanted, len(wanted), mistake


def _no_value(flag: Flag, item: _Item, following: list[str]) -> tuple[list[str], int, str | None]:
    word = item.glued if item.glued is not None else next((text for text in following[:1] if text.lower() in _SWITCH_WORDS), None)
    if word is None:
        return [], 0, None
    turned = [name for name in flag.names if name != item.spelled and name.startswith("--")]
    opposite = turned[0] if turned else None
    instead = item.spelled if _SWITCH_WORDS.get(word.lower(), True) else opposite
    way_out = f"write {instead}" if instead is not None else "leave it out"
    return [word], int(item.glued is None), f"{item.spelled} takes no value ({shown(word)}); {way_out}"


def _blank(text: str) -> str:
    stripped = text.strip()
    if not re.search(r"\s", stripped.partition("=")[0]):
        return f"{shown(text)} begins or ends with a space; write {shown(stripped)}"
    flag, rest = stripped.split(None, 1)
    rest = rest.removeprefix("=").strip()
    return f"{shown(text)} is one word to vLLM; write {shown(flag)} and {shown(rest)} as two items, or {shown(f'{flag}={rest}')} as one"


def _stray(text: str, before: Given | None) -> str:
    if not text.strip():
        return "is empty; remove it"
    if VARIABLE.search(text):
        return f"{shown(text)}: flags cannot come from a variable, because they could not be checked; write them out"
    name = "--" + re.split(r"[\s=]", text.strip())[0].lstrip("-").replace("_", "-")
    if name in BY_NAME:
        return f"{shown(text)} belongs to no flag; did you mean {name}?"
    if before is not None and before.flag is not None:
        takes = "takes no value" if before.flag.values == "none" else "takes one value"
        return f"{shown(text)} belongs to no flag, and {before.spelled} {takes}; remove it"
    return f"{shown(text)} belongs to no flag; the name of a flag begins with --"
