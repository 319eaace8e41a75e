"""A real engine, fp32, no prefix cache: what is preempted comes back exactly, and costs one token."""

from collections.abc import Iterator
from itertools import count

import pytest
from msgspec.structs import replace

from alise_contract.names import MIN_LEVEL, PLAN_EXPIRES_SECONDS, pack_priority
from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from alise_engine.wire.terms import PHASE_OFFLOADED, PHASE_PREEMPTED
from tests.engine.harness import BLOCK_SIZE, Engine, EngineOptions

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
POEM = [256, *b"a poem about rain, please, and make it a short one"]
SHORT = [256, *b"hi"]
LIMITS = LimitsRow(preempt_levels=1, min_quantum_steps=2)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), EngineOptions())
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


@pytest.fixture(scope="module")
def story(started: Engine) -> list[int]:
    """The answer of an undisturbed request."""
    return undisturbed(started.fresh(), STORY, 200)


def undisturbed(engine: Engine, prompt: list[int], tokens: int) -> list[int]:
    name = engine.ask(prompt, tokens)
    engine.finish(name)
    return list(engine.tokens(name))


def preempt_at(engine: Engine, name: str, job: str, *lengths: int) -> None:
    """Has the job preempted each time its answer has one of these lengths, and lets it go on."""
    for length in lengths:
        engine.run_until(engine.grown(name, length))
        engine.crowd.displace(job)
        engine.step(2)
        engine.crowd.readmit(job)
    engine.finish(name)


def rank(job: str, level: int, order: int = 0, ewt_ms: int = 0) -> RankRow:
    return RankRow(job, level, order, ewt_ms)


def test_an_answer_that_was_preempted_three_times_is_token_for_token_the_undisturbed_one(engine: Engine, story: list[int]) -> None:
    name = engine.ask(STORY, 200, job="story")
    preempt_at(engine, name, "story", 10, 75, 140)
    counters = engine.counters()
    assert engine.tokens(name) == story
    assert (counters.preemptions_rank, counters.saves, counters.restores, counters.exact_resumes) == (3, 3, 3, 3)
    assert counters.recomputes == 0


