"""The KV connector: KV of preempted requests to host memory and back.

Both halves live here because vLLM makes one class of them. The scheduler's half keeps the books (`HostLedger`) and writes down, step by
step, what the workers are to do; the workers' half does exactly that, in order, and reports blocks that it could not restore.

    preempted    scheduler.save()          -> Drop(s), Save     worker.handle_preemptions(), before anything is overwritten
    re-admitted  get_num_new_matched_tokens, update_state_after_alloc
                                           -> Load              worker.start_load_kv(), before the forward pass
    finished     request_finished          -> Drop

    prefetched   scheduler.prefetch()      -> Load(s), ahead     worker.start_load_kv(), a slice per step

A load is over before the forward pass of the step that needs it: a request whose copy covers all but its last token is resumed by
scheduling one token. What is prefetched comes in slices, in steps of other requests, after their forward pass has been launched; what is
missing when the turn comes, is loaded then. A slice that failed is reported in the step of the admission, where vLLM looks for it.
Saves go by block, and blocks that are complete on the host are not written again.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole, SupportsHMA
from vllm.logger import init_logger

from .. import compat
from ..errors import ConfigError
from .host_pool import Chunk, HostPool
from .int8 import INT8, RAW, Codec, Int8, LayerShape
from .ledger import Copy, HostLedger, SavePlan

logger = init_logger("vllm.alise.connector")

# A slice of a prefetch: a step of running requests grows by no more than this copy (a few milliseconds on a CPU, one or two over PCIe).
PREFETCH_BYTES_PER_STEP: Final = 32 << 20

Request = Any


@dataclass(frozen=True, slots=True)
class Drop:
    request_id: str


@dataclass(frozen=True, slots=True)
class Save:
    """Device blocks to encode; `first_block` is the first one's place in the request."""

    request_id: str
    block_ids: tuple[int, ...]
    first_block: int
    # Of these blocks; the last one may be partly filled.
    valid_tokens: int
    codec: str


@dataclass(frozen=True, slots=True)
class Load:
    """Device blocks to fill from the copy; `first_block` is the first one's place in the request."""

    request_id: str
    block_ids: tuple[int, ...]
    first_block: int
    # The first blocks, which slices have brought already; what failed of them is reported with this load.
    done: int = 0
    # A slice of a prefetch: nobody computes with it in this step.
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


