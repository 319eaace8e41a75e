"""Prompts of our own with rough lengths: `prior.tsv`, a line each."""

from dataclasses import dataclass
from importlib import resources
from typing import Final

LINES_FILE: Final = "prior.tsv"


@dataclass(frozen=True, slots=True)
class Line:
    """A prompt and about how many tokens a chat model answers."""

    text: str
    tokens: int


def read_lines(said: str) -> tuple[Line, ...]:
    """The lines of `tokens<TAB>prompt`; # begins a comment. Raises ValueError naming a line that is neither."""
    made = []
    for number, line in enumerate(said.splitlines(), start=1):
        if line.startswith("#") or not line:
            continue
        tokens, tab, text = line.partition("\t")
        if not tab or not text or not tokens.isdecimal() or int(tokens) == 0:
            raise ValueError(f"line {number} should be a number of tokens, a tab and a prompt, got {line[:60]!r}")
        made.append(Line("\\".join(part.replace("\\n", "\n") for part in text.split("\\\\")), int(tokens)))
    return tuple(made)


def own_lines() -> tuple[Line, ...]:
    """Those of this package."""
    return read_lines(resources.files(__package__).joinpath(LINES_FILE).read_text(encoding="utf-8"))
