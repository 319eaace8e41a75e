"""The endpoint picker of a resource: its objects, who may reach what, and the configuration of gateways."""

from dataclasses import replace
from typing import Any

import pytest

from alise_contract.names import LENGTHS_PORT, PICKER_GRPC_PORT, PICKER_HTTP_PORT
from alise_operator.children import children
from alise_operator.cluster import INFERENCE_POOL, Cluster
from alise_picker.__main__ import arguments
from alise_picker.server import GRACE_SECONDS
from tests.operator.builders import CURRENT, OWNER, make_spec
from tests.tools.kubernetes_schemas import validate

ON: dict[str, Any] = {"routing": {"endpointPicker": {}}}
GATEWAY = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
OTHER = {"podSelector": {"matchLabels": {"app": "other-picker"}}}


def built(cluster: Cluster = CURRENT, **changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in children(make_spec(**changes), OWNER, cluster)}


def container(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    (found,) = manifests["Deployment", "tiny-picker"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def ingress_rules(manifests: dict[tuple[str, str], dict[str, Any]], name: str) -> dict[int, Any]:
    """Port -> peers that may connect; None is all peers."""
    rules = manifests["NetworkPolicy", name]["spec"]["ingress"]
    return {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}


def variables(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, str]:
    """The scheduler's environment."""
    pod = manifests["Deployment", "tiny"]["spec"]["template"]["spec"]
    (scheduler,) = [one for one in [*pod.get("initContainers", ()), *pod["containers"]] if one["name"] == "scheduler"]
    return {one["name"]: one.get("value", "") for one in scheduler["env"]}


def test_a_resource_without_a_picker_has_none_of_its_objects_and_no_port() -> None:
    manifests = built()
    assert not [name for _, name in manifests if name != "tiny"]
    assert LENGTHS_PORT not in ingress_rules(manifests, "tiny")
    assert "ALISE_LENGTHS_PORT" not in variables(manifests)


def test_a_picker_is_a_deployment_with_a_service_an_account_and_the_right_to_follow_endpoints() -> None:
    manifests = built(**ON)
    mine = {kind: one for (kind, name), one in manifests.items() if name == "tiny-picker"}
    assert set(mine) == {"Deployment", "NetworkPolicy", "RoleBinding", "Service", "ServiceAccount"}
    assert mine["RoleBinding"]["roleRef"]["name"] == "alise-picker"
    for one in mine.values():
        validate(one)
        assert one["metadata"]["ownerReferences"][0]["uid"] == OWNER.uid


def test_its_pods_are_not_taken_for_pods_of_the_model() -> None:
    labels = built(**ON)["Deployment", "tiny-picker"]["spec"]["template"]["metadata"]["labels"]
    assert "alise.dev/engine" not in labels
    assert labels["alise.dev/picker"] == "tiny"


def test_its_command_line_is_one_that_it_understands() -> None:
    routing = {"endpointPicker": {"hold": {"maxRequests": 7, "seconds": 60}}}
    options = arguments(container(built(routing=routing))["args"])
    assert (options.resource, options.hold_requests, options.hold_seconds) == ("default/tiny", 7, 60.0)
    assert (options.port, options.http_port) == (PICKER_GRPC_PORT, PICKER_HTTP_PORT)


@pytest.mark.parametrize(
    ("changes", "needs_key"),
    [pytest.param({}, False, id="no keys"), pytest.param({"auth": {"secretRef": {"name": "keys"}}}, True, id="keys")],
)
def test_it_holds_requests_without_a_key_only_where_there_are_no_keys(changes: dict[str, Any], needs_key: bool) -> None:
    assert arguments(container(built(**ON, **changes))["args"]).hold_needs_key is needs_key


def test_its_pod_ends_later_than_the_streams_that_it_finishes() -> None:
    pod = built(**ON)["Deployment", "tiny-picker"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > GRACE_SECONDS


def test_it_runs_from_the_image_of_the_settings() -> None:
    cluster = replace(CURRENT, images=replace(CURRENT.images, picker="registry.example.com/operator:1"))
    assert container(built(cluster, **ON))["image"] == "registry.example.com/operator:1"


def test_it_is_pulled_and_placed_as_the_pods_of_the_model_are() -> None:
    placement: dict[str, Any] = {
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "models"},
        "tolerations": [{"key": "models", "operator": "Exists"}],
    }
    pod = built(**ON, podTemplate={"spec": placement})["Deployment", "tiny-picker"]["spec"]["template"]["spec"]
    assert {key: pod[key] for key in placement} == placement
    assert not placement.keys() & built(**ON)["Deployment", "tiny-picker"]["spec"]["template"]["spec"].keys()


@pytest.mark.parametrize("kind", [pytest.param("ClusterRole", id="all namespaces"), pytest.param("Role", id="one namespace")])
def test_its_role_is_the_one_that_the_installation_brings(kind: str) -> None:
    manifests = built(replace(CURRENT, picker_role_kind=kind), **ON)
    assert manifests["RoleBinding", "tiny-picker"]["roleRef"]["kind"] == kind


@pytest.mark.parametrize(
    ("routing", "peers"),
    [
        pytest.param({"endpointPicker": {}}, [{"podSelector": {"matchLabels": {"alise.dev/picker": "tiny"}}}], id="the own picker"),
        pytest.param({"lengthsFrom": [OTHER]}, [OTHER], id="another picker"),
        pytest.param(
            {"endpointPicker": {}, "lengthsFrom": [OTHER]},
            [{"podSelector": {"matchLabels": {"alise.dev/picker": "tiny"}}}, OTHER],
            id="both",
        ),
    ],
)
def test_only_who_is_named_may_ask_for_lengths(routing: dict[str, Any], peers: list[Any]) -> None:
    manifests = built(CURRENT, routing=routing)
    assert ingress_rules(manifests, "tiny")[LENGTHS_PORT] == peers
    assert variables(manifests)["ALISE_LENGTHS_PORT"] == str(LENGTHS_PORT)


def test_the_operator_and_the_named_gateways_reach_the_picker_and_no_others() -> None:
    rules = ingress_rules(built(routing={"endpointPicker": {"from": [GATEWAY]}}), "tiny-picker")
    operator = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "alise-operator"}}}
    assert set(rules) == {PICKER_GRPC_PORT, PICKER_HTTP_PORT}
    for peers in rules.values():
        assert [peer["podSelector"] for peer in peers if "podSelector" in peer] == [operator["podSelector"]]
        assert GATEWAY in peers


def test_an_inference_pool_names_the_pods_and_the_picker_where_its_crd_is() -> None:
    cluster = replace(CURRENT, apis=CURRENT.apis | {INFERENCE_POOL})
    pool = built(cluster, **ON)["InferencePool", "tiny"]["spec"]
    assert pool["selector"]["matchLabels"] == {"alise.dev/engine": "tiny"}
    assert pool["targetPorts"] == [{"number": 8000}]
    assert pool["endpointPickerRef"] == {"name": "tiny-picker", "port": {"number": PICKER_GRPC_PORT}, "failureMode": "FailOpen"}


@pytest.mark.parametrize(
    ("cluster", "changes"),
    [
        pytest.param(CURRENT, ON, id="without the CRD"),
        pytest.param(replace(CURRENT, apis=CURRENT.apis | {INFERENCE_POOL}), {}, id="without a picker"),
    ],
)
def test_otherwise_there_is_no_inference_pool(cluster: Cluster, changes: dict[str, Any]) -> None:
    assert ("InferencePool", "tiny") not in built(cluster, **changes)
