"""vLLM's worker on the emulated device: what the engine asks of a worker, without a model, its weights or its KV cache's bytes.

It follows the scheduler's outputs as vLLM's model runner (V1) does, and carries out what alise's connector tells its workers (`kv/work.py`)
on words instead of tensors. Not exercised: the model, the sampler (temperature, penalties, log-probabilities, grammars), attention, LoRA,
images, and the connector's own copies (`kv/worker.py`, `kv/copies.py`, the codecs). `executor.py` creates it.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.worker.worker_base import CompilationTimes

from alise_engine.compat import geometry, scheduler_access
from alise_engine.kv.int8 import INT8, RAW
from alise_engine.kv.work import AliseMetadata, Drop, Load, Spent
from tests.bench.workload import STOP_AFTER
from tests.emulated import lengths
from tests.emulated.answers import Answer, Vocabulary
from tests.emulated.memory import DeviceMemory, HostMemory
from tests.emulated.model import HEAD_DIM, HEADS
from tests.emulated.pacing import LOG_ENV, Device, Work

LAYOUT: Final = "LBNHC"


class EmulatedWorker:
    """One worker that stands for all of the device's."""

    def __init__(self, vllm_config: Any, device: Device) -> None:
        self._config, self._device = vllm_config, device
        self._block_size = int(vllm_config.cache_config.block_size)
        self._vocabulary = vocabulary_of(Path(vllm_config.model_config.tokenizer))
        self._memory: DeviceMemory
        self._host = HostMemory()
        self._answers: dict[str, Answer] = {}
        self._lengths = lengths.read(os.environ)
        # Bytes of one block of all layers, by codec.
        self._block_bytes: dict[str, float] = {}
        # By request: the place of the first block that a slice of its prefetch did not find.
        self._missing: dict[str, int] = {}
        # Open until the worker ends.
        self._log = Path(os.environ[LOG_ENV]).open("a", buffering=1) if LOG_ENV in os.environ else None  # noqa: SIM115

    # --- start ------------------------------------------------------------------------------------------------------------------------
    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def get_supported_kv_cache_layouts(self) -> list[str]:
        return [LAYOUT]

    def set_kv_cache_layout(self, kv_cache_layout: str) -> None:
        return

    def get_kv_cache_spec(self) -> dict[str, Any]:
        # Not by --kv-cache-dtype: vLLM refuses 8 bits on CPUs whose kernels cannot compute with them, and nothing computes here.
        dtype = torch.uint8 if self._device.kv_bits == 8 else torch.float16
        layers = max(1, round(self._device.kv_token_bytes / (2 * HEADS * HEAD_DIM * dtype.itemsize)))
        spec = FullAttentionSpec(block_size=self._block_size, num_kv_heads=HEADS, head_size=HEAD_DIM, dtype=dtype)
        return {f"model.layers.{number}.self_attn.attn": spec for number in range(layers)}

    def determine_available_memory(self) -> int:
        blocks = self._device.room_tokens // self._block_size
        return sum(int(spec.page_size_bytes) for spec in self.get_kv_cache_spec().values()) * blocks

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        config = kv_cache_configs[0]
        self._memory = DeviceMemory(int(config.num_blocks), self._block_size)
        shape, layers = geometry.layer_shape(self._config, config), geometry.layer_count(config)
        self._block_bytes = {RAW.name: float(layers * geometry.raw_layer_block_bytes(config))}
        if shape.keys is not None:
            self._block_bytes[INT8.name] = float(layers * INT8.row_bytes(shape))

    def compile_or_warm_up_model(self) -> CompilationTimes:
        return CompilationTimes(0.0, 0.0)

    def get_kv_connector_handshake_metadata(self) -> None:
        return

    def update_max_model_len(self, max_model_len: int) -> None:
        return

    def supports_draft_weight_updates(self) -> bool:
        return False

    def reset_mm_cache(self) -> None:
        return

    def reset_encoder_cache(self) -> None:
        return

    def synchronize_device(self) -> None:
        return

    def shutdown(self) -> None:
        if self._log is not None:
            self._log.close()

    # --- one step ---------------------------------------------------------------------------------------------------------------------
    def step(self, output: Any) -> tuple[ModelRunnerOutput, Work, bool]:
        """Returns what the step gives, what it costs, and whether it goes on with requests of the step before."""
        for request_id in output.finished_req_ids:
            self._answers.pop(request_id, None)
        connector, before, beside = self._copy(output.kv_connector_metadata)
        self._add(output)
        names = list(output.num_scheduled_tokens)
        tokens: list[list[int]] = []
        prefill, decode = 0, 0
        computed = computed_before(output)
        for name in names:
            answer, scheduled = self._answers[name], output.num_scheduled_tokens[name]
            if scheduled == 1 and computed[name] >= answer.prompt_tokens:
                decode += 1
            else:
                prefill += scheduled
            token = answer.compute(self._memory, computed[name], scheduled, self._vocabulary)
            tokens.append([] if token is None else [token])
        work = Work(prefill, decode, scheduler_access.context_tokens(output), before, beside)
        cached = output.scheduled_cached_reqs
        goes_on = len(cached.req_ids) > len(cached.resumed_req_ids)
        places = {name: place for place, name in enumerate(names)}
        return ModelRunnerOutput(names, places, tokens, kv_connector_output=connector), work, goes_on

    def _add(self, output: Any) -> None:
        for new in output.scheduled_new_reqs:
            params = new.sampling_params
            extra = params.extra_args or {}
            prompt = list(new.prompt_token_ids)
            wanted = extra.get(STOP_AFTER) or self._lengths.get(lengths.key(prompt))
            if self._log is not None:
                self._log.write(json.dumps({"extra_args": extra}) + "\n")
            self._answers[new.req_id] = Answer(
                prompt,
                len(prompt),
                list(new.block_ids[0]),
                None if wanted is None else int(wanted),
                int(params.min_tokens),
                bool(params.ignore_eos),
            )
        cached = output.scheduled_cached_reqs
        for row, name in enumerate(cached.req_ids):
            answer, blocks = self._answers[name], cached.new_block_ids[row]
            if name in cached.all_token_ids:
                answer.resumed(cached.all_token_ids[name])
            else:
                answer.truncated(cached.num_output_tokens[row])
            if name in cached.resumed_req_ids:
                answer.block_ids = list(blocks[0])
            elif blocks is not None:
                answer.block_ids.extend(blocks[0])

    # --- KV over the link -------------------------------------------------------------------------------------------------------------
    def _copy(self, told: Any) -> tuple[KVConnectorOutput | None, float, float]:
        """Carries out a step's drops, saves and loads in their order; returns the report, and the seconds before and beside the step."""
        if not isinstance(told, AliseMetadata):
            return None, 0.0, 0.0
        saved = self._save(told.writes)
        loaded, errors = {False: 0.0, True: 0.0}, set[int]()
        for load in told.loads:
            loaded[load.ahead] += self._load(load, errors)
        wall_us = 1e6 * self._device.time_scale
        spent = Spent(wall_us * sum(saved.values()), wall_us * sum(loaded.values()))
        report = KVConnectorOutput(kv_connector_worker_meta=spent or None, invalid_block_ids=errors)
        return report, saved[False] + loaded[False], saved[True] + loaded[True]

    def _save(self, writes: Iterable[Any]) -> dict[bool, float]:
        """Returns the seconds of saves that the step waits for, and of those beside it."""
        saved = {False: 0.0, True: 0.0}
        for write in writes:
            if isinstance(write, Drop):
                self._host.drop(write.request_id)
                self._missing.pop(write.request_id, None)
            else:
                rows = self._memory.read_blocks(write.block_ids)
                size = self._host.save(write.request_id, write.first_block, rows, self._block_bytes[write.codec])
                saved[write.beside] += size / self._device.to_host_bytes_per_second
        return saved

    def _load(self, load: Load, errors: set[int]) -> float:
        """Fills the blocks and returns the seconds; those that the host does not have are reported as the connector's worker does."""
        first, wanted = load.first_block + load.done, len(load.block_ids) - load.done
        rows, size = self._host.load(load.request_id, first, wanted)
        if len(rows):
            self._memory.write_blocks(load.block_ids[load.done : load.done + len(rows)], rows)
        end = first + len(rows)
        if load.ahead:
            if len(rows) < wanted:
                self._missing.setdefault(load.request_id, end)
        else:
            missing = min(end, self._missing.pop(load.request_id, end))
            errors.update(load.block_ids[max(0, missing - load.first_block) :])
        return size / self._device.from_host_bytes_per_second


def computed_before(output: Any) -> dict[str, int]:
    """Returns how many tokens each request of a step has computed before it."""
    cached = output.scheduled_cached_reqs
    known = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    return known | {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}


def vocabulary_of(folder: Path) -> Vocabulary:
    """Reads which tokens of a tokenizer are visible ASCII, so that a stream shows each token when it is generated."""
    entries: dict[str, int] = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    ends = json.loads((folder / "config.json").read_text())["eos_token_id"]
    # `Ġ` is a leading blank in byte-level vocabularies.
    visible = sorted(number for text, number in entries.items() if (bare := text.removeprefix("Ġ")).isascii() and bare.isalnum())
    return Vocabulary(tuple(visible), ends if isinstance(ends, int) else ends[0])
