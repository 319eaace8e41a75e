"""From the user's flags to vLLM's."""

import json
from dataclasses import replace
from typing import Any

import pytest

from alise_engine.errors import ConfigError
from alise_engine.serve.compose import IN_PROCESS_EXECUTOR, Composed, Machine, Own, compose, host_store

CPU = Machine("cpu", cores=4)
CUDA = Machine("cuda", cores=32)


def composed(
    *argv: str, given: dict[str, Any] | None = None, own: Own | None = None, machine: Machine = CPU, environ: dict[str, str] | None = None
) -> Composed:
    return compose(["tiny", *argv], given or {}, own or Own(), machine, environ or {})


def value(result: Composed, flag: str) -> str:
    assert result.argv.count(flag) == 1, f"{flag} in {result.argv}"
    return result.argv[result.argv.index(flag) + 1]


def test_the_users_flags_go_on_as_they_were_written_after_the_model() -> None:
    result = composed("--max-model-len=2048", "--served-model-name", "x")
    assert result.argv[:5] == ("serve", "tiny", "--max-model-len=2048", "--served-model-name", "x")


def test_the_scheduler_and_the_connector_are_ours() -> None:
    result = composed(own=Own(host_memory="512Mi", kv_codec="int8"))
    assert value(result, "--scheduler-cls") == "alise_engine.enginecore.scheduler.make_scheduler"
    assert value(result, "--scheduling-policy") == "priority"
    assert json.loads(value(result, "--kv-transfer-config")) == {
        "kv_connector": "AliseKVConnector",
        "kv_connector_module_path": "alise_engine.kv.connector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"host_bytes": 512 * 2**20},
    }
    assert json.loads(value(result, "--additional-config")) == {"alise": {"codec": "int8", "socket_dir": "/run/alise/sock"}}


def test_without_host_memory_there_is_no_connector() -> None:
    """A model of several kinds of attention is served then (A23)."""
    result = composed(own=Own(host_memory="0"))
    assert "--kv-transfer-config" not in result.argv
    assert value(result, "--scheduler-cls") == "alise_engine.enginecore.scheduler.make_scheduler"


@pytest.mark.parametrize(
    ("at_most", "memory_gib", "store"),
    [
        pytest.param(None, 64, {"host_bytes_at_most": 16 * 2**30}, id="a quarter of the container's memory"),
        pytest.param("8Gi", 64, {"host_bytes_at_most": 8 * 2**30}, id="the bound, where that is less"),
        pytest.param("8Gi", 16, {"host_bytes_at_most": 4 * 2**30}, id="a small container"),
        pytest.param(None, 0, {}, id="memory that is not known"),
    ],
)
def test_a_host_store_whose_size_is_left_out_has_a_bound(at_most: str | None, memory_gib: int, store: dict[str, int]) -> None:
    result = composed(own=Own(host_memory_at_most=at_most), machine=Machine("cuda", cores=32, memory_bytes=memory_gib * 2**30))
    assert json.loads(value(result, "--kv-transfer-config"))["kv_connector_extra_config"] == store


def test_the_users_additional_config_stays_beside_ours() -> None:
    result = composed(given={"additional_config": {"other": 1}})
    config = json.loads(value(result, "--additional-config"))
    assert (config["other"], config["alise"]["codec"]) == (1, "auto")


def test_on_a_cpu_defaults_are_set_where_the_user_set_none() -> None:
    result = composed()
    assert value(result, "--block-size") == "128"
    assert "--enforce-eager" in result.argv
    assert value(result, "--distributed-executor-backend") == IN_PROCESS_EXECUTOR
    assert result.environ["OMP_NUM_THREADS"] == "2"
    assert result.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert result.environ["ALISE_ADMIT_DEADLINE_MS"] == "250"


def test_what_the_user_set_stays() -> None:
    given = {"block_size": 64, "shutdown_timeout": 5, "enforce_eager": False, "distributed_executor_backend": "mp"}
    result = composed("--block-size=64", given=given, environ={"OMP_NUM_THREADS": "7", "VLLM_CPU_KVCACHE_SPACE": "9"})
    assert {"--block-size", "--shutdown-timeout", "--enforce-eager", "--distributed-executor-backend"}.isdisjoint(result.argv)
    assert {"OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE"}.isdisjoint(result.environ)


def test_several_ranks_on_a_cpu_are_processes_as_vllm_starts_them() -> None:
    assert "--distributed-executor-backend" not in composed(given={"tensor_parallel_size": 2}).argv


