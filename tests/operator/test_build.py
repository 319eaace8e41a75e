import argparse
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from alise_engine.cli import _parser as engine_parser
from alise_engine.endpoint import settings as engine_settings
from alise_operator.build import children
from alise_operator.build.pod import EXIT_MARGIN_SECONDS, admission_env, engine_args, scheduler_env
from alise_operator.build.route import url
from alise_operator.cluster import Cluster
from alise_operator.errors import MissingApi
from alise_scheduler import config as scheduler_config
from alise_scheduler.__main__ import parser as scheduler_parser
from tests.operator.builders import CURRENT, GATEWAY_API, OLD, OWNER, make_spec

INGRESS = {"type": "Ingress", "hosts": ["llm.example.com"], "className": "nginx"}
HTTP_ROUTE = {
    "type": "HTTPRoute",
    "hosts": ["llm.example.com"],
    "parentRef": {"name": "public", "namespace": "edge", "sectionName": "https"},
}
# Specs that between them reach every field.
SPECS: dict[str, dict[str, Any]] = {
    "the least": {},
    "several replicas behind an Ingress": {"replicas": 3, "route": INGRESS | {"tlsSecret": "cert"}},
    "an HTTPRoute": {"route": HTTP_ROUTE},
    "a cached model with a token": {
        "model": {
            "uri": "org/model",
            "revision": "main",
            "tokenSecretRef": {"name": "hub"},
            "cache": {"size": "10Gi", "storageClass": "fast", "accessMode": "ReadWriteMany"},
        }
    },
    "two GPUs": {"engine": {"device": "cuda", "tensorParallelSize": 2, "maxModelLen": 4096, "maxNumSeqs": 8, "kvCacheDtype": "fp8"}},
    "classes and limits": {
        "scheduling": {"policy": "gittins", "ageing": False, "classes": [{"name": "batch", "weight": "250m", "sloTtftMs": 500}]},
        "admission": {"maxPending": 5, "maxWaitSeconds": 7},
    },
    "API keys of tenants with classes": {
        "auth": {"secretRef": {"name": "keys"}, "tenants": [{"name": "team-a", "class": "gold"}], "guardMetrics": True},
        "scheduling": {"classes": [{"name": "gold", "weight": 2}]},
        "admission": {"maxBodySize": "1.5Mi", "bodySeconds": 5, "isolatePrefixCache": True},
    },
    "guarded pods": {
        "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    },
    "suspended": {"suspend": True, "replicas": 2},
    "a patched pod": {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}},
}


def build(cluster: Cluster = CURRENT, **changes: Any) -> dict[str, dict[str, Any]]:
    """Children by kind."""
    return {child["kind"]: child for child in children(make_spec(**changes), OWNER, cluster)}


