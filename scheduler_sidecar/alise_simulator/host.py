"""The simulated host store: parked KV by request within a byte budget. The longest expected wait leaves first. `replica.py` owns it."""

from collections.abc import Callable

from alise_scheduler.core.plan import Limits

from .model import EngineModel
from .request import Request


class HostStore:
    """Copies of parked requests; what leaves must be recomputed."""

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self._held: dict[int, Request] = {}
        self.used_bytes = 0
        self.peak_bytes = 0
        self.saved_bytes = 0
        self.restored_bytes = 0

    def save(self, request: Request, tokens: int, limits: Limits, lost: Callable[[Request], None]) -> float:
        """Parks a prefix of `tokens`, as long as fits; returns the seconds it takes. `lost` hears of each copy that had to leave."""
        shape = self._model.shape
        roomy = self.used_bytes < limits.int8_host_fraction * limits.host_budget_bytes
        share = 1.0 if request.ewt_ms < limits.int8_ewt_ms and roomy else self._model.int8_share
        block = max(1, int(shape.block_bytes * share))
        blocks = -(-tokens // shape.block_size)
        if self.used_bytes + blocks * block > limits.host_budget_bytes:
            self._make_room(request, blocks * block, limits, lost)
        blocks = min(blocks, max(0, limits.host_budget_bytes - self.used_bytes) // block)
        if not blocks:
            return 0.0
        request.host_tokens, request.host_bytes = min(tokens, blocks * shape.block_size), blocks * block
        self._held[request.index] = request
        self.used_bytes += request.host_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        self.saved_bytes += request.host_bytes
        return request.host_bytes * self._model.save_seconds_per_byte

    def restore(self, request: Request, cached_tokens: int = 0) -> float:
        """Brings a copy back, but for what the device has still cached, and frees it; returns the seconds it takes."""
        moved = request.host_bytes * (request.host_tokens - cached_tokens) // request.host_tokens
        self.restored_bytes += moved
        self.drop(request)
        return moved * self._model.restore_seconds_per_byte

    def drop(self, request: Request) -> None:
        if self._held.pop(request.index, None) is not None:
            self.used_bytes -= request.host_bytes
            request.host_tokens = request.host_bytes = 0

    def _make_room(self, request: Request, need_bytes: int, limits: Limits, lost: Callable[[Request], None]) -> None:
        mine = (request.ewt_ms, request.order)
        for other in sorted(self._held.values(), key=lambda held: (-held.ewt_ms, -held.order)):
            if self.used_bytes + need_bytes <= limits.host_budget_bytes or (other.ewt_ms, other.order) <= mine:
                return
            self.drop(other)
            lost(other)
