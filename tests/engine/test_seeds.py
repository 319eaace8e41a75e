"""A request with a seed draws the same numbers however its prompt is prefilled, preempted or not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alise_engine.serve import tiny_model
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

PROMPT = [256, *b"the longest part of a story is the part in which the end is still unknown, so it goes on and on and on " * 3]
TOKENS = 40
SAMPLING: dict[str, Any] = {"temperature": 1.0, "seed": 1234}
# Tokens of a step: few enough that a prompt is prefilled in several steps.
IN_PARTS = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(model: Path) -> list[int]:
    """What the seed gives when the whole prompt is computed in one step."""
    engine = Engine(model, EngineOptions())
    name = engine.ask(PROMPT, TOKENS, **SAMPLING)
    engine.finish(name)
    tokens = engine.tokens(name)
    engine.close()
    return tokens


@pytest.fixture(scope="module")
def engine(model: Path, undisturbed: list[int]) -> Iterator[Engine]:
    # No host store: what is preempted is computed again, in parts as well.
    engine = Engine(model, EngineOptions(max_num_batched_tokens=IN_PARTS, host_bytes=0))
    yield engine
    engine.close()


def test_a_prompt_computed_in_parts_gives_the_same_tokens(engine: Engine, undisturbed: list[int]) -> None:
    name = engine.ask(PROMPT, TOKENS, **SAMPLING)
    engine.step()
    assert not engine.tokens(name)
    engine.finish(name)
    assert engine.tokens(name) == undisturbed


def test_preempted_and_computed_again_in_parts_it_goes_on_with_the_same_tokens(engine: Engine, undisturbed: list[int]) -> None:
    name = engine.ask(PROMPT, TOKENS, job="seeded", **SAMPLING)
    for tokens in (5, 20):
        engine.run_until(engine.grown(name, tokens))
        engine.crowd.displace("seeded")
        engine.step(2)
        engine.crowd.readmit("seeded")
        engine.step()
    engine.finish(name)
    assert (engine.tokens(name), engine.counters().recomputes) == (undisturbed, 2)


def test_other_requests_in_the_step_draw_undisturbed(engine: Engine, undisturbed: list[int]) -> None:
    first = engine.ask(PROMPT, TOKENS, **SAMPLING)
    engine.run_until(engine.grown(first, 5))
    second = engine.ask(PROMPT, TOKENS, **SAMPLING)
    engine.finish(first, second)
    assert (engine.tokens(first), engine.tokens(second)) == (undisturbed, undisturbed)
