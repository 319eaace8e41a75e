"""Fits the step model of a published run's GPU to the first half of the run.

Only first and last tokens before the middle of the run are looked at. The simulator replays the run with trial coefficients, and their
times are brought close to the run's. The start, to which the fit is held loosely, is NVIDIA's table of the same GPU or of its sibling.
`replay.py` and `tests/tools/hardware.py` call it.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy.optimize import minimize

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.reports import EngineShape
from alise_simulator.baselines import FcfsDriver
from alise_simulator.model import EngineModel
from alise_simulator.run import Outcome, simulate
from alise_simulator.trace import make_trace
from tests.bench.replay_runs import PublishedRun

# Two are fits to the tables' rtx_pro_6000_server, as tests/tools/hardware.py makes them, on steps of up to 128 requests. No table has the
# RTX 4090: its start is the L40S's by memory bandwidth, and prefill at about half the rate, as GeForce's tensor cores accumulate.
STARTS: Final[Mapping[str, Coefficients]] = {
    "RTX4090_Llama-3.1-8B": Coefficients(0.0190, 9.0e-5, 3.2e-5, 1.8e-7),
    "RTXPRO6000_Llama-3.1-8B": Coefficients(0.01088, 3.517e-5, 1.023e-5, 8.79e-8),
    "RTXPRO6000_Qwen3-32B": Coefficients(0.02563, 1.135e-4, 5.958e-5, 8.792e-8),
}
# How far a coefficient may go from its start: a factor of e costs as much as an error of this share in all times.
_HOLD: Final = 0.01
# Times count relative to how long they took, and at least to this.
_LEAST_SECONDS: Final = 0.5


def replay(run: PublishedRun, step: Coefficients) -> Outcome:
    """Replays the run first come, first served on an engine with this step model."""
    shape = EngineShape(
        max_num_seqs=run.slots,
        max_num_batched_tokens=run.max_num_batched_tokens,
        max_model_len=131_072,
        block_size=run.block_size,
        num_device_blocks=run.room_tokens // run.block_size,
        block_bytes=run.block_size * run.kv_token_bytes,
    )
    trace = make_trace(run.name, run.arrival_seconds, run.input_tokens, run.output_tokens)
    return simulate(trace, EngineModel(shape=shape, cost=step, async_scheduling=True), FcfsDriver)


def _errors(run: PublishedRun, step: Coefficients) -> Floats:
    """Relative errors of the times in the first half."""
    outcome = replay(run, step)
    found = []
    for real, mine in ((run.first_token_seconds, outcome.ttft_seconds), (run.last_token_seconds, outcome.e2e_seconds)):
        seen = real < run.half_seconds
        took = real[seen] - run.arrival_seconds[seen]
        found.append((mine[seen] - took) / np.maximum(took, _LEAST_SECONDS))
    return np.concatenate(found)


def fitted(run: PublishedRun) -> tuple[Coefficients, float]:
    """Returns the step model and the mean absolute relative error of the first half's times."""
    start = np.log(np.array(_values(STARTS[run.name])))

    def cost(logs: Floats) -> float:
        errors = _errors(run, Coefficients(*np.exp(logs)))
        return float(np.abs(errors).mean() + _HOLD * ((logs - start) ** 2).sum())

    # A simplex needs no slope: what the scheduler does jumps where a coefficient decides who is admitted.
    simplex = np.vstack([start, *(start + 0.2 * np.eye(4))])
    best = minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 300, "xatol": 1e-3, "fatol": 1e-5})
    step = Coefficients(*(float(f"{one:.4g}") for one in np.exp(best.x)))
    return step, round(float(np.abs(_errors(run, step)).mean()), 4)


def _values(step: Coefficients) -> tuple[float, float, float, float]:
    return step.step_seconds, step.prefill_seconds, step.decode_seconds, step.context_seconds
