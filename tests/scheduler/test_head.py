"""Training, the head as a file, the kernel, calibration."""

import io
import math
import subprocess
import sys
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alise_scheduler.core.lengths import QUANTILES
from alise_scheduler.predictor.models.arrays import MAX_FILE_BYTES, MAX_UNPACKED_BYTES
from alise_scheduler.predictor.models.calibration import Calibration, interval, middle
from alise_scheduler.predictor.models.head import HEAD_LAYOUT, KNOTS, Head, Rows, from_bytes
from alise_scheduler.predictor.training.fit import MIN_ROWS, train
from alise_scheduler.predictor.training.samples import read_history
from tests.scheduler.predictor_builders import make_features, make_history

pytestmark = pytest.mark.process

HISTORY = make_history(250)


@pytest.fixture(scope="module")
def head() -> Head:
    return train(HISTORY, version=1)


def middles(head: Head, *prompts: str) -> list[float]:
    requests = [make_features(prompt) for prompt in prompts]
    numbers = np.stack([request.numbers for request in requests])
    vectors = np.stack([request.embedding for request in requests if request.embedding is not None])
    return [math.exp(middle(row)) for row in predicted(head, numbers, vectors)]


def predicted(head: Head, numbers: Rows, vectors: Rows, moved: float = 0.0) -> Rows:
    """First turns."""
    estimate, spread = head.expect(numbers, vectors, vectors)
    return head.quantiles(estimate + np.float32(moved), spread)


def test_a_head_tells_tasks_apart(head: Head) -> None:
    short, long = middles(head, "Name one fact about lakes 7", "Write an essay about lakes 7")
    assert short < 40 < 200 < long


def test_quantiles_ascend(head: Head) -> None:
    made = predicted(head, HISTORY.numbers[:50], HISTORY.vectors[:50])
    assert made.shape == (50, QUANTILES)
    assert (np.diff(made, axis=1) >= 0).all()


def test_one_row_is_predicted_as_many_are(head: Head) -> None:
    many = predicted(head, HISTORY.numbers[:5], HISTORY.vectors[:5])
    one = predicted(head, HISTORY.numbers[:1], HISTORY.vectors[:1])
    assert one[0] == pytest.approx(many[0], abs=1e-3)


def test_what_a_conversation_carries_over_moves_all_quantiles(head: Head) -> None:
    rows, vectors = HISTORY.numbers[:20], HISTORY.vectors[:20]
    assert (predicted(head, rows, vectors, moved=0.3) > predicted(head, rows, vectors)).mean() > 0.9


def test_ranks_are_among_the_lengths_learned_from(head: Head) -> None:
    middle_rank = head.rank(float(np.median(HISTORY.log_tokens)))
    assert [head.rank(-1.0), middle_rank, head.rank(99.0)] == pytest.approx([0.0, 0.5, 1.0], abs=0.02)


def test_many_answers_of_one_length_share_the_middle_of_their_ranks(head: Head) -> None:
    capped = replace(head, knots=np.minimum(head.knots, head.knots[70]))
    assert capped.rank(float(np.float64(head.knots[70]))) == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"knots": np.zeros((101, 2), np.float32)}, id="a table instead of a row"),
        pytest.param({"knots": np.zeros(101, np.int64)}, id="whole numbers"),
        pytest.param({"knots": np.array(["a"] * 101)}, id="texts"),
        pytest.param({"rank_line": np.array([0.0, np.inf])}, id="an infinite slope"),
        pytest.param({"about": np.array([HEAD_LAYOUT, 1, -5])}, id="of a negative number of rows"),
        pytest.param({"basis": np.zeros((384, 4000), np.float32)}, id="more directions than there are"),
        pytest.param({"trust": np.array(np.nan)}, id="no number"),
        pytest.param({"wide": np.zeros((384, 3), np.float32)}, id="another projection"),
        pytest.param({"wide": np.full((384, 192), np.nan, np.float32)}, id="a projection of no numbers"),
        pytest.param({"landmarks": "as float32"}, id="landmarks on no grid"),
        pytest.param({"landmarks": np.zeros((1500, 10), np.int8)}, id="landmarks of something else"),
    ],
)
def test_a_head_whose_parts_do_not_fit_is_refused(head: Head, wrong: dict[str, Any]) -> None:
    with np.load(io.BytesIO(head.to_bytes())) as held:
        parts = dict(held)
    if isinstance(wrong.get("landmarks"), str):
        wrong = {"landmarks": parts["landmarks"].astype(np.float32)}
    out = io.BytesIO()
    np.savez(out, **(parts | wrong))
    with pytest.raises(ValueError):
        from_bytes(out.getvalue())


def test_a_head_larger_than_any_is_not_even_unpacked() -> None:
    with pytest.raises(ValueError, match="too many for a head"):
        from_bytes(b"\0" * (MAX_FILE_BYTES + 1))


