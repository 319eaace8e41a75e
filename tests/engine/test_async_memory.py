"""A KV cache that is full, while a step is scheduled before the one in flight has ended."""

import pytest

from alise_engine.serve import tiny_model
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

REQUESTS = 12


def test_a_request_that_lacks_a_block_keeps_no_other_from_its_step(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With a connector vLLM frees no block while a step is in flight; those behind the one that lacks one would wait with it."""
    options = EngineOptions(asynchronous=True, max_num_seqs=REQUESTS, blocks=25, max_model_len=512)
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), options)
    names = [engine.ask([256, *f"{number}: a long story".encode()], 100 + 20 * number) for number in range(REQUESTS)]
    idle = 0
    while not all(engine.answers[name].finished for name in names):
        before = {request.request_id: request.num_computed_tokens for request in engine.scheduler.running}
        engine.step()
        idle += sum(before.get(request.request_id) == request.num_computed_tokens for request in engine.scheduler.running)
    preempted = engine.counters().preemptions_memory
    engine.close()
    assert (idle, preempted > 0) == (0, True)
