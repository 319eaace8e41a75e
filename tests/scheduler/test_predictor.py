"""Hints, features and the predictors that need no training."""

import math
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
from alise_scheduler.predictor.features.request import UNKNOWN, Features, Question, extract
from alise_scheduler.predictor.hint import Hint, decode, encode
from alise_scheduler.predictor.models.bucket import WINDOW, Bucket, censored_quantiles
from alise_scheduler.predictor.models.buckets import BucketPredictor, Observation, log_error
from alise_scheduler.predictor.training.outcome import observation

KEY = b"the hints' key of a pod"


def features(prompt: str = "hello", **fields: object) -> Features:
    return extract(Question(endpoint=1, prompt=prompt, prompt_chars=len(prompt), **fields), b"salt")  # type: ignore[arg-type]


def taught(predictor: BucketPredictor, prompt: str, tokens: int, times: int = 20, ended: bool = True) -> BucketPredictor:
    for _ in range(times):
        predictor.learn(features(prompt), Observation(tokens, ended))
    return predictor


def test_it_starts_at_the_prior() -> None:
    assert BucketPredictor().predict(features(), 0).tokens == pytest.approx(PRIOR.tokens)


def test_the_same_text_again_is_expected_to_be_as_long_again() -> None:
    predictor = taught(BucketPredictor(), "say it", 37)
    assert predictor.predict(features("say it"), 0).median == pytest.approx(37, rel=0.1)


def test_a_similar_request_learns_from_its_kind() -> None:
    predictor = taught(taught(BucketPredictor(), "Summarize this text about cats", 40), "Write a story about a very old dog", 900)
    assert predictor.predict(features("Summarize this text about dogs"), 0).median < 100
    assert predictor.predict(features("Write a story about a very old cat"), 0).median > 400


def test_an_unknown_kind_backs_off_to_all() -> None:
    predictor = taught(BucketPredictor(), "Summarize this text about cats", 12, times=100)
    assert predictor.predict(UNKNOWN, 0).median < PRIOR.median / 3


def test_a_cap_bounds_the_prediction() -> None:
    assert BucketPredictor().predict(features(), 16).tokens[-1] == 16


def test_cut_answers_do_not_read_as_short_ones() -> None:
    predictor = taught(BucketPredictor(), "go on", 1000, ended=True)
    taught(predictor, "go on", 16, times=60, ended=False)
    assert predictor.predict(features("go on"), 0).median > 300


def test_nothing_of_the_prompt_is_kept() -> None:
    predictor = taught(BucketPredictor(), "a very secret sentence", 10)
    assert "secret" not in repr(vars(predictor))
    assert extract(Question(prompt="secret"), b"one").text != extract(Question(prompt="secret"), b"two").text


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.models.buckets.MAX_BUCKETS", 50)
    predictor = BucketPredictor()
    for number in range(100):
        predictor.learn(features(f"text {number}"), Observation(5, True))
    assert len(predictor) == 50


def test_a_bucket_keeps_the_newest() -> None:
    bucket = Bucket()
    for number in range(WINDOW + 10):
        bucket.add(float(number + 1), True)
    assert len(bucket) == WINDOW
    assert math.exp(bucket.log_quantiles()[0]) > 10


@pytest.mark.parametrize(
    ("tokens", "ended", "middle"),
    [
        pytest.param([10, 20, 30, 40], [True] * 4, 20.0, id="without cuts they are the plain quantiles"),
        pytest.param([10, 20, 30, 40], [False, False, True, True], 30.0, id="a cut one says only that it was longer"),
        pytest.param([10, 10, 10], [False] * 3, 15.0, id="where all were cut the length is past the longest"),
    ],
)
def test_quantiles_with_cuts(tokens: list[int], ended: list[bool], middle: float) -> None:
    assert censored_quantiles(np.array(tokens, dtype=float), np.array(ended))[4] == middle


def test_quantiles_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        censored_quantiles(np.array([]), np.array([], dtype=bool))


@given(st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), min_size=1, max_size=60))
def test_quantiles_ascend_and_stay_in_range(rows: list[tuple[int, bool]]) -> None:
    values = censored_quantiles(np.array([r[0] for r in rows], dtype=float), np.array([r[1] for r in rows]))
    assert (np.diff(values) >= 0).all()
    assert min(r[0] for r in rows) <= values[0]
    assert values[-1] <= 1.5 * max(r[0] for r in rows)


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


def test_the_error_is_a_ratio() -> None:
    assert log_error(sane([100] * 10), 50) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        pytest.param("Translate this into French: hello", 2, id="translation"),
        pytest.param("Write a python function that adds", 4, id="code"),
        pytest.param("Summarize the article", 6, id="summary"),
        pytest.param("Tell a story", 8, id="story"),
        pytest.param("zzz", 0, id="none of them"),
    ],
)
def test_the_first_class_whose_words_occur_is_the_kind_of_a_prompt(prompt: str, kind: int) -> None:
    assert features(prompt).keyword == kind


def test_a_length_that_was_asked_for_is_a_feature() -> None:
    assert features("in one word").asked == 1
    assert features("in detail").asked == 2
    assert features("in 50 words").asked != features("in 2000 words").asked


@given(st.text(max_size=300), st.integers(-5, 2**63), st.integers(-5, 2**31), st.integers(-1, 10**9))
def test_any_question_has_features(prompt: str, chars: int, turns: int, cap: int) -> None:
    made = extract(Question(7, prompt, chars, turns, cap, True, "tenant", "conversation"), b"salt")
    assert decode(encode(Hint(PRIOR, 1.0, made), KEY, "j"), KEY, "j") is not None


HINT = Hint(sane(range(1, 11)), 2.0, features("hello", tenant="me", conversation="c"), "batch", "me")


def test_a_hint_comes_back_as_it_was() -> None:
    assert decode(encode(HINT, KEY, "j"), KEY, "j") == HINT


def test_a_hint_is_small_whatever_its_texts() -> None:
    assert len(encode(Hint(PRIOR, 1.0, UNKNOWN, "k" * 5000, "ü" * 5000), KEY, "j" * 64)) <= 650 < MAX_HINT_BYTES


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
    ],
)
def test_a_hint_that_cannot_be_ours_is_none(data: bytes) -> None:
    assert decode(data, KEY, "j") is None


@given(st.binary(max_size=1200), st.text(max_size=5))
def test_no_bytes_are_a_hint_by_chance(data: bytes, job_id: str) -> None:
    assert decode(data, KEY, job_id) is None


@given(st.binary(max_size=1200))
def test_no_signed_bytes_are_fatal(data: bytes) -> None:
    assert decode(signed(data), KEY, "j") is None or data[:3] == b"AL\x02"


def test_without_a_key_no_hint_is_given_out_and_none_believed() -> None:
    assert encode(HINT, b"", "j") == b""
    assert decode(GOOD, b"", "j") is None


@given(st.lists(st.floats(1, 1e6, width=32), min_size=10, max_size=10))
def test_lengths_survive_the_hint(values: list[float]) -> None:
    lengths = Lengths(tuple(sorted(values)))
    again = decode(encode(Hint(lengths, 1.0, UNKNOWN), KEY, "j"), KEY, "j")
    assert again is not None
    assert again.lengths == lengths
