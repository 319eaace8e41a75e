"""A real engine whose slots are full: KV comes back before its turn, and goes again when a better request needs the blocks."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from alise_engine.wire.terms import PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING, PHASE_RUNNING
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

# Ten blocks each, of 64.
STORY = [256, *b"a story of ships, " * 17]
POEM = [256, *b"a poem about rain " * 17]
SHORT = [256, *b"hi"]
# No request is preempted by rank: one that has a slot keeps it.
LIMITS = LimitsRow(preempt_levels=0)
TOKENS = 60


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "asynchronous"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), EngineOptions(asynchronous=request.param))
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Iterator[Engine]:
    per_step = started.scheduler.connector.prefetch_blocks_per_step
    yield started.fresh()
    started.scheduler.connector.prefetch_blocks_per_step = per_step


@pytest.fixture(scope="module")
def story(started: Engine) -> list[int]:
    """The answer of an undisturbed request."""
    engine = started.fresh()
    name = engine.ask(STORY, TOKENS)
    engine.finish(name)
    return list(engine.tokens(name))


def rank(job: str, level: int, ewt_ms: int = 0) -> RankRow:
    return RankRow(job, level, 0, ewt_ms)


def park(engine: Engine, *prompts: list[int]) -> list[str]:
    """Requests that have run a while and whose KV is on the host, of the jobs parked1, parked2, ..."""
    jobs = [f"parked{number}" for number in range(1, len(prompts) + 1)]
    names = [engine.ask(prompt, TOKENS, job=job) for job, prompt in zip(jobs, prompts, strict=True)]
    engine.run_until(lambda: all(len(engine.tokens(name)) >= 10 for name in names))
    engine.crowd.displace(*jobs)
    engine.step(3)
    return names


def fill_the_slots(engine: Engine) -> list[str]:
    """Two requests that run. What is parked stays behind the crowd's line until `let_come`."""
    names = [engine.ask(SHORT, 40, job="busy1"), engine.ask(SHORT, 80, job="busy2")]
    engine.crowd.free_the_slots()
    engine.run_until(engine.grown(names[1], 2))
    return names


def let_come(engine: Engine, *ranks: RankRow) -> None:
    """Ranks what is parked, and ends the line before it: from the next step on its KV may come back."""
    engine.crowd.leave()
    engine.apply(*ranks, limits=LIMITS)


@contextmanager
def few_blocks(engine: Engine, free: int) -> Iterator[None]:
    """All blocks but `free` are taken."""
    pool = engine.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(pool.get_num_free_blocks() - free)
    yield
    pool.free_blocks(taken)


def phases(engine: Engine) -> dict[str, str]:
    return {row.job_id: row.phase for row in engine.snapshot().requests}


def test_kv_comes_back_while_every_slot_is_full_and_the_turn_then_costs_one_token(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(2)
    assert phases(engine)["parked1"] == PHASE_RESTORING
    assert not engine.scheduler.connector.prefetched.keys() - {request.request_id for request in engine.scheduler.waiting}
    engine.finish(busy[0])
    engine.finish(parked)
    counters = engine.counters()
    assert (counters.prefetches, counters.prefetches_revoked) == (1, 0)
    assert (counters.restores, counters.exact_resumes, counters.recomputes) == (1, 1, 0)
    assert engine.tokens(parked) == story


def test_a_turn_that_comes_before_all_slices_are_there_waits_for_nothing(engine: Engine, story: list[int]) -> None:
    engine.scheduler.connector.prefetch_blocks_per_step = 1
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(4)
    (ahead,) = engine.scheduler.connector.prefetched.values()
    assert 0 < ahead.done < len(ahead.block_ids)
    engine.abort(busy[0])
    engine.step(2)
    assert phases(engine)["parked1"] == PHASE_RUNNING
    engine.finish(parked)
    assert (engine.counters().exact_resumes, engine.tokens(parked)) == (1, story)


def test_running_requests_get_the_blocks_of_a_prefetch_before_one_of_them_is_preempted(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(2)
    with few_blocks(engine, 0):
        engine.run_until(lambda: phases(engine)["parked1"] == PHASE_OFFLOADED, max_steps=40)
    engine.finish(*busy, parked)
    counters = engine.counters()
    assert counters.prefetches_revoked == 1
    assert counters.preemptions_memory == 0
    assert engine.tokens(parked) == story


def test_a_better_arrival_takes_the_blocks_of_a_prefetch(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 5), rank("busy1", 0), rank("busy2", 0))
    engine.step(2)
    assert phases(engine)["parked1"] == PHASE_RESTORING
    with few_blocks(engine, 9):
        better = engine.ask(POEM, 30, job="better")
        engine.apply(rank("better", 1), limits=LIMITS)
        engine.finish(busy[0])
        engine.step(2)
        assert (phases(engine)["parked1"], phases(engine)["better"]) == (PHASE_OFFLOADED, PHASE_RUNNING)
    engine.finish(better, parked)
    assert engine.counters().prefetches_revoked == 1
    assert engine.tokens(parked) == story


def test_a_prefetched_request_does_not_overtake_a_better_arrival(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 5))
    engine.step(2)
    better = engine.ask(SHORT, 30, job="better")
    engine.apply(rank("better", 1), limits=LIMITS)
    engine.finish(busy[0])
    engine.step(2)
    assert (phases(engine)["parked1"], phases(engine)["better"]) == (PHASE_RESTORING, PHASE_RUNNING)
    engine.finish(better, parked)
    assert engine.tokens(parked) == story


