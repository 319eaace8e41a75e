"""How many tokens the emulated model answers a prompt with, as a data set has it, for clients that cannot say it.

Such a client sends a prompt alone, and a real model decides when its answer ends. ALISE_EMULATED_LENGTHS names a file with the length of
the answer to each prompt, which only the worker (`worker.py`) reads: neither the scheduler nor the sidecar knows it.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.emulated import model

LENGTHS_ENV: Final = "ALISE_EMULATED_LENGTHS"


def key(tokens: Sequence[int]) -> str:
    """Returns what names a prompt in the file: a digest of its tokens, as the server has them."""
    return hashlib.blake2b(array("I", tokens).tobytes(), digest_size=8).hexdigest()


def write(path: Path, lengths: Iterable[tuple[str, int]]) -> None:
    """Writes the lengths of answers to these texts, each a chat's only message. If a text comes twice, its first length counts."""
    first: dict[str, int] = {}
    for text, tokens in lengths:
        first.setdefault(text, tokens)
    named = zip(model.chat_tokens(list(first)), first.values(), strict=True)
    path.write_text(json.dumps({key(tokens): length for tokens, length in named}))


def read(environ: Mapping[str, str]) -> dict[str, int]:
    """Returns the lengths in the file that the environment names; none without one."""
    named = environ.get(LENGTHS_ENV)
    return json.loads(Path(named).read_text()) if named else {}