def pod(cluster: Cluster = CURRENT, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = build(cluster, **changes)["Deployment"]["spec"]["template"]["spec"]
    return found


def container(name: str, cluster: Cluster = CURRENT, **changes: Any) -> dict[str, Any]:
    spec = pod(cluster, **changes)
    return next(one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name)


def environment(name: str, **changes: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(name, **changes)["env"]}


BUILT_ON = [
    pytest.param(changes, cluster, id=f"{name} on {version}")
    for name, changes in SPECS.items()
    for version, cluster in (("a current cluster", CURRENT), ("1.20", OLD))
    if cluster.http_route or changes.get("route") != HTTP_ROUTE
]
# Kinds without a current schema in kubernetes-validate.
UNCHECKED = {"HTTPRoute", "policy/v1beta1"}


@pytest.mark.parametrize(("changes", "cluster"), BUILT_ON)
def test_children_are_valid_for_a_current_cluster(changes: dict[str, Any], cluster: Cluster) -> None:
    checked = [child for child in children(make_spec(**changes), OWNER, cluster) if not UNCHECKED & {child["kind"], child["apiVersion"]}]
    for child in checked:
        kubernetes_validate.validate(child, "1.37", strict=True)
    assert {"Deployment", "Service"} <= {child["kind"] for child in checked}


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_children_are_a_pure_function_of_spec_owner_and_cluster(changes: dict[str, Any]) -> None:
    assert children(make_spec(**changes), OWNER, CURRENT) == children(make_spec(**changes), OWNER, CURRENT)


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_every_child_is_owned_labelled_and_named_like_its_engine(changes: dict[str, Any]) -> None:
    for child in children(make_spec(**changes), OWNER, CURRENT):
        meta = child["metadata"]
        (reference,) = meta["ownerReferences"]
        assert (meta["name"], meta["namespace"]) == ("tiny", "default")
        assert (reference["uid"], reference["controller"], reference["blockOwnerDeletion"]) == ("uid-tiny", True, True)
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "alise-operator"
        assert meta["labels"]["alise.dev/engine"] == "tiny"


@pytest.mark.parametrize(
    ("changes", "cluster", "kinds"),
    [
        pytest.param({}, CURRENT, set(), id="the least"),
        pytest.param({"route": INGRESS}, CURRENT, {"Ingress"}, id="an Ingress"),
        pytest.param({"route": HTTP_ROUTE}, CURRENT, {"HTTPRoute"}, id="an HTTPRoute"),
        pytest.param({"replicas": 2}, CURRENT, {"PodDisruptionBudget"}, id="a budget for several replicas"),
        pytest.param({"replicas": 2}, Cluster(34, frozenset()), set(), id="no budget where the cluster has none"),
        pytest.param({"replicas": 2, "suspend": True}, CURRENT, set(), id="no budget while suspended"),
        pytest.param({"model": {"uri": "a/b", "cache": {"size": "1Gi"}}}, CURRENT, {"PersistentVolumeClaim"}, id="a model cache"),
    ],
)
def test_only_wanted_kinds_are_built(changes: dict[str, Any], cluster: Cluster, kinds: set[str]) -> None:
    assert set(build(cluster, **changes)) == {"ServiceAccount", "Service", "Deployment", "NetworkPolicy"} | kinds


@pytest.mark.parametrize(("cluster", "version"), [(CURRENT, "policy/v1"), (OLD, "policy/v1beta1")])
def test_the_disruption_budget_is_of_a_version_that_the_cluster_has(cluster: Cluster, version: str) -> None:
    assert build(cluster, replicas=2)["PodDisruptionBudget"]["apiVersion"] == version


def test_an_http_route_without_the_gateway_api_says_what_to_install() -> None:
    with pytest.raises(MissingApi, match="install the Gateway API or use Ingress"):
        build(OLD, route=HTTP_ROUTE)


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
        pytest.param({"engine": {"device": "cuda", "rollout": "replace"}}, False, id="where every GPU is taken"),
        pytest.param({"model": {"uri": "a/b", "cache": {"size": "1Gi"}}}, True, id="with a volume that one node mounts"),
    ],
)
def test_a_rollout_stops_the_old_pod_first(changes: dict[str, Any], cached: bool) -> None:
    deployment = build(**changes)["Deployment"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert ("topologySpreadConstraints" not in deployment["template"]["spec"]) is cached


def test_everybody_may_reach_the_two_ports_unless_the_resource_says_who() -> None:
    (rule,) = build()["NetworkPolicy"]["spec"]["ingress"]
    assert ([port["port"] for port in rule["ports"]], "from" in rule) == ([8000, 9400], False)
    assert "NetworkPolicy" not in build(networkPolicy={"enabled": False})


@pytest.mark.parametrize(
    ("cluster", "namespaces"),
    [
        pytest.param(CURRENT, {"matchLabels": {"kubernetes.io/metadata.name": "alise-system"}}, id="its own namespace"),
        pytest.param(OLD, {}, id="any namespace, on clusters whose namespaces carry no name"),
    ],
)
def test_the_operator_may_reach_the_pods_whoever_else_may(cluster: Cluster, namespaces: dict[str, Any]) -> None:
    gateway = {"podSelector": {"matchLabels": {"app": "gateway"}}}
    (rule,) = build(cluster, networkPolicy={"from": [gateway]})["NetworkPolicy"]["spec"]["ingress"]
    operator = {"namespaceSelector": namespaces, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "alise-operator"}}}
    assert rule["from"] == [operator, gateway]


def test_a_suspended_engine_keeps_everything_but_its_pods() -> None:
    suspended = build(suspend=True, replicas=3, route=INGRESS)
    assert suspended["Deployment"]["spec"]["replicas"] == 0
    assert {"Service", "Ingress"} <= set(suspended)


def test_the_ports_say_their_protocol() -> None:
    ports = build()["Service"]["spec"]["ports"] + container("engine")["ports"] + container("scheduler")["ports"]
    assert [port["protocol"] for port in ports] == ["TCP"] * 3