def test_a_small_file_that_unpacks_to_a_large_one_is_refused() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, about=np.zeros(MAX_UNPACKED_BYTES // 8 + 1))
    assert len(out.getvalue()) < MAX_FILE_BYTES
    with pytest.raises(ValueError, match="are too many"):
        from_bytes(out.getvalue())


def test_an_array_that_claims_to_be_larger_than_its_data_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        entry = io.BytesIO()
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})  # type: ignore[no-untyped-call]
        file.writestr("about.npy", entry.getvalue())
    with pytest.raises(ValueError, match="shape"):
        from_bytes(out.getvalue())


def test_an_array_of_python_objects_is_refused_and_not_unpickled() -> None:
    out = io.BytesIO()
    np.savez(out, about=np.array([print, {"a": 1}], object))
    with pytest.raises(ValueError, match="numbers in at most two"):
        from_bytes(out.getvalue())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), new=st.binary(min_size=1, max_size=8))
def test_a_damaged_head_is_refused_or_answers_with_numbers(head: Head, at: float, new: bytes) -> None:
    data = bytearray(head.to_bytes())
    place = int(at * (len(data) - len(new)))
    data[place : place + len(new)] = new
    try:
        again = from_bytes(bytes(data))
    except ValueError:
        return
    assert np.isfinite(predicted(again, HISTORY.numbers[:1], HISTORY.vectors[:1])).all()


def test_a_head_comes_back_from_its_bytes(head: Head) -> None:
    again = from_bytes(head.to_bytes())
    assert middles(again, "Summarize the story of chess 3") == middles(head, "Summarize the story of chess 3")
    assert (again.version, again.rows) == (1, 250)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"something else altogether", id="foreign"),
        pytest.param(b"PK\x03\x04 cut", id="a cut archive"),
    ],
)
def test_bytes_that_hold_no_head_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_bytes(data)


def test_the_same_history_makes_the_same_head(head: Head) -> None:
    again = train(HISTORY, version=1)
    assert middles(again, "Explain in detail the nature of paper 1") == middles(head, "Explain in detail the nature of paper 1")
    assert again.knots.shape == (KNOTS,)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=f"it takes {MIN_ROWS}"):
        train(make_history(20), version=1)


def test_cut_answers_do_not_read_as_short_ones() -> None:
    cut = train(make_history(300, cut_at=200), version=1)
    assert middles(cut, "Write an essay about lakes 7")[0] > 210


def test_training_works_without_embeddings() -> None:
    blind = train(replace(make_history(160), vectors=np.zeros((160, 384), np.float32)), version=1)
    made = predicted(blind, HISTORY.numbers[:1], np.zeros((1, 384), np.float32))
    assert np.isfinite(made).all()


def test_the_training_process_answers_with_a_head() -> None:
    command = [sys.executable, "-m", "alise_scheduler.predictor.training.process", "7"]
    done = subprocess.run(command, input=make_history(160).to_bytes(), capture_output=True, timeout=120, check=True)
    assert from_bytes(done.stdout).version == 7


def test_a_history_comes_back_from_its_bytes() -> None:
    again = read_history(HISTORY.to_bytes())
    assert again.log_tokens == pytest.approx(HISTORY.log_tokens)
    assert again.vectors == pytest.approx(HISTORY.vectors, abs=1e-3)


QUANTILE_ROW = np.linspace(3.0, 5.0, QUANTILES, dtype=np.float32)
MODEL = ((1,),)


def test_a_model_that_answers_twice_as_long_is_followed() -> None:
    calibration = Calibration()
    rng = np.random.default_rng(0)
    for _ in range(300):
        calibration.learn(QUANTILE_ROW, MODEL, 4.0 + math.log(2) + 0.3 * rng.standard_normal(), True)
    assert middle(calibration.apply(QUANTILE_ROW, MODEL)) == pytest.approx(4.0 + math.log(2), abs=0.15)
    assert middle(calibration.apply(QUANTILE_ROW, ((2,),))) == pytest.approx(4.0)


def test_the_interval_comes_to_hold_four_of_five() -> None:
    calibration = Calibration()
    rng = np.random.default_rng(1)
    inside = 0
    for number in range(4000):
        real = 4.0 + 1.5 * rng.standard_normal()
        low, high = interval(calibration.apply(QUANTILE_ROW, MODEL))
        inside += number >= 2000 and low <= real <= high
        calibration.learn(QUANTILE_ROW, MODEL, real, True)
    assert 0.76 < inside / 2000 < 0.84


def test_a_cut_answer_below_the_middle_teaches_nothing() -> None:
    calibration = Calibration()
    calibration.learn(QUANTILE_ROW, MODEL, 3.0, False)
    assert calibration.apply(QUANTILE_ROW, MODEL).tolist() == QUANTILE_ROW.tolist()


def test_a_class_is_corrected_on_top_of_its_model() -> None:
    calibration = Calibration()
    groups = ((1,), (1, 5))
    for _ in range(200):
        calibration.learn(QUANTILE_ROW, ((1,),), 4.0, True)
        calibration.learn(QUANTILE_ROW, groups, 5.0, True)
    assert middle(calibration.apply(QUANTILE_ROW, groups)) > middle(calibration.apply(QUANTILE_ROW, ((1,),))) + 0.3
