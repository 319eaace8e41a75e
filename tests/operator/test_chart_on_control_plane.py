"""The Helm chart on a real API server: install, upgrade, uninstall, with Helm's own code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, eventually, install_crd, running_operator
from tests.tools.chart.chart import FOLDER
from tests.tools.helm import sdk

pytestmark = pytest.mark.controlplane

RELEASE = "alise"
SYSTEM = "alise-system"
CRD = "aliseengines.alise.dev"
Object = dict[str, Any]


class Helm:
    """Helm against one API server."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster

    def install(self, values: Object, namespace: str = SYSTEM) -> None:
        with sdk().Config(kubeconfig_path=self.cluster.kubeconfig, namespace=namespace) as config:
            config.install(str(FOLDER), RELEASE, values, create_namespace=True, timeout=60)

    def upgrade(self, values: Object, namespace: str = SYSTEM) -> None:
        with sdk().Config(kubeconfig_path=self.cluster.kubeconfig, namespace=namespace) as config:
            config.upgrade(str(FOLDER), RELEASE, values, timeout=60)

    def uninstall(self, namespace: str = SYSTEM) -> None:
        with sdk().Config(kubeconfig_path=self.cluster.kubeconfig, namespace=namespace) as config:
            config.uninstall(RELEASE, timeout=60, ignore_not_found=True)

    def found(self, *what: str) -> set[str]:
        """The names of the objects of these kinds that a release has, in the whole cluster."""
        listed = self.cluster.access.kubectl(
            "get", ",".join(what), "--all-namespaces", "-l", f"app.kubernetes.io/instance={RELEASE}", "-o", "name"
        )
        return set(listed.split())


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """An API server of these tests alone, with the CRD: on that of the others, kubectl installed the operator."""
    with ControlPlane() as cp:
        install_crd(cp)
        yield cp


@pytest.fixture
def helm(cluster: ControlPlane) -> Iterator[Helm]:
    """Helm without a release; what a test installed in alise-system is uninstalled."""
    made = Helm(cluster)
    yield made
    made.uninstall()


@pytest.fixture
def engine(cluster: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine, not applied yet, in a namespace of its own."""
    name = f"t-{abs(hash(request.node.nodeid)) % 10**10}"
    cluster.access.kubectl("create", "namespace", name)
    yield Engine(cluster.access, name)
    cluster.access.kubectl("delete", "namespace", name, "--wait=false")


def operator_of(cluster: ControlPlane, namespace: str = SYSTEM) -> Object:
    return cluster.access.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/alise-operator")


def test_the_operator_works_with_the_rights_that_the_chart_gives(helm: Helm, engine: Engine, tmp_path: Path) -> None:
    helm.install({})
    with running_operator(helm.cluster, tmp_path) as operator:
        engine.apply()
        engine.until("Ready", "False", "Starting")
        assert engine.child("deployment")
        assert operator.forbidden() == []


def test_an_upgrade_with_other_values_changes_the_operator_and_no_resource(helm: Helm, engine: Engine) -> None:
    helm.install({})
    engine.apply()
    before = engine.get()["metadata"]
    helm.upgrade({"logLevel": "debug", "images": {"operator": "registry.test/alise-operator:2"}, "components": {"readSecrets": True}})
    (container,) = operator_of(helm.cluster)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.test/alise-operator:2"
    assert {"name": "ALISE_LOG_LEVEL", "value": "debug"} in container["env"]
    role = helm.cluster.access.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/alise-operator")
    assert {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]} in role["rules"]
    assert engine.get()["metadata"] == before


def test_uninstalling_leaves_resources_their_children_and_the_crd(helm: Helm, engine: Engine, tmp_path: Path) -> None:
    helm.install({})
    with running_operator(helm.cluster, tmp_path):
        engine.apply()
        engine.child("deployment")
    helm.uninstall()
    kinds = ("deployments", "clusterroles", "clusterrolebindings", "roles", "rolebindings", "serviceaccounts", "networkpolicies")
    eventually("nothing of the release is left", lambda: not helm.found(*kinds))
    assert "deletionTimestamp" not in helm.cluster.access.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}")["metadata"]
    assert engine.get()["spec"]["model"]["uri"] == "/models/tiny"
    assert engine.child("deployment")


def test_a_value_that_the_schema_refuses_is_named_and_nothing_is_installed(helm: Helm) -> None:
    with pytest.raises(sdk().HelmError, match="'/replicas': got string, want integer"):
        helm.install({"replicas": "two"})
    assert helm.found("deployments", "clusterroles") == set()


def test_an_upgrade_to_a_bad_value_leaves_the_release_as_it_is(helm: Helm) -> None:
    helm.install({"logLevel": "warning"})
    before = operator_of(helm.cluster)["spec"]
    with pytest.raises(sdk().HelmError, match="'/scope': value must be one of"):
        helm.upgrade({"scope": "all"})
    assert operator_of(helm.cluster)["spec"] == before


def test_a_release_for_one_namespace_needs_nothing_in_the_cluster(helm: Helm, engine: Engine, tmp_path: Path) -> None:
    helm.install({"scope": "namespace"}, namespace=engine.namespace)
    try:
        assert helm.found("clusterroles", "clusterrolebindings") == set()
        with running_operator(helm.cluster, tmp_path, namespace=engine.namespace) as operator:
            engine.apply()
            engine.until("Ready", "False", "Starting")
            assert operator.forbidden() == []
    finally:
        helm.uninstall(namespace=engine.namespace)