def test_fields_become_flags_of_the_engine() -> None:
    args = engine_args(
        make_spec(
            model={"uri": "org/model", "revision": "v2", "servedName": "m"},
            engine={
                "device": "cuda",
                "tensorParallelSize": 2,
                "maxModelLen": 4096,
                "maxNumSeqs": 8,
                "kvCacheDtype": "fp8",
                "args": ["--seed", "7"],
            },
            kvOffload={"hostMemory": "1.5Gi", "quantization": "int8"},
        )
    )
    assert args[:2] == ["serve", "org/model"]
    assert args[-2:] == ["--seed", "7"]
    pairs = dict(zip(args[2::2], args[3::2], strict=True))
    assert (
        pairs
        | {
            "--served-model-name": "m",
            "--revision": "v2",
            "--tensor-parallel-size": "2",
            "--max-model-len": "4096",
            "--max-num-seqs": "8",
            "--kv-cache-dtype": "fp8",
            "--alise-host-memory": "1536Mi",
            "--alise-kv-codec": "int8",
        }
        == pairs
    )


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_engine_knows_the_flags_that_it_is_given(changes: dict[str, Any]) -> None:
    parser: argparse.ArgumentParser = engine_parser()
    own, rest = parser.parse_known_args(container("engine", **changes)["args"])
    assert own.command == "serve"
    assert not [flag for flag in rest if flag.startswith("--alise")]
    drain, rest = parser.parse_known_args(container("engine", **changes)["lifecycle"]["preStop"]["exec"]["command"][1:])
    assert (drain.command, rest) == ("drain", [])


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_scheduler_understands_its_settings(changes: dict[str, Any]) -> None:
    spec = make_spec(**changes)
    settings = scheduler_config.load(scheduler_env(spec), {})
    assert (settings.policy, settings.ageing, settings.max_wait_seconds) == (
        spec.scheduling.policy,
        spec.scheduling.ageing,
        spec.admission.max_wait_seconds,
    )
    assert [one.name for one in settings.classes] == [one.name for one in spec.scheduling.classes]
    waiting = scheduler_parser().parse_args(container("scheduler", **changes)["lifecycle"]["preStop"]["exec"]["command"][1:])
    assert waiting.command == "wait-for-engine-exit"


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_engine_understands_its_settings(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = make_spec(**changes)
    settings = engine_settings(admission_env(spec) | {"ALISE_SOCKET_DIR": str(tmp_path)})
    auth, admission = spec.auth, spec.admission
    assert (settings.max_pending, settings.limits.seconds) == (admission.max_pending, admission.body_seconds)
    assert (settings.rules.trust_headers, settings.isolates_prefix_cache) == (admission.trust_headers, admission.isolate_prefix_cache)
    assert settings.rules.classes == {one.name for one in spec.scheduling.classes}
    assert settings.rules.tenant_classes == ({one.name: one.class_ for one in auth.tenants} if auth else {})
    assert (settings.auth_dir, settings.guards_metrics) == ((Path("/etc/alise/auth"), auth.guard_metrics) if auth else (None, False))


def test_a_class_of_requests_reaches_the_scheduler_with_its_weight() -> None:
    (batch,) = scheduler_config.load(scheduler_env(make_spec(**SPECS["classes and limits"])), {}).classes
    assert (batch.name, batch.weight, batch.slo_ttft_ms) == ("batch", 0.25, 500)


KEYS = {"secretRef": {"name": "keys"}}


def test_the_api_server_gets_the_classes_that_the_scheduler_has() -> None:
    spec = make_spec(**SPECS["classes and limits"])
    classes = '[{"name":"batch","weight":0.25,"sloTtftMs":500}]'
    assert admission_env(spec)["ALISE_CLASSES"] == scheduler_env(spec)["ALISE_CLASSES"] == classes


def test_only_the_api_server_limits_how_many_requests_wait() -> None:
    spec = make_spec(**SPECS["classes and limits"])
    assert admission_env(spec)["ALISE_MAX_PENDING"] == "5"
    assert "ALISE_MAX_PENDING" not in scheduler_env(spec)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        pytest.param({}, "ALISE_MAX_BODY_BYTES", str(32 << 20), id="a body of 32 MiB"),
        pytest.param({"maxBodySize": "1.5Mi"}, "ALISE_MAX_BODY_BYTES", str(3 << 19), id="a quantity in bytes"),
        pytest.param({}, "ALISE_BODY_SECONDS", "60", id="a minute to send it"),
        pytest.param({"bodySeconds": 5}, "ALISE_BODY_SECONDS", "5", id="five seconds to send it"),
        pytest.param({}, "ALISE_TRUST_HEADERS", "false", id="headers of clients are not believed"),
        pytest.param({"trustHeaders": True}, "ALISE_TRUST_HEADERS", "true", id="headers of a gateway are believed"),
        pytest.param({}, "ALISE_ISOLATE_PREFIX_CACHE", "false", id="one prefix cache for all"),
        pytest.param({"isolatePrefixCache": True}, "ALISE_ISOLATE_PREFIX_CACHE", "true", id="a prefix cache per tenant"),
    ],
)
def test_limits_of_requests_reach_the_engine(changes: dict[str, Any], name: str, value: str) -> None:
    assert environment("engine", admission=changes)[name] == value


