"""A real engine with the prefix cache on: only what left the device is loaded, and no other request gets what INT8 has rounded."""

from collections.abc import Iterator

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from alise_engine.wire.terms import CODEC_AUTO, CODEC_INT8, CODEC_RAW
from tests.engine.harness import BLOCK_SIZE, Engine, EngineOptions

pytestmark = pytest.mark.engine

# Seven blocks and a bit: the eighth is never in the prefix cache by the prompt alone.
STORY = [256, *b"a story of ships " * 14]
FULL_BLOCKS = len(STORY) // BLOCK_SIZE


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), EngineOptions(prefix_caching=True, codec="auto"))
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


@pytest.fixture(scope="module")
def story(started: Engine) -> list[int]:
    engine = started.fresh()
    name = engine.ask(STORY, 150)
    engine.finish(name)
    return list(engine.tokens(name))


def offload(engine: Engine, name: str, tokens: int, *, forget_device: bool) -> None:
    """Preempts the only request once it has `tokens` tokens, and resumes it; its blocks stay cached on the device, or not."""
    engine.run_until(engine.grown(name, tokens))
    engine.crowd.park("story")
    if forget_device:
        engine.llm.reset_prefix_cache()
    engine.crowd.readmit("story")


def cached_tokens(engine: Engine, prompt: list[int]) -> int:
    """Tokens of a new request with this prompt that it finds in the prefix cache."""
    name = engine.ask(prompt, 1)
    engine.finish(name)
    return engine.answers[name].cached_tokens


def test_only_the_tail_that_left_the_device_is_loaded(engine: Engine, story: list[int]) -> None:
    engine.set_codec(CODEC_RAW)
    name = engine.ask(STORY, 150, job="story")
    offload(engine, name, 40, forget_device=False)
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name) == story
    assert (counters.restores, counters.exact_resumes, counters.recomputes) == (1, 1, 0)
    assert counters.restored_tokens == (len(STORY) + 39) % BLOCK_SIZE


def test_all_of_it_is_loaded_when_the_device_has_forgotten_it(engine: Engine, story: list[int]) -> None:
    engine.set_codec(CODEC_RAW)
    name = engine.ask(STORY, 150, job="story")
    offload(engine, name, 40, forget_device=True)
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name) == story
    assert counters.restored_tokens == len(STORY) + 39
    assert (counters.exact_resumes, counters.recomputes) == (1, 0)


def test_what_was_restored_raw_is_shared_with_the_next_request(engine: Engine) -> None:
    engine.set_codec(CODEC_RAW)
    offload(engine, engine.ask(STORY, 150, job="story"), 40, forget_device=True)
    engine.step(3)
    assert cached_tokens(engine, STORY) == FULL_BLOCKS * BLOCK_SIZE


def test_what_was_restored_from_int8_is_never_served_to_another_request(engine: Engine, story: list[int]) -> None:
    engine.set_codec(CODEC_INT8)
    name = engine.ask(STORY, 150, job="story")
    offload(engine, name, 40, forget_device=True)
    engine.finish(name)
    assert cached_tokens(engine, STORY) == 0
    # Blocks that it filled after it was restored were computed from rounded ones.
    other = engine.ask(STORY, 150)
    engine.finish(other)
    assert engine.tokens(other) == story


def test_int8_blocks_stay_private_while_their_request_still_runs(engine: Engine) -> None:
    engine.set_codec(CODEC_INT8)
    offload(engine, engine.ask(STORY, 150, job="story"), 40, forget_device=True)
    engine.step(3)
    assert cached_tokens(engine, STORY) == 0


def test_exact_blocks_before_the_first_int8_one_are_still_shared(engine: Engine) -> None:
    engine.set_codec(CODEC_INT8)
    name = engine.ask(STORY, 150, job="story")
    # The device keeps all full blocks; only the partly filled one comes from INT8.
    offload(engine, name, 40, forget_device=False)
    engine.finish(name)
    exact_blocks = (len(STORY) + 39) // BLOCK_SIZE
    assert cached_tokens(engine, [*STORY, *engine.tokens(name)]) == exact_blocks * BLOCK_SIZE


