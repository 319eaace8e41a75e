"""Which children an engine has, and the rules that hold for all of them.

The pod is in test_children_pod.py, its settings are in test_children_settings.py, and routes are in test_children_route.py.
"""

from typing import Any

import pytest

from alise_operator.children import children
from alise_operator.cluster import Cluster
from tests.operator.builders import CURRENT, OLD, OWNER, make_spec
from tests.operator.built import HTTP_ROUTE, INGRESS, SPECS, build, container, pod
from tests.tools.kubernetes_schemas import validate

BUILT_ON = [
    pytest.param(changes, cluster, id=f"{name} on {version}")
    for name, changes in SPECS.items()
    for version, cluster in (("a current cluster", CURRENT), ("1.20", OLD))
    if cluster.http_route or changes.get("route", {}).get("type") != "HTTPRoute"
]
# Kinds without a current schema in kubernetes-validate.
UNCHECKED = {"HTTPRoute", "policy/v1beta1"}


@pytest.mark.parametrize(("changes", "cluster"), BUILT_ON)
def test_children_are_valid_for_a_current_cluster(changes: dict[str, Any], cluster: Cluster) -> None:
    checked = [child for child in children(make_spec(**changes), OWNER, cluster) if not UNCHECKED & {child["kind"], child["apiVersion"]}]
    for child in checked:
        validate(child)
    assert {"Deployment", "Service"} <= {child["kind"] for child in checked}


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_children_are_a_pure_function_of_spec_owner_and_cluster(changes: dict[str, Any]) -> None:
    assert children(make_spec(**changes), OWNER, CURRENT) == children(make_spec(**changes), OWNER, CURRENT)


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_every_child_is_owned_labelled_and_named_like_its_engine(changes: dict[str, Any]) -> None:
    for child in children(make_spec(**changes), OWNER, CURRENT):
        meta = child["metadata"]
        (reference,) = meta["ownerReferences"]
        assert meta["name"] in ("tiny", "tiny-picker", "tiny-adapters")
        assert meta["namespace"] == "default"
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
        pytest.param({"model": {"uri": "a/b", "cache": {"claimName": "team"}}}, CURRENT, set(), id="a model cache that exists"),
        pytest.param(
            {
                "model": {"uri": "a/b", "cache": {"size": "1Gi"}},
                "podTemplate": {"spec": {"volumes": [{"name": "model-cache", "persistentVolumeClaim": {"claimName": "team"}}]}},
            },
            CURRENT,
            set(),
            id="a model cache that the pod patch replaces",
        ),
        pytest.param(
            {
                "model": {"uri": "a/b", "cache": {"size": "1Gi"}},
                "podTemplate": {"spec": {"volumes": [{"name": "model-cache", "persistentVolumeClaim": {"readOnly": True}}]}},
            },
            CURRENT,
            {"PersistentVolumeClaim"},
            id="a model cache that the pod patch mounts otherwise",
        ),
    ],
)
def test_only_wanted_kinds_are_built(changes: dict[str, Any], cluster: Cluster, kinds: set[str]) -> None:
    assert set(build(cluster, **changes)) == {"ServiceAccount", "Service", "Deployment", "NetworkPolicy"} | kinds


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"model": {"uri": "a/b", "cache": {"claimName": "team"}}}, id="named by the cache"),
        pytest.param(
            {
                "model": {"uri": "a/b", "cache": {"size": "1Gi"}},
                "podTemplate": {
                    "spec": {"volumes": [{"name": "model-cache", "emptyDir": None, "persistentVolumeClaim": {"claimName": "team"}}]}
                },
            },
            id="named in the pod patch",
        ),
    ],
)
def test_an_existing_claim_is_mounted_as_the_model_cache(changes: dict[str, Any]) -> None:
    (cache,) = [one for one in pod(**changes)["volumes"] if one["name"] == "model-cache"]
    assert cache == {"name": "model-cache", "persistentVolumeClaim": {"claimName": "team"}}


@pytest.mark.parametrize(("cluster", "version"), [(CURRENT, "policy/v1"), (OLD, "policy/v1beta1")])
def test_the_disruption_budget_is_of_a_version_that_the_cluster_has(cluster: Cluster, version: str) -> None:
    assert build(cluster, replicas=2)["PodDisruptionBudget"]["apiVersion"] == version


def test_the_two_ports_are_open_to_all_clients_unless_the_resource_limits_them() -> None:
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
def test_the_operator_may_always_reach_the_pods(cluster: Cluster, namespaces: dict[str, Any]) -> None:
    gateway = {"podSelector": {"matchLabels": {"app": "gateway"}}}
    (rule,) = build(cluster, networkPolicy={"from": [gateway]})["NetworkPolicy"]["spec"]["ingress"]
    operator = {"namespaceSelector": namespaces, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "alise-operator"}}}
    assert rule["from"] == [operator, gateway]


def test_what_the_pods_reach_is_limited_only_when_the_resource_says_so() -> None:
    assert build()["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([], id="nothing but names"),
        pytest.param([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}], id="a hub"),
    ],
)
def test_names_can_be_looked_up_whatever_else_the_pods_may_reach(rules: list[dict[str, Any]]) -> None:
    policy = build(networkPolicy={"egress": rules})["NetworkPolicy"]["spec"]
    names, *others = policy["egress"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {(port["protocol"], port["port"]) for port in names["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert others == rules


def test_a_suspended_engine_keeps_everything_but_its_pods() -> None:
    suspended = build(suspend=True, replicas=3, route=INGRESS)
    assert suspended["Deployment"]["spec"]["replicas"] == 0
    assert {"Service", "Ingress"} <= set(suspended)


def test_the_ports_say_their_protocol() -> None:
    ports = build()["Service"]["spec"]["ports"] + container("engine")["ports"] + container("scheduler")["ports"]
    assert [port["protocol"] for port in ports] == ["TCP"] * 3
