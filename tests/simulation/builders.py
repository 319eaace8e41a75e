"""Small engines and traces, and drivers that check themselves. The tests of `tests/simulation` build with it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineShape
from alise_simulator.driver import CoreDriver, at_admission
from alise_simulator.model import EngineModel
from alise_simulator.predictions import oracle
from alise_simulator.trace import Trace, make_trace

# Round numbers: a decoding step takes 10 ms whatever is in it, a prefilled token 1 ms.
COST = Coefficients(step_seconds=0.010, prefill_seconds=0.001, decode_seconds=0.0, context_seconds=0.0)
SHAPE = EngineShape(
    max_num_seqs=2,
    max_num_batched_tokens=64,
    max_model_len=4096,
    block_size=16,
    num_device_blocks=256,
    block_bytes=16,
    host_limit_bytes=1 << 20,
)
MODEL = EngineModel(SHAPE, COST, save_seconds_per_byte=0.0, restore_seconds_per_byte=0.0)

Row = tuple[float, int, int]


def make_model(cost: Coefficients = COST, prefix_caching: bool = True, async_scheduling: bool = False, **shape: Any) -> EngineModel:
    return replace(MODEL, shape=replace(SHAPE, **shape), cost=cost, prefix_caching=prefix_caching, async_scheduling=async_scheduling)


def trace_of(rows: Sequence[Row], tenants: Sequence[int] | None = None, prefixes: Sequence[tuple[int, int]] | None = None) -> Trace:
    """(arrival in seconds, input tokens, output tokens) of each request, and of each its group and the tokens it shares with the group."""
    arrivals, inputs, outputs = zip(*rows, strict=True)
    return make_trace(
        "test", np.array(arrivals, dtype=float), np.array(inputs), np.array(outputs), None if tenants is None else np.array(tenants),
        None if prefixes is None else np.array([group for group, _ in prefixes]),
        None if prefixes is None else np.array([tokens for _, tokens in prefixes]),
    )  # fmt: skip


def core_driver(trace: Trace, model: EngineModel = MODEL, policy: Policy | None = None, lengths: Floats | None = None) -> CoreDriver:
    """The production core, with the true lengths unless others are given."""
    known = oracle(trace.output_tokens) if lengths is None else lengths
    caps = np.full(len(trace), 4096.0)
    chosen, cost = policy or Policy(), model.known_cost(50.0)
    fresh = at_admission(chosen, known, trace.input_tokens.astype(float), caps, model.shape, cost)
    return CoreDriver(chosen, known, caps, trace.tenant.astype(float), trace.weight, model.shape, cost, fresh)
