"""Whose KV is where: the device for those ranked first, the host within its budget for the rest, nowhere past that.

The engine does the moving, block by block; from here it gets what no single step can know: the byte budget and from which expected wait
or host use on blocks are kept as INT8. `auto` is raw while waits are short and the host is not under pressure.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from .job import Ints, Snapshot
from .lengths import Floats

# INT8 payload and scales against 16-bit KV; only for the estimate of what will be needed.
INT8_SHARE: Final = 0.55
_NEVER_MS: Final = 2**40


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Settings: the codec rule and the host budget (0: what the engine has)."""

    quantization: str = "auto"
    host_bytes: int = 0
    int8_ewt_ms: int = 2000
    int8_host_fraction: float = 0.5


@dataclass(frozen=True, slots=True)
class Placement:
    """How much host memory the plan needs, and the rule for the codec of KV there."""

    # Estimated bytes of the jobs that leave the device; never above the budget.
    host_bytes: int
    host_budget_bytes: int
    int8_ewt_ms: int
    int8_host_fraction: float


def host_budget(limits: MemoryLimits, engine_bytes: int) -> int:
    """Bytes the host store may hold: the setting, never more than the engine has."""
    return min(limits.host_bytes, engine_bytes) if limits.host_bytes else engine_bytes


def place(rows: Ints, waits: Floats, snapshot: Snapshot, slots: float, limits: MemoryLimits) -> Placement:
    """Device for the first `slots` in rank order whose blocks fit; then the host, shortest wait first, while the budget lasts.

    Only jobs that have KV (generated or computed something) take host memory. Which of the others is dropped is the engine's ledger's
    business; it evicts the longest wait first too.
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
        return Placement(0, budget, ewt_ms, fraction)
    there = snapshot.host_bytes[wanted]
    raw = np.where(there > 0, there, tokens[wanted] * (engine.block_bytes / max(1, engine.block_size)))
    pressed = float(raw.sum()) > budget * limits.int8_host_fraction
    share = 1.0 if limits.quantization == "none" else INT8_SHARE if pressed or limits.quantization == "int8" else 1.0
    need = np.where(there > 0, there, np.ceil(raw * share))
    soonest = np.lexsort((wanted, waits[wanted]))
    fits = np.cumsum(need[soonest]) <= budget
    return Placement(int(need[soonest][fits].sum()), budget, ewt_ms, fraction)


def _codec_rule(limits: MemoryLimits) -> tuple[int, float]:
    """The engine's thresholds: INT8 from this expected wait or this host use on."""
    match limits.quantization:
        case "none":
            return _NEVER_MS, 1.0
        case "int8":
            return 0, 0.0
        case _:
            return limits.int8_ewt_ms, limits.int8_host_fraction
