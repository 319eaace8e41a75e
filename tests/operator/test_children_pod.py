"""The pod and its rollout: containers, volumes, probes, resources and images."""

from typing import Any

import pytest

from alise_operator.children.pod import EXIT_MARGIN_SECONDS
from tests.operator.builders import CURRENT, OLD
from tests.operator.built import build, container, environment, pod


def test_the_sidecar_is_native_where_the_cluster_has_it() -> None:
    native, plain = pod(CURRENT), pod(OLD)
    assert [(one["name"], one["restartPolicy"]) for one in native["initContainers"]] == [("scheduler", "Always")]
    assert [one["name"] for one in native["containers"]] == ["engine"]
    assert "initContainers" not in plain
    assert [one["name"] for one in plain["containers"]] == ["engine", "scheduler"]


def test_the_sidecar_cannot_make_the_pod_unready() -> None:
    assert not {"readinessProbe", "livenessProbe", "startupProbe"} & set(container("scheduler"))


def test_the_engine_is_probed_over_http() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container("engine")[probe]["httpGet"] == {"path": "/health", "port": "http", "scheme": "HTTP"}


def test_containers_run_restricted() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for name in ("engine", "scheduler"):
        security = container(name)["securityContext"]
        assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", ["engine", "scheduler"])
def test_containers_are_started_by_an_init(name: str) -> None:
    """PID 1 ignores SIGTERM until it has installed a handler, which takes vLLM many seconds."""
    assert container(name)["command"] == ["tini", "--", f"alise-{name}"]


def test_both_containers_share_the_socket_volume_in_memory() -> None:
    volumes = {one["name"]: one for one in pod()["volumes"]}
    for name in ("engine", "scheduler"):
        mounts = {one["mountPath"]: one["name"] for one in container(name)["volumeMounts"]}
        assert mounts["/run/alise"] == "run"
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("drain_seconds", [0, 1, 120, 86_400])
def test_the_grace_period_covers_the_drain_of_both_containers(drain_seconds: int) -> None:
    grace = pod(drainSeconds=drain_seconds)["terminationGracePeriodSeconds"]
    engine = container("engine", drainSeconds=drain_seconds)["lifecycle"]["preStop"]["exec"]["command"]
    scheduler = container("scheduler", drainSeconds=drain_seconds)["lifecycle"]["preStop"]["exec"]["command"]
    assert engine == ["alise-engine", "drain", "--timeout-seconds", str(drain_seconds)]
    assert scheduler[:3] == ["alise-scheduler", "wait-for-engine-exit", "--timeout-seconds"]
    assert drain_seconds + EXIT_MARGIN_SECONDS <= grace
    assert drain_seconds < int(scheduler[3]) < grace


def test_a_rollout_starts_the_new_pod_before_it_stops_the_old_one() -> None:
    assert build()["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize(
    ("changes", "cached"),
    [
        pytest.param({"model": {"uri": "a/b", "cache": {"claimName": "team"}}}, True, id="with a claim that one node mounts"),
        pytest.param({"engine": {"device": "cuda", "rollout": "replace"}}, False, id="where every GPU is taken"),
        pytest.param({"model": {"uri": "a/b", "cache": {"size": "1Gi"}}}, True, id="with a volume that one node mounts"),
    ],
)
def test_a_rollout_stops_the_old_pod_first(changes: dict[str, Any], cached: bool) -> None:
    deployment = build(**changes)["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert ("topologySpreadConstraints" not in deployment["template"]["spec"]) is cached


def test_the_token_comes_from_the_secret_and_never_as_text() -> None:
    env = environment("engine", model={"uri": "a/b", "tokenSecretRef": {"name": "hub", "key": "hf"}})
    assert env["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "hf"}}


def test_the_model_cache_holds_the_hubs_files() -> None:
    cached: dict[str, Any] = {"model": {"uri": "a/b", "cache": {"size": "1Gi"}}}
    mounts = {one["name"]: one["mountPath"] for one in container("engine", **cached)["volumeMounts"]}
    assert environment("engine", **cached)["HF_HOME"] == mounts["model-cache"]


def test_a_variable_of_the_user_wins_over_a_default() -> None:
    env = container("engine", engine={"device": "cpu", "env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "3"}]})["env"]
    assert [one["value"] for one in env if one["name"] == "VLLM_CPU_KVCACHE_SPACE"] == ["3"]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        pytest.param({}, "32Gi", id="weights that are in the image"),
        pytest.param({"model": {"uri": "org/model"}}, "256Gi", id="weights that are downloaded into it"),
        pytest.param({"model": {"uri": "org/model", "cache": {"size": "1Gi"}}}, "32Gi", id="weights in a cache"),
        pytest.param(
            {"model": {"uri": "org/model"}, "engine": {"device": "cpu", "env": [{"name": "HF_HOME", "value": "/hub"}]}},
            "32Gi",
            id="weights in a folder of the user's",
        ),
        pytest.param({"engine": {"device": "cpu", "scratchSize": "1Ti"}}, "1Ti", id="the user's own size"),
        pytest.param({"engine": {"device": "cpu", "scratchSize": "0"}}, None, id="no limit"),
    ],
)
def test_the_scratch_volume_has_a_size(changes: dict[str, Any], size: str | None) -> None:
    (scratch,) = [one for one in pod(**changes)["volumes"] if one["name"] == "scratch"]
    assert scratch["emptyDir"].get("sizeLimit") == size


def test_the_hub_is_where_the_user_says() -> None:
    engine = {"device": "cpu", "env": [{"name": "HF_HOME", "value": "/hub"}]}
    assert [one["value"] for one in container("engine", engine=engine)["env"] if one["name"] == "HF_HOME"] == ["/hub"]


def test_without_memory_given_the_request_covers_what_is_known_to_be_needed() -> None:
    assert container("engine", kvOffload={"hostMemory": "2Gi"})["resources"]["requests"]["memory"] == "4368Mi"


def test_images_come_from_the_spec_then_from_the_operator() -> None:
    assert container("engine")["image"] == CURRENT.images.engine_cpu
    assert container("engine", engine={"device": "cuda"})["image"] == CURRENT.images.engine_cuda
    assert container("engine", engine={"image": "x/y:1"})["image"] == "x/y:1"
    assert container("scheduler", scheduling={"image": "x/z:1"})["image"] == "x/z:1"