class AliseKVConnector(KVConnectorBase_V1, SupportsHMA):
    """`--kv-transfer-config` names it; `kv_connector_extra_config.host_bytes` is the store of all workers together."""

    @property
    def requires_kv_delivery(self) -> bool:
        # A cache, best effort: tokens in flight at a preemption are kept, not dropped.
        return False

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        compat.check_config(vllm_config)
        compat.check_kv_cache(kv_cache_config)
        self.host_bytes = host_bytes_of(self._kv_transfer_config.kv_connector_extra_config or {})
        self.shape = compat.layer_shape(vllm_config, kv_cache_config)
        self.workers = int(vllm_config.parallel_config.tensor_parallel_size)
        layers = compat.layer_count(kv_cache_config)
        raw_bytes = compat.raw_layer_block_bytes(kv_cache_config)
        row_bytes = {RAW.name: raw_bytes}
        if self.shape.keys is not None:
            row_bytes[INT8.name] = INT8.row_bytes(self.shape)
        self.block_bytes = {codec: layers * self.workers * size for codec, size in row_bytes.items()}
        self.loaded_tokens: dict[str, int] = {}
        self.prefetched: dict[str, Ahead] = {}
        self.prefetch_blocks_per_step = max(1, PREFETCH_BYTES_PER_STEP // self.block_bytes[RAW.name])
        if role == KVConnectorRole.SCHEDULER:
            self.ledger = HostLedger(self.host_bytes, self.shape.block_size, self.block_bytes)
            self._meta = AliseMetadata()
            self._offered: dict[str, int] = {}
        else:
            self._worker = WorkerSide(self.shape, raw_bytes, HostPool(self.host_bytes // self.workers), Int8(compat.row_quantizer()))

    # --- scheduler: called by the mixin ---------------------------------------------------------------------------------------------
    def codecs(self) -> tuple[str, ...]:
        return tuple(self.block_bytes)

    def save(self, plan: SavePlan, block_ids: list[int]) -> None:
        """Books a plan and has the workers carry it out in this step. `block_ids`: all device blocks of the request."""
        for request_id in plan.evict:
            self._meta.writes.append(Drop(request_id))
        self.ledger.commit_save(plan)
        if plan.blocks:
            ids = tuple(block_ids[plan.first_block : plan.first_block + plan.blocks])
            valid = plan.tokens - plan.first_block * self.shape.block_size
            self._meta.writes.append(Save(plan.request_id, ids, plan.first_block, valid, plan.codec))

    def drop(self, request_id: str) -> None:
        if self.ledger.release(request_id):
            self._meta.writes.append(Drop(request_id))

    def copy(self, request_id: str) -> Copy:
        return self.ledger.copy(request_id)

    def take_loaded(self, request_id: str) -> int:
        """Tokens that the last admission of a request takes from the host."""
        return self.loaded_tokens.pop(request_id, 0)

    def prefetch(self, request_id: str, tokens: int, block_ids: list[int]) -> None:
        """Has the workers fill the blocks offered for this request last, `tokens` of them, from the next step on."""
        start = self._offered.pop(request_id)
        found = self.ledger.lookup(request_id, start, start + tokens)
        self.prefetched[request_id] = Ahead(tuple(block_ids[found.first_block : found.end_block]), found.first_block)
        self.loaded_tokens[request_id] = tokens

    def revoke(self, request_id: str) -> None:
        """The blocks of a prefetch go to somebody else; the copy stays."""
        del self.prefetched[request_id]
        self.loaded_tokens.pop(request_id, None)

    # --- scheduler: called by vLLM --------------------------------------------------------------------------------------------------
    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        copy = self.ledger.copy(request.request_id)
        end = min(copy.tokens, request.num_tokens - 1)
        if end <= num_computed_tokens or not compat.may_be_saved(request):
            return 0, False
        found = self.ledger.lookup(request.request_id, num_computed_tokens, end)
        if found.first_int8_block is not None:
            # vLLM registers restored blocks in the prefix cache as if they were exact; under a salted hash nobody else finds them.
            compat.make_private(request, found.first_int8_block * self.shape.block_size, self._hash_block_size())
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
        for write in kv_connector_metadata.writes:
            self._worker.write(write)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        meta = self._get_connector_metadata()
        assert isinstance(meta, AliseMetadata)
        for load in meta.loads:
            self._worker.load(load)

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.take_errors()

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        return

    def wait_for_save(self) -> None:
        return

    @property
    def pool(self) -> HostPool:
        """This worker's store."""
        return self._worker.pool


class WorkerSide:
    """One worker's KV cache tensors and its part of the store."""

    def __init__(self, shape: LayerShape, layer_block_bytes: int, pool: HostPool, int8: Int8 = INT8) -> None:
        self.shape = shape
        self.pool = pool
        self._codecs: dict[str, Codec] = {codec.name: codec for codec in (RAW, int8)}
        self._layer_block_bytes = layer_block_bytes
        self._layers: list[Any] = []
        # Kernel blocks per block: a backend may cut vLLM's blocks smaller.
        self._ratio = 1
        self._errors: set[int] = set()
        # By request: the place of the first block that a slice of its prefetch did not find.
        self._missing: dict[str, int] = {}

    def register(self, kv_caches: dict[str, Any], num_blocks: int) -> None:
        """Raises ConfigError when a layer's tensor is not of the shape that the bytes are counted by."""
        self._layers = [tensor if tensor.element_size() > 1 else tensor.view(torch.uint8) for _, tensor in sorted(kv_caches.items())]
        for name, tensor in kv_caches.items():
            self._ratio = tensor.shape[0] // num_blocks
            block_bytes = tensor[0].numel() * tensor.element_size() * self._ratio
            if block_bytes != self._layer_block_bytes:
                raise ConfigError(
                    f"layer {name}: a KV block of shape {tuple(tensor.shape[1:])} has {block_bytes} bytes, not {self._layer_block_bytes}"
                )
        logger.info("alise: %d layers, KV blocks of %s, host store %d bytes", len(self._layers), self.shape, self.pool.limit_bytes)

    def write(self, write: Drop | Save) -> None:
        if isinstance(write, Drop):
            self.pool.drop(write.request_id)
            self._missing.pop(write.request_id, None)
            return
        codec, index = self._codecs[write.codec], self._index(write.block_ids)
        rows = torch.empty(len(self._layers), len(write.block_ids), codec.row_bytes(self.shape), dtype=torch.uint8)
        for layer, host in zip(self._layers, rows, strict=True):
            staged = host if layer.device.type == "cpu" else torch.empty_like(host, device=layer.device)
            codec.encode(layer, index, self.shape, write.valid_tokens, staged)
            if staged is not host:
                host.copy_(staged)
        if not self.pool.put(write.request_id, Chunk(write.first_block, write.codec, rows)):
            logger.error("alise: the host store is full at %d bytes; %s will be recomputed", self.pool.used_bytes, write.request_id)

    def load(self, load: Load) -> None:
        """Fills the blocks; those that the store does not have are reported, and vLLM recomputes them."""
        end = self._fill(load)
        if load.ahead:
            if end < load.first_block + len(load.block_ids):
                self._missing.setdefault(load.request_id, end)
            return
        missing = min(end, self._missing.pop(load.request_id, end))
        self._errors.update(load.block_ids[max(0, missing - load.first_block) :])

    def _fill(self, load: Load) -> int:
        """The place behind the last block that was filled."""
        end = load.first_block + load.done
        for chunk in self.pool.read(load.request_id, end, load.first_block + len(load.block_ids)):
            if chunk.first_block != end:
                break
            ids = load.block_ids[chunk.first_block - load.first_block : chunk.end_block - load.first_block]
            index, codec = self._index(ids), self._codecs[chunk.codec]
            for layer, rows in zip(self._layers, chunk.rows, strict=True):
                codec.decode(rows.to(layer.device), layer, index, self.shape)
            end = chunk.end_block
        return end

    def take_errors(self) -> set[int]:
        errors, self._errors = self._errors, set()
        return errors

    def _index(self, block_ids: tuple[int, ...]) -> Any:
        ids = torch.tensor(block_ids, dtype=torch.long)
        kernel = (ids[:, None] * self._ratio + torch.arange(self._ratio)).view(-1)
        return kernel.to(self._layers[0].device)


def host_bytes_of(extra: dict[str, Any]) -> int:
    """The size of the store from `kv_connector_extra_config`. Raises ConfigError."""
    host_bytes = extra.get("host_bytes", 0)
    if not isinstance(host_bytes, int) or isinstance(host_bytes, bool) or host_bytes < 0:
        raise ConfigError(f"kv_connector_extra_config.host_bytes is {host_bytes!r}: give the bytes of the host store, 0 or more")
    return host_bytes