def test_on_cuda_the_first_model_runner_is_used_and_no_cpu_setting() -> None:
    result = composed(machine=CUDA)
    assert result.environ["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert not [name for name in result.environ if "CPU" in name]
    assert {"--block-size", "--distributed-executor-backend"}.isdisjoint(result.argv)


COMPILERS_OFF = {"TORCH_COMPILE_DISABLE": "1", "TORCHDYNAMO_DISABLE": "1"}


def test_on_a_cpu_nothing_is_compiled() -> None:
    assert COMPILERS_OFF.items() <= composed().environ.items()


@pytest.mark.parametrize(
    ("given", "environ", "machine"),
    [
        pytest.param({"enforce_eager": False}, {}, CPU, id="a flag asks for compiling"),
        pytest.param({}, dict.fromkeys(COMPILERS_OFF, "0"), CPU, id="the environment asks for compiling"),
        pytest.param({}, {}, CUDA, id="a GPU's image has what it takes"),
    ],
)
def test_compiling_stays_on(given: dict[str, Any], environ: dict[str, str], machine: Machine) -> None:
    assert COMPILERS_OFF.keys().isdisjoint(composed(given=given, environ=environ, machine=machine).environ)


@pytest.mark.parametrize("machine", [CPU, CUDA], ids=["cpu", "cuda"])
def test_the_processes_of_an_engine_talk_over_loopback(machine: Machine) -> None:
    expected = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    assert expected.items() <= composed(machine=machine).environ.items()


def test_the_users_interface_stays() -> None:
    assert "GLOO_SOCKET_IFNAME" not in composed(environ={"GLOO_SOCKET_IFNAME": "eth1"}).environ


@pytest.mark.parametrize(
    ("environ", "allowed"),
    [
        pytest.param({}, "mine,theirs,alise", id="unset: all that are installed"),
        pytest.param({"VLLM_PLUGINS": ""}, "alise", id="the user wants none"),
        pytest.param({"VLLM_PLUGINS": "other"}, "other,alise", id="the user wants another"),
        pytest.param({"VLLM_PLUGINS": "alise,other"}, "alise,other", id="the user names ours already"),
        pytest.param({"VLLM_PLUGINS": "lora_hf_hub_resolver"}, "lora_hf_hub_resolver,alise", id="the user turns one on that downloads"),
    ],
)
def test_plugins_load_as_without_alise_and_ours_too(environ: dict[str, str], allowed: str) -> None:
    machine = Machine("cpu", 4, plugins=("mine", "theirs", "lora_hf_hub_resolver"))
    assert composed(machine=machine, environ=environ).environ["VLLM_PLUGINS"] == allowed


@pytest.mark.parametrize(
    ("own", "environ", "directory"),
    [
        pytest.param(Own(), {}, "/run/alise/sock", id="the pod's"),
        pytest.param(Own(), {"ALISE_SOCKET_DIR": "/env"}, "/env", id="the environment's"),
        pytest.param(Own(socket_dir="/flag"), {"ALISE_SOCKET_DIR": "/env"}, "/flag", id="the flag's"),
    ],
)
def test_the_socket_directory(own: Own, environ: dict[str, str], directory: str) -> None:
    result = composed(own=own, environ=environ)
    assert result.environ["ALISE_SOCKET_DIR"] == directory
    assert json.loads(value(result, "--additional-config"))["alise"]["socket_dir"] == directory


def test_a_local_model_asks_no_hub() -> None:
    assert composed(machine=Machine("cpu", 4, model_is_local=True)).environ["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in composed().environ


REFUSED = [
    pytest.param({"scheduler_cls": "x.Y"}, "--scheduler-cls is set by alise-engine", id="another scheduler"),
    pytest.param({"kv_transfer_config": {"kv_connector": "X"}}, "use --alise-host-memory", id="another connector"),
    pytest.param({"kv_offloading_size": 1.0}, "--kv-offloading-size is vLLM's own.*use --alise-host-memory", id="vLLM's own offload (A14)"),
    pytest.param({"kv_offloading_backend": "lmcache"}, "use --alise-host-memory", id="another backend of it (A14)"),
    pytest.param({"additional_config": {"alise": {}}}, "use --alise-kv-codec", id="our part of the additional config"),
    pytest.param({"scheduling_policy": "fcfs"}, "--scheduling-policy fcfs", id="another policy"),
    pytest.param({"data_parallel_size": 2}, "--data-parallel-size 2", id="data parallel"),
    pytest.param({"data_parallel_rank": 0}, "--data-parallel-rank 0", id="a data parallel rank, 0 too"),
    pytest.param({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 2", id="pipeline parallel"),
    pytest.param({"decode_context_parallel_size": 2}, "--decode-context-parallel-size 2", id="context parallel"),
    pytest.param({"api_server_count": 4}, "--api-server-count 4: exactly one", id="several API servers"),
    pytest.param({"speculative_config": {"method": "ngram"}}, "speculative decoding is not supported", id="speculative decoding"),
    pytest.param({"headless": True}, "--headless", id="no API server"),
    pytest.param({"grpc": True}, "--grpc", id="the gRPC server"),
    pytest.param({"kv_cache_dtype": "bfloat16"}, "use one of auto, fp8", id="a KV cache dtype that a CPU does not have"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_work_is_refused_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        composed(given=given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "environ", "message"),
    [
        pytest.param(CUDA, {"VLLM_USE_V2_MODEL_RUNNER": "1"}, "VLLM_USE_V2_MODEL_RUNNER=1", id="the second model runner"),
        pytest.param(CPU, {"VLLM_USE_RUST_FRONTEND": "1"}, "VLLM_USE_RUST_FRONTEND", id="the Rust server"),
    ],
)
def test_an_environment_that_does_not_work_is_refused(machine: Machine, environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(machine=machine, environ=environ)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"data_parallel_size": 1}, id="one data parallel engine"),
        pytest.param({"api_server_count": 1}, id="one API server"),
        pytest.param({"scheduling_policy": "priority"}, id="the policy we set"),
        pytest.param({"kv_cache_dtype": "fp8_e5m2"}, id="a KV cache dtype that a CPU has"),
    ],
)
def test_what_works_is_not_refused(given: dict[str, Any]) -> None:
    assert composed(given=given).argv[0] == "serve"


def test_a_gpu_may_have_other_kv_cache_dtypes() -> None:
    assert composed(given={"kv_cache_dtype": "bfloat16"}, machine=CUDA).argv[0] == "serve"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("2Gi", 2 * 2**30, id="gibibytes"),
        pytest.param("1.5Gi", 3 * 2**29, id="a fraction"),
        pytest.param("500M", 500 * 10**6, id="megabytes"),
        pytest.param("1024", 1024, id="bytes"),
        pytest.param("1e9", 10**9, id="an exponent"),
    ],
)
def test_the_size_of_the_host_store_is_a_kubernetes_quantity(text: str, size: int) -> None:
    assert host_store(Own(host_memory=text), CPU) == {"host_bytes": size}


