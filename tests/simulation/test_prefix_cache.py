"""Blocks that stay in free memory until they are taken again."""

from pathlib import Path

import pytest

from alise_simulator.baselines import FcfsDriver
from alise_simulator.prefix_cache import PrefixCache
from alise_simulator.request import Request
from alise_simulator.run import simulate
from alise_simulator.trace import load_csv
from tests.simulation.builders import Row, make_model, trace_of

BLOCK = 16


def request(prompt_tokens: int, group: int = -1, shared: int = 0) -> Request:
    made = Request(0, 0.0, prompt_tokens, 10)
    made.prefix_group, made.prefix_tokens = group, shared
    return made


def preempted_with(computed_tokens: int, free_blocks: int) -> tuple[PrefixCache, Request]:
    """A cache that a request of 100 tokens has just left, with this many blocks free before."""
    cache, victim = PrefixCache(BLOCK, True), request(100)
    cache.admitted(victim, 7)
    cache.left(victim, computed_tokens, free_blocks)
    return cache, victim


@pytest.mark.parametrize(
    ("taken", "found"),
    [
        pytest.param(0, 96, id="nothing was taken: all full blocks but the last token's"),
        pytest.param(10, 96, id="as many were taken as were free before it"),
        pytest.param(12, 64, id="two more: its last blocks went first"),
        pytest.param(16, 0, id="all were taken"),
    ],
)
def test_a_preempted_request_finds_what_was_not_taken_since(taken: int, found: int) -> None:
    cache, victim = preempted_with(computed_tokens=99, free_blocks=10)
    cache.taken += taken
    assert cache.hit_tokens(victim) == found


def test_only_computed_blocks_are_found() -> None:
    cache, victim = preempted_with(computed_tokens=40, free_blocks=10)
    assert cache.hit_tokens(victim) == 32


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    cache = PrefixCache(BLOCK, True)
    first, second = request(64, group=1, shared=64), request(64, group=1, shared=64)
    cache.admitted(first, 4)
    assert cache.hit_tokens(second) == 48


def test_a_shared_prefix_is_held_once() -> None:
    cache = PrefixCache(BLOCK, True)
    first, second = request(100, group=1, shared=64), request(100, group=1, shared=64)
    cache.admitted(first, 7)
    assert cache.hit_tokens(second) == 64
    assert cache.held_by_others(second) == 4
    cache.admitted(second, 3)
    assert cache.shared_blocks == 4
    for each in (first, second):
        cache.left(each, 100, 10)
    assert cache.shared_blocks == 0
    assert cache.hit_tokens(request(100, group=1, shared=64)) == 64


def test_another_group_finds_nothing() -> None:
    cache = PrefixCache(BLOCK, True)
    cache.admitted(request(100, group=1, shared=64), 7)
    assert cache.hit_tokens(request(100, group=2, shared=64)) == 0


def test_the_next_turn_of_a_conversation_finds_the_turn_before_it() -> None:
    # The second prompt is the first one, its answer of 20 tokens and a new question.
    rows: list[Row] = [(0.0, 100, 20), (10.0, 150, 5)]
    trace = trace_of(rows, prefixes=[(0, 0), (0, 119)])
    outcome = simulate(trace, make_model(), FcfsDriver)
    # The first turn shared nothing, so its blocks are no group's.
    assert outcome.cached_tokens == 0
    again = simulate(trace_of(rows, prefixes=[(0, 32), (0, 119)]), make_model(), FcfsDriver)
    assert again.cached_tokens == 112


def test_requests_with_one_system_prompt_begin_sooner() -> None:
    rows: list[Row] = [(0.0, 120, 50), (1.0, 120, 50)]
    trace = trace_of(rows, prefixes=[(0, 112), (0, 112)])
    shared, apart = (simulate(trace, make_model(prefix_caching=caching), FcfsDriver) for caching in (True, False))
    assert apart.cached_tokens == 0
    assert shared.cached_tokens == 112
    assert shared.ttft_seconds[1] < apart.ttft_seconds[1] - 0.1


def test_shared_prefixes_leave_room_for_more_requests() -> None:
    # Twelve blocks hold one request of eight blocks, or two that share six.
    rows: list[Row] = [(0.0, 120, 5), (0.0, 120, 5)]
    trace = trace_of(rows, prefixes=[(0, 96), (0, 96)])
    model = make_model(num_device_blocks=12, max_num_batched_tokens=256)
    assert simulate(trace, model, FcfsDriver).waited_seconds.max() == 0
    assert simulate(trace_of(rows), model, FcfsDriver).waited_seconds.max() > 0


def test_a_file_may_say_what_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,prefix_group,prefix_tokens\n0,10,1,a,8\n1,10,1,,\n2,10,1,a,8\n")
    trace = load_csv(path)
    assert trace.prefix_group is not None
    assert trace.prefix_tokens is not None
    assert trace.prefix_group.tolist() == [1, -1, 1]
    assert trace.prefix_tokens.tolist() == [8, 0, 8]
