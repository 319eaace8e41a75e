"""An upgrade from the last release on a real API server: its resources survive the CRD and the operator of today."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alise_operator.crd import custom_resource_definition
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, install, running_operator
from tests.operator.old_crd import without_rules

pytestmark = pytest.mark.controlplane

RELEASES = Path(__file__).with_name("releases")
NAMESPACE = "before"
Object = dict[str, Any]


def resources() -> list[Object]:
    return list(yaml.safe_load_all((RELEASES / "resources-0.1.0.yaml").read_text(encoding="utf-8")))


NAMES = [one["metadata"]["name"] for one in resources()]


@pytest.fixture(scope="module")
def stored() -> dict[str, Object]:
    """The resources as the API server stored them under the CRD of the last release, by name."""
    return {}


@pytest.fixture(scope="module")
def cluster(stored: dict[str, Object]) -> Iterator[ControlPlane]:
    """An API server with the resources of the last release, and then with the CRD and the rights of today."""
    with ControlPlane() as cp:
        crd: Object = yaml.safe_load((RELEASES / "crd-0.1.0.yaml").read_text(encoding="utf-8"))
        has_rules = int(cp.access.get("/version")["gitVersion"].split(".")[1]) >= 25
        cp.access.apply(crd if has_rules else without_rules(crd))
        cp.access.kubectl("wait", "--for=condition=Established", "crd/aliseengines.alise.dev", "--timeout=30s")
        cp.access.learn_kinds()
        cp.access.kubectl("create", "namespace", NAMESPACE)
        cp.access.kubectl("-n", NAMESPACE, "apply", "-f", str(RELEASES / "resources-0.1.0.yaml"))
        stored.update({name: Engine(cp.access, NAMESPACE, name).get() for name in NAMES})
        install(cp)
        yield cp


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running_operator(cluster, tmp_path_factory.mktemp("operator")):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_resource_is_as_it_was_stored(cluster: ControlPlane, stored: dict[str, Object], name: str) -> None:
    now = Engine(cluster.access, NAMESPACE, name).get()
    assert now["metadata"]["uid"] == stored[name]["metadata"]["uid"]
    assert unchanged(stored[name]["spec"], now["spec"])


def unchanged(before: Any, now: Any) -> bool:
    """Whether every field has its value; fields with defaults may have been added."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(key in now and unchanged(value, now[key]) for key, value in before.items())
    if isinstance(before, list):
        return isinstance(now, list) and len(before) == len(now) and all(map(unchanged, before, now))
    return bool(before == now)


@pytest.mark.parametrize("name", NAMES)
def test_the_operator_of_today_serves_a_resource_of_the_last_release(cluster: ControlPlane, operator: None, name: str) -> None:
    engine = Engine(cluster.access, NAMESPACE, name)
    assert engine.child("deployment")["spec"]["template"]["spec"]["containers"][0]["name"] == "engine"
    engine.until("Ready", "False", "Starting")


def test_a_manifest_of_the_last_release_can_be_applied_again(cluster: ControlPlane) -> None:
    cluster.access.kubectl("-n", NAMESPACE, "apply", "-f", str(RELEASES / "resources-0.1.0.yaml"))
    assert {
        one["metadata"]["name"] for one in json.loads(cluster.access.kubectl("-n", NAMESPACE, "get", "alise", "-o", "json"))["items"]
    } == set(NAMES)


def test_the_only_stored_version_is_the_storage_version(cluster: ControlPlane) -> None:
    crd = cluster.access.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/aliseengines.alise.dev")
    storage = [one["name"] for one in custom_resource_definition()["spec"]["versions"] if one["storage"]]
    assert crd["status"]["storedVersions"] == storage
