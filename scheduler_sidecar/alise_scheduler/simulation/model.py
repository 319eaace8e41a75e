"""What is simulated: an engine's shape, what its steps cost, and what moving KV costs. The numbers are inputs, measured elsewhere."""

from dataclasses import dataclass, field
from typing import Final

from ..core.exec_time import Coefficients, CostModel
from ..core.reports import EngineShape

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
    host_limit_bytes=32 << 30,
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

    def decode_seconds(self, mean_context: float) -> float:
        """Seconds of a step in which all slots decode with this context each."""
        slots = self.shape.max_num_seqs
        return self.cost.step(0, slots, slots * mean_context)

    def known_cost(self, mean_context: float) -> CostModel:
        """A cost model that has learned this engine with all slots busy."""
        slots = self.shape.max_num_seqs
        return CostModel(coefficients=self.cost, samples=10_000, batch=float(slots), batch_context=slots * mean_context)
