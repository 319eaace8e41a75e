"""Training, the head as a file, trees as arrays, the index, the kernel, calibration."""

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
from alise_scheduler.predictor.models.neighbours import NEIGHBOURS, Index, Neighbours, leave_out, statistics
from alise_scheduler.predictor.models.trees import from_arrays, from_dumps, join
from alise_scheduler.predictor.training.fit import MIN_ROWS, train
from alise_scheduler.predictor.training.samples import read_history
from tests.scheduler.predictor_builders import make_features, make_history

pytestmark = pytest.mark.process

HISTORY = make_history(250)


@pytest.fixture(scope="module")
def head() -> Head:
    return train(HISTORY, version=1)


def middles(head: Head, *prompts: str) -> list[float]:
    details = [make_features(prompt).model_input for prompt in prompts]
    numbers = np.stack([detail.numbers for detail in details if detail])
    vectors = np.stack([detail.embedding for detail in details if detail and detail.embedding is not None])
    return [math.exp(middle(row)) for row in predicted(head, numbers, vectors)]


def predicted(head: Head, numbers: Rows, vectors: Rows, moved: float = 0.0) -> Rows:
    """First turns, without neighbours."""
    near, smooth = np.full((len(numbers), 9), np.nan, np.float32), head.expect(numbers, vectors, vectors)
    return head.predict(numbers, head.scaling.project(vectors), near, smooth + np.float32(moved))


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
    # Sums in another order may fall on the other side of a split.
    assert one[0] == pytest.approx(many[0], abs=0.1)


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
        pytest.param({"trees.depth": np.array(10**9)}, id="deeper than any tree"),
        pytest.param({"trees.roots": np.zeros(3000, np.int64)}, id="more trees than are ever trained"),
        pytest.param({"trees.feature": "negative"}, id="trees of a column before the first"),
        pytest.param({"trees.value": "NaN"}, id="leaves of no number"),
        pytest.param({"knots": np.zeros((101, 2), np.float32)}, id="a table instead of a row"),
        pytest.param({"knots": np.zeros(101, np.int64)}, id="whole numbers"),
        pytest.param({"knots": np.array(["a"] * 101)}, id="texts"),
        pytest.param({"line": np.array([0.0, np.inf, 0.0])}, id="an infinite kernel"),
        pytest.param({"about": np.array([HEAD_LAYOUT, 1, -5])}, id="of a negative number of rows"),
        pytest.param({"basis": np.zeros((384, 4000), np.float32)}, id="more directions than there are"),
        pytest.param({"trust": np.array(np.nan)}, id="no number"),
        pytest.param({"wide": np.zeros((384, 3), np.float32)}, id="another projection"),
        pytest.param({"trees.feature": np.full(1, 999, np.int16)}, id="trees of something else"),
        pytest.param({"wide": np.full((384, 192), np.nan, np.float32)}, id="a projection of no numbers"),
        pytest.param({"landmarks": "as float32"}, id="landmarks on no grid"),
        pytest.param({"landmarks": np.zeros((1500, 10), np.int8)}, id="landmarks of something else"),
    ],
)
def test_a_head_whose_parts_do_not_fit_is_refused(head: Head, wrong: dict[str, Any]) -> None:
    with np.load(io.BytesIO(head.to_bytes())) as held:
        parts = dict(held)
    if "trees.feature" in wrong:
        wrong = {"trees.feature": np.full_like(parts["trees.feature"], -1 if isinstance(wrong["trees.feature"], str) else 999)}
    if "trees.value" in wrong:
        wrong = {"trees.value": np.full_like(parts["trees.value"], np.nan)}
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


LEAF = {"leaf_value": 1.0}
RIGHT = {"split_feature": 0, "threshold": 2.0, "left_child": {"leaf_value": 4.0}, "right_child": {"leaf_value": 8.0}}
DUMP = {
    "tree_info": [
        {"tree_structure": {"split_feature": 1, "threshold": 0.5, "left_child": LEAF, "right_child": RIGHT}},
        {"tree_structure": {"leaf_value": 10.0}},
    ]
}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param([0.0, 0.5], 11.0, id="at the threshold it goes left"),
        pytest.param([2.0, 0.6], 14.0, id="right, then left"),
        pytest.param([2.1, 0.6], 18.0, id="right twice"),
    ],
)
def test_trees_add_up_their_leaves(row: list[float], expected: float) -> None:
    rows = np.array([row, row], np.float32)
    assert from_dumps([DUMP]).predict(rows).tolist() == [expected, expected]
    assert from_dumps([DUMP]).predict(rows[:1]).tolist() == [expected]


