"""A real engine with LoRA adapters: whose weights answer, what a preemption leaves, and what an adapter that is replaced leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alise_engine.compat import patches
from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from tests.engine.harness import Engine, EngineOptions
from tests.engine.tiny_adapter import write_adapter

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
LIMITS = LimitsRow(preempt_levels=1, min_quantum_steps=2)
TOKENS = 120


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # As the plugin's entry point does in every process.
    patches.tell_adapters_apart()
    options = EngineOptions(adapters=2, max_num_seqs=3, prefix_caching=True)
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), options)
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Four requests for adapters: 0 and 1 are two versions under one name, 2 and 3 have names of their own."""
    from vllm.lora.request import LoRARequest

    folder = tmp_path_factory.mktemp("adapters")
    names = ("support", "support", "legal", "code")
    paths: list[Path] = [write_adapter(folder / str(seed), seed) for seed in range(len(names))]
    return [LoRARequest(name, number, str(path)) for number, (name, path) in enumerate(zip(names, paths, strict=True), start=1)]


@pytest.fixture(scope="module")
def alone(started: Engine, adapters: list[Any]) -> list[list[int]]:
    """The answers to STORY of each adapter, undisturbed."""
    return [answer(started.fresh(), adapter) for adapter in adapters]


def answer(engine: Engine, adapter: Any) -> list[int]:
    name = engine.ask(STORY, TOKENS, adapter=adapter)
    engine.finish(name)
    return list(engine.tokens(name))


def test_every_adapter_and_the_model_itself_answer_differently(engine: Engine, alone: list[list[int]]) -> None:
    answers = [*alone, answer(engine, None)]
    assert len({tuple(tokens) for tokens in answers}) == len(answers)


def test_the_prefix_cache_never_gives_one_adapter_the_blocks_of_another(
    engine: Engine, adapters: list[Any], alone: list[list[int]]
) -> None:
    # Without a reset in between: each finds the same prompt of the others in the cache.
    assert [answer(engine, adapter) for adapter in adapters] == alone
    name = engine.ask(STORY, TOKENS, adapter=adapters[0])
    engine.finish(name)
    assert engine.answers[name].cached_tokens > 0
    assert engine.tokens(name) == alone[0]


def test_an_adapters_answer_that_was_preempted_three_times_is_token_for_token_the_undisturbed_one(
    engine: Engine, adapters: list[Any], alone: list[list[int]]
) -> None:
    name = engine.ask(STORY, TOKENS, job="story", adapter=adapters[0])
    for length in (10, 55, 90):
        engine.run_until(engine.grown(name, length))
        engine.crowd.displace("story")
        engine.step(2)
        engine.crowd.readmit("story")
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name) == alone[0]
    assert (counters.preemptions_rank, counters.exact_resumes, counters.recomputes) == (3, 3, 0)
    # What the prefix cache still has is not restored from the host.
    assert counters.restores > 0


def test_two_versions_of_an_adapter_answer_side_by_side_while_others_take_their_places(
    engine: Engine, adapters: list[Any], alone: list[list[int]]
) -> None:
    """The places of adapters on the device are fewer than the adapters, so each is evicted and loaded again."""
    old = engine.ask(STORY, TOKENS, job="old", adapter=adapters[0])
    engine.step(5)
    new = engine.ask(STORY, TOKENS, job="new", adapter=adapters[1])
    engine.step(5)
    with engine.slots(2):
        for turn in range(6):
            # Two others run, and then both versions again.
            others = [engine.ask(STORY, 3, job=f"other-{turn}-{index}", adapter=adapters[index]) for index in (2, 3)]
            engine.apply(
                RankRow("old", 9, 0, 0), RankRow("new", 9, 1, 0),
                *(RankRow(f"other-{turn}-{index}", 0, 0, 0) for index in (2, 3)), limits=LIMITS,
            )  # fmt: skip
            engine.finish(*others)
            engine.step(6)
    engine.finish(old, new)
    assert (engine.tokens(old), engine.tokens(new)) == (alone[0], alone[1])


@pytest.mark.parametrize("spared", [pytest.param(0, id="none is spared"), pytest.param(256, id="all keep their slots")])
def test_a_request_of_an_adapter_without_a_place_takes_the_place_of_worse_ones(
    engine: Engine, adapters: list[Any], alone: list[list[int]], spared: int
) -> None:
    """A slot is free, and two adapters run, which is as many as may: vLLM alone would let the third wait until one has no request."""
    first = engine.ask(STORY, TOKENS, job="first", adapter=adapters[0])
    second = engine.ask(STORY, TOKENS, job="second", adapter=adapters[2])
    engine.step(8)
    third = engine.ask(STORY, TOKENS, job="third", adapter=adapters[3])
    limits = replace(LIMITS, spared_levels=spared)
    engine.apply(RankRow("first", 5, 0, 0), RankRow("second", 9, 0, 0), RankRow("third", 0, 0, 0), limits=limits)
    engine.step(2)
    assert sorted(engine.running_jobs()) == ["first", "third"]
    engine.finish(first, second, third)
    assert [engine.tokens(name) for name in (first, second, third)] == [alone[0], alone[2], alone[3]]


def test_a_request_whose_adapter_has_no_place_preempts_nothing_in_vain(engine: Engine, adapters: list[Any]) -> None:
    """Those that run are enough worse for the waiting one, but one of each adapter is not."""
    for index, job in enumerate(("a", "b")):
        engine.ask(STORY, TOKENS, job=job, adapter=adapters[(0, 2)[index]])
    engine.ask(STORY, TOKENS, job="c", adapter=adapters[0])
    engine.step(8)
    engine.ask(STORY, TOKENS, job="d", adapter=adapters[3])
    engine.apply(
        RankRow("a", 9, 0, 0), RankRow("c", -9, 0, 0), RankRow("b", -9, 0, 0), RankRow("d", 0, 0, 0), limits=LIMITS
    )  # fmt: skip
    engine.step(20)
    assert engine.counters().preemptions_rank == 0
