"""What the engine does with the plan, without an engine."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MIN_LEVEL, PLAN_EXPIRES_SECONDS, pack_priority, unpack_priority
from alise_engine.enginecore import decide
from alise_engine.enginecore.decide import EMPTY_PLAN, Pace, Parked, Running, Waiting, choose_codec, choose_preemptions, choose_prefetches
from alise_engine.wire.calls import LimitsRow, RankRow
from alise_engine.wire.terms import CODEC_AUTO, CODEC_INT8, CODEC_RAW

LIMITS = LimitsRow(preempt_levels=1, min_quantum_steps=4)


def running(name: str, level: int = 0, arrival: float = 0.0, blocks: int = 4, steps: int = 100) -> Running:
    return Running(name, pack_priority(level, 0), arrival, blocks, steps)


def sparing(level: int) -> LimitsRow:
    """Requests of levels below this one are spared."""
    return msgspec.structs.replace(LIMITS, spared_levels=level - MIN_LEVEL)


def waiting(name: str, level: int = 0, blocks: int = 4) -> Waiting:
    return Waiting(name, pack_priority(level, 0), 0.0, blocks)


@pytest.mark.parametrize(
    ("runs", "waits", "slots", "blocks", "limits", "expected"),
    [
        pytest.param([running("a", 5)], [waiting("b", 0)], 0, 99, LIMITS, ("a",), id="a better one takes the slot of a worse one"),
        pytest.param([running("a", 5)], [waiting("b", 0)], 1, 99, LIMITS, (), id="none is evicted while a slot and its blocks are free"),
        pytest.param([running("a", 5)], [waiting("b", 0)], 1, 2, LIMITS, ("a",), id="blocks that are missing are taken from a worse one"),
        pytest.param([running("a", 0)], [waiting("b", 0)], 0, 99, LIMITS, (), id="equals do not preempt each other"),
        pytest.param([running("a", 0)], [waiting("b", 5)], 0, 99, LIMITS, (), id="a worse one waits"),
        pytest.param([running("a", 1)], [waiting("b", 0)], 0, 99, LimitsRow(2, 4), (), id="one level is not enough when two are asked for"),
        pytest.param(
            [running("a", 2)], [waiting("b", 0)], 0, 99, LimitsRow(2, 4), ("a",), id="two levels are enough when two are asked for"
        ),
        pytest.param([running("a", 99)], [waiting("b", 0)], 0, 99, LimitsRow(0, 4), (), id="zero levels switch preemption by rank off"),
        pytest.param(
            [running("a", 99)], [waiting("b", 0)], 0, 99, sparing(100), (), id="a request of the worst spared level keeps its slot"
        ),
        pytest.param([running("a", 99)], [waiting("b", 0)], 0, 99, sparing(99), ("a",), id="one that is a level worse gives it up"),
        pytest.param([running("a", 99)], [waiting("b", 0)], 1, 2, sparing(100), (), id="a spared request keeps its blocks"),
        pytest.param(
            [running("a", 99), running("b", 3)], [waiting("c", 0, 8)], 0, 0, sparing(5), (), id="none goes if a spared one had to go too"
        ),
        pytest.param([running("a", 5, steps=3)], [waiting("b", 0)], 0, 99, LIMITS, (), id="who was just admitted keeps its quantum"),
        pytest.param(
            [running("a", 5), running("b", 9)], [waiting("c", 0)], 0, 99, LIMITS, ("b",), id="the worst goes, not the first that is worse"
        ),
        pytest.param(
            [running("a", 5, arrival=1), running("b", 5, arrival=2)],
            [waiting("c", 0)],
            0,
            99,
            LIMITS,
            ("b",),
            id="of equals the later arrival goes",
        ),
        pytest.param(
            [running("a", 5), running("b", 6)], [waiting("c", 0, 8)], 0, 0, LIMITS, ("b", "a"), id="as many go as its blocks take"
        ),
        pytest.param([running("a", 5)], [waiting("b", 0, 50)], 0, 0, LIMITS, (), id="none is evicted for one that would not fit even so"),
        pytest.param(
            [running("a", 5), running("b", 6)],
            [waiting("c", 0), waiting("d", 0)],
            0,
            0,
            LIMITS,
            ("b", "a"),
            id="each candidate is served in turn",
        ),
        pytest.param(
            [running("a", 5)], [waiting("b", 0, 50), waiting("c", 0)], 0, 0, LIMITS, (), id="none is served past one that does not fit"
        ),
    ],
)
def test_preemptions_by_rank(
    runs: list[Running], waits: list[Waiting], slots: int, blocks: int, limits: LimitsRow, expected: tuple[str, ...]
) -> None:
    assert choose_preemptions(runs, waits, slots, blocks, limits) == expected


def of(adapter: int, one: Any) -> Any:
    return replace(one, adapter=adapter)


@pytest.mark.parametrize(
    ("runs", "waits", "expected"),
    [
        pytest.param([of(1, running("a", 5))], [of(2, waiting("b"))], (), id="there is a place for another adapter"),
        pytest.param([of(1, running("a", 5)), of(2, running("b", 9))], [of(2, waiting("c"))], (), id="its adapter runs"),
        pytest.param([of(1, running("a", 5)), of(2, running("b", 9))], [waiting("c")], (), id="it needs no adapter"),
        pytest.param(
            [of(1, running("a", 5)), of(2, running("b", 9))], [of(3, waiting("c"))], ("b",), id="the adapter of the worst request leaves"
        ),
        pytest.param(
            [of(1, running("a", 5)), of(1, running("b", 9)), of(2, running("c", 6))],
            [of(3, waiting("d"))],
            ("c",),
            id="the adapter leaves whose best request is the worst",
        ),
        pytest.param(
            [of(1, running("a", 5)), of(1, running("b", 0)), of(2, running("c", 0))],
            [of(3, waiting("d"))],
            (),
            id="an adapter with a request that is no worse stays, with all of its requests",
        ),
        pytest.param(
            [of(1, running("a", 5)), of(1, running("b", 5, steps=1)), of(2, running("c", 0))],
            [of(3, waiting("d"))],
            (),
            id="an adapter stays with a request that was just admitted",
        ),
        pytest.param(
            [of(1, running("a", 0)), of(2, running("b", 0))],
            [of(3, waiting("c", -1, 99)), of(1, waiting("d", -1))],
            (),
            id="none is evicted for one that would not fit even so, and none is served past it",
        ),
        pytest.param(
            [of(1, running("a", 0)), of(2, running("b", 0)), running("c", 5, blocks=40)],
            [of(3, waiting("d", 0)), waiting("e", 0, 50)],
            ("c",),
            id="one without a place for its adapter is skipped",
        ),
        pytest.param(
            [of(1, running("a", 5)), of(2, running("b", 9))],
            [of(3, waiting("c")), of(4, waiting("d"))],
            ("b", "a"),
            id="each candidate's adapter gets a place in turn",
        ),
    ],
)
def test_preemptions_for_the_place_of_an_adapter(runs: list[Running], waits: list[Waiting], expected: tuple[str, ...]) -> None:
    """Two adapters run at a time, and there are free slots and 20 free blocks."""
    assert choose_preemptions(runs, waits, 4, 20, LIMITS, max_adapters=2) == expected


def test_a_spared_request_gives_up_the_place_of_its_adapter() -> None:
    runs = [of(1, running("a", 5)), of(2, running("b", 9))]
    assert choose_preemptions(runs, [of(3, waiting("c"))], 4, 20, sparing(100), max_adapters=2) == ("b",)
    # Without a free slot one more would have to go.
    assert choose_preemptions([*runs, running("d", 8)], [of(3, waiting("c", 0, 30))], 4, 20, sparing(100), max_adapters=2) == ()


levels = st.integers(-3, 3)
some_running = st.lists(st.tuples(levels, st.integers(1, 9), st.integers(0, 9)), max_size=8)
some_waiting = st.lists(st.tuples(levels, st.integers(1, 20)), max_size=6)


@given(some_running, some_waiting, st.integers(0, 2), st.integers(0, 20), st.integers(1, 3), st.integers(0, 6))
def test_every_preemption_lets_a_better_request_run(
    runs: list[tuple[int, int, int]], waits: list[tuple[int, int]], slots: int, blocks: int, preempt_levels: int, quantum: int
) -> None:
    victims = [running(f"v{i}", level, float(i), own, steps) for i, (level, own, steps) in enumerate(runs)]
    candidates = [waiting(f"c{i}", level, needs) for i, (level, needs) in enumerate(sorted(waits))]
    limits = LimitsRow(preempt_levels, quantum)
    chosen = choose_preemptions(victims, candidates, slots, blocks, limits)
    by_name = {victim.request_id: victim for victim in victims}
    assert len(set(chosen)) == len(chosen)
    for name in chosen:
        victim = by_name[name]
        assert victim.steps >= quantum
        assert unpack_priority(victim.priority)[0] - unpack_priority(candidates[0].priority)[0] >= preempt_levels
    if chosen:
        # With the victims gone the first candidate fits.
        assert slots + len(chosen) >= 1
        assert blocks + sum(by_name[name].own_blocks for name in chosen) >= candidates[0].needs_blocks
    assert choose_preemptions(victims, candidates, slots, blocks, limits) == chosen


@given(
    st.lists(st.tuples(levels, st.integers(1, 9), st.integers(0, 2)), max_size=8),
    st.lists(st.tuples(levels, st.integers(1, 20), st.integers(0, 4)), max_size=6),
    st.integers(0, 2),
)
def test_every_preemption_for_an_adapter_makes_a_place_for_it(
    runs: list[tuple[int, int, int]], waits: list[tuple[int, int, int]], slots: int
) -> None:
    """Two adapters run at a time, and some of those that wait are of others."""
    victims = [of(adapter, running(f"v{i}", level, float(i), blocks)) for i, (level, blocks, adapter) in enumerate(runs)]
    candidates = [of(adapter, waiting(f"c{i}", level, blocks)) for i, (level, blocks, adapter) in enumerate(sorted(waits))]
    chosen = choose_preemptions(victims, candidates, slots, 10, LIMITS, max_adapters=2)
    if not chosen:
        return
    left = {victim.adapter for victim in victims if victim.request_id not in chosen and victim.adapter}
    gone = [victim for victim in victims if victim.request_id in chosen]
    room = 10 + sum(victim.own_blocks for victim in gone)
    fits = [
        one
        for one in candidates
        if len(left | ({one.adapter} if one.adapter else set())) <= 2 and one.needs_blocks <= room and slots + len(gone) >= 1
    ]
    assert fits
    for victim in gone:
        assert any(decide.outranks(one.priority, victim.priority, LIMITS) for one in fits)


def rank(job: str, level: int = 0) -> RankRow:
    return RankRow(job, level, 0, 0)


def test_a_plan_expires_by_the_engines_own_clock() -> None:
    plan = decide.apply(EMPTY_PLAN, (), None, frozenset(), 10.0)
    assert decide.is_fresh(plan, 10.0 + PLAN_EXPIRES_SECONDS - 0.001)
    assert not decide.is_fresh(plan, 10.0 + PLAN_EXPIRES_SECONDS)


def test_no_plan_is_not_fresh() -> None:
    assert not decide.is_fresh(EMPTY_PLAN, 0.0)


def test_ranks_that_were_not_sent_again_stay() -> None:
    known = frozenset({"a", "b"})
    plan = decide.apply(EMPTY_PLAN, (rank("a", 3), rank("b", 4)), None, known, 0.0)
    plan = decide.apply(plan, (rank("b", 5),), None, known, 1.0)
    assert (plan.ranks["a"].level, plan.ranks["b"].level) == (3, 5)


def test_ranks_of_unknown_jobs_are_not_kept() -> None:
    assert decide.apply(EMPTY_PLAN, (rank("ghost"),), None, frozenset({"a"}), 0.0).ranks == {}


def test_a_budget_of_zero_means_unchanged() -> None:
    plan = decide.apply(EMPTY_PLAN, (), LimitsRow(host_budget_bytes=7), frozenset(), 0.0)
    plan = decide.apply(plan, (), LimitsRow(preempt_levels=3), frozenset(), 0.0)
    assert (plan.limits.preempt_levels, plan.limits.host_budget_bytes) == (3, 7)


def test_a_job_that_left_is_forgotten() -> None:
    plan = decide.apply(EMPTY_PLAN, (rank("a"),), None, frozenset({"a"}), 0.0)
    assert decide.forget(plan, "a").ranks == {}


@pytest.mark.parametrize(
    ("known", "fresh", "priority"),
    [
        pytest.param(rank("a", -3), True, pack_priority(-3, 0), id="its rank, while the plan is fresh"),
        pytest.param(None, True, 42, id="what it was stamped with, before it is ranked"),
        pytest.param(rank("a", -3), False, 0, id="neutral, when the plan has expired"),
        pytest.param(None, False, 0, id="neutral without any plan, whatever it was stamped with"),
    ],
)
def test_a_request_is_sorted_by(known: RankRow | None, fresh: bool, priority: int) -> None:
    assert decide.priority_of(known, stamped_priority=42, fresh=fresh) == priority


@pytest.mark.parametrize(
    ("codec", "ewt_ms", "used", "expected"),
    [
        pytest.param(CODEC_RAW, 10**6, 100, CODEC_RAW, id="raw when raw was asked for"),
        pytest.param(CODEC_INT8, 0, 0, CODEC_INT8, id="int8 when int8 was asked for"),
        pytest.param(CODEC_AUTO, 999, 49, CODEC_RAW, id="auto is raw for a short wait in a roomy store"),
        pytest.param(CODEC_AUTO, 1000, 0, CODEC_INT8, id="auto is int8 for a long wait"),
        pytest.param(CODEC_AUTO, 0, 50, CODEC_INT8, id="auto is int8 in a store that fills up"),
    ],
)
def test_the_codec_of_the_next_save(codec: str, ewt_ms: int, used: int, expected: str) -> None:
    limits = LimitsRow(int8_ewt_ms=1000, int8_host_fraction=0.5)
    assert choose_codec(codec, ewt_ms, used, 100, limits) == expected


PACE = Pace(blocks_per_step=2, step_seconds=0.05)


def parked(name: str, level: int = 0, needs: int = 4, host: int = 4, ewt_ms: int = 0, prefetched: bool = False) -> Parked:
    return Parked(name, pack_priority(level, 0), needs, host, ewt_ms, prefetched)


@pytest.mark.parametrize(
    ("waits", "spare", "limits", "expected"),
    [
        pytest.param([parked("a", ewt_ms=10**6)], 4, LIMITS, ("a",), id="the next one is brought back however long it waits"),
        pytest.param([parked("a")], 3, LIMITS, (), id="none for which there are too few blocks"),
        pytest.param([parked("a"), parked("b", ewt_ms=600)], 8, LIMITS, ("a", "b"), id="a turn within the transfer and the margin"),
        pytest.param([parked("a"), parked("b", ewt_ms=601)], 8, LIMITS, ("a",), id="not yet, when the turn is farther than that"),
        pytest.param([parked("new", host=0), parked("b")], 7, LIMITS, (), id="the blocks of a better arrival are left to it"),
        pytest.param([parked("new", host=0), parked("b")], 8, LIMITS, ("b",), id="past a better arrival, when there are blocks for both"),
        pytest.param([parked("big", needs=9), parked("b")], 8, LIMITS, (), id="none is served past one that does not fit"),
        pytest.param([parked("a", prefetched=True), parked("b")], 4, LIMITS, ("b",), id="whoever is prefetched already costs nothing more"),
        pytest.param([parked("a"), parked("b", 1, prefetched=True)], 0, LIMITS, ("a",), id="what a worse one has reserved is spare"),
        pytest.param([parked("a"), parked("b", prefetched=True)], 0, LIMITS, (), id="blocks reserved for an equal one do not"),
        pytest.param([parked("a"), parked("b", 9, prefetched=True)], 0, LimitsRow(0, 4), (), id="nor does any while rank preempts nobody"),
        pytest.param(
            [parked("a"), parked("b"), parked("c", 1, prefetched=True)], 4, LIMITS, ("a", "b"), id="reserved blocks are counted once"
        ),
        pytest.param(
            [parked("a"), parked("b"), parked("c", 1, prefetched=True)], 0, LIMITS, ("a",), id="reserved blocks are not counted twice"
        ),
        pytest.param(
            [parked("a", -1, needs=1), parked("b", needs=1), parked("c", needs=2, prefetched=True)],
            0,
            LIMITS,
            ("a",),
            id="what a better one leaves of an equal one's blocks stays that one's",
        ),
    ],
)
def test_prefetches(waits: list[Parked], spare: int, limits: LimitsRow, expected: tuple[str, ...]) -> None:
    assert choose_prefetches(waits, spare, PACE, limits) == expected


some_parked = st.lists(st.tuples(levels, st.integers(1, 9), st.integers(0, 5), st.integers(0, 2000), st.booleans()), max_size=8)


@given(some_parked, st.integers(0, 30), st.integers(0, 3))
def test_a_prefetch_takes_nothing_that_a_better_one_needs(
    rows: list[tuple[int, int, int, int, bool]], spare: int, preempt_levels: int
) -> None:
    waits = [parked(f"p{i}", *row) for i, row in enumerate(sorted(rows, key=lambda row: row[0]))]
    limits = LimitsRow(preempt_levels, 0)
    chosen = choose_prefetches(waits, spare, PACE, limits)
    by_name = {row.request_id: row for row in waits}
    assert len(set(chosen)) == len(chosen)
    assert all(by_name[name].host_blocks and not by_name[name].prefetched for name in chosen)
    for name in chosen:
        # With every better one that waits for blocks counted, what it takes is spare or reserved for worse ones.
        place = waits.index(by_name[name])
        taken = sum(row.needs_blocks for row in waits[: place + 1] if not row.prefetched)
        worse = sum(row.needs_blocks for row in waits if row.prefetched and row.priority > by_name[name].priority)
        assert taken <= spare + worse
