"""Devices and memory of the engine's container: what the user asked for, and nothing beside it."""

from typing import Any

import pytest

from alise_operator.errors import InvalidSpec
from alise_operator.memory_rules import GIB, default_memory_limit_bytes, needed_memory_bytes, requested_memory_bytes
from tests.operator.builders import make_spec
from tests.operator.built import container

CLAIM: dict[str, Any] = {"claims": [{"name": "gpu"}]}
POD_CLAIM = {"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}}


def devices(resources: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Resources of a CUDA engine's container, without memory."""
    engine = {"device": "cuda", "resources": resources} | changes.pop("engine", {})
    found = container("engine", engine=engine, **changes)["resources"]
    for quantities in (found.get("requests", {}), found.get("limits", {})):
        quantities.pop("memory", None)
    return {key: value for key, value in found.items() if value}


def patch(resources: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", "resources": resources}]}}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param({}, {"limits": {"nvidia.com/gpu": "1"}}, id="one GPU where none is named"),
        pytest.param({"limits": {"cpu": 4}}, {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}}, id="a CPU limit is no device"),
        pytest.param(
            {"limits": {"hugepages-2Mi": "1Gi"}}, {"limits": {"hugepages-2Mi": "1Gi", "nvidia.com/gpu": "1"}}, id="huge pages are no device"
        ),
        *(
            pytest.param({"limits": {name: 1}}, {"limits": {name: "1"}}, id=name)
            for name in ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "gpu.intel.com/i915", "habana.ai/gaudi")
        ),
        pytest.param(
            {"requests": {"nvidia.com/gpu": 1}},
            {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}},
            id="a request gets the limit that Kubernetes requires",
        ),
    ],
)
def test_the_devices_are_those_that_the_user_named(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    assert devices(resources) == expected


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param({"limits": {"habana.ai/gaudi": 1}}, {"limits": {"habana.ai/gaudi": 1}}, id="another device"),
        pytest.param(
            {"requests": {"amd.com/gpu": 1}},
            {"requests": {"amd.com/gpu": 1}, "limits": {"amd.com/gpu": "1"}},
            id="a request without a limit",
        ),
        pytest.param({"limits": {"nvidia.com/gpu": None}}, {}, id="no device at all"),
    ],
)
def test_devices_in_the_pod_patch_count_as_the_users(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    assert devices({}, podTemplate=patch(resources)) == expected


def test_a_claim_is_the_engines_device() -> None:
    assert devices(CLAIM, podTemplate=POD_CLAIM) == CLAIM


def test_a_claim_that_the_pod_does_not_have_is_refused_with_an_example() -> None:
    with pytest.raises(InvalidSpec) as caught:
        devices(CLAIM)
    assert "spec.engine.resources.claims: the pod has no claim 'gpu'; add it to spec.podTemplate.spec.resourceClaims" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"podTemplate": patch(CLAIM)}, "spec.podTemplate.spec.containers[engine].resources.claims", id="in the pod patch"),
        pytest.param({"scheduling": {"resources": CLAIM}}, "spec.scheduling.resources.claims", id="of the scheduler"),
    ],
)
def test_the_field_of_an_unknown_claim_is_the_one_that_it_came_by(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        devices({}, **changes)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_weights_that_stay_in_host_memory_are_counted() -> None:
    plain = make_spec(engine={"device": "cuda", "tensorParallelSize": 2})
    offloading = make_spec(engine={"device": "cuda", "tensorParallelSize": 2, "args": ["--cpu-offload-gb", "10"]})
    assert needed_memory_bytes(offloading) - needed_memory_bytes(plain) == 20 * GIB


def test_fewer_devices_than_tensor_parallel_workers_are_refused() -> None:
    with pytest.raises(InvalidSpec) as caught:
        devices({"limits": {"nvidia.com/mig-1g.10gb": 1}}, engine={"tensorParallelSize": 2})
    said = (
        "spec.engine.tensorParallelSize: 2 is more than the devices in spec.engine.resources.limits (nvidia.com/mig-1g.10gb: 1); raise the "
        "limit to 2, or lower spec.engine.tensorParallelSize to 1"
    )
    assert said in str(caught.value)


@pytest.mark.parametrize("limits", [{"amd.com/gpu": 4}, {"rdma/hca": 1, "nvidia.com/gpu": 2}])
def test_more_devices_than_workers_are_the_users_to_ask_for(limits: dict[str, int]) -> None:
    assert devices({"limits": limits}, engine={"tensorParallelSize": 2})["limits"] == {name: str(value) for name, value in limits.items()}


@pytest.mark.parametrize(
    ("resources", "request_gib", "limit_gib"),
    [
        pytest.param({}, None, None, id="what is needed, and room to load weights"),
        pytest.param({"requests": {"memory": "200Gi"}}, 200, 200, id="no less than the request"),
        pytest.param({"limits": {"memory": "100Gi"}}, None, 100, id="the user's limit, which is the request too"),
    ],
)
def test_memory_has_a_limit(resources: dict[str, Any], request_gib: int | None, limit_gib: int | None) -> None:
    spec = make_spec(engine={"device": "cuda", "tensorParallelSize": 2, "resources": resources})
    found = container("engine", engine={"device": "cuda", "tensorParallelSize": 2, "resources": resources})["resources"]
    default = f"{(requested_memory_bytes(spec) + 2 * 64 * GIB) >> 20}Mi"
    assert default_memory_limit_bytes(spec) == requested_memory_bytes(spec) + 2 * 64 * GIB
    assert found["limits"]["memory"] == (f"{limit_gib}Gi" if limit_gib else default)
    given = found.get("requests", {}).get("memory")
    assert given == (f"{request_gib}Gi" if request_gib else None if limit_gib else f"{requested_memory_bytes(spec) >> 20}Mi")


@pytest.mark.parametrize(
    ("changes", "requested_gib"),
    [
        pytest.param({"engine": {"device": "cuda", "tensorParallelSize": 2}}, 16, id="8 GiB for each GPU"),
        pytest.param({"engine": {"device": "cpu", "env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "4"}]}}, 4, id="a CPU's KV cache"),
        pytest.param({"kvOffload": {"hostMemory": "3Gi"}}, 3, id="what the resource says"),
    ],
)
def test_the_request_counts_with_the_whole_host_store_and_a_limit_may_make_it_smaller(changes: dict[str, Any], requested_gib: int) -> None:
    spec, least_gib = make_spec(**changes), 3 if "kvOffload" in changes else 1
    assert requested_memory_bytes(spec) - needed_memory_bytes(spec) == (requested_gib - least_gib) * GIB
