"""Rules that join fields of a spec, and specs that pass all of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alise_contract.quantities import PATTERN
from alise_operator.children.pod import admission_env
from alise_operator.rules import RESERVED_ENV, check
from alise_operator.spec import Spec, parse
from tests.operator.builders import make_spec, raw_spec
from tests.operator.built import SPECS
from tests.operator.complaints import KEYS, complaint, engine

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))

HALF_A_BYTE = "'500m' is not a quantity of bytes such as 4Gi, 500M or 1024; m stands for a thousandth of a byte"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param(
            raw_spec(model={"uri": "a/b", "servedName": "tiny", "aliases": ["gpt-3.5-turbo", "tiny"]}),
            ["spec.model.aliases[1]: 'tiny' is already spec.model.servedName; remove it"],
            id="an alias that is the name",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "aliases": ["gpt-4", "gpt-4"]}),
            ["spec.model.aliases[1]: 'gpt-4' is already spec.model.aliases[0]; remove it"],
            id="an alias twice",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "aliases": ["a/b"]}),
            ["spec.model.aliases[0]: 'a/b' is already spec.model.uri; remove it"],
            id="an alias that is the model",
        ),
        pytest.param(
            engine(env=[{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "9" * 5000}]), ["is not a whole number of GiB"], id="GiB of 5000 digits"
        ),
        pytest.param(
            engine(kvCacheDtype="int4"),
            ["spec.engine.kvCacheDtype: 'int4' is not available on device cpu; use one of auto, fp8, fp8_e4m3, fp8_e5m2"],
            id="a KV cache dtype the CPU lacks",
        ),
        pytest.param(
            engine(args=["--kv-cache-dtype=int8"]),
            ["spec.engine.args[0]: 'int8' is not available on device cpu"],
            id="a KV cache dtype the CPU lacks, as a flag",
        ),
        pytest.param(
            engine(args=["--kv_cache_dtype", "fp8_inc"]),
            ["'fp8_inc' is not available on device cpu"],
            id="the same flag spelled with underscores",
        ),
        pytest.param(
            raw_spec(route={"type": "Ingress", "hosts": ["a.b"], "className": "x", "parentRef": {"name": "g"}}),
            ["spec.route: className (Ingress) and parentRef (HTTPRoute) are both set"],
            id="both route types",
        ),
        pytest.param(
            raw_spec(route={"type": "Ingress"}), ["spec.route.hosts: is empty; type Ingress needs at least one host"], id="no hosts"
        ),
        pytest.param(
            raw_spec(route={"type": "HTTPRoute", "hosts": ["a.b"]}),
            ["spec.route.parentRef: is required"],
            id="an HTTPRoute without a Gateway",
        ),
        pytest.param(
            raw_spec(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}, "tlsSecret": "s"}),
            ["spec.route.tlsSecret: 's' is allowed only with type Ingress"],
            id="a TLS secret with an HTTPRoute",
        ),
        pytest.param(
            raw_spec(route={"className": "x"}),
            ["spec.route.className: 'x' is allowed only with type Ingress"],
            id="a class without an Ingress",
        ),
        pytest.param(
            raw_spec(route={"type": "Ingress", "hosts": ["a.b"], "parentRef": {"name": "g"}}),
            ["spec.route.parentRef: 'g' is allowed only with type HTTPRoute"],
            id="a Gateway with an Ingress",
        ),
        pytest.param(
            raw_spec(engine={"device": "cuda", "kvCacheDtype": "int4"}),
            ["spec.engine.kvCacheDtype: 'int4' is not available on device cuda; use one of auto, float16, bfloat16, fp8"],
            id="a KV cache dtype that vLLM does not have",
        ),
        pytest.param(
            engine(kvCacheDtype="fp8") | {"kvOffload": {"quantization": "int8"}},
            [
                "spec.kvOffload.quantization: 'int8' cannot be combined with spec.engine.kvCacheDtype fp8",
                "stored unchanged on the host; use auto or none",
            ],
            id="INT8 on the host of KV that is 8 bits wide",
        ),
        pytest.param(
            engine(args=["--kv-cache-dtype=fp8"]) | {"kvOffload": {"quantization": "int8"}},
            ["'int8' cannot be combined with --kv-cache-dtype fp8"],
            id="the same by a flag",
        ),
        pytest.param(
            engine(kvCacheDtype="fp8", args=["--kv-cache-dtype=fp8"]),
            ["spec.engine.args[0]: --kv-cache-dtype is set here and as spec.engine.kvCacheDtype; keep one of them"],
            id="a KV cache dtype by the field and by its flag",
        ),
        pytest.param(
            raw_spec(engine={"device": "cuda", "args": ["--kv-cache-dtype", "int4"]}),
            ["spec.engine.args[0]: 'int4' is not available on device cuda"],
            id="the same as a flag",
        ),
        pytest.param(engine(args=["--kv-cache-dtype"]), ["args[0]: --kv-cache-dtype needs a value"], id="a flag without its value"),
        pytest.param(
            engine(args=["--shutdown-timeout", "600"]),
            ["--shutdown-timeout 600: must be a whole number of seconds up to 25", "spec.drainSeconds"],
            id="a shutdown longer than the pod lives",
        ),
        pytest.param(
            raw_spec(engine={"device": "cuda", "env": [{"name": "VLLM_USE_V2_MODEL_RUNNER", "value": "1"}]}),
            ["spec.engine.env[0]: VLLM_USE_V2_MODEL_RUNNER=1: requests resume exactly only with model runner V1; leave it out"],
            id="the other model runner",
        ),
        pytest.param(
            engine(env=[{"name": "VLLM_USE_RUST_FRONTEND", "value": "1"}]),
            ["VLLM_USE_RUST_FRONTEND=1: alise runs in"],
            id="the other server",
        ),
        pytest.param(
            raw_spec(replicas=2, model={"uri": "a/b", "cache": {"size": "1Gi"}}),
            [
                "spec.model.cache.accessMode: 'ReadWriteOnce' allows one node, so it cannot be combined with",
                "2 replicas; use ReadWriteMany or replicas 1",
            ],
            id="a volume of one node for two replicas",
        ),
        pytest.param(engine(args=["--data-parallel-size", "2"]), ["--data-parallel-size 2: data parallel"], id="data parallel engines"),
        pytest.param(
            engine(args=["-dp", "2"]), ["data parallel engines are not supported; use spec.replicas"], id="data parallel engines, short"
        ),
        pytest.param(
            engine(args=["--speculative-config.method=ngram"]), ["speculative decoding is not supported"], id="speculative decoding, dotted"
        ),
        pytest.param(engine(args=["--api-server-count", "4"]), ["only one API server per pod"], id="several API servers"),
        pytest.param(
            engine(args=["--port", "9"]), ["spec.engine.args[0]: --port cannot be set, because the pod listens on 8000"], id="another port"
        ),
        pytest.param(
            engine(args=["--enforce-eager", "--served-model-name", "x"]),
            ["spec.engine.args[1]: --served-model-name is set by the operator; use spec.model.servedName"],
            id="a flag that has a field",
        ),
        pytest.param(
            engine(maxModelLen=2048, args=["--max-model-len", "4096"]),
            ["--max-model-len is set here and as spec.engine.maxModelLen; keep one"],
            id="a field and its flag",
        ),
        pytest.param(
            engine(env=[{"name": "HOME", "value": "/"}]), ["spec.engine.env[0]: HOME is set by the operator"], id="reserved environment"
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "cache": {"size": "1Gi"}}, engine={"env": [{"name": "HF_HOME", "value": "/hub"}]}),
            ["spec.engine.env[0]: HF_HOME is set here, and spec.model.cache stores the same files; keep one of them"],
            id="two places for the hub's files",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "cache": {}}),
            ["spec.model.cache: needs size, for a claim that the operator creates, or claimName"],
            id="a cache of no size",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "cache": {"claimName": "team", "size": "1Gi", "storageClass": "fast"}}),
            [
                "spec.model.cache.size: '1Gi' cannot be combined with claimName",
                "spec.model.cache.storageClass: 'fast' cannot be combined with claimName",
            ],
            id="a claim that exists, with a size",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "cache": {"claimName": "tiny"}}),
            ["spec.model.cache.claimName: 'tiny' is the name of the claim that the operator creates with size"],
            id="the claim that would be deleted",
        ),
        pytest.param(
            raw_spec(replicas=2, model={"uri": "a/b", "cache": {"claimName": "team"}}),
            [
                "spec.model.cache.accessMode: 'ReadWriteOnce' allows one node, so it cannot be combined with",
                "2 replicas; use ReadWriteMany or replicas 1",
            ],
            id="replicas that share an existing claim of one node",
        ),
        pytest.param(
            engine(resources={"requests": {"amd.com/gpu": 1}, "limits": {"amd.com/gpu": 2}}),
            ["spec.engine.resources.requests.amd.com/gpu: '1' must equal the limit '2'"],
            id="fewer devices than the limit",
        ),
        pytest.param(engine(env=[{"name": "A"}]), ["A needs exactly one of value and valueFrom"], id="environment without a value"),
        pytest.param(engine(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), ["A is set twice"], id="environment twice"),
        pytest.param(
            engine(env=[{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1.5"}]),
            ["'1.5' is not a whole number of GiB"],
            id="half a GiB of KV cache",
        ),
        pytest.param(
            raw_spec(
                model={"uri": "a/b", "tokenSecretRef": {"name": "hub"}},
                engine={"device": "cpu", "env": [{"name": "HF_TOKEN", "value": "x"}]},
            ),
            ["HF_TOKEN is set here and by spec.model.tokenSecretRef"],
            id="two tokens",
        ),
        pytest.param(
            engine(resources={"limits": {"memory": "2Gi"}}),
            [
                "spec.engine.resources.limits.memory: '2Gi' is below 3344Mi",
                "1Gi (spec.kvOffload.hostMemory)",
                "1Gi (the KV cache",
                "raise the limit",
            ],
            id="a memory limit below the sum",
        ),
        pytest.param(
            raw_spec(kvOffload={"hostMemory": "500m"}), [f"spec.kvOffload.hostMemory: {HALF_A_BYTE}"], id="half a byte of host memory"
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "cache": {"size": "500m"}}), [f"spec.model.cache.size: {HALF_A_BYTE}"], id="half a byte of cache"
        ),
        pytest.param(engine(scratchSize="500m"), [f"spec.engine.scratchSize: {HALF_A_BYTE}"], id="half a byte of scratch space"),
        pytest.param(
            raw_spec(admission={"maxBodySize": "500m"}), [f"spec.admission.maxBodySize: {HALF_A_BYTE}"], id="half a byte of a body"
        ),
        pytest.param(
            engine(resources={"requests": {"memory": "500m"}}),
            [f"spec.engine.resources.requests.memory: {HALF_A_BYTE}"],
            id="half a byte of memory",
        ),
        pytest.param(
            raw_spec(scheduling={"resources": {"limits": {"ephemeral-storage": "500m"}}}),
            [f"spec.scheduling.resources.limits.ephemeral-storage: {HALF_A_BYTE}"],
            id="half a byte of the scheduler's disk",
        ),
        pytest.param(
            engine(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}),
            ["spec.engine.resources.requests.cpu: '2' is above the limit '500m'"],
            id="a request above its limit",
        ),
        pytest.param(
            raw_spec(scheduling={"classes": [{"name": "batch", "weight": 40}]}),
            ["spec.scheduling.classes[0].weight: '40' is not between 0.0625 and 16"],
            id="a class that weighs too much",
        ),
        pytest.param(
            raw_spec(scheduling={"classes": [{"name": "a"}, {"name": "a"}]}),
            ["spec.scheduling.classes[1].name: 'a' is listed twice"],
            id="a class twice",
        ),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": "team-a", "class": "gold"}]}, scheduling={"classes": [{"name": "batch"}]}),
            ["spec.auth.tenants[0].class: 'gold' is not a class in spec.scheduling.classes; use one of 'batch'"],
            id="a tenant of an unknown class",
        ),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": "team-a", "class": "gold"}]}),
            ["spec.auth.tenants[0].class: 'gold' is not a class in spec.scheduling.classes; there are none yet"],
            id="a tenant of a class where there are none",
        ),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": "a", "class": "gold"}] * 2}, scheduling={"classes": [{"name": "gold"}]}),
            ["spec.auth.tenants[1].name: 'a' is listed twice"],
            id="a tenant twice",
        ),
        pytest.param(
            engine(args=["--enforce-eager", "--api_key=secret"]) | {"auth": KEYS},
            ["spec.engine.args[1]: --api-key is set here, and spec.auth names a Secret with API keys; keep one of them"],
            id="API keys and vLLM's own",
        ),
        pytest.param(
            engine(env=[{"name": "VLLM_API_KEY", "value": "secret"}]) | {"auth": KEYS},
            ["spec.engine.env[0]: VLLM_API_KEY is set here, and spec.auth names a Secret with API keys; keep one of them"],
            id="API keys and vLLM's own in the environment",
        ),
        pytest.param(
            raw_spec(admission={"maxBodySize": "1023"}),
            ["spec.admission.maxBodySize: '1023' is not between 1Ki and 1Gi"],
            id="bodies too small for a request",
        ),
        pytest.param(
            raw_spec(admission={"maxBodySize": "1025Mi"}), ["'1025Mi' is not between 1Ki and 1Gi"], id="bodies as large as the memory"
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused_with_field_value_and_what_is_allowed(raw: dict[str, Any], said: list[str]) -> None:
    message = complaint(raw)
    for part in said:
        assert part in message


@pytest.mark.parametrize("name", sorted(RESERVED_ENV))
def test_a_variable_that_the_operator_sets_is_refused_with_the_field_to_use(name: str) -> None:
    message = complaint(engine(env=[{"name": name, "value": "1"}]))
    assert message == f"spec.engine.env[0]: {name} is set by the operator" + (f"; use {RESERVED_ENV[name]}" if RESERVED_ENV[name] else "")


@pytest.mark.parametrize("name", SPECS)
def test_a_setting_of_the_api_server_that_a_field_becomes_cannot_be_set_as_well(name: str) -> None:
    missing = admission_env(make_spec(**SPECS[name])).keys() - RESERVED_ENV.keys()
    assert missing == set(), "add them to RESERVED_ENV in operator/alise_operator/rules.py, with the field to use"


@pytest.mark.parametrize("name", ["a.b", "1st", "x" * 64])
def test_a_name_that_cannot_name_a_service_is_refused(name: str) -> None:
    assert "metadata.name" in complaint(raw_spec(), name)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(raw_spec(), id="the least that is needed"),
        pytest.param(engine(env=[{"name": "HF_HOME", "value": "/hub"}]), id="a place for the hub's files"),
        pytest.param(
            raw_spec(replicas=2, model={"uri": "/models/tiny", "cache": {"claimName": "team", "accessMode": "ReadWriteMany"}}),
            id="replicas that share an existing claim",
        ),
        pytest.param(engine(kvCacheDtype="fp8_e5m2"), id="a KV cache dtype the CPU has"),
        pytest.param(
            engine(kvCacheDtype="fp8") | {"kvOffload": {"quantization": "int8", "hostMemory": 0}}, id="8-bit KV and no host store"
        ),
        pytest.param(
            engine(kvCacheDtype="bfloat16", device="cuda") | {"kvOffload": {"quantization": "int8"}}, id="INT8 on the host of 16-bit KV"
        ),
        pytest.param(raw_spec(engine={"device": "cuda", "kvCacheDtype": "nvfp4"}), id="a KV cache dtype of a GPU"),
        pytest.param(engine(args=["--data-parallel-size", "1"]), id="a data parallel size of one"),
        pytest.param(engine(args=["--max-model-len", "2048"]), id="a flag whose field is left out"),
        pytest.param(engine(resources={"limits": {"memory": "3344Mi"}}), id="a memory limit of exactly the sum"),
        pytest.param(engine(resources={"limits": {"cpu": 2}}), id="a quantity written as a number"),
        pytest.param(raw_spec(replicas=0), id="no replicas"),
        pytest.param(engine(args=["--shutdown-timeout=25"]), id="a shutdown within the grace period"),
        pytest.param(engine(args=["-pp", "1"]), id="a pipeline of one"),
        pytest.param(engine(env=[{"name": "VLLM_USE_V2_MODEL_RUNNER", "value": "0"}]), id="the model runner that is used anyway"),
        pytest.param(
            raw_spec(replicas=2, model={"uri": "/models/tiny", "cache": {"size": "1Gi", "accessMode": "ReadWriteMany"}}),
            id="a volume of several nodes for two replicas",
        ),
        pytest.param(raw_spec(scheduling={"classes": [{"name": "größe"}, {"name": "急ぎ"}, {"name": "two words"}]}), id="names in UTF-8"),
        pytest.param(raw_spec(auth=KEYS), id="API keys without classes"),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": "Team_a.b-1", "class": "größe"}]}, scheduling={"classes": [{"name": "größe"}]}),
            id="a tenant with a class",
        ),
        pytest.param(engine(args=["--api-key", "secret"], env=[{"name": "VLLM_API_KEY", "value": "secret"}]), id="vLLM's own API keys"),
        pytest.param(raw_spec(admission={"maxBodySize": "1Ki", "bodySeconds": 3600}), id="the smallest bodies"),
        pytest.param(raw_spec(admission={"maxBodySize": "1Gi", "bodySeconds": 1}), id="the largest bodies"),
        pytest.param(
            raw_spec(networkPolicy={"from": [{"namespaceSelector": {"matchLabels": {"team": "edge"}}}]}), id="who may reach the pods"
        ),
    ],
)
def test_a_good_spec_passes(raw: dict[str, Any]) -> None:
    spec = parse(raw)
    check(spec, "tiny")
    assert spec.model.uri == "/models/tiny"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_pass_every_rule(path: Path) -> None:
    resource = yaml.safe_load(path.read_text())
    check(parse(resource["spec"]), resource["metadata"]["name"])
    assert resource["kind"] == "AliseEngine"


def test_more_host_memory_needs_a_larger_limit() -> None:
    limits = {"device": "cpu", "resources": {"limits": {"memory": "4Gi"}}}
    check(make_spec(engine=limits, kvOffload={"hostMemory": "1Gi"}), "tiny")
    assert "lower spec.kvOffload.hostMemory" in complaint(raw_spec(engine=limits, kvOffload={"hostMemory": "2Gi"}))


def test_every_quantity_of_the_resource_is_a_size_that_is_checked_or_is_known_to_be_none() -> None:
    schema = Spec.model_json_schema(by_alias=True)
    pattern = json.dumps(PATTERN)
    found = {
        f"{name}.{field}"
        for name, model in schema["$defs"].items()
        for field, value in model["properties"].items()
        if pattern in json.dumps(value)
    }
    assert found - {"RequestClass.weight", "Traces.samplingRatio"} == {
        *("Admission.maxBodySize", "Engine.scratchSize", "KvOffload.hostMemory", "ModelCache.size"),
        *("Resources.limits", "Resources.requests"),
    }
