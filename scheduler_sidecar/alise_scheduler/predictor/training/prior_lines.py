"""Reads `prior.tsv`: prompts of our own with rough lengths, a line each. `prior_fit.py` and the encoder's export use them."""

from dataclasses import dataclass
from importlib import resources
from typing import Final

LINES_FILE: Final = "prior.tsv"


@dataclass(frozen=True, slots=True)
class Line:
    """A prompt, and the approximate length of a chat model's answer in tokens."""

    text: str
    tokens: int


def read_lines(text: str) -> tuple[Line, ...]:
    """Returns the lines of `tokens<TAB>prompt`; # begins a comment. Raises ValueError that names a line that is neither."""
    result = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#") or not line:
            continue
        tokens, tab, prompt = line.partition("\t")
        if not tab or not prompt or not tokens.isdecimal() or int(tokens) == 0:
            raise ValueError(f"line {number} should be a number of tokens, a tab and a prompt, got {line[:60]!r}")
        result.append(Line("\\".join(part.replace("\\n", "\n") for part in prompt.split("\\\\")), int(tokens)))
    return tuple(result)


def own_lines() -> tuple[Line, ...]:
    """Returns the lines of this package."""
    return read_lines(resources.files(__package__).joinpath(LINES_FILE).read_text(encoding="utf-8"))
