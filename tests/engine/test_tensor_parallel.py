"""Two CPU ranks: each saves and restores its own heads, and the bytes are counted for both."""

from collections.abc import Iterator

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow
from alise_engine.wire.terms import PHASE_RESTORING
from tests.engine.harness import BLOCK_SIZE, Engine, EngineOptions

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
SHORT = [256, *b"hi"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), EngineOptions(tensor_parallel_size=2))
    yield engine
    engine.close()


def test_a_preempted_answer_is_exact_on_two_ranks_and_may_come_back_ahead_of_its_turn(engine: Engine) -> None:
    alone = engine.ask(STORY, 80)
    engine.finish(alone)
    name = engine.ask(STORY, 80, job="story")
    for tokens in (10, 40):
        engine.run_until(engine.grown(name, tokens))
        engine.crowd.displace("story")
        engine.step(2)
        engine.crowd.readmit("story")
        engine.step()
    engine.run_until(engine.grown(name, 60))
    engine.crowd.displace("story")
    engine.step()
    engine.crowd.free_the_slots()
    busy = [engine.ask(SHORT, 20, job="busy1"), engine.ask(SHORT, 40, job="busy2")]
    engine.step(3)
    (row,) = [row for row in engine.snapshot().requests if row.job_id == "story"]
    engine.crowd.readmit("story")
    engine.apply(limits=LimitsRow(preempt_levels=0))
    engine.step(2)
    assert {row.job_id: row.phase for row in engine.snapshot().requests}["story"] == PHASE_RESTORING
    engine.finish(name, *busy)
    counters = engine.counters()
    assert engine.tokens(name) == engine.tokens(alone)
    assert (counters.restores, counters.exact_resumes, counters.recomputes, counters.prefetches) == (3, 3, 0, 1)
    assert min(counters.save_us, counters.restore_us) > 0
    layer_block = 2 * tiny_model.KV_HEADS * tiny_model.HEAD_DIM * BLOCK_SIZE * 4
    assert row.host_bytes == -(-row.host_tokens // BLOCK_SIZE) * tiny_model.LAYERS * layer_block
