"""Plan the host memory for KV caches that leave the device. `decide.py` calls it for every plan.

The engine moves the blocks. It gets from here what no single step can know: the byte budget, and the expected wait or host usage above
which blocks are stored as INT8. With `auto`, blocks stay raw while waits are short and the host store has room.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from .job import Ints, Snapshot
from .lengths import Floats

# Size of INT8 payload and scales relative to 16-bit KV, used only to estimate the memory needed.
INT8_SHARE: Final = 0.55
_NEVER_MS: Final = 2**40


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Settings of the host store: the codec rule and the byte budget. A budget of 0 is the engine's own limit."""

    quantization: str = "auto"
    host_bytes: int = 0
    int8_ewt_ms: int = 2000
    int8_host_fraction: float = 0.5


@dataclass(frozen=True, slots=True)
class HostMemoryPlan:
    """The host memory that the plan needs, and the codec rule for KV there."""

    # Estimated bytes of the jobs that leave the device; never above the budget.
    host_bytes: int
    host_budget_bytes: int
    int8_ewt_ms: int
    int8_host_fraction: float


def host_budget(limits: MemoryLimits, engine_bytes: int) -> int:
    """Bytes that the host store may hold: the setting, but never more than the engine has."""
    return min(limits.host_bytes, engine_bytes) if limits.host_bytes else engine_bytes


def plan_host_memory(rows: Ints, waits: Floats, snapshot: Snapshot, slots: float, limits: MemoryLimits) -> HostMemoryPlan:
    """Keep the first `slots` jobs in rank order on the device while their blocks fit, and estimate the host bytes of the others.

    Host memory goes to jobs with KV, shortest expected wait first, until the budget is used up. The engine decides which KV to drop beyond
    it; it also drops the longest expected wait first.
    """
    engine = snapshot.engine
    on_device = np.zeros(len(snapshot), dtype=np.bool_)
    budget = host_budget(limits, engine.host_limit_bytes)
    ewt_ms, fraction = _codec_rule(limits)
    tokens = snapshot.prompt_tokens + snapshot.samples * snapshot.generated_tokens
    blocks = np.ceil(np.maximum(tokens, 1.0) / max(1, engine.block_size))
    on_device[rows] = (np.cumsum(snapshot.samples[rows]) <= slots) & (np.cumsum(blocks[rows]) <= engine.num_device_blocks)
    (wanted,) = (((snapshot.device_tokens > 0) | (snapshot.host_tokens > 0)) & ~on_device).nonzero()
    if not len(wanted):
        return HostMemoryPlan(0, budget, ewt_ms, fraction)
    there = snapshot.host_bytes[wanted]
    raw = np.where(there > 0, there, tokens[wanted] * (engine.block_bytes / max(1, engine.block_size)))
    pressed = float(raw.sum()) > budget * limits.int8_host_fraction
    share = 1.0 if limits.quantization == "none" else INT8_SHARE if pressed or limits.quantization == "int8" else 1.0
    need = np.where(there > 0, there, np.ceil(raw * share))
    soonest = np.lexsort((wanted, waits[wanted]))
    fits = np.cumsum(need[soonest]) <= budget
    return HostMemoryPlan(int(need[soonest][fits].sum()), budget, ewt_ms, fraction)


def _codec_rule(limits: MemoryLimits) -> tuple[int, float]:
    """The expected wait in milliseconds and the host usage from which the engine stores INT8."""
    match limits.quantization:
        case "none":
            return _NEVER_MS, 1.0
        case "int8":
            return 0, 0.0
        case _:
            return limits.int8_ewt_ms, limits.int8_host_fraction
