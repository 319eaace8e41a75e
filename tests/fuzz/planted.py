"""A target with a mistake in it, to see that the fuzzer finds mistakes. `test_fuzz.py` runs it."""

from tests.fuzz.finding import expect
from tests.fuzz.inputs import WORDS


def target(data: bytes) -> None:
    expect(not (data[:1] == b"a" and data[1:2] == b"l" and data[2:3] == b"i"), f"this begins like {WORDS[0]!r} does not")


def seeds() -> list[bytes]:
    return [b"a", b"begins otherwise"]