@pytest.mark.parametrize("text", ["", "lots", "-1Gi", "2GB", "2 Gi i"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--alise-host-memory"):
        host_store(Own(host_memory=text), CPU)


def test_a_store_of_half_a_byte_is_refused_with_an_example() -> None:
    with pytest.raises(
        ConfigError, match=r"--alise-host-memory: '500m' is not a quantity of bytes such as 4Gi.*; m stands for a thousandth"
    ):
        host_store(Own(host_memory="500m"), CPU)


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(ConfigError, match="'zstd'"):
        composed(own=Own(kv_codec="zstd"))


def test_a_model_path_that_is_not_there_is_refused_before_vllm_takes_it_for_a_name_of_the_hub() -> None:
    with pytest.raises(ConfigError, match=r"the model \S+ does not exist in the engine's container: set spec.model.uri to a folder"):
        composed(machine=replace(CPU, model_is_absent=True))


def test_vllm_adds_no_second_request_id_to_an_answer() -> None:
    flag = "--enable-request-id-headers"
    assert composed(flag, given={"enable_request_id_headers": True}).argv[-1] != flag
    assert "--no-enable-request-id-headers" in composed(flag, given={"enable_request_id_headers": True}).argv
    assert "--no-enable-request-id-headers" not in composed().argv


def test_traces_have_a_name_and_their_exports_a_deadline_unless_the_user_set_them() -> None:
    given = {"otlp_traces_endpoint": "http://collector:4317"}
    result = composed(given=given)
    assert (result.environ["OTEL_SERVICE_NAME"], result.environ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"]) == ("alise-engine", "3")
    assert "OTEL_SERVICE_NAME" not in composed(given=given, environ={"OTEL_SERVICE_NAME": "qwen"}).environ
    assert "OTEL_SERVICE_NAME" not in composed().environ


def test_traces_without_the_statistics_that_they_are_made_of_are_refused() -> None:
    with pytest.raises(ConfigError, match="--disable-log-stats: vLLM needs these statistics"):
        composed(given={"otlp_traces_endpoint": "http://collector:4317", "disable_log_stats": True})