def test_several_forests_are_averaged() -> None:
    assert from_dumps([DUMP, DUMP]).predict(np.array([[0.0, 0.0]], np.float32)).tolist() == [11.0]


def test_joined_forests_give_what_each_gives() -> None:
    first, second = from_dumps([DUMP]), from_dumps([{"tree_info": [{"tree_structure": RIGHT}]}])
    for rows in (np.array([[2.1, 0.6], [0.0, 0.5]], np.float32), np.array([[2.1, 0.6]], np.float32)):
        leaves = join(first, second).leaves(rows)
        assert leaves[:, :2].sum(axis=1).tolist() == first.predict(rows).tolist()
        assert leaves[:, 2:].sum(axis=1).tolist() == second.predict(rows).tolist()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        pytest.param({"roots": np.array([99], np.int32)}, "point outside", id="a root"),
        pytest.param({"child": np.array([5, 1, 3, 3, 4, 5], np.int32)}, "point outside", id="a second child"),
        pytest.param({"threshold": np.zeros(6, np.float32)}, "leaves that go on", id="a leaf's threshold"),
        pytest.param({"value": np.zeros(3, np.float32)}, "3 values", id="another length"),
    ],
)
def test_trees_that_do_not_fit_together_are_refused(wrong: dict[str, Any], says: str) -> None:
    held = from_dumps([DUMP]).arrays("")
    assert len(held["child"]) == 6
    with pytest.raises(ValueError, match=says):
        from_arrays("", {**held, **wrong}, columns=2)


def test_the_nearest_are_found_and_the_oldest_are_overwritten() -> None:
    index = Index(dimensions=2, rows=4 * NEIGHBOURS)
    for number in range(5 * NEIGHBOURS):
        angle = number / 100
        index.add(np.array([math.cos(angle), math.sin(angle)], np.float32), float(number))
    found = index.nearest(np.array([1.0, 0.0], np.float32))
    assert found is not None
    assert sorted(found.log_tokens) == list(range(NEIGHBOURS, 2 * NEIGHBOURS))


def test_a_conversations_own_turns_are_not_its_neighbours() -> None:
    index = Index(2, rows=100)
    for number in range(60):
        index.add(np.array([1.0, 0.0], np.float32), float(number), root=2**63 + 7 if number < 30 else 0)
    near = index.nearest(np.array([1.0, 0.0], np.float32), root=2**63 + 7)
    assert near is not None
    assert near.log_tokens.min() >= 30.0


def unit(number: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return np.array([math.cos(number), math.sin(number)], np.float32)


def test_among_few_rows_of_other_conversations_there_are_no_neighbours() -> None:
    index = Index(2, rows=200)
    for number in range(150):
        index.add(unit(number), 5.0, root=7)
    for number in range(NEIGHBOURS):
        index.add(unit(number), 1.0, root=8)
    assert index.nearest(unit(3), root=7) is None


def test_rows_of_one_conversation_teach_nothing_of_neighbours() -> None:
    vectors = np.stack([unit(number) for number in range(100)])
    assert np.isnan(leave_out(vectors, np.ones(100, np.float32), np.full(100, 7))).all()


def test_few_rows_have_no_neighbours() -> None:
    index = Index(dimensions=2)
    index.add(np.array([1.0, 0.0], np.float32), 1.0)
    assert index.nearest(np.array([1.0, 0.0], np.float32)) is None


def test_nearer_neighbours_weigh_more() -> None:
    similarity = np.array([[0.9] + [0.1] * 24], np.float32)
    tokens = np.array([[6.0] + [2.0] * 24], np.float32)
    mean, _, best, *_ = statistics(similarity, tokens)[0]
    assert mean > 5.9
    assert best == pytest.approx(0.9)


def test_the_statistics_of_one_prompts_neighbours_are_those_in_a_batch() -> None:
    rng = np.random.default_rng(5)
    similarity = rng.choice([0.1, 0.2, 0.5, 0.7], (40, NEIGHBOURS)).astype(np.float32)
    tokens = rng.normal(5.0, 1.0, (40, NEIGHBOURS)).astype(np.float32)
    alone = [Neighbours(*row).statistics() for row in zip(similarity, tokens, strict=True)]
    assert np.array(alone) == pytest.approx(statistics(similarity, tokens), rel=1e-5)


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
