"""Which computed KV a request finds again on the device: vLLM's prefix cache.

vLLM appends the blocks of a request that ends or is preempted to a queue of free blocks, the last block of the request first, and takes
new blocks from the head of that queue. A free block keeps its content until it is taken, so it is found again as long as fewer blocks were
taken than were free before it. Blocks that requests share are held once. Only full blocks are found, and the last token is always computed.

Left out: a hit takes blocks out of the middle of the queue, which brings the ones behind it closer to the head. `device_memory.py` owns it.
"""

from dataclasses import dataclass

from .request import Request


@dataclass(slots=True)
class _Group:
    """Blocks of a shared prefix: held by live requests, or free and cached until this many blocks have been taken."""

    members: int = 0
    held: int = 0
    cached: int = 0
    until: float = 0.0


class PrefixCache:
    """Counts blocks taken; knows what survives of those that were freed."""

    def __init__(self, block_size: int, enabled: bool) -> None:
        self._block_size = block_size
        self._enabled = enabled
        self._groups: dict[int, _Group] = {}
        # Blocks taken from the queue of free ones, since the beginning.
        self.taken = 0.0
        # Blocks of shared prefixes that live requests hold.
        self.shared_blocks = 0

    def hit_tokens(self, request: Request) -> int:
        """Tokens of the request's KV that are still on the device."""
        if not self._enabled:
            return 0
        most = (request.prompt_tokens + request.generated - 1) // self._block_size
        shared = self._shareable(request)
        found = 0
        if shared:
            group = self._groups.get(request.prefix_group)
            if group is not None:
                found = min(shared, group.held if group.members else self._surviving(group.cached, group.until))
        if found == shared and request.cached_blocks:
            found += self._surviving(request.cached_blocks, request.cached_until)
        return min(most, found) * self._block_size

    def held_by_others(self, request: Request) -> int:
        """Blocks that the request shares with live ones, so it needs no room for them."""
        shared = self._shareable(request)
        group = self._groups.get(request.prefix_group) if shared else None
        return min(shared, group.held) if group is not None and group.members else 0

    def admitted(self, request: Request, new_blocks: int) -> None:
        """The request holds its blocks; `new_blocks` of them were taken from the queue."""
        self.taken += new_blocks
        request.cached_blocks = 0
        request.shared_blocks = shared = self._shareable(request)
        if shared:
            group = self._groups.setdefault(request.prefix_group, _Group())
            group.members += 1
            self.shared_blocks += max(0, shared - group.held)
            group.held = max(group.held, shared)

    def left(self, request: Request, computed_tokens: int, free_blocks: int) -> None:
        """The request gave its blocks back, with this many tokens computed and this many blocks free before."""
        computed, until = computed_tokens // self._block_size, self.taken + free_blocks
        request.cached_blocks, request.cached_until = max(0, computed - request.shared_blocks), until
        if request.shared_blocks:
            group = self._groups[request.prefix_group]
            group.members -= 1
            if not group.members:
                self.shared_blocks -= group.held
                group.cached, group.until, group.held = computed, until, 0
        request.shared_blocks = 0

    def _shareable(self, request: Request) -> int:
        if not self._enabled or request.prefix_group < 0:
            return 0
        return min(request.prefix_tokens, request.prompt_tokens - 1) // self._block_size

    def _surviving(self, blocks: int, until: float) -> int:
        """Blocks of a segment that were not taken since; its last ones are taken first."""
        return max(0, min(blocks, int(until + blocks - self.taken)))
