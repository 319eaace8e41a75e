"""What we rely on in vLLM, and what we refuse. Fails first when upstream moves. Importing vLLM takes seconds: marked, imported late."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alise_engine.compat import geometry, names, refusals, scheduler_access
from alise_engine.errors import ConfigError, UnsupportedVllm
from alise_engine.kv.int8 import KeyLayout, LayerShape, split

pytestmark = pytest.mark.engine


def test_this_vllm_has_every_name_that_we_use() -> None:
    assert names.missing() == []


def test_this_vllm_is_the_one_we_were_written_against() -> None:
    from vllm.version import __version__

    refusals.check_version(__version__)


@pytest.mark.parametrize("version", ["0.31.0", "0.32.1", "0.32.0rc1", "dev"])
def test_another_vllm_is_refused_with_what_to_install(version: str) -> None:
    with pytest.raises(UnsupportedVllm, match=f"vLLM is {version}.*install vllm==0.32.0"):
        refusals.check_version(version)


def test_a_missing_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.REQUIRED, "vllm.v1.request:Request.no_such_method", ())
    monkeypatch.setitem(names.REQUIRED, "vllm.v1.request:Request.append_output_token_ids", ("no_such_parameter",))
    monkeypatch.setitem(names.REQUIRED_ATTRIBUTES, "vllm.v1.core.block_pool:BlockPool", ("no_such_attribute",))
    assert names.missing() == [
        "vllm.v1.request:Request.no_such_method does not exist",
        "vllm.v1.request:Request.append_output_token_ids does not take no_such_parameter",
        "vllm.v1.core.block_pool:BlockPool does not set no_such_attribute",
    ]


def config(**changes: Any) -> Any:
    """A vLLM configuration that alise accepts, but for what is changed."""
    sizes = dict.fromkeys(("data", "pipeline", "decode_context", "prefill_context"), 1)
    parallel = SimpleNamespace(**{f"{name}_parallel_size": changes.pop(name, size) for name, size in sizes.items()})
    defaults = {
        "parallel_config": parallel,
        "speculative_config": None,
        "cache_config": SimpleNamespace(cache_dtype="auto"),
        "model_config": SimpleNamespace(dtype=torch.float32),
        "kv_transfer_config": SimpleNamespace(),
        "use_v2_model_runner": False,
    }
    return SimpleNamespace(**(defaults | changes))


def test_a_plain_configuration_is_accepted() -> None:
    refusals.check_config(config())


@pytest.mark.parametrize("dtype", ["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "float32"])
def test_kv_cache_dtypes_that_the_cpu_has_are_accepted(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(refusals, "cpu_computes_fp8_kv", lambda: True)
    refusals.check_config(config(cache_config=SimpleNamespace(cache_dtype=dtype)))


def test_eight_bit_kv_on_a_cpu_that_cannot_compute_with_it_is_refused_with_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "cpu_computes_fp8_kv", lambda: False)
    with pytest.raises(ConfigError, match=r"neither AVX-512 nor AMX.*set spec.engine.kvCacheDtype to auto"):
        refusals.check_config(config(cache_config=SimpleNamespace(cache_dtype="fp8_e5m2")))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"data": 2}, "--data-parallel-size is 2", id="data parallelism"),
        pytest.param({"pipeline": 4}, "--pipeline-parallel-size is 4", id="pipeline parallelism"),
        pytest.param({"decode_context": 2}, "--decode-context-parallel-size is 2", id="context parallelism in decode"),
        pytest.param({"prefill_context": 2}, "--prefill-context-parallel-size is 2", id="context parallelism in prefill"),
        pytest.param({"speculative_config": SimpleNamespace()}, "remove --speculative-config", id="speculative decoding"),
        pytest.param(
            {"cache_config": SimpleNamespace(cache_dtype="int8_per_token_head")},
            "--kv-cache-dtype is int8_per_token_head.*use one of auto, fp8, fp8_e4m3, fp8_e5m2",
            id="a KV cache dtype that the CPU takes in silence and answers wrongly",
        ),
        pytest.param({"use_v2_model_runner": True}, "set VLLM_USE_V2_MODEL_RUNNER=0", id="the model runner that was never tried"),
    ],
)
def test_what_alise_cannot_work_with_is_refused_with_what_to_do(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        refusals.check_config(config(**changes))


def full_attention(**changes: Any) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return FullAttentionSpec(block_size=32, num_kv_heads=4, head_size=64, dtype=torch.bfloat16, **changes)


def kv_cache(*specs: Any) -> Any:
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec, layer_names=["a", "b"]) for spec in specs])


def test_one_group_of_full_attention_is_accepted() -> None:
    refusals.check_kv_cache(kv_cache(full_attention()))


@pytest.mark.parametrize(
    ("specs", "complaint"),
    [
        pytest.param(0, "this model has no KV cache.*set spec.kvOffload.hostMemory to 0", id="an encoder"),
        pytest.param(2, "2 KV cache groups.*set spec.kvOffload.hostMemory to 0", id="hybrid attention"),
        pytest.param({"sliding_window": 128}, "FullAttentionSpec with a window", id="a sliding window"),
        pytest.param({"attention_chunk_size": 128}, "FullAttentionSpec with a window", id="chunked attention"),
    ],
)
def test_other_attention_is_refused(specs: Any, complaint: str) -> None:
    groups = [full_attention()] * specs if isinstance(specs, int) else [full_attention(**specs)]
    with pytest.raises(ConfigError, match=complaint):
        refusals.check_kv_cache(kv_cache(*groups))


def model(**changes: Any) -> Any:
    """What vLLM knows of a model of full attention, but for what is changed."""
    window, layer_types = changes.pop("sliding_window", None), changes.pop("layer_types", None)
    plain = {"is_attention_free": False, "is_hybrid": False, "is_encoder_decoder": False, "attention_chunk_size": None}
    text = SimpleNamespace(layer_types=layer_types) if layer_types is not None else SimpleNamespace()
    return SimpleNamespace(hf_text_config=text, get_sliding_window=lambda: window, **(plain | changes))


MIXED = [
    pytest.param({"is_hybrid": True}, "state-space or linear attention", id="Qwen-Next"),
    pytest.param({"is_attention_free": True}, "state-space or linear attention", id="Mamba"),
    pytest.param({"is_encoder_decoder": True}, "cross attention", id="Whisper"),
    pytest.param({"attention_chunk_size": 8192}, "chunked attention", id="Llama 4"),
    pytest.param({"sliding_window": 4096}, "sliding-window attention", id="a window in all layers"),
    pytest.param(
        {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"]}, "sliding-window attention", id="gpt-oss, Gemma"
    ),
]


@pytest.mark.parametrize(("changes", "kind"), MIXED)
def test_a_model_of_several_kinds_of_attention_is_refused_with_offload_before_it_is_loaded(changes: dict[str, Any], kind: str) -> None:
    with pytest.raises(ConfigError, match=f"this model has {kind}.*set spec.kvOffload.hostMemory to 0 .*then recomputed"):
        refusals.check_offload(config(model_config=model(**changes)))


@pytest.mark.parametrize(("changes", "kind"), MIXED)
def test_without_offload_it_is_served(changes: dict[str, Any], kind: str) -> None:
    refusals.check_offload(config(model_config=model(**changes), kv_transfer_config=None))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="full attention"),
        pytest.param({"layer_types": ["full_attention"] * 2}, id="full attention, layer by layer"),
        pytest.param({"sliding_window": 4096, "layer_types": ["full_attention"] * 2}, id="a window that no layer uses"),
        pytest.param({"layer_types": ["sliding_attention"]}, id="windows that are switched off"),
    ],
)
def test_full_attention_goes_with_offload(changes: dict[str, Any]) -> None:
    refusals.check_offload(config(model_config=model(**changes)))


def test_the_kernels_lay_keys_out_as_the_int8_codec_reads_them() -> None:
    from vllm import _custom_ops as ops
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    heads, block_size, channels, tokens = 2, 32, 64, 5
    cache = torch.zeros(3, heads, block_size, 2 * channels)
    key, value = torch.randn(tokens, heads, channels), torch.randn(tokens, heads, channels)
    key_cache, value_cache = cache.view(3, heads, 2 * block_size, channels).chunk(2, dim=2)
    slots = torch.arange(block_size, block_size + tokens)
    ops.cpu_attn_reshape_and_cache(key, value, key_cache, value_cache, slots, "vec", k_scale=1.0, v_scale=1.0, kv_cache_dtype="auto")
    keys, values = split(cache, LayerShape(heads, block_size, channels, torch.float32, KeyLayout.TRANSPOSED))
    assert torch.equal(keys[1, :, :, :tokens], key.permute(1, 2, 0))
    assert torch.equal(values[1, :, :tokens], value.transpose(0, 1))


@pytest.mark.parametrize(
    ("isa", "keys"),
    [
        pytest.param("vec", KeyLayout.TRANSPOSED, id="AVX2 and AVX-512"),
        pytest.param("amx", None, id="AMX"),
        pytest.param("neon", None, id="Arm"),
        pytest.param("vec16", None, id="blocks or heads of 16"),
    ],
)
def test_where_a_channel_lies_is_known_for_one_cpu_layout_only(monkeypatch: pytest.MonkeyPatch, isa: str, keys: KeyLayout | None) -> None:
    from vllm.v1.attention.backends import cpu_attn

    monkeypatch.setattr(cpu_attn, "_get_attn_isa", lambda *arguments: isa)
    config = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16), cache_config=SimpleNamespace(cache_dtype="auto"))
    assert geometry.layer_shape(config, kv_cache(full_attention())).keys is keys


def test_int8_is_refused_where_no_one_knows_the_channels_and_auto_is_not() -> None:
    from alise_engine.enginecore.settings import check_codec

    connector = SimpleNamespace(codecs=lambda: ("raw",))
    check_codec("auto", connector)
    with pytest.raises(ConfigError, match="codec int8 does not support this KV cache layout and dtype: use auto or none"):
        check_codec("int8", connector)


def test_the_blocks_that_a_step_gives_out_are_those_of_new_resumed_and_growing_requests() -> None:
    output = SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(block_ids=([1, 2],))],
        scheduled_cached_reqs=SimpleNamespace(new_block_ids=[None, ([7],), ([8, 9],)]),
    )
    assert scheduler_access.blocks_given_in(output) == {1, 2, 7, 8, 9}


class Queued:
    """A waiting request as the queue sees it."""

    def __init__(self, name: str, priority: int) -> None:
        self.request_id, self.priority = name, priority

    def __lt__(self, other: "Queued") -> bool:
        return self.priority < other.priority


class TestRankedQueue:
    def make(self) -> tuple[Any, dict[str, Queued]]:
        from alise_engine.enginecore.ranked_queue import RankedQueue

        queue = RankedQueue()
        requests = {name: Queued(name, priority) for name, priority in (("a", 3), ("b", 1), ("c", 2))}
        for request in requests.values():
            queue.add_request(request)
        return queue, requests

    def test_the_best_is_at_the_head(self) -> None:
        queue, _ = self.make()
        assert [queue.pop_request().request_id for _ in range(3)] == ["b", "c", "a"]

    def test_an_empty_queue_has_no_head(self) -> None:
        from alise_engine.enginecore.ranked_queue import RankedQueue

        with pytest.raises(IndexError):
            RankedQueue().peek_request()

    def test_a_rebuild_follows_new_priorities(self) -> None:
        queue, requests = self.make()
        requests["a"].priority = 0
        queue.rebuild()
        assert [r.request_id for r in queue] == ["a", "b", "c"]

    def test_requests_can_be_removed(self) -> None:
        queue, requests = self.make()
        queue.remove_requests([requests["b"], requests["c"]])
        assert [r.request_id for r in queue] == ["a"]
        queue.remove_request(requests["a"])
        assert len(queue) == 0
