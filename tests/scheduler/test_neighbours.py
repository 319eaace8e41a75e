"""The index of neighbours that the paper's rule needs."""

import math
from typing import Any

import numpy as np
import pytest

from alise_research.neighbours import NEIGHBOURS, Index, Neighbours, leave_out, statistics

pytestmark = pytest.mark.process


def unit(angle: float) -> Any:
    return np.array([math.cos(angle), math.sin(angle)], np.float32)


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


def test_l6_another_tenants_copy_of_a_prompt_is_no_neighbour() -> None:
    index = Index(dimensions=2, rows=400)
    for number in range(100):
        index.add(unit(0.8 + 0.005 * number), 1.0, tenant=1)
    index.add(unit(0.0), 9.0, tenant=1)
    copied, own = (index.nearest(unit(0.0), tenant=tenant) for tenant in (2, 1))
    assert copied is not None
    assert own is not None
    assert 9.0 not in copied.log_tokens
    assert 9.0 in own.log_tokens


def test_l6_copies_are_left_out_however_many_there_are() -> None:
    index = Index(dimensions=2, rows=400)
    for _ in range(3 * NEIGHBOURS):
        index.add(unit(0.0), 9.0, tenant=1)
    for number in range(3 * NEIGHBOURS):
        index.add(unit(0.8 + 0.005 * number), 1.0, tenant=3)
    found = index.nearest(unit(0.0), tenant=2)
    assert found is not None
    assert set(found.log_tokens.tolist()) == {1.0}


def test_l6_where_there_are_only_copies_there_are_no_neighbours() -> None:
    index = Index(dimensions=2, rows=400)
    for _ in range(3 * NEIGHBOURS):
        index.add(unit(0.0), 9.0, tenant=1)
    assert index.nearest(unit(0.0), tenant=2) is None


def test_l6_another_tenants_like_prompts_are_neighbours_still() -> None:
    index = Index(dimensions=2, rows=400)
    for number in range(100):
        index.add(unit(0.2 + 0.005 * number), 1.0, tenant=1)
    found = index.nearest(unit(0.0), tenant=2)
    assert found is not None
    assert len(found.log_tokens) == NEIGHBOURS


def test_copies_of_other_tenants_are_left_out_in_training_as_in_serving() -> None:
    vectors = np.stack([unit(0.01 * number) for number in range(100)] + [unit(0.5)])
    tokens = np.ones(101, np.float32)
    tokens[100] = 9.0
    tenants = np.array([1] * 100 + [2], np.uint64)
    alone = leave_out(vectors, tokens, np.arange(101))
    shared = leave_out(vectors, tokens, np.arange(101), tenants=tenants)
    assert alone[50].max() > 1.5
    assert shared[50].max() == pytest.approx(1.0, abs=0.01)
