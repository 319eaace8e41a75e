"""The calls of the API server on a real engine: what they change, and what they tell."""

from collections.abc import Iterator
from itertools import count

import pytest

from alise_contract.names import pack_priority
from alise_engine.api.kv_room import kv_room
from alise_engine.errors import PayloadError
from alise_engine.serve import tiny_model
from alise_engine.wire.calls import ApplyCall, RankRow, encode
from alise_engine.wire.terms import PHASE_OFFLOADED, PHASE_RUNNING, PHASE_WAITING
from tests.engine.harness import BLOCK_SIZE, HOST_BYTES, Engine, EngineOptions

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
POEM = [256, *b"a poem about rain, please, and make it a short one"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), EngineOptions())
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


def rank(job: str, level: int) -> RankRow:
    return RankRow(job, level, 0, 0)


def test_a_job_of_two_requests_is_ranked_as_one(engine: Engine) -> None:
    names = [engine.ask(STORY, 40, job="pair"), engine.ask(POEM, 40, job="pair")]
    engine.step(3)
    engine.crowd.displace("pair")
    engine.step()
    assert "pair" not in engine.running_jobs()
    engine.crowd.readmit("pair")
    engine.finish(*names)


def test_a_rank_for_a_job_that_is_not_there_is_named_and_the_rest_applied(engine: Engine) -> None:
    engine.ask(STORY, 40, job="story")
    assert engine.apply(rank("ghost", 1), rank("story", 3)).unknown == ("ghost",)
    engine.step()
    (row,) = engine.snapshot().requests
    assert row.priority == pack_priority(3, 0)


def test_a_malformed_apply_changes_nothing(engine: Engine) -> None:
    engine.ask(STORY, 40, job="story")
    before = engine.scheduler.plan
    good, bad = RankRow("story", 3, 0, 0), RankRow("story", 200, 0, 0)
    with pytest.raises(PayloadError, match=r"Expected `int` <= 127 - at `\$\[1\]\[1\]\[1\]`"):
        engine.scheduler(encode(ApplyCall((good, bad))))
    assert engine.scheduler.plan == before


def test_rows_follow_a_request_through_its_life(engine: Engine) -> None:
    name = engine.ask(STORY, 80, job="story", hint="aGludA==")
    (row,) = engine.poll().requests
    assert (row.phase, row.prompt_tokens, row.max_tokens, row.hint) == (PHASE_WAITING, len(STORY), 80, "aGludA==")
    engine.run_until(engine.grown(name, 10))
    (row,) = engine.poll().requests
    assert (row.phase, row.generated_tokens, row.device_tokens, row.hint) == (PHASE_RUNNING, 10, len(STORY) + 9, "")
    engine.crowd.displace("story")
    engine.step()
    (row,) = [row for row in engine.poll().requests if row.job_id == "story"]
    assert (row.phase, row.device_tokens, row.host_tokens, row.preemptions) == (PHASE_OFFLOADED, 0, len(STORY) + 9, 1)
    engine.crowd.readmit("story")
    engine.finish(name)
    answer = engine.poll()
    assert answer.requests == ()
    ended = [row for row in answer.finished if row.job_id == "story"]
    assert [(row.reason, row.generated_tokens, row.preemptions) for row in ended] == [("length", 80, 1)]
    assert answer.steps[-1].decode_requests == 1


def test_the_shape_is_what_the_engine_was_started_with(engine: Engine) -> None:
    shape = engine.snapshot().shape
    layer_block = 2 * tiny_model.KV_HEADS * tiny_model.HEAD_DIM * BLOCK_SIZE * 4
    assert shape.block_bytes == tiny_model.LAYERS * layer_block
    assert (shape.max_num_seqs, shape.block_size, shape.num_device_blocks) == (2, BLOCK_SIZE, 65)
    # What fits whatever comes and goes: all but a slab per codec.
    assert 0.98 * HOST_BYTES <= shape.host_limit_bytes <= HOST_BYTES


def test_time_without_kv_room_counts_only_while_a_request_has_a_slot_and_no_blocks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock is read when a step is scheduled and when its output is there: a step takes a hundredth of a second.
    readings = count(1000.0, 0.01)
    monkeypatch.setattr(engine.scheduler, "clock", lambda: next(readings))
    prompts = [[256, *b"x" * 400], [256, *b"y" * 400]]
    engine.finish(*[engine.ask(prompt, 20) for prompt in prompts])
    roomy = engine.counters()
    # Twenty blocks are left: too few for two requests of 14 blocks.
    pool = engine.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(pool.get_num_free_blocks() - 20)
    engine.finish(*[engine.ask(prompt, 20) for prompt in prompts])
    pool.free_blocks(taken)
    short = engine.counters()
    assert (roomy.kv_full_us, roomy.computed_tokens) == (0, 2 * (401 + 19))
    # The second waits while the first runs, and then runs alone.
    assert 0.15e6 < short.kv_full_us < 0.25e6
    assert short.computed_tokens == 2 * roomy.computed_tokens


def test_the_shape_has_the_bits_of_the_kv_cache_and_the_counters_what_is_taken_of_it(engine: Engine) -> None:
    engine.ask([256, *b"x" * 99], 20)
    engine.step()
    told = engine.snapshot()
    assert told.shape.kv_bits == 32
    assert kv_room(told.shape, told.counters).used_tokens == 4 * BLOCK_SIZE
