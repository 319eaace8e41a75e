"""The operator's own manifests: valid for current clusters, restricted, and with exactly the rights that the code uses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alise_contract.names import (
    API_GROUP,
    ENGINE_LABEL,
    ENGINE_PORT,
    OPERATOR_HTTP_PORT,
    OPERATOR_SCALER_PORT,
    PICKER_HTTP_PORT,
    PLURAL,
    RUN_AS,
)
from alise_operator.apply import OWNED_KINDS
from alise_operator.children.network_policy import PICKER_LABEL
from alise_operator.children.picker import ROLE as PICKER_ROLE
from alise_operator.handlers import WATCHED
from alise_operator.lease import LEASE_NAME
from alise_operator.settings import Settings
from tests.tools.kubernetes_schemas import validate

FOLDER = Path(__file__).parents[2] / "manifests"
NAMESPACED = FOLDER / "overlays" / "namespaced"
Rights = dict[tuple[str, str], set[str]]


def documents(*paths: Path) -> list[dict[str, Any]]:
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


OPERATOR_FILES = sorted({*(FOLDER / "operator").glob("*.yaml")} - {FOLDER / "operator" / "kustomization.yaml"})
DOCUMENTS = documents(*OPERATOR_FILES)
OPTIONAL = documents(NAMESPACED / "rbac.yaml", FOLDER / "components" / "operator-egress" / "network-policy.yaml")
READ = {"get", "list", "watch"}
WRITE = {"create", "patch", "delete"}
CLUSTER_SCOPED = {"CustomResourceDefinition", "Namespace", "ClusterRole", "ClusterRoleBinding"}
# What belongs to no namespace: without a ClusterRole the operator does without.
OF_THE_CLUSTER = {
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("networking.k8s.io", "ingressclasses"),
    ("gateway.networking.k8s.io", "gatewayclasses"),
    ("", "namespaces"),
}


def one(kind: str, among: list[dict[str, Any]] = DOCUMENTS) -> dict[str, Any]:
    return next(document for document in among if document["kind"] == kind)


def granted(role: dict[str, Any]) -> Rights:
    """(group, resource) -> verbs."""
    rights: Rights = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights.setdefault((group, resource), set()).update(rule["verbs"])
    return rights


def group_of(group_version: str) -> str:
    return group_version.rpartition("/")[0]


def used() -> Rights:
    """What the code asks the API server for."""
    rights: Rights = {
        (API_GROUP, PLURAL): READ,
        (API_GROUP, f"{PLURAL}/status"): {"patch"},
        (API_GROUP, f"{PLURAL}/scale"): {"patch"},
        (API_GROUP, f"{PLURAL}/finalizers"): {"update"},
        ("", "pods"): {"list", "watch", "patch"},
        ("apps", "replicasets"): {"list"},
        ("", "events"): {"create", "list"},
        ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
        ("networking.k8s.io", "ingressclasses"): {"get", "list"},
        ("gateway.networking.k8s.io", "gateways"): {"get"},
        ("gateway.networking.k8s.io", "gatewayclasses"): {"get"},
        ("", "namespaces"): {"get"},
        # The role of endpoint pickers alone.
        ("rbac.authorization.k8s.io", "clusterroles"): {"bind"},
    }
    for resources in OWNED_KINDS.values():
        for resource in resources:
            rights[(group_of(resource.group_version), resource.plural)] = {"get", "list", "create", "patch", "delete"}
    for group, _, plural in WATCHED:
        rights[(group, plural)] = rights[(group, plural)] | {"watch"}
    return rights


@pytest.mark.parametrize("document", DOCUMENTS + OPTIONAL, ids=lambda document: f"{document['kind']} {document['metadata']['name']}")
def test_the_manifest_is_valid_for_a_current_cluster(document: dict[str, Any]) -> None:
    assert validate(document)


DIFFERS = (
    "left are the rights of the manifest, right those that the code uses, by OWNED_KINDS of apply.py and used() of this file: change both "
    "manifests/operator/rbac.yaml and that of overlays/namespaced, then `make chart`"
)


def test_the_operator_may_do_exactly_what_it_does() -> None:
    assert granted(one("ClusterRole")) == used(), DIFFERS


def test_in_one_namespace_it_may_do_the_same_but_for_what_is_the_clusters() -> None:
    role = one("Role", OPTIONAL)
    there = {key: verbs for key, verbs in used().items() if key not in OF_THE_CLUSTER}
    there[("rbac.authorization.k8s.io", "roles")] = there.pop(("rbac.authorization.k8s.io", "clusterroles"))
    assert granted(role) == there, DIFFERS


@pytest.mark.parametrize(
    ("kind", "among"), [pytest.param("ClusterRole", DOCUMENTS, id="all namespaces"), pytest.param("Role", OPTIONAL, id="one namespace")]
)
def test_an_endpoint_picker_may_follow_endpoints_and_only_its_role_may_be_given(kind: str, among: list[dict[str, Any]]) -> None:
    roles = {document["metadata"]["name"]: document for document in among if document["kind"] == kind}
    assert granted(roles[PICKER_ROLE]) == {("discovery.k8s.io", "endpointslices"): {"list", "watch"}}
    (binds,) = [rule for role in roles.values() for rule in role["rules"] if "bind" in rule["verbs"]]
    assert binds["resourceNames"] == [PICKER_ROLE]


def test_the_lease_is_the_operators_own_and_no_other() -> None:
    create, own = one("Role")["rules"]
    assert (create["resources"], create["verbs"]) == (["leases"], ["create"])
    assert (own["resources"], own["resourceNames"], set(own["verbs"])) == (["leases"], [LEASE_NAME], {"get", "update"})


def test_no_role_grants_everything_and_none_reads_secrets() -> None:
    for role in [document for document in DOCUMENTS + OPTIONAL if document["kind"] in ("Role", "ClusterRole")]:
        assert "*" not in str(role["rules"]), role["metadata"]["name"]
        assert "secrets" not in str(role["rules"]), role["metadata"]["name"]


def test_one_namespace_needs_nothing_in_the_cluster() -> None:
    overlay = yaml.safe_load((NAMESPACED / "kustomization.yaml").read_text())
    removed = {patch["target"]["kind"] for patch in overlay["patches"] if "$patch: delete" in patch.get("patch", "")}
    present = {document["kind"] for document in DOCUMENTS}
    assert present & CLUSTER_SCOPED == removed
    # The CRD lies in a folder of its own.
    assert overlay["resources"] == ["../../operator", "rbac.yaml"]
    assert {document["kind"] for document in documents(NAMESPACED / "rbac.yaml")} == {"Role", "RoleBinding"}


def test_an_operator_for_one_namespace_has_its_name_in_the_environment() -> None:
    (patch,) = documents(NAMESPACED / "deployment.yaml")
    (variable,) = patch["spec"]["template"]["spec"]["containers"][0]["env"]
    assert variable["name"] in {field.alias for field in Settings.model_fields.values()}
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    assert patch["metadata"]["name"] == one("Deployment")["metadata"]["name"]


def test_reading_secrets_is_an_option_for_both_kinds_of_role() -> None:
    component = yaml.safe_load((FOLDER / "components" / "read-secrets" / "kustomization.yaml").read_text())
    assert [patch["target"] for patch in component["patches"]] == [
        {"kind": kind, "name": one("ClusterRole")["metadata"]["name"]} for kind in ("ClusterRole", "Role")
    ]
    for patch in component["patches"]:
        (operation,) = yaml.safe_load(patch["patch"])
        assert (operation["op"], operation["path"]) == ("add", "/rules/-")
        assert operation["value"] == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}


def test_the_way_out_is_closed_but_for_what_the_operator_asks() -> None:
    policy = one("NetworkPolicy", OPTIONAL)["spec"]
    assert policy["policyTypes"] == ["Egress"]
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    ports = [sorted(port["port"] for port in rule["ports"]) for rule in policy["egress"]]
    assert ports == [[443, 6443], [ENGINE_PORT], [PICKER_HTTP_PORT], [53, 53]]
    selectors = [policy["egress"][at]["to"][0]["podSelector"]["matchExpressions"] for at in (1, 2)]
    assert selectors == [[{"key": label, "operator": "Exists"}] for label in (ENGINE_LABEL, PICKER_LABEL)]


def test_the_operator_runs_restricted() -> None:
    deployment = one("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    # A lease keeps two of them from acting, so that a new one may come before the old one goes.
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, RUN_AS)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["ports"] == [{"name": "http", "protocol": "TCP", "containerPort": OPERATOR_HTTP_PORT}]


def test_only_the_operators_own_port_can_be_reached() -> None:
    policy = one("NetworkPolicy")["spec"]
    assert policy["podSelector"] == one("Deployment")["spec"]["selector"]
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": OPERATOR_HTTP_PORT}]}]


def test_only_kedas_namespace_reaches_the_scaler() -> None:
    component = yaml.safe_load((FOLDER / "components" / "keda" / "kustomization.yaml").read_text())
    (patch,) = [one["patch"] for one in component["patches"] if one.get("target", {}).get("kind") == "NetworkPolicy"]
    (added,) = [step["value"] for step in yaml.safe_load(patch)]
    assert added["ports"] == [{"protocol": "TCP", "port": OPERATOR_SCALER_PORT}]
    assert added["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}]


def test_the_environment_of_the_operator_is_known_to_it() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert {variable["name"] for variable in container["env"]} <= known


def test_the_bindings_join_the_account_that_the_deployment_uses_to_the_roles() -> None:
    account = one("ServiceAccount")["metadata"]
    bindings = [document for document in DOCUMENTS + OPTIONAL if document["kind"].endswith("Binding")]
    roles = {(document["kind"], document["metadata"]["name"]) for document in DOCUMENTS + OPTIONAL}
    assert len(bindings) == 3
    for binding in bindings:
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in roles
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]
    assert one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]


@pytest.mark.parametrize(
    ("name", "joins", "verbs"),
    [
        pytest.param("alise-view", {"view", "edit", "admin"}, READ, id="who may view may read"),
        pytest.param("alise-edit", {"edit", "admin"}, {*WRITE, "update", "deletecollection"}, id="who may edit may write"),
    ],
)
def test_the_clusters_users_get_their_rights_by_its_own_roles(name: str, joins: set[str], verbs: set[str]) -> None:
    role = next(document for document in DOCUMENTS if document["metadata"]["name"] == name)
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {key.removeprefix(prefix) for key, value in role["metadata"]["labels"].items() if key.startswith(prefix)} == joins
    assert {verb for rule in role["rules"] if PLURAL in rule["resources"] for verb in rule["verbs"]} == verbs
    (scale,) = [set(rule["verbs"]) for rule in role["rules"] if f"{PLURAL}/scale" in rule["resources"]]
    assert scale == ({"get"} if name == "alise-view" else {"get", "update", "patch"})


def test_kustomize_is_given_every_file_and_no_folder() -> None:
    # Before 1.21 kubectl takes no folders.
    named = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {FOLDER / name for name in named} == {*FOLDER.glob("crd/*.yaml"), *OPERATOR_FILES}
