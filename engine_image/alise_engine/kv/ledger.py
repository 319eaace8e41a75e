"""Keeps the books of the host store: which blocks of which request it has, in which codec. Pure: no tensors, no vLLM, no clock.

The device's side is vLLM's own block manager; a block that is neither there nor here is recomputed. The scheduler decides with this
ledger and the workers' pools follow, so the byte cap is kept by construction: `plan_save` says what fits and what must leave first,
`commit_save` and `release` book it. Bytes are those of all tensor-parallel workers together.

A request's copy is a prefix of its tokens: runs of blocks, each in one codec, the last block perhaps partly filled.

What leaves first, when a copy must make room (every row before the next):
    0. copies of requests whose KV is on the device anyway
    1. the longest expected wait
    2. the latest arrival
Copies that would leave after the new one stay. If too little room is left, a prefix of the new copy is kept and the rest is recomputed.

`connector.py` calls it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..wire.terms import CODEC_INT8


@dataclass(frozen=True, slots=True)
class Run:
    codec: str
    blocks: int


@dataclass(frozen=True, slots=True)
class Copy:
    """The host's copy of one request."""

    tokens: int = 0
    runs: tuple[Run, ...] = ()

    @property
    def blocks(self) -> int:
        return sum(run.blocks for run in self.runs)


@dataclass(frozen=True, slots=True)
class Holder:
    """A request as the eviction order sees it."""

    request_id: str
    on_device: bool
    ewt_ms: int
    arrival_seconds: float

    def leaves_first(self) -> tuple[bool, int, float, str]:
        return (self.on_device, self.ewt_ms, self.arrival_seconds, self.request_id)


@dataclass(frozen=True, slots=True)
class SavePlan:
    """Copies to drop first, then `blocks` blocks to write from `first_block` on; the copy then covers `tokens`. No blocks: no save."""

    request_id: str
    codec: str
    first_block: int
    blocks: int
    tokens: int
    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lookup:
    """Blocks [first_block, end_block) of a copy; `first_int8_block` is the first of them that is not exact, or None."""

    first_block: int
    end_block: int
    first_int8_block: int | None


class HostLedger:
    """The books of the host store. `block_bytes` gives the bytes of one block, all layers and workers, by codec."""

    def __init__(self, limit_bytes: int, block_size: int, block_bytes: Mapping[str, int]) -> None:
        self.limit_bytes = limit_bytes
        self.block_size = block_size
        self.block_bytes = dict(block_bytes)
        self._copies: dict[str, Copy] = {}
        self._blocks_by_codec = dict.fromkeys(block_bytes, 0)

    def copy(self, request_id: str) -> Copy:
        return self._copies.get(request_id, Copy())

    def bytes_of(self, copy: Copy) -> int:
        return sum(run.blocks * self.block_bytes[run.codec] for run in copy.runs)

    def used_bytes(self, codec: str | None = None) -> int:
        codecs = self._blocks_by_codec if codec is None else (codec,)
        return sum(self._blocks_by_codec[name] * self.block_bytes[name] for name in codecs)

    def request_ids(self) -> tuple[str, ...]:
        return tuple(self._copies)

    def plan_save(self, saver: Holder, tokens: int, codec: str, holders: Iterable[Holder], budget_bytes: int) -> SavePlan:
        """Plans a save after which the copy of `saver` covers `tokens`, within min(budget, limit). Changes nothing.

        Blocks that are complete on the host already are not written again. `holders` describes the other requests; one that is not
        described is not evicted.
        """
        held = self.copy(saver.request_id)
        if tokens <= held.tokens:
            return SavePlan(saver.request_id, codec, held.blocks, 0, held.tokens)
        first_block = held.tokens // self.block_size
        wanted = -(-tokens // self.block_size) - first_block
        block_bytes = self.block_bytes[codec]
        kept = self.bytes_of(_truncate(held, first_block, self.block_size))
        room = min(budget_bytes, self.limit_bytes) - (self.used_bytes() - self.bytes_of(held)) - kept
        evict = []
        for holder in sorted((h for h in holders if h.request_id in self._copies), key=Holder.leaves_first, reverse=True):
            if room >= wanted * block_bytes:
                break
            if holder.request_id == saver.request_id or holder.leaves_first() <= saver.leaves_first():
                continue
            room += self.bytes_of(self._copies[holder.request_id])
            evict.append(holder.request_id)
        blocks = max(0, min(wanted, room // block_bytes))
        if blocks == 0:
            return SavePlan(saver.request_id, codec, held.blocks, 0, held.tokens)
        covered = min(tokens, (first_block + blocks) * self.block_size)
        return SavePlan(saver.request_id, codec, first_block, blocks, covered, tuple(evict))

    def commit_save(self, plan: SavePlan) -> None:
        """Books a plan of `plan_save`, which must be based on the current state."""
        for request_id in plan.evict:
            self.release(request_id)
        if plan.blocks:
            kept = _truncate(self.copy(plan.request_id), plan.first_block, self.block_size)
            self._set(plan.request_id, Copy(plan.tokens, _merge((*kept.runs, Run(plan.codec, plan.blocks)))))

    def plan_shrink(self, holders: Iterable[Holder], budget_bytes: int) -> tuple[str, ...]:
        """Returns the copies to release so that the rest fits the budget. Changes nothing."""
        excess = self.used_bytes() - min(budget_bytes, self.limit_bytes)
        released = []
        for holder in sorted((h for h in holders if h.request_id in self._copies), key=Holder.leaves_first, reverse=True):
            if excess <= 0:
                break
            excess -= self.bytes_of(self._copies[holder.request_id])
            released.append(holder.request_id)
        return tuple(released)

    def release(self, request_id: str) -> bool:
        """Forgets a copy. Returns whether there was one."""
        if request_id not in self._copies:
            return False
        self._set(request_id, Copy())
        return True

    def lookup(self, request_id: str, first_token: int, end_token: int) -> Lookup:
        """Returns the blocks of a copy with its tokens [first_token, end_token)."""
        first_block, end_block = first_token // self.block_size, -(-end_token // self.block_size)
        start = 0
        for run in self.copy(request_id).runs:
            if run.codec == CODEC_INT8 and start + run.blocks > first_block and start < end_block:
                return Lookup(first_block, end_block, max(start, first_block))
            start += run.blocks
        return Lookup(first_block, end_block, None)

    def _set(self, request_id: str, copy: Copy) -> None:
        for run in self._copies.pop(request_id, Copy()).runs:
            self._blocks_by_codec[run.codec] -= run.blocks
        if copy.runs:
            self._copies[request_id] = copy
            for run in copy.runs:
                self._blocks_by_codec[run.codec] += run.blocks


def _truncate(copy: Copy, blocks: int, block_size: int) -> Copy:
    """Returns a copy cut to its first `blocks` blocks."""
    runs, left = [], blocks
    for run in copy.runs:
        if left <= 0:
            break
        runs.append(Run(run.codec, min(run.blocks, left)))
        left -= run.blocks
    return Copy(min(copy.tokens, blocks * block_size), tuple(runs))


def _merge(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1].codec == run.codec:
            merged[-1] = Run(run.codec, merged[-1].blocks + run.blocks)
        else:
            merged.append(run)
    return tuple(merged)
