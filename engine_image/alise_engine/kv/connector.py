"""Implements vLLM's KV connector: saves KV of preempted requests to host memory and restores it.

For vLLM both halves are one class, which it loads by the name that `serve/plugin.py` registers. The scheduler's half is here: it keeps the
books (`HostLedger`) and instructs the workers at every step (`work.py`). The workers' half (`worker.py`, only called from here) carries the
instructions out in order, and reports blocks that it could not restore.

    preempted    scheduler.save()          -> Drop(s), Save     worker.handle_preemptions(), before anything is overwritten
    re-admitted  get_num_new_matched_tokens, update_state_after_alloc
                                           -> Load              worker.start_load_kv(), before the forward pass
    finished     request_finished          -> Drop

    prefetched   scheduler.prefetch()      -> Load(s), ahead     worker.start_load_kv(), a slice per step

A load ends before the forward pass of the step that needs it: a request whose copy covers all but its last token is resumed by
scheduling one token. What is prefetched comes in slices, in steps of other requests, after their forward pass has been launched; what is
missing when the turn comes, is loaded then. A slice that failed is reported in the step of the admission, where vLLM looks for it.
Saves go by block, and blocks that are complete on the host are not written again.
"""

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import replace
from typing import Any, Final

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)

from ..compat import device, geometry, refusals, request_access, scheduler_access
from ..errors import ConfigError
from .copies import Copies, HostCopies, spare_core
from .host_pool import HostPool
from .int8 import INT8, RAW, Codec
from .ledger import Copy, HostLedger, SavePlan
from .slabs import Geometry
from .staged import on_cuda
from .work import Ahead, AliseMetadata, Drop, Load, Save, Spent
from .worker import WorkerSide

# A slice of a prefetch: a step of running requests grows by no more than this copy (a few milliseconds on a CPU, one or two over PCIe).
PREFETCH_BYTES_PER_STEP: Final = 32 << 20

Request = Any


