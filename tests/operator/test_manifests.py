"""The operator's own manifests: valid for current clusters, restricted, and with exactly the rights that the code uses."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from alise_contract.names import API_GROUP, OPERATOR_HTTP_PORT, PLURAL, RUN_AS
from alise_operator.apply import OWNED_KINDS
from alise_operator.handlers import WATCHED
from alise_operator.settings import Settings

FOLDER = Path(__file__).parents[2] / "manifests"
DOCUMENTS: list[dict[str, Any]] = [
    document for path in sorted((FOLDER / "operator").glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]
READ = {"get", "list", "watch"}
WRITE = {"create", "patch", "delete"}


def one(kind: str) -> dict[str, Any]:
    return next(document for document in DOCUMENTS if document["kind"] == kind)


def granted() -> dict[tuple[str, str], set[str]]:
    """(group, resource) -> verbs."""
    rights: dict[tuple[str, str], set[str]] = {}
    for rule in one("ClusterRole")["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights.setdefault((group, resource), set()).update(rule["verbs"])
    return rights


def group_of(group_version: str) -> str:
    return group_version.rpartition("/")[0]


def used() -> dict[tuple[str, str], set[str]]:
    """What the code asks the API server for."""
    rights: dict[tuple[str, str], set[str]] = {
        (API_GROUP, PLURAL): READ,
        (API_GROUP, f"{PLURAL}/status"): {"patch"},
        (API_GROUP, f"{PLURAL}/finalizers"): {"update"},
        ("", "pods"): {"list", "watch"},
        ("", "secrets"): {"get"},
        ("", "events"): {"create", "list"},
        ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
    }
    for resources in OWNED_KINDS.values():
        for resource in resources:
            rights[(group_of(resource.group_version), resource.plural)] = {"get", "list"} | WRITE
    for group, _, plural in WATCHED:
        rights[(group, plural)] = rights[(group, plural)] | {"watch"}
    return rights


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}")
def test_the_manifest_is_valid_for_a_current_cluster(document: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(document, "1.37", strict=True)


def test_the_operator_may_do_exactly_what_it_does() -> None:
    assert granted() == used()


def test_no_right_is_a_wildcard() -> None:
    assert "*" not in str(one("ClusterRole")["rules"])


def test_the_operator_runs_restricted_and_alone() -> None:
    deployment = one("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, RUN_AS)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["ports"] == [{"name": "http", "protocol": "TCP", "containerPort": OPERATOR_HTTP_PORT}]


def test_the_environment_of_the_operator_is_known_to_it() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    (container,) = one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert {variable["name"] for variable in container["env"]} <= known


def test_the_binding_joins_the_account_that_the_deployment_uses_to_the_role() -> None:
    binding, account = one("ClusterRoleBinding"), one("ServiceAccount")["metadata"]
    assert binding["roleRef"]["name"] == one("ClusterRole")["metadata"]["name"]
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
    assert {FOLDER / name for name in named} == {*FOLDER.glob("crd/*.yaml"), *FOLDER.glob("operator/*.yaml")}
