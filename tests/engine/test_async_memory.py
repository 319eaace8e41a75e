"""A KV cache that is full, while a step is scheduled before the one in flight is over."""

import pytest

from alise_engine import tiny_model
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

REQUESTS = 8
TOKENS = 150


def steps_for_more_than_fits(folder: pytest.TempPathFactory, asynchronous: bool) -> tuple[int, int]:
    """Steps and preemptions of eight answers that need half as much room again as there is, until all have ended."""
    options = EngineOptions(asynchronous=asynchronous, max_num_seqs=REQUESTS, blocks=41)
    engine = Engine(tiny_model.write_model(folder.mktemp("tiny")), options)
    try:
        engine.finish(*(engine.ask([256, *f"{number}: a long story".encode()], TOKENS) for number in range(REQUESTS)))
        counters = engine.counters()
        return counters.steps, counters.preemptions_memory
    finally:
        engine.close()


def test_a_request_that_lacks_a_block_keeps_no_other_from_its_step(tmp_path_factory: pytest.TempPathFactory) -> None:
    """vLLM frees no block while a step is in flight when it has a connector: then the others wait with the one that lacks one."""
    in_turn, _ = steps_for_more_than_fits(tmp_path_factory, asynchronous=False)
    overlapped, preempted = steps_for_more_than_fits(tmp_path_factory, asynchronous=True)
    assert preempted > 0
    assert overlapped <= 1.1 * in_turn