def test_the_engine_reads_api_keys_from_the_secret_and_nobody_else_does() -> None:
    volumes = {one["name"]: one for one in pod(auth=KEYS)["volumes"]}
    assert volumes["api-keys"]["secret"] == {"secretName": "keys", "defaultMode": 0o440}
    (mount,) = [one for one in container("engine", auth=KEYS)["volumeMounts"] if one["name"] == "api-keys"]
    # A subPath would never be updated.
    assert mount == {"name": "api-keys", "mountPath": "/etc/alise/auth", "readOnly": True}
    assert environment("engine", auth=KEYS)["ALISE_AUTH_DIR"] == mount["mountPath"]
    assert "api-keys" not in [one["name"] for one in container("scheduler", auth=KEYS)["volumeMounts"]]


def test_tenants_get_their_classes_and_metrics_are_guarded_on_demand() -> None:
    guarded = environment("engine", **SPECS["API keys of tenants with classes"])
    open_to_all = environment("engine", auth=KEYS)
    assert (guarded["ALISE_AUTH_CLASSES"], guarded["ALISE_AUTH_METRICS"]) == ('{"team-a":"gold"}', "true")
    assert (open_to_all["ALISE_AUTH_CLASSES"], open_to_all["ALISE_AUTH_METRICS"]) == ("{}", "false")


def test_without_auth_no_keys_are_mounted_or_asked_for() -> None:
    assert "api-keys" not in [one["name"] for one in pod()["volumes"]]
    assert not [name for name in environment("engine") if name.startswith("ALISE_AUTH")]


@pytest.mark.parametrize("name", ["engine", "scheduler"])
def test_containers_are_started_by_an_init(name: str) -> None:
    """PID 1 ignores SIGTERM until it has installed a handler, which takes vLLM many seconds."""
    assert container(name)["command"] == ["tini", "--", f"alise-{name}"]