class AliseKVConnector(KVConnectorBase_V1, SupportsHMA):
    """`--kv-transfer-config` names it; `kv_connector_extra_config.host_bytes` is the store of all workers together.

    Without it the store has as many bytes as the KV cache on the device, at most `host_bytes_at_most`.
    """

    @property
    def requires_kv_delivery(self) -> bool:
        # A cache, best effort: tokens in flight at a preemption are kept, not dropped.
        return False

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        refusals.check_config(vllm_config)
        refusals.check_kv_cache(kv_cache_config)
        extra = self._kv_transfer_config.kv_connector_extra_config or {}
        self.shape = geometry.layer_shape(vllm_config, kv_cache_config)
        self.workers = int(vllm_config.parallel_config.tensor_parallel_size)
        layers = geometry.layer_count(kv_cache_config)
        raw_bytes = geometry.raw_layer_block_bytes(kv_cache_config)
        row_bytes = {RAW.name: raw_bytes}
        if self.shape.keys is not None:
            row_bytes[INT8.name] = INT8.row_bytes(self.shape)
        self.block_bytes = {codec: layers * self.workers * size for codec, size in row_bytes.items()}
        device_bytes = self.block_bytes[RAW.name] * int(kv_cache_config.num_blocks)
        store = Geometry.of(host_bytes_of(extra, device_bytes) // self.workers, row_bytes)
        # What fits whatever comes and goes; a little less than was asked for.
        self.host_bytes = store.usable_bytes * self.workers
        self.loaded_tokens: dict[str, int] = {}
        self.prefetched: dict[str, Ahead] = {}
        self.prefetch_blocks_per_step = max(1, PREFETCH_BYTES_PER_STEP // self.block_bytes[RAW.name])
        if role == KVConnectorRole.SCHEDULER:
            self.ledger = HostLedger(self.host_bytes, self.shape.block_size, self.block_bytes)
            self._meta = AliseMetadata()
            self._offered: dict[str, int] = {}
            self._spent_us = dict.fromkeys(vars(Spent()), 0.0)
        else:
            codecs: dict[str, Codec] = {RAW.name: RAW, INT8.name: device.int8_codec()}
            self._worker = WorkerSide(self.shape, raw_bytes, store, codecs, copies_maker(extra))

    # --- scheduler: called by the mixin ---------------------------------------------------------------------------------------------
    def codecs(self) -> tuple[str, ...]:
        return tuple(self.block_bytes)

    def save(self, plan: SavePlan, block_ids: list[int]) -> None:
        """Books a plan, and has the workers carry it out in this step. `block_ids` are all device blocks of the request."""
        for request_id in plan.evict:
            self._meta.writes.append(Drop(request_id, evicted=True))
        self.ledger.commit_save(plan)
        if plan.blocks:
            ids = tuple(block_ids[plan.first_block : plan.first_block + plan.blocks])
            valid = plan.tokens - plan.first_block * self.shape.block_size
            self._meta.writes.append(Save(plan.request_id, ids, plan.first_block, valid, plan.codec))

    def drop(self, request_id: str, evicted: bool = False) -> None:
        if self.ledger.release(request_id):
            self._meta.writes.append(Drop(request_id, evicted))

    def copy(self, request_id: str) -> Copy:
        return self.ledger.copy(request_id)

    def take_spent(self, tally: Counter[str]) -> None:
        """Adds whole microseconds of the workers' copies to the tally, by the names of `Spent`."""
        for name, spent_us in self._spent_us.items():
            tally[name] += int(spent_us)
            self._spent_us[name] = spent_us % 1

    def take_loaded(self, request_id: str) -> int:
        """Returns the tokens that the last admission of a request takes from the host."""
        return self.loaded_tokens.pop(request_id, 0)

    def prefetch(self, request_id: str, tokens: int, block_ids: list[int]) -> None:
        """Has the workers fill the blocks offered for this request last, `tokens` of them, from the next step on."""
        start = self._offered.pop(request_id)
        found = self.ledger.lookup(request_id, start, start + tokens)
        self.prefetched[request_id] = Ahead(tuple(block_ids[found.first_block : found.end_block]), found.first_block)
        self.loaded_tokens[request_id] = tokens

    def revoke(self, request_id: str) -> None:
        """Gives up the blocks of a prefetch; the copy on the host stays."""
        del self.prefetched[request_id]
        self.loaded_tokens.pop(request_id, None)

    # --- scheduler: called by vLLM --------------------------------------------------------------------------------------------------
    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        copy = self.ledger.copy(request.request_id)
        end = min(copy.tokens, request.num_tokens - 1)
        if end <= num_computed_tokens or not request_access.may_be_saved(request):
            return 0, False
        found = self.ledger.lookup(request.request_id, num_computed_tokens, end)
        if found.first_int8_block is not None:
            # vLLM registers restored blocks in the prefix cache as if they were exact; under a salted hash no other request finds them.
            request_access.make_private(request, found.first_int8_block * self.shape.block_size, self._hash_block_size())
        self._offered[request.request_id] = num_computed_tokens
        return end - num_computed_tokens, False

    def update_state_after_alloc(self, request: Request, blocks: Any, num_external_tokens: int) -> None:
        ahead = self.prefetched.pop(request.request_id, None)
        if ahead is not None:
            self._meta.loads.append(Load(request.request_id, ahead.block_ids, ahead.first_block, ahead.done))
        if num_external_tokens <= 0:
            return
        start = self._offered.pop(request.request_id)
        found = self.ledger.lookup(request.request_id, start, start + num_external_tokens)
        ids = tuple(blocks.get_block_ids()[0][found.first_block : found.end_block])
        self._meta.loads.append(Load(request.request_id, ids, found.first_block))
        self.loaded_tokens[request.request_id] = num_external_tokens

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        self._add_slices()
        if self._meta.writes:
            taken = scheduler_access.blocks_given_in(scheduler_output).union(*(load.block_ids for load in self._meta.loads))
            self._meta.writes = [where_it_may_run(write, taken) for write in self._meta.writes]
        meta, self._meta = self._meta, AliseMetadata()
        return meta

    def _add_slices(self) -> None:
        room = self.prefetch_blocks_per_step
        for request_id, ahead in self.prefetched.items():
            ids = ahead.block_ids[ahead.done : ahead.done + room]
            if ids:
                self._meta.loads.append(Load(request_id, ids, ahead.first_block + ahead.done, ahead=True))
                ahead.done += len(ids)
                room -= len(ids)

    def update_connector_output(self, connector_output: Any) -> None:
        spent = connector_output.kv_connector_worker_meta
        if spent is not None:
            for name, spent_us in vars(spent).items():
                self._spent_us[name] += spent_us

    def request_finished(self, request: Request, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        self._offered.pop(request.request_id, None)
        self.prefetched.pop(request.request_id, None)
        self.loaded_tokens.pop(request.request_id, None)
        self.drop(request.request_id)
        return False, None

    def request_finished_all_groups(self, request: Request, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids)

    def reset_cache(self) -> bool:
        for request_id in self.ledger.request_ids():
            self.drop(request_id)
        return True

    def _hash_block_size(self) -> int:
        return int(self._kv_cache_config.hash_block_size or self.shape.block_size)

    # --- worker: called by vLLM -----------------------------------------------------------------------------------------------------
    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        self._worker.register(kv_caches, int(self._kv_cache_config.num_blocks))

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        assert isinstance(kv_connector_metadata, AliseMetadata)
        self._worker.begin_step(kv_connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        meta = self._get_connector_metadata()
        assert isinstance(meta, AliseMetadata)
        self._worker.start_loads(meta)

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.take_errors()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        return self._worker.take_spent() or None

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return

    def shutdown(self) -> None:
        if self.role == KVConnectorRole.WORKER:
            self._worker.close()

    @property
    def pool(self) -> HostPool:
        """Returns this worker's store, with no copy under way."""
        self._worker.settle()
        return self._worker.pool


def where_it_may_run(write: Drop | Save, taken: Set[int]) -> Drop | Save:
    """Returns where a save may run: beside the step, if no request gets its blocks in this step."""
    return write if isinstance(write, Drop) or not taken.isdisjoint(write.block_ids) else replace(write, beside=True)


def copies_maker(extra: dict[str, Any]) -> Callable[[Any], Copies]:
    """Returns a maker of copies for a device. On a CPU `kv_connector_extra_config.copy_thread` decides, by default the spare cores.

    Raises ConfigError.
    """
    threaded = extra.get("copy_thread")
    if not isinstance(threaded, bool | None):
        raise ConfigError(f"kv_connector_extra_config.copy_thread is {threaded!r}: give true or false, or leave it out")

    def make(device: Any) -> Copies:
        if device.type == "cuda":
            return on_cuda(device)
        return HostCopies(spare_core() if threaded is None else threaded)

    return make


def host_bytes_of(extra: dict[str, Any], device_bytes: int) -> int:
    """Returns the store's size from `kv_connector_extra_config`, by default that of the KV cache on the device. Raises ConfigError."""
    for name in ("host_bytes", "host_bytes_at_most"):
        given = extra.get(name, 0)
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            raise ConfigError(f"kv_connector_extra_config.{name} is {given!r}: give the bytes of the host store, 0 or more")
    return int(extra.get("host_bytes", min(device_bytes, extra.get("host_bytes_at_most", device_bytes))))
