"""The simulated engine beside vLLM's own scheduler: the same requests, the same blocks, KV memory that is short."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from alise_engine.serve import tiny_model
from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats
from alise_simulator.baselines import FcfsDriver, PriorityDriver
from alise_simulator.driver import PolicyDriver
from alise_simulator.predictions import oracle
from alise_simulator.run import Outcome, simulate
from alise_simulator.trace import Trace
from tests.simulation.builders import Row, make_model, trace_of

pytestmark = pytest.mark.engine

STEP_SECONDS = 0.010
MINDS: dict[str, Callable[[Trace], PolicyDriver]] = {
    "fcfs": lambda trace: FcfsDriver(),
    "priority": lambda trace: PriorityDriver(oracle(trace.output_tokens)),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """What became of the same requests in both."""

    arrivals: Floats
    real_first: Floats
    real_end: Floats
    real_preemptions: Ints
    simulated: Outcome

    def late(self) -> float:
        """The simulated mean end-to-end time over the real one, less one."""
        return float(self.simulated.e2e_seconds.mean() / (self.real_end - self.arrivals).mean()) - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_model(tmp_path_factory.mktemp("tiny"))


def beside(folder: Path, policy: str, seed: int, caching: bool = False, ahead: bool = False, capped: bool = False) -> Pair:
    """Sixty requests in three seconds, twelve slots, KV for about half of what they would hold."""
    # vLLM reads the environment that the engine's tests set when it is imported.
    from tests.simulation.real_scheduler import make_scheduler, serve

    rng = np.random.default_rng(seed)
    arrivals = np.sort(rng.uniform(0, 3, 60))
    prompts, outputs = rng.integers(5, 150, 60).tolist(), rng.integers(5, 120, 60).tolist()
    rows: list[Row] = list(zip((arrivals - arrivals[0]).tolist(), prompts, outputs, strict=True))
    model = make_model(
        Coefficients(STEP_SECONDS, 0.0, 0.0, 0.0), prefix_caching=caching, async_scheduling=ahead, max_num_seqs=12,
        max_num_batched_tokens=1024, num_device_blocks=60,
    )  # fmt: skip
    priorities = outputs if policy == "priority" else [0] * len(rows)
    real = serve(rows, make_scheduler(folder, model.shape, policy, model), priorities, STEP_SECONDS, ahead, capped)
    trace = trace_of(rows)
    simulated = simulate(trace, model, lambda: MINDS[policy](trace))
    return Pair(trace.arrival_seconds, real.first_seconds, real.end_seconds, real.preemptions, simulated)


@pytest.mark.parametrize(("policy", "ahead"), [("fcfs", False), ("priority", False), ("fcfs", True)])
@pytest.mark.parametrize("seed", range(3))
def test_every_token_and_every_preemption_comes_in_the_same_step(folder: Path, policy: str, ahead: bool, seed: int) -> None:
    pair = beside(folder, policy, seed, ahead=ahead)
    assert pair.real_preemptions.sum() > 10
    assert pair.simulated.preemptions.tolist() == pair.real_preemptions.tolist()
    assert pair.simulated.ttft_seconds + pair.arrivals == pytest.approx(pair.real_first, abs=1e-6)
    assert pair.simulated.e2e_seconds + pair.arrivals == pytest.approx(pair.real_end, abs=1e-6)


@pytest.mark.parametrize("policy", sorted(MINDS))
@pytest.mark.parametrize(
    ("caching", "ahead"),
    [
        pytest.param(True, False, id="with the prefix cache"),
        pytest.param(False, True, id="with async scheduling"),
        pytest.param(True, True, id="with both, as on a GPU"),
    ],
)
def test_with_vllms_defaults_the_mean_end_to_end_time_is_within_2_percent(folder: Path, policy: str, caching: bool, ahead: bool) -> None:
    for seed in range(3):
        assert abs(beside(folder, policy, seed, caching, ahead).late()) < 0.02


@pytest.mark.parametrize("policy", sorted(MINDS))
def test_answers_that_end_at_their_max_tokens_take_as_long_within_2_percent(folder: Path, policy: str) -> None:
    """The simulator takes every answer to end with a stop token, of which vLLM learns one step later."""
    for seed in range(3):
        assert abs(beside(folder, policy, seed, caching=True, ahead=True, capped=True).late()) < 0.02
