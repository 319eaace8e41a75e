"""Instructions of the scheduler's half of the connector to the workers for one step, and their reports. Values only.

`connector.py` writes the instructions, and `worker.py` carries them out.
"""

from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorWorkerMetadata


@dataclass(frozen=True, slots=True)
class Drop:
    request_id: str
    # To make room for another request, and not because the copy is no longer needed.
    evicted: bool = False


@dataclass(frozen=True, slots=True)
class Save:
    """Device blocks to encode; `first_block` is the first one's place in the request."""

    request_id: str
    block_ids: tuple[int, ...]
    first_block: int
    # Of these blocks; the last one may be partly filled.
    valid_tokens: int
    codec: str
    # No request gets these blocks in this step, so the copy may end after the forward pass.
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Device blocks to fill from the copy; `first_block` is the first one's place in the request."""

    request_id: str
    block_ids: tuple[int, ...]
    first_block: int
    # The first blocks, which slices have brought already; what failed of them is reported with this load.
    done: int = 0
    # A slice of a prefetch: no request computes with it in this step.
    ahead: bool = False


@dataclass(slots=True)
class Ahead:
    """A prefetch under way: device blocks reserved for a request that still waits, and how many of them are filled."""

    block_ids: tuple[int, ...]
    first_block: int
    done: int = 0


@dataclass
class AliseMetadata(KVConnectorMetadata):
    """One step's work: first the drops and saves in their order, then the loads."""

    writes: list[Drop | Save] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def feeds_this_step(self) -> bool:
        """Whether something must be loaded before the forward pass and not after it."""
        return any(not load.ahead and load.done < len(load.block_ids) for load in self.loads)


@dataclass
class Spent(KVConnectorWorkerMetadata):
    """Time that a worker's copies took, microseconds: to the host, back, and giving up evicted copies."""

    save_us: float = 0.0
    restore_us: float = 0.0
    host_eviction_us: float = 0.0

    def aggregate(self, other: Any) -> "Spent":
        """Workers copy at the same time: the slowest counts."""
        return Spent(
            max(self.save_us, other.save_us),
            max(self.restore_us, other.restore_us),
            max(self.host_eviction_us, other.host_eviction_us),
        )

    def __bool__(self) -> bool:
        return bool(self.save_us or self.restore_us or self.host_eviction_us)
