"""The device's KV blocks: what running requests hold, now and some steps later, and what fits beside them. `replica.py` extends it."""

from .model import EngineModel
from .prefix_cache import PrefixCache
from .request import Request


class DeviceMemory:
    """The part of a replica that counts blocks. Long prompts hold their blocks from their first chunk on."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.cache = PrefixCache(model.shape.block_size, model.prefix_caching)
        self.step = 0
        self.running: list[Request] = []
        self._prefilling: list[Request] = []
        # Tokens of all that decode.
        self._context = 0
        # The blocks of what ended in the last step, with async scheduling.
        self._ending_blocks = 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.model.shape.block_size)

    def _other_blocks(self) -> int:
        """Held by what has just ended, and by shared prefixes."""
        return self._ending_blocks + self.cache.shared_blocks

    def _used_blocks(self, steps: int) -> int:
        """Device blocks that are held after this many more decoding steps; the last token of each has no KV yet."""
        size, more = self.model.shape.block_size, self.step + steps - 1
        used = self._other_blocks()
        for request in self.running:
            tokens = request.prompt_tokens + request.generated
            used -= -(tokens + more if request.decoding else tokens) // size + request.shared_blocks
        return used

    def _needed_blocks(self, request: Request) -> int:
        """Blocks that must be free for it to be admitted: for all tokens it has but what live requests share with it."""
        return self._blocks(request.prompt_tokens + request.generated) - self.cache.held_by_others(request)

    def _fits(self, request: Request) -> bool:
        shape = self.model.shape
        waiting_for_prefill = sum(one.prompt_tokens + one.generated for one in self._prefilling)
        needs = self._needed_blocks(request)
        rough = (self._context + waiting_for_prefill) // shape.block_size + needs + len(self.running) + self._other_blocks()
        return rough <= shape.num_device_blocks or self._used_blocks(1) + needs <= shape.num_device_blocks

    def _most_steps(self, steps: int) -> int:
        """At most this many decoding steps until a block is missing; 0 when one is missing at once."""
        size, total = self.model.shape.block_size, self.model.shape.num_device_blocks
        decoding = len(self.running) - len(self._prefilling)
        waiting_for_prefill = sum(request.prompt_tokens + request.generated for request in self._prefilling)
        rough = (self._context + waiting_for_prefill + steps * decoding) // size + len(self.running) + self._other_blocks()
        if rough <= total or self._used_blocks(steps) <= total:
            return steps
        low, high = 0, steps
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._used_blocks(middle) <= total else (low, middle - 1)
        return low