def test_the_token_comes_from_the_secret_and_never_as_text() -> None:
    env = environment("engine", model={"uri": "a/b", "tokenSecretRef": {"name": "hub", "key": "hf"}})
    assert env["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "hf"}}


def test_the_history_lies_in_a_volume_of_the_pod() -> None:
    mounts = {one["name"]: one["mountPath"] for one in container("scheduler")["volumeMounts"]}
    assert environment("scheduler")["ALISE_HISTORY_DIR"] == mounts["history"]


def test_a_shared_history_is_reached_by_a_secret_and_never_as_text() -> None:
    predictor = {"history": {"postgres": {"dsnSecretRef": {"name": "lengths", "key": "dsn"}}}, "encoder": "/encoders/mine"}
    env = environment("scheduler", predictor=predictor)
    assert env["ALISE_HISTORY_DSN"] == {"secretKeyRef": {"name": "lengths", "key": "dsn"}}
    assert env["ALISE_ENCODER"] == "/encoders/mine"
    assert {"ALISE_HISTORY_DSN", "ALISE_ENCODER"}.isdisjoint(environment("scheduler"))


def test_the_key_of_a_shared_history_comes_from_a_secret() -> None:
    postgres = {"dsnSecretRef": {"name": "lengths"}, "keySecretRef": {"name": "salt"}}
    env = environment("scheduler", predictor={"history": {"postgres": postgres}})
    assert env["ALISE_HISTORY_KEY"] == {"secretKeyRef": {"name": "salt", "key": "key"}}
    del postgres["keySecretRef"]
    assert "ALISE_HISTORY_KEY" not in environment("scheduler", predictor={"history": {"postgres": postgres}})


@pytest.mark.parametrize(("history", "value"), [({}, "true"), ({"embeddings": False}, "false")], ids=["by default", "left out"])
def test_embeddings_of_prompts_are_kept_unless_left_out(history: dict[str, Any], value: str) -> None:
    assert environment("scheduler", predictor={"history": history})["ALISE_HISTORY_EMBEDDINGS"] == value


def test_the_key_of_a_connection_string_is_dsn_unless_named() -> None:
    env = environment("scheduler", predictor={"history": {"postgres": {"dsnSecretRef": {"name": "lengths"}}}})
    assert env["ALISE_HISTORY_DSN"] == {"secretKeyRef": {"name": "lengths", "key": "dsn"}}


def test_the_model_cache_holds_the_hubs_files() -> None:
    cached: dict[str, Any] = {"model": {"uri": "a/b", "cache": {"size": "1Gi"}}}
    mounts = {one["name"]: one["mountPath"] for one in container("engine", **cached)["volumeMounts"]}
    assert environment("engine", **cached)["HF_HOME"] == mounts["model-cache"]


def test_a_variable_of_the_user_wins_over_a_default() -> None:
    env = container("engine", engine={"device": "cpu", "env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "3"}]})["env"]
    assert [one["value"] for one in env if one["name"] == "VLLM_CPU_KVCACHE_SPACE"] == ["3"]


@pytest.mark.parametrize(
    ("engine", "limits"),
    [
        pytest.param({"device": "cuda", "tensorParallelSize": 4}, {"nvidia.com/gpu": "4"}, id="one GPU per tensor-parallel worker"),
        pytest.param({"device": "cuda", "resources": {"limits": {"amd.com/gpu": 1}}}, {"amd.com/gpu": "1"}, id="the user's own devices"),
        pytest.param({"device": "cpu"}, None, id="none on a CPU"),
    ],
)
def test_devices_are_asked_for(engine: dict[str, Any], limits: dict[str, str] | None) -> None:
    assert container("engine", engine=engine)["resources"].get("limits") == limits


def test_without_memory_given_the_request_covers_what_is_known_to_be_needed() -> None:
    assert container("engine", kvOffload={"hostMemory": "2Gi"})["resources"]["requests"]["memory"] == "4368Mi"


def test_images_come_from_the_spec_then_from_the_operator() -> None:
    assert container("engine")["image"] == CURRENT.images.engine_cpu
    assert container("engine", engine={"device": "cuda"})["image"] == CURRENT.images.engine_cuda
    assert container("engine", engine={"image": "x/y:1"})["image"] == "x/y:1"
    assert container("scheduler", scheduling={"image": "x/z:1"})["image"] == "x/z:1"


def test_an_ingress_neither_buffers_nor_times_out() -> None:
    ingress = build(route=INGRESS | {"annotations": {"mine": "1"}})["Ingress"]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 3600
    assert annotations["mine"] == "1"
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"], path["backend"]["service"]) == ("/v1", "Prefix", {"name": "tiny", "port": {"number": 80}})


def test_an_http_route_has_no_timeout_and_names_its_listener() -> None:
    route = build(route=HTTP_ROUTE)["HTTPRoute"]["spec"]
    assert route["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (parent,) = route["parentRefs"]
    assert (parent["name"], parent["namespace"], parent["sectionName"]) == ("public", "edge", "https")


def test_an_http_route_has_no_timeouts_where_the_gateway_api_does_not_know_them() -> None:
    older = Cluster(29, frozenset({GATEWAY_API}), route_timeouts=False)
    assert "timeouts" not in build(older, route=HTTP_ROUTE)["HTTPRoute"]["spec"]["rules"][0]


@pytest.mark.parametrize(
    ("route", "address"),
    [
        pytest.param({}, "http://tiny.default.svc/v1", id="inside the cluster"),
        pytest.param(INGRESS, "http://llm.example.com/v1", id="an Ingress"),
        pytest.param(INGRESS | {"tlsSecret": "cert"}, "https://llm.example.com/v1", id="an Ingress with TLS"),
        pytest.param(
            INGRESS | {"hosts": ["*.example.com", "a.example.com"]}, "http://a.example.com/v1", id="the first that is no wildcard"
        ),
        pytest.param(INGRESS | {"hosts": ["*.example.com"]}, None, id="nothing to name among wildcards"),
    ],
)
def test_the_url_is_where_clients_find_the_api(route: dict[str, Any], address: str | None) -> None:
    assert url(make_spec(route=route).route, OWNER) == address
