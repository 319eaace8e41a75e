"""A real engine that schedules a step while the one before runs, as GPUs do by default: tokens are in flight at a preemption."""

from collections.abc import Iterator

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
POEM = [256, *b"a poem about rain, please, and make it a short one"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    options = EngineOptions(asynchronous=True, host_bytes=None)
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), options)
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


@pytest.fixture(scope="module")
def alone(started: Engine) -> dict[str, list[int]]:
    """Undisturbed answers."""
    engine = started.fresh()
    answers = {}
    for job, prompt in (("story", STORY), ("poem", POEM)):
        name = engine.ask(prompt, 150)
        engine.finish(name)
        answers[job] = list(engine.tokens(name))
    return answers


def test_it_is_the_asynchronous_scheduler(started: Engine) -> None:
    from alise_engine.enginecore.scheduler import AliseAsyncScheduler

    assert isinstance(started.scheduler, AliseAsyncScheduler)
    assert started.core.batch_queue_size == 2


def test_a_host_store_without_a_size_is_as_large_as_the_kv_cache(started: Engine) -> None:
    shape = started.snapshot().shape
    device_bytes = shape.num_device_blocks * shape.block_bytes
    assert 0.9 * device_bytes < shape.host_limit_bytes <= device_bytes


def test_no_token_in_flight_is_lost_or_made_twice(engine: Engine, alone: dict[str, list[int]]) -> None:
    name = engine.ask(STORY, 150, job="story")
    for tokens in (1, 10, 33, 75, 77, 120):
        engine.run_until(engine.grown(name, tokens))
        engine.crowd.displace("story")
        engine.step(4)
        engine.crowd.readmit("story")
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name) == alone["story"]
    assert (counters.preemptions_rank, counters.exact_resumes, counters.recomputes) == (6, 6, 0)


def test_two_answers_that_take_turns_are_both_exact(engine: Engine, alone: dict[str, list[int]]) -> None:
    names = {"story": engine.ask(STORY, 150, job="story"), "poem": engine.ask(POEM, 150, job="poem")}
    with engine.slots(1):
        for turn in range(14):
            engine.step(7)
            engine.apply(RankRow("story", 1 - turn % 2, 0, 0), RankRow("poem", turn % 2, 0, 0), limits=LimitsRow(1, 2))
    engine.finish(*names.values())
    assert {job: engine.tokens(name) for job, name in names.items()} == alone
    counters = engine.counters()
    assert counters.preemptions_rank >= 6
    assert counters.recomputes == 0


def test_a_better_request_takes_a_slot_and_gives_it_back(engine: Engine, alone: dict[str, list[int]]) -> None:
    names = {"story": engine.ask(STORY, 150, job="story"), "poem": engine.ask(POEM, 150, job="poem")}
    engine.run_until(engine.grown(names["poem"], 20))
    quick = engine.ask([256, *b"hi"], 5, job="quick")
    ranks = [RankRow("story", 5, 0, 0), RankRow("poem", 5, 1, 0), RankRow("quick", 0, 0, 0)]
    engine.apply(*ranks, limits=LimitsRow(1, 2))
    engine.finish(quick, *names.values())
    counters = engine.counters()
    assert (counters.preemptions_rank, counters.exact_resumes, counters.recomputes) == (1, 1, 0)
    assert {job: engine.tokens(name) for job, name in names.items()} == alone


def test_memory_pressure_with_tokens_in_flight_stays_exact(engine: Engine) -> None:
    prompts = [[256, *b"x" * 960], [256, *b"y" * 960]]
    expected = []
    for prompt in prompts:
        name = engine.ask(prompt, 60)
        engine.finish(name)
        expected.append(list(engine.tokens(name)))
    pool = engine.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(1)
    names = [engine.ask(prompt, 60, job=f"j{index}") for index, prompt in enumerate(prompts)]
    engine.finish(*names)
    pool.free_blocks(taken)
    counters = engine.counters()
    assert counters.preemptions_memory >= 1
    assert counters.recomputes == 0
    assert [engine.tokens(name) for name in names] == expected


def test_an_abort_while_offloaded_leaves_nothing_behind(engine: Engine) -> None:
    free = engine.counters().free_device_blocks
    name = engine.ask(STORY, 150, job="story")
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step(4)
    assert engine.pool.used_bytes > 0
    engine.abort(name)
    engine.crowd.leave()
    engine.step(4)
    assert (engine.pool.used_bytes, engine.counters().free_device_blocks) == (0, free)
    assert not engine.scheduler.has_requests()


def test_an_abort_right_after_a_preemption_leaves_nothing_behind(engine: Engine) -> None:
    free = engine.counters().free_device_blocks
    name = engine.ask(STORY, 150, job="story")
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step()
    engine.abort(name)
    engine.crowd.leave()
    engine.step(5)
    assert (engine.pool.used_bytes, engine.counters().free_device_blocks) == (0, free)
