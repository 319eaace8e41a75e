"""Shares room between tenants, so that one tenant's requests never push out everything that the others sent.

With one tenant there is no limit and the oldest entry goes first, as in a plain ring or LRU cache. With several, no tenant takes more than
`most()` of the room, and when room is needed the oldest entry of the tenant with the most entries goes. The empty tenant is one of them.

Pure data structures; `conversation.py`, `repeats.py`, `samples.py` and both stores use them.
"""

from collections import OrderedDict, deque
from typing import Final, Generic, TypeVar

# The most parts that the capacity is divided into. With fewer tenants it is divided evenly between them.
SHARES: Final = 8
# A share is never smaller: below it there is too little to learn from.
LEAST_ROWS: Final = 64

Key = TypeVar("Key")
Value = TypeVar("Value")


def most(capacity: int, tenants: int) -> int:
    """Returns the maximum number of entries of one tenant."""
    return capacity if tenants <= 1 else max(min(LEAST_ROWS, capacity), capacity // min(tenants, SHARES))


def fair_level(counts: list[int], capacity: int) -> int:
    """The largest number such that `capacity` suffices when every tenant keeps at most that many of its entries."""
    left, level = capacity, 0
    ordered = sorted(counts)
    for number, count in enumerate(ordered):
        level = max(left, 0) // (len(ordered) - number)
        if count > level:
            return level
        left -= count
    return max(ordered, default=0)


class TenantCounts:
    """Counts entries by tenant, and finds a tenant with the most entries, each in constant time."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._by_count: dict[int, dict[int, None]] = {}
        self._top = 0

    def count(self, tenant: int) -> int:
        return self._counts.get(tenant, 0)

    def tenants(self, tenant: int) -> int:
        """Number of tenants with entries, this one included."""
        return len(self._counts) + (tenant not in self._counts)

    def change(self, tenant: int, by: int) -> None:
        """`by` is 1 or -1."""
        before = self._counts.pop(tenant, 0)
        if before:
            same = self._by_count[before]
            del same[tenant]
            if not same:
                del self._by_count[before]
        after = before + by
        if after > 0:
            self._counts[tenant] = after
            self._by_count.setdefault(after, {})[tenant] = None
        if after > self._top or (before == self._top and before not in self._by_count):
            self._top = max(after, 0)

    def largest(self, tenant: int) -> int:
        """A tenant with the most entries: `tenant` itself if it has as many as any."""
        return tenant if 0 < self._top <= self.count(tenant) else next(iter(self._by_count[self._top]))

    def full(self, tenant: int, capacity: int) -> bool:
        """Whether this tenant already has all it may have."""
        tenants = self.tenants(tenant)
        return tenants > 1 and self.count(tenant) >= most(capacity, tenants)


class FairSlots:
    """Hands out the numbers 0..capacity-1, again and again."""

    def __init__(self, capacity: int) -> None:
        self.used = 0
        self._capacity = capacity
        self._tenants = TenantCounts()
        self._slots: dict[int, deque[int]] = {}

    def take(self, tenant: int) -> int:
        """The slot for the tenant's next entry; what was there is to be overwritten."""
        own = self._slots.setdefault(tenant, deque())
        if self._tenants.full(tenant, self._capacity):
            slot = own.popleft()
            self._tenants.change(tenant, -1)
        elif self.used < self._capacity:
            slot = self.used
            self.used += 1
        else:
            largest = self._tenants.largest(tenant)
            slot = self._slots[largest].popleft()
            self._tenants.change(largest, -1)
            if not self._slots[largest] and largest != tenant:
                del self._slots[largest]
        own.append(slot)
        self._tenants.change(tenant, 1)
        return slot


class FairLru(Generic[Key, Value]):
    """A cache of at most `capacity` entries; each entry belongs to a tenant."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tenants = TenantCounts()
        self._held: dict[int, OrderedDict[Key, Value]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, tenant: int, key: Key) -> Value | None:
        own = self._held.get(tenant)
        return None if own is None else own.get(key)

    def replace(self, tenant: int, key: Key, value: Value) -> None:
        """Another value, no younger than the one before. Nothing when it is not there."""
        own = self._held.get(tenant)
        if own is not None and key in own:
            own[key] = value

    def put(self, tenant: int, key: Key, value: Value) -> None:
        """Adds or replaces, as the newest; makes room first."""
        own = self._held.setdefault(tenant, OrderedDict())
        if key not in own:
            if self._tenants.full(tenant, self._capacity):
                self._drop(tenant)
            elif self._count >= self._capacity:
                self._drop(self._tenants.largest(tenant))
            own = self._held.setdefault(tenant, own)
            self._tenants.change(tenant, 1)
            self._count += 1
        own[key] = value
        own.move_to_end(key)

    def _drop(self, tenant: int) -> None:
        own = self._held[tenant]
        own.popitem(last=False)
        if not own:
            del self._held[tenant]
        self._tenants.change(tenant, -1)
        self._count -= 1
