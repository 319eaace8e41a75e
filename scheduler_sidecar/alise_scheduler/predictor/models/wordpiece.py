"""BERT's uncased tokenizer: text to word-piece ids. It is written out here because the library for it depends on an HTTP client.

It agrees with Hugging Face's `tokenizers`; a test compares them. The pieces of frequent words are cached. `encoder.py` calls it.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

_MAX_WORD_CHARS: Final = 100
_CJK: Final = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
               (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))  # fmt: skip
_ASCII_WORDS: Final = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Vocabulary:
    """The ids of word pieces. Raises OSError if the file cannot be read, and ValueError if it is not a BERT vocabulary."""

    def __init__(self, path: Path) -> None:
        pieces = path.read_text(encoding="utf-8").split("\n")
        self._ids = {piece: number for number, piece in enumerate(pieces) if piece}
        missing = [name for name in ("[CLS]", "[SEP]", "[UNK]") if name not in self._ids]
        if missing:
            raise ValueError(f"{path} has no {', '.join(missing)}: not the vocab.txt of a BERT")
        self.cls, self.sep, self._unknown = self._ids["[CLS]"], self._ids["[SEP]"], self._ids["[UNK]"]
        self._longest = max(map(len, self._ids))
        self._pieces = lru_cache(maxsize=20_000)(self._split)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text, without [CLS] and [SEP]."""
        return [number for word in words(text) for number in self._pieces(word)]

    def _split(self, word: str) -> tuple[int, ...]:
        if len(word) > _MAX_WORD_CHARS:
            return (self._unknown,)
        result: list[int] = []
        start = 0
        while start < len(word):
            # No piece is longer, so nothing longer is looked for: a word of 100 odd characters would take a millisecond.
            for end in range(min(len(word), start + self._longest), start, -1):
                number = self._ids.get(word[start:end] if start == 0 else "##" + word[start:end])
                if number is not None:
                    result.append(number)
                    start = end
                    break
            else:
                return (self._unknown,)
        return tuple(result)


def words(text: str) -> Iterator[str]:
    """Yields lower-case words and single punctuation marks, without accents."""
    if text.isascii():
        yield from _ASCII_WORDS.findall(_ASCII_CONTROL.sub("", text).lower())
        return
    word: list[str] = []
    for char in _normal(text):
        if char == " " or _is_mark(char) or _is_cjk(char):
            if word:
                yield "".join(word)
                word.clear()
            if char != " ":
                yield char
        else:
            word.append(char)
    if word:
        yield "".join(word)


def _normal(text: str) -> str:
    kept = []
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            kept.append(" ")
        elif char not in "\x00�" and not unicodedata.category(char).startswith("C"):
            kept.append(char)
    decomposed = unicodedata.normalize("NFD", "".join(kept))
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn").lower()


def _is_mark(char: str) -> bool:
    return "!" <= char <= "/" or ":" <= char <= "@" or "[" <= char <= "`" or "{" <= char <= "~" or unicodedata.category(char)[0] == "P"


def _is_cjk(char: str) -> bool:
    return char >= "㐀" and any(low <= ord(char) <= high for low, high in _CJK)
