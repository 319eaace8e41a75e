"""Turns the bytes that a fuzzer varies into values, and real values into bytes that the fuzzer can begin with.

`Reader` takes any bytes: what is missing reads as zero, so every input means something. `encoded` is the inverse for values as JSON and
msgpack have them: a mutated byte is then another value, not a syntax error. All targets, such as `requests.py` and `plans.py`, call it.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

Value = Any
MAX_DEPTH: Final = 40
# Names and values that mean something to the code under test: one byte in an input.
WORDS: Final = (
    "model", "tiny", "messages", "role", "user", "assistant", "system", "developer", "content", "text", "type", "image_url", "tool_result",
    "prompt", "prompts", "input", "inputs", "instructions", "previous_response_id", "output", "documents", "items", "text_2",
    "max_tokens", "max_completion_tokens", "max_output_tokens", "echo", "n", "stream", "temperature", "priority", "vllm_xargs", "alise_job",
    "alise_hint", "alise_stamp", "cache_salt", "response_format", "json_schema", "format", "tools", "tool_choice", "none", "auto",
    "structured_outputs", "op", "apply", "snapshot", "poll", "ranks", "limits", "preempt_levels",
    "min_quantum_steps", "int8_ewt_ms", "int8_host_fraction", "host_budget_bytes", "requests", "100", "0", "-1", "",
)  # fmt: skip
_NONE, _TRUE, _FALSE, _SMALL, _LONG, _HUGE, _FLOAT, _TEXT, _WORD, _LIST, _DICT = range(11)
_LONG_STRUCT: Final = struct.Struct("<q")
_FLOAT_STRUCT: Final = struct.Struct("<d")


class Reader:
    """Reads values off the front of some bytes. Never raises."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return max(0, len(self._data) - self._at)

    def take(self, count: int) -> bytes:
        """Returns the next bytes, filled up with zeros."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken.ljust(count, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]

    def rest(self) -> bytes:
        """Returns everything that has not been read."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest

    def block(self) -> bytes:
        """Returns bytes with their length in two bytes before them."""
        return self.take(min(int.from_bytes(self.take(2), "little"), self.left))

    def blocks(self, most: int) -> Iterator[bytes]:
        """Returns such blocks until the input ends."""
        for _ in range(most):
            if not self.left:
                return
            yield self.block()

    def text(self) -> str:
        """Returns text, lone surrogates included: JSON can carry them."""
        return self.block().decode("utf-8", "surrogateescape")

    def value(self, depth: int = 0) -> Value:
        """Returns a value as JSON has them."""
        kind = self.byte() % (_LIST if depth >= MAX_DEPTH else _DICT + 1)
        match kind:
            case 1 | 2:
                return kind == _TRUE
            case 3:
                return self.byte() - 128
            case 4:
                return _LONG_STRUCT.unpack(self.take(8))[0]
            case 5:
                # Larger than any integer of a message; JSON allows it.
                return (1 << (8 * self.byte())) * (self.byte() - 128)
            case 6:
                return _FLOAT_STRUCT.unpack(self.take(8))[0]
            case 7:
                return self.text()
            case 8:
                return WORDS[self.byte() % len(WORDS)]
            case 9:
                return [self.value(depth + 1) for _ in range(min(self.byte(), self.left))]
            case 10:
                return {self._name(): self.value(depth + 1) for _ in range(min(self.byte(), self.left))}
            case _:
                return None

    def _name(self) -> str:
        number = self.byte()
        return WORDS[number] if number < len(WORDS) else self.text()


def encoded(value: Value) -> bytes:
    """Returns bytes that `Reader.value` reads as this value. Integers beyond 64 bits and longer lists than 255 are not supported."""
    match value:
        case None:
            return bytes([_NONE])
        case bool():
            return bytes([_TRUE if value else _FALSE])
        case int() if -128 <= value < 128:
            return bytes([_SMALL, value + 128])
        case int():
            return bytes([_LONG]) + _LONG_STRUCT.pack(value)
        case float():
            return bytes([_FLOAT]) + _FLOAT_STRUCT.pack(value)
        case str() if value in WORDS:
            return bytes([_WORD, WORDS.index(value)])
        case str():
            return bytes([_TEXT]) + _encoded_text(value)
        case list():
            return bytes([_LIST, len(value)]) + b"".join(map(encoded, value))
        case dict():
            return bytes([_DICT, len(value)]) + b"".join(_encoded_name(name) + encoded(item) for name, item in value.items())
        case _:
            raise TypeError(f"JSON has no {type(value).__name__}")


def block(data: bytes) -> bytes:
    """Returns what `Reader.block` reads as these bytes."""
    return len(data).to_bytes(2, "little") + data


def _encoded_text(text: str) -> bytes:
    return block(text.encode("utf-8", "surrogateescape"))


def _encoded_name(name: str) -> bytes:
    return bytes([WORDS.index(name)]) if name in WORDS else bytes([255]) + _encoded_text(name)