def test_a_second_preemption_finds_its_own_private_blocks(engine: Engine) -> None:
    engine.set_codec(CODEC_INT8)
    name = engine.ask(STORY, 150, job="story")
    offload(engine, name, 40, forget_device=True)
    engine.run_until(engine.grown(name, 80))
    before = engine.counters().restored_tokens
    offload(engine, name, 80, forget_device=False)
    engine.finish(name)
    counters = engine.counters()
    assert counters.restored_tokens - before == (len(STORY) + 79) % BLOCK_SIZE
    assert (counters.restores, counters.exact_resumes, counters.recomputes) == (2, 2, 0)


def test_a_later_int8_restore_of_earlier_blocks_makes_them_private_too(engine: Engine) -> None:
    engine.set_codec(CODEC_INT8)
    name = engine.ask(STORY, 150, job="story")
    offload(engine, name, 40, forget_device=False)
    engine.run_until(engine.grown(name, 80))
    offload(engine, name, 80, forget_device=True)
    engine.finish(name)
    assert cached_tokens(engine, STORY) == 0


def host_bytes(engine: Engine, codec: str, ewt_ms: int = 0, limits: LimitsRow | None = None) -> int:
    """Bytes on the host of one request that was preempted after 40 tokens."""
    engine.fresh().set_codec(codec)
    name = engine.ask(STORY, 150, job="story")
    engine.run_until(engine.grown(name, 40))
    engine.apply(limits=limits)
    engine.crowd.displace("story", ewt_ms=ewt_ms)
    engine.step()
    (row,) = [row for row in engine.snapshot().requests if row.job_id == "story"]
    counters = engine.counters()
    assert row.host_bytes == engine.pool.used_bytes == counters.host_raw_bytes + counters.host_int8_bytes
    return row.host_bytes


def test_int8_takes_the_bytes_that_its_scales_say(engine: Engine) -> None:
    fraction = host_bytes(engine, CODEC_INT8) / host_bytes(engine, CODEC_RAW)
    # Of fp32: one byte of four, and two bf16 numbers per channel and per token of a block.
    assert fraction == pytest.approx((1 + 2 / BLOCK_SIZE + 2 / tiny_model.HEAD_DIM) / 4)


@pytest.mark.parametrize(
    ("ewt_ms", "host_fraction", "codec"),
    [
        pytest.param(100, 0.5, CODEC_RAW, id="raw for a short wait"),
        pytest.param(5000, 0.5, CODEC_INT8, id="int8 for a long wait"),
        pytest.param(100, 0.0, CODEC_INT8, id="int8 when no raw byte is granted"),
    ],
)
def test_auto_picks_the_codec_by_the_wait_and_the_pressure(engine: Engine, ewt_ms: int, host_fraction: float, codec: str) -> None:
    limits = LimitsRow(int8_ewt_ms=1000, int8_host_fraction=host_fraction)
    assert host_bytes(engine, CODEC_AUTO, ewt_ms, limits) == host_bytes(engine, codec)


def test_the_codec_changes_between_two_saves_of_one_request(engine: Engine, story: list[int]) -> None:
    name = engine.ask(STORY, 150, job="story")
    engine.set_codec(CODEC_RAW)
    offload(engine, name, 40, forget_device=True)
    engine.set_codec(CODEC_INT8)
    offload(engine, name, 80, forget_device=True)
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name)[:80] == story[:80]
    assert (counters.restores, counters.exact_resumes, counters.recomputes) == (2, 2, 0)


def test_two_prompts_with_one_beginning_preempt_each_other_and_stay_exact(engine: Engine, story: list[int]) -> None:
    engine.set_codec(CODEC_RAW)
    names = [engine.ask(STORY, 150, job="one"), engine.ask(STORY, 150, job="two")]
    with engine.slots(1):
        for turn in range(8):
            engine.step(11)
            engine.apply(RankRow("one", 1 - turn % 2, 0, 0), RankRow("two", turn % 2, 0, 0), limits=LimitsRow(1, 2))
    engine.finish(*names)
    assert [engine.tokens(name) for name in names] == [story, story]
