"""Whose KV is where: the device for those ranked first, the host within its budget for the rest, nowhere past that.

The engine does the moving, block by block; from here it gets what no single step can know: the byte budget and from which expected wait
or host use on blocks are kept as INT8. `auto` is raw while waits are short and the host is not under pressure.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
    """Where each job's KV should be (rows of the snapshot), and the rule for its codec."""

    on_device: NDArray[np.bool_]
    on_host: NDArray[np.bool_]
    # Bytes the jobs on the host take, as estimated; never above the budget.
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
    engine, jobs = snapshot.engine, len(snapshot)
    tokens = snapshot.prompt_tokens + snapshot.samples * snapshot.generated_tokens
    blocks = np.ceil(np.maximum(tokens, 1.0) / max(1, engine.block_size))
    ahead = np.cumsum(snapshot.samples[rows]) <= slots
    fits = np.cumsum(blocks[rows]) <= engine.num_device_blocks
    on_device = np.zeros(jobs, dtype=np.bool_)
    on_device[rows] = ahead & fits
    has_kv = (snapshot.device_tokens > 0) | (snapshot.host_tokens > 0)
    budget = host_budget(limits, engine.host_limit_bytes)
    token_bytes = engine.block_bytes / max(1, engine.block_size)
    raw = np.where(snapshot.host_bytes > 0, snapshot.host_bytes, tokens * token_bytes)
    wanted = has_kv & ~on_device
    pressed = float(raw[wanted].sum()) > budget * limits.int8_host_fraction
    share = 1.0 if limits.quantization == "none" else INT8_SHARE if pressed or limits.quantization == "int8" else 1.0
    need = np.where(snapshot.host_bytes > 0, snapshot.host_bytes, np.ceil(raw * share))
    on_host = np.zeros(jobs, dtype=np.bool_)
    parked = rows[wanted[rows]]
    parked = parked[np.argsort(waits[parked], kind="stable")]
    on_host[parked] = np.cumsum(need[parked]) <= budget
    ewt_ms, fraction = _codec_rule(limits)
    return Placement(on_device, on_host, int(need[on_host].sum()), budget, ewt_ms, fraction)


def _codec_rule(limits: MemoryLimits) -> tuple[int, float]:
    """The engine's thresholds: INT8 from this expected wait or this host use on."""
    match limits.quantization:
        case "none":
            return _NEVER_MS, 1.0
        case "int8":
            return 0, 0.0
        case _:
            return limits.int8_ewt_ms, limits.int8_host_fraction