def test_saves_write_only_blocks_that_are_not_complete_on_the_host(engine: Engine) -> None:
    name = engine.ask(STORY, 200, job="story")
    preempt_at(engine, name, "story", 10, 75, 140)
    block_bytes = engine.snapshot().shape.block_bytes
    # Tokens on the device at each preemption: prompt and answer less the token that was to be computed next.
    held = [len(STORY) + generated - 1 for generated in (10, 75, 140)]
    first = [0, held[0] // BLOCK_SIZE, held[1] // BLOCK_SIZE]
    written = sum(-(-tokens // BLOCK_SIZE) - start for tokens, start in zip(held, first, strict=True))
    assert engine.counters().saved_bytes == written * block_bytes


def test_one_corrupted_byte_in_the_host_store_changes_the_answer(engine: Engine, story: list[int]) -> None:
    name = engine.ask(STORY, 200, job="story")
    engine.run_until(engine.grown(name, 75))
    engine.crowd.displace("story")
    engine.step()
    (request_id,) = engine.pool.request_ids()
    (chunk,) = engine.pool.read(request_id, 0, 99)
    # The exponent byte of one number of a key in the first layer.
    _, rows = next(chunk.pieces(0))
    rows[1, 3] ^= 0x7F
    engine.crowd.readmit("story")
    engine.finish(name)
    assert engine.counters().restores == 1
    assert engine.tokens(name)[:75] == story[:75]
    assert engine.tokens(name) != story


def test_two_answers_that_take_turns_are_both_exact(engine: Engine, story: list[int]) -> None:
    poem = undisturbed(engine, POEM, 120)
    names = [engine.ask(STORY, 200, job="story"), engine.ask(POEM, 120, job="poem")]
    with engine.slots(1):
        for turn in range(12):
            engine.step(9)
            engine.apply(rank("story", turn % 2), rank("poem", 1 - turn % 2), limits=LIMITS)
    engine.finish(*names)
    assert engine.tokens(names[0]) == story
    assert engine.tokens(names[1]) == poem
    counters = engine.counters()
    assert counters.preemptions_rank >= 6
    assert (counters.exact_resumes, counters.recomputes) == (counters.preemptions_rank, 0)


def test_a_prompt_that_was_preempted_while_it_was_read_goes_on_where_it_was(engine: Engine) -> None:
    prompt = [256, *b"a long prompt " * 40]
    expected = undisturbed(engine, prompt, 20)
    other = engine.ask(STORY, 100, job="story")
    engine.run_until(engine.grown(other, 3))
    engine.scheduler.scheduler_config.long_prefill_token_threshold = 100
    try:
        name = engine.ask(prompt, 20, job="long")
        engine.step(2)
        engine.crowd.displace("long")
        engine.step()
        (row,) = [row for row in engine.snapshot().requests if row.job_id == "long"]
        engine.crowd.readmit("long")
        engine.finish(name)
    finally:
        engine.scheduler.scheduler_config.long_prefill_token_threshold = 0
    assert (row.phase, row.host_tokens, row.generated_tokens) == (PHASE_OFFLOADED, 200, 0)
    assert engine.tokens(name) == expected
    assert engine.counters().recomputes == 0


def test_a_better_request_takes_a_slot_from_a_worse_one_and_gives_it_back(engine: Engine, story: list[int]) -> None:
    slow = [engine.ask(STORY, 200, job="slow1"), engine.ask(POEM, 150, job="slow2")]
    engine.run_until(engine.grown(slow[1], 20))
    quick = engine.ask(SHORT, 5, job="quick")
    engine.apply(rank("slow1", 5, 0), rank("slow2", 5, 1), rank("quick", 0), limits=LIMITS)
    engine.step()
    assert sorted(engine.running_jobs()) == ["quick", "slow1"]
    engine.finish(quick)
    engine.step()
    assert sorted(engine.running_jobs()) == ["slow1", "slow2"]
    engine.finish(*slow)
    counters = engine.counters()
    assert (counters.preemptions_rank, counters.exact_resumes, counters.recomputes) == (1, 1, 0)
    assert engine.tokens(slow[0]) == story


def test_a_better_request_takes_blocks_from_a_worse_one(engine: Engine) -> None:
    # 64 blocks: the first takes 29 of them for its prompt, the second 31, and a third of 10 does not fit.
    names = [engine.ask([256, *b"x" * 900], 40, job="big1"), engine.ask([256, *b"y" * 960], 40, job="big2")]
    with engine.slots(3):
        engine.run_until(engine.grown(names[1], 2))
        engine.step(3)
        quick = engine.ask([256, *b"z" * 300], 3, job="quick")
        engine.apply(rank("big1", 4), rank("big2", 6), rank("quick", 0), limits=LIMITS)
        engine.step()
        assert sorted(engine.running_jobs()) == ["big1", "quick"]
        engine.finish(quick, *names)
    counters = engine.counters()
    assert (counters.preemptions_rank, counters.recomputes) == (1, 0)


def test_who_was_just_admitted_keeps_its_quantum(engine: Engine) -> None:
    slow = [engine.ask(STORY, 50, job="slow1"), engine.ask(POEM, 50, job="slow2")]
    engine.step()
    engine.ask(SHORT, 5, job="quick")
    engine.apply(rank("slow1", 5), rank("slow2", 5), rank("quick", 0), limits=replace(LIMITS, min_quantum_steps=4))
    engine.step(3)
    assert "quick" not in engine.running_jobs()
    engine.step()
    assert "quick" in engine.running_jobs()
    engine.finish(*slow)


def test_who_is_spared_keeps_its_slot_until_it_ends(engine: Engine) -> None:
    slow = [engine.ask(STORY, 12, job="slow1"), engine.ask(POEM, 12, job="slow2")]
    engine.step()
    quick = engine.ask(SHORT, 5, job="quick")
    spared = replace(LIMITS, spared_levels=5 - MIN_LEVEL)
    engine.apply(rank("slow1", 4), rank("slow2", 4), rank("quick", 0), limits=spared)
    engine.step(6)
    assert "quick" not in engine.running_jobs()
    engine.apply(rank("slow2", 5))
    engine.step(2)
    assert set(engine.running_jobs()) == {"slow1", "quick"}
    engine.finish(quick, *slow)
    assert engine.counters().preemptions_rank == 1


def test_the_best_stamped_request_is_admitted_first_while_a_plan_is_fresh(engine: Engine) -> None:
    engine.apply()
    slow = [engine.ask(STORY, 30, job="a"), engine.ask(POEM, 30, job="b")]
    engine.step()
    engine.ask(SHORT, 5, job="late", priority=pack_priority(1, 0))
    better = engine.ask(SHORT, 5, job="early", priority=pack_priority(-1, 0))
    engine.apply(limits=LimitsRow(preempt_levels=0))
    engine.run_until(lambda: engine.answers[slow[0]].finished)
    engine.step()
    assert "early" in engine.running_jobs()
    engine.finish(better)


def test_memory_runs_out_and_the_worst_ranked_makes_room(engine: Engine) -> None:
    names = [engine.ask([256, *b"x" * 980], 40, job="good"), engine.ask([256, *b"y" * 980], 40, job="bad")]
    engine.apply(rank("good", 0), rank("bad", 3), limits=LIMITS)
    # 63 blocks are left: one too few for two answers of 32 blocks.
    pool = engine.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(1)
    engine.finish(*names)
    pool.free_blocks(taken)
    counters = engine.counters()
    assert counters.preemptions_memory == 1
    assert (counters.restores, counters.recomputes) == (1, 0)


def test_rank_no_longer_preempts_and_arrival_decides_when_the_plan_expires(engine: Engine) -> None:
    first, second = engine.ask(STORY, 60, job="first"), engine.ask(POEM, 60, job="second")
    engine.step(5)
    third = engine.ask(SHORT, 60, job="third")
    engine.apply(rank("first", 9), rank("second", 0), rank("third", 0), limits=LIMITS)
    engine.step()
    assert sorted(engine.running_jobs()) == ["second", "third"]
    urgent = engine.ask(SHORT, 5, job="urgent", priority=pack_priority(-9, 0))
    engine.clock.seconds += PLAN_EXPIRES_SECONDS
    engine.step(10)
    assert sorted(engine.running_jobs()) == ["second", "third"]
    engine.abort(third)
    engine.step()
    # First come, first served: the one that was preempted is back although a better one waits.
    assert sorted(engine.running_jobs()) == ["first", "second"]
    engine.finish(first, second, urgent)
    assert engine.counters().preemptions_rank == 1


def test_a_cap_below_the_copy_costs_a_recompute_and_the_answer_is_the_same(engine: Engine, story: list[int]) -> None:
    block_bytes = engine.snapshot().shape.block_bytes
    name = engine.ask(STORY, 200, job="story")
    engine.apply(limits=replace(LIMITS, host_budget_bytes=3 * block_bytes))
    preempt_at(engine, name, "story", 140)
    counters = engine.counters()
    held = len(STORY) + 140 - 1
    assert engine.tokens(name) == story
    assert (counters.restored_tokens, counters.recomputed_tokens) == (3 * BLOCK_SIZE, held - 3 * BLOCK_SIZE)
    assert (counters.recomputes, counters.exact_resumes) == (1, 0)


def test_saving_restoring_recomputing_and_evicting_are_timed(engine: Engine) -> None:
    block_bytes = engine.snapshot().shape.block_bytes
    name = engine.ask(STORY, 200, job="story")
    preempt_at(engine, name, "story", 140)
    counters = engine.counters()
    assert min(counters.save_us, counters.restore_us) > 0
    assert (counters.recompute_us, counters.host_eviction_us) == (0, 0)
    name = engine.ask(STORY, 200, job="story")
    engine.run_until(engine.grown(name, 140))
    engine.crowd.displace("story")
    engine.step(2)
    engine.crowd.readmit("story")
    engine.apply(limits=replace(LIMITS, host_budget_bytes=block_bytes))
    # Each look at the clock is a second later: a step is begun by one and ended by another.
    engine.scheduler.clock = count(engine.clock.seconds).__next__
    engine.step(2)
    engine.scheduler.clock = engine.clock
    counters = engine.counters()
    assert counters.recomputes == 1
    assert counters.recompute_us >= 1_000_000
    assert counters.host_eviction_us > 0


def test_the_copy_with_the_longest_wait_is_dropped_for_a_better_one(engine: Engine, story: list[int]) -> None:
    block_bytes = engine.snapshot().shape.block_bytes
    poem = undisturbed(engine, POEM, 120)
    names = [engine.ask(POEM, 120, job="patient"), engine.ask(STORY, 200, job="next")]
    engine.run_until(engine.grown(names[1], 60))
    engine.apply(limits=replace(LIMITS, host_budget_bytes=4 * block_bytes))
    engine.crowd.displace("patient", ewt_ms=9000)
    engine.step()
    engine.crowd.displace("next", ewt_ms=100)
    engine.step()
    phases = {row.job_id: (row.phase, row.host_bytes) for row in engine.snapshot().requests if row.job_id in ("patient", "next")}
    assert phases == {"patient": (PHASE_PREEMPTED, 0), "next": (PHASE_OFFLOADED, 4 * block_bytes)}
    assert engine.pool.used_bytes == 4 * block_bytes
    engine.crowd.readmit("patient", "next")
    engine.finish(*names)
    assert engine.counters().host_evictions == 1
    assert [engine.tokens(name) for name in names] == [poem, story]


def test_a_budget_that_is_lowered_is_kept_from_the_next_step_on(engine: Engine, story: list[int]) -> None:
    name = engine.ask(STORY, 200, job="story")
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step()
    assert engine.pool.used_bytes > 0
    engine.apply(limits=replace(LIMITS, host_budget_bytes=1))
    engine.step()
    assert engine.pool.used_bytes == 0
    engine.crowd.readmit("story")
    engine.finish(name)
    assert engine.tokens(name) == story


def test_an_abort_while_offloaded_leaves_nothing_behind(engine: Engine) -> None:
    free = engine.counters().free_device_blocks
    name = engine.ask(STORY, 200, job="story")
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step()
    assert engine.pool.used_bytes > 0
    engine.abort(name)
    engine.crowd.leave()
    engine.step(2)
    counters = engine.counters()
    assert (engine.pool.used_bytes, counters.host_raw_bytes, counters.free_device_blocks) == (0, 0, free)
    assert engine.scheduler.plan.ranks == {}
    assert engine.snapshot().requests == ()
    assert not engine.scheduler.has_requests()


def test_a_finished_answer_leaves_nothing_behind(engine: Engine) -> None:
    name = engine.ask(STORY, 80, job="story")
    preempt_at(engine, name, "story", 40)
    engine.step(2)
    assert engine.pool.used_bytes == 0
    assert not engine.scheduler.has_requests()


def test_new_weights_make_every_copy_worthless(engine: Engine) -> None:
    name = engine.ask(STORY, 80, job="story")
    engine.run_until(engine.grown(name, 20))
    engine.llm.llm_engine.reset_prefix_cache(reset_running_requests=True)
    engine.finish(name)
    counters = engine.counters()
    assert (counters.saves, counters.restores, counters.recomputes) == (0, 0, 1)


def test_a_copy_that_cannot_be_read_is_recomputed(engine: Engine, story: list[int]) -> None:
    name = engine.ask(STORY, 200, job="story")
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step()
    engine.pool.clear()
    engine.crowd.readmit("story")
    engine.finish(name)
    assert engine.tokens(name) == story
