"""What is simulated: an engine's shape, what its steps cost, and what moving KV costs. The numbers are inputs, measured elsewhere.

`hardware.py` makes one of each real device; `run.py`, `replica.py` and other files of this package read it. Pure.
"""

from dataclasses import dataclass, field
from typing import Final

from alise_scheduler.core.exec_time import Coefficients, CostModel
from alise_scheduler.core.reports import EngineShape

# An 8B model in 16 bits on one large GPU: 128 KiB of KV a token, 480,000 tokens of room, PCIe at 20 GB/s.
_TOKEN_BYTES: Final = 128 * 1024
_BLOCK: Final = 32
DEFAULT_SHAPE: Final = EngineShape(
    max_num_seqs=32,
    max_num_batched_tokens=2048,
    max_model_len=131_072,
    block_size=_BLOCK,
    num_device_blocks=15_000,
    block_bytes=_BLOCK * _TOKEN_BYTES,
    host_limit_bytes=8 << 30,
)


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One replica. Transfers are added to the step in which they happen."""

    shape: EngineShape = DEFAULT_SHAPE
    cost: Coefficients = field(default_factory=Coefficients)
    save_seconds_per_byte: float = 1 / 20e9
    restore_seconds_per_byte: float = 1 / 20e9
    # Host bytes of INT8 KV against 16-bit KV.
    int8_share: float = 0.52
    # As vLLM's --enable-prefix-caching, which is its default.
    prefix_caching: bool = True
    # As vLLM's --async-scheduling, its default on a GPU: a step is scheduled while the one before it runs. So it knows nothing of what
    # arrived or ended in the meantime, and a request's first step is one later.
    async_scheduling: bool = False

    def decode_seconds(self, mean_context: float) -> float:
        """Seconds of a step in which all slots decode with this context each."""
        slots = self.shape.max_num_seqs
        return self.cost.step(0, slots, slots * mean_context)

    def known_cost(self, mean_context: float) -> CostModel:
        """A cost model that has learned this engine when it is full: all slots busy, or all KV memory where that holds fewer."""
        room = self.shape.num_device_blocks * self.shape.block_size
        batch = max(1.0, min(float(self.shape.max_num_seqs), room / max(mean_context, 1.0)))
        return CostModel(coefficients=self.cost, samples=10_000, batch=batch, batch_context=batch * mean_context)
