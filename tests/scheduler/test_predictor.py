"""What a finished request teaches, what is known of a request, and the bytes of a hint."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_HINT_BYTES
from alise_contract.pod_key import MAC_BYTES, mac
from alise_scheduler.core.lengths import PRIOR, Lengths, sane
from alise_scheduler.core.reports import Finished, FinishReason
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.hint import Hint, decode, encode
from alise_scheduler.predictor.interface import Observation, observation

KEY = b"the hints' key of a pod"


@pytest.mark.parametrize(
    ("reason", "tokens", "expected"),
    [
        pytest.param(FinishReason.STOP, 7, Observation(7, True), id="a stop teaches the length"),
        pytest.param(FinishReason.LENGTH, 7, Observation(7, False), id="a length cap is a lower bound"),
        pytest.param(FinishReason.ABORT, 7, Observation(7, False), id="an abort is a lower bound"),
        pytest.param(FinishReason.ABORT, 0, None, id="an abort before the first token teaches nothing"),
        pytest.param(FinishReason.ERROR, 7, None, id="an error teaches nothing"),
    ],
)
def test_what_an_end_teaches(reason: FinishReason, tokens: int, expected: Observation | None) -> None:
    assert observation(Finished("r", "j", reason, generated_tokens=tokens)) == expected


def test_hashes_depend_on_the_salt() -> None:
    assert extract(Question(prompt="secret"), b"one").text != extract(Question(prompt="secret"), b"two").text


@given(st.text(max_size=300), st.integers(-5, 2**63), st.integers(-5, 2**31), st.integers(-1, 10**9))
def test_any_question_has_numbers(prompt: str, chars: int, turns: int, cap: int) -> None:
    request = extract(Question(7, prompt, chars, turns, cap, True, "tenant", "conversation"), b"salt")
    assert not np.isinf(request.numbers).any()


HINT = Hint(sane(range(1, 11)), 2.0, "batch", "me")


def test_a_hint_comes_back_as_it_was() -> None:
    assert decode(encode(HINT, KEY, "j"), KEY, "j") == HINT


def test_a_hint_is_small_whatever_its_texts() -> None:
    assert len(encode(Hint(PRIOR, 1.0, "k" * 5000, "ü" * 5000), KEY, "j" * 64)) <= 650 < MAX_HINT_BYTES


@given(st.text(max_size=400), st.text(alphabet="aü€😀", min_size=60, max_size=300))
def test_a_hint_that_was_read_is_written_as_it_was(klass: str, tenant: str) -> None:
    read = decode(encode(Hint(PRIOR, 1.0, klass, tenant), KEY, "j"), KEY, "j")
    assert read is not None
    assert tenant.startswith(read.tenant)
    assert decode(encode(read, KEY, "j"), KEY, "j") == read


def signed(body: bytes) -> bytes:
    return body + mac(KEY, b"j", body)


GOOD = encode(HINT, KEY, "j")
BODY = GOOD[:-MAC_BYTES]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"somebody else's bytes, long enough to be looked at by anyone who expects a hint here" * 3, id="foreign"),
        pytest.param(GOOD[:-1], id="cut"),
        pytest.param(GOOD + b"x", id="too long"),
        pytest.param(signed(BODY + b"x" * 2000), id="signed and over the limit"),
        pytest.param(GOOD[:10] + b"\xff" + GOOD[11:], id="damaged"),
        pytest.param(BODY + struct.pack("<I", zlib.crc32(BODY)), id="R2: with a right checksum instead of a signature"),
        pytest.param(encode(HINT, KEY, "another"), id="R2: signed for another job"),
        pytest.param(encode(HINT, b"of another pod", "j"), id="R2: signed by another pod"),
        pytest.param(signed(BODY[:2] + b"\x09" + BODY[3:]), id="of a later version"),
        pytest.param(signed(BODY[:3] + struct.pack("<f", float("nan")) + BODY[7:]), id="NaN tokens"),
        pytest.param(signed(BODY[:3] + struct.pack("<f", 1e9) + BODY[7:]), id="a billion tokens"),
        pytest.param(signed(BODY[:43] + struct.pack("<f", float("inf")) + BODY[47:]), id="infinite weight"),
        pytest.param(signed(BODY + b"more"), id="with something behind it"),
        pytest.param(signed(BODY.replace(b"batch", b"\xff" * 5)), id="a class that is no UTF-8"),
    ],
)
def test_a_hint_that_cannot_be_ours_is_none(data: bytes) -> None:
    assert decode(data, KEY, "j") is None


@given(st.binary(max_size=1200), st.text(max_size=5))
def test_no_bytes_are_a_hint_by_chance(data: bytes, job_id: str) -> None:
    assert decode(data, KEY, job_id) is None


@given(st.binary(max_size=1200))
def test_no_signed_bytes_are_fatal(data: bytes) -> None:
    assert decode(signed(data), KEY, "j") is None or data[:3] == b"AL\x03"


def test_without_a_key_no_hint_is_given_out_and_none_believed() -> None:
    assert encode(HINT, b"", "j") == b""
    assert decode(GOOD, b"", "j") is None


@given(st.lists(st.floats(1, 1e6, width=32), min_size=10, max_size=10))
def test_lengths_survive_the_hint(values: list[float]) -> None:
    lengths = Lengths(tuple(sorted(values)))
    again = decode(encode(Hint(lengths, 1.0), KEY, "j"), KEY, "j")
    assert again is not None
    assert again.lengths == lengths