def test_blocks_of_a_better_arrival_are_not_reserved_for_a_parked_request(engine: Engine) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    with few_blocks(engine, 19):
        better = engine.ask(POEM, 30, job="better")
        let_come(engine, rank("parked1", 5), rank("better", 1))
        engine.step(3)
        assert phases(engine)["parked1"] == PHASE_OFFLOADED
    engine.step()
    assert phases(engine)["parked1"] == PHASE_RESTORING
    engine.finish(*busy, better, parked)


@pytest.mark.parametrize(
    ("ewt_ms", "phase"),
    [
        pytest.param(100, PHASE_RESTORING, id="a turn that is near"),
        pytest.param(60_000, PHASE_OFFLOADED, id="a turn that is far"),
    ],
)
def test_who_is_not_the_next_is_brought_back_when_its_turn_is_near(engine: Engine, ewt_ms: int, phase: str) -> None:
    parked, busy = park(engine, STORY, POEM), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0), rank("parked2", 1, ewt_ms))
    engine.step(2)
    assert phases(engine)["parked2"] == phase
    engine.finish(*busy, *parked)


def test_an_abort_while_restoring_leaves_nothing_behind(engine: Engine) -> None:
    free = engine.counters().free_device_blocks
    engine.scheduler.connector.prefetch_blocks_per_step = 1
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(3)
    assert phases(engine)["parked1"] == PHASE_RESTORING
    engine.abort(parked)
    engine.finish(*busy)
    engine.step(4)
    assert (engine.pool.used_bytes, engine.counters().free_device_blocks) == (0, free)
    assert not engine.scheduler.has_requests()


def test_a_copy_that_is_dropped_while_it_is_restored_is_recomputed(engine: Engine, story: list[int]) -> None:
    engine.scheduler.connector.prefetch_blocks_per_step = 1
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(3)
    engine.apply(limits=replace(LIMITS, host_budget_bytes=1))
    assert phases(engine)["parked1"] == PHASE_PREEMPTED
    engine.finish(*busy, parked)
    counters = engine.counters()
    assert (counters.restores, counters.recomputes) == (0, 1)
    assert engine.tokens(parked) == story


def test_slices_that_the_store_does_not_have_are_recomputed(engine: Engine, story: list[int]) -> None:
    engine.scheduler.connector.prefetch_blocks_per_step = 3
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(2)
    engine.pool.clear()
    engine.finish(*busy, parked)
    assert engine.tokens(parked) == story


def test_a_reset_of_the_prefix_cache_takes_all_blocks_back(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(2)
    engine.llm.llm_engine.reset_prefix_cache(reset_running_requests=True)
    engine.step()
    engine.finish(*busy, parked)
    assert engine.counters().prefetches_revoked == 1
    assert engine.tokens(parked) == story


def test_without_a_plan_nothing_is_prefetched_and_what_was_is_used(engine: Engine, story: list[int]) -> None:
    [parked], busy = park(engine, STORY), fill_the_slots(engine)
    let_come(engine, rank("parked1", 0))
    engine.step(2)
    engine.clock.seconds += 10
    engine.finish(*busy, parked)
    counters = engine.counters()
    assert (counters.prefetches, counters.prefetches_revoked, counters.exact_resumes) == (1, 0, 1)
    assert engine.tokens(parked) == story
