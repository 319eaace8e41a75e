"""A patch is merged into a pod template as Kubernetes merges: the same lists, by the same keys."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_operator.allowed import VOLUME_TYPES
from alise_operator.children import pod_fields
from alise_operator.children.merge import item_key, merge
from alise_operator.children.pod import pod_template
from alise_operator.children.pod_lists import LISTS, RETAIN_KEYS
from tests.operator.builders import CURRENT, OLD, OWNER, make_spec
from tests.operator.built import SPECS
from tests.operator.pod_schema import merged_lists, properties

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]


@cache
def published(version: str) -> dict[str, Any]:
    """The definitions of a version's OpenAPI schema, as Kubernetes publishes it."""
    document = json.loads((SCHEMAS / f"v{version}.0-local" / "_definitions.json").read_text())
    found: dict[str, Any] = document.get("definitions") or document["$defs"]
    return found


def engine(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


BASE = engine(
    env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    volumeMounts=[{"name": "data", "mountPath": "/a"}],
    ports=[{"name": "http", "containerPort": 80, "protocol": "TCP"}],
    args=["x"],
    resources={"limits": {"cpu": "1", "memory": "1Gi"}},
    startupProbe={"httpGet": {"path": "/"}, "periodSeconds": 5},
) | {"metadata": {"labels": {"a": "1", "b": "2"}}}
BASE["spec"] |= {"volumes": [{"name": "data", "emptyDir": {"medium": "Memory"}}, {"name": "other", "emptyDir": {}}]}


def merged(patch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = merge(copy.deepcopy(BASE), patch)
    return found


@pytest.mark.parametrize(
    ("patch", "field", "value"),
    [
        pytest.param({"image": "y"}, "image", "y", id="a field is added"),
        pytest.param({"args": ["y"]}, "args", ["y"], id="a list of plain values is replaced"),
        pytest.param(
            {"resources": {"limits": {"cpu": "2"}}}, "resources", {"limits": {"cpu": "2", "memory": "1Gi"}}, id="objects are merged"
        ),
        pytest.param({"resources": {"limits": {"cpu": None}}}, "resources", {"limits": {"memory": "1Gi"}}, id="null removes"),
        pytest.param({"resources": {"$patch": "delete"}}, "resources", None, id="an object is removed by a directive"),
        pytest.param({"args": {"$patch": "delete"}}, "args", None, id="a list is removed by a directive"),
        pytest.param({"resources": {"$patch": "replace", "claims": []}}, "resources", {"claims": []}, id="an object is replaced"),
        pytest.param(
            {"resources": {"$retainKeys": ["requests"], "requests": {}}}, "resources", {"requests": {}}, id="only named fields are retained"
        ),
        pytest.param({"env": []}, "env", BASE["spec"]["containers"][0]["env"], id="an empty list names nothing"),
        pytest.param(
            {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
            "env",
            [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
            id="items are merged by name",
        ),
        pytest.param({"env": [{"name": "A", "$patch": "delete"}]}, "env", [{"name": "B", "value": "2"}], id="an item is removed"),
        pytest.param({"env": [{"$patch": "replace"}, {"name": "C"}]}, "env", [{"name": "C"}], id="a list is replaced by a directive"),
        pytest.param(
            {"env": [{"name": "B", "valueFrom": {"fieldRef": {}}}, {"name": "A", "$patch": "delete"}]},
            "env",
            [{"name": "B", "valueFrom": {"fieldRef": {}}}],
            id="a value gives way to a source",
        ),
        pytest.param(
            {"volumeMounts": [{"name": "data", "mountPath": "/b"}]},
            "volumeMounts",
            [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}],
            id="a volume is mounted a second time",
        ),
        pytest.param(
            {"volumeMounts": [{"name": "other", "mountPath": "/a"}]},
            "volumeMounts",
            [{"name": "other", "mountPath": "/a"}],
            id="a mount gets another volume",
        ),
        pytest.param(
            {"ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 80, "protocol": "UDP"}]},
            "ports",
            [{"name": "web", "containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}],
            id="a port is told by number and protocol, TCP if none is given",
        ),
        pytest.param(
            {"startupProbe": {"exec": {"command": ["true"]}}},
            "startupProbe",
            {"exec": {"command": ["true"]}, "periodSeconds": 5},
            id="a probe gets another handler",
        ),
    ],
)
def test_a_patch_merges_into_a_container(patch: dict[str, Any], field: str, value: Any) -> None:
    assert merged(engine(**patch))["spec"]["containers"][0].get(field) == value


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, id="the same source"),
        pytest.param({"persistentVolumeClaim": {"claimName": "c"}}, {"persistentVolumeClaim": {"claimName": "c"}}, id="another source"),
        pytest.param(
            {"emptyDir": None, "persistentVolumeClaim": {"claimName": "c"}},
            {"persistentVolumeClaim": {"claimName": "c"}},
            id="another source, and null for the first",
        ),
        pytest.param({"$patch": "replace", "emptyDir": {}}, {"emptyDir": {}}, id="the item as a whole"),
    ],
)
def test_a_volume_has_one_source(volume: dict[str, Any], expected: dict[str, Any]) -> None:
    volumes = merged({"spec": {"volumes": [{"name": "data", **volume}]}})["spec"]["volumes"]
    assert volumes == [{"name": "data", **expected}, {"name": "other", "emptyDir": {}}]


def test_constraints_of_one_topology_key_differ_by_what_happens_when_they_do_not_fit() -> None:
    first = {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
    second = {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2}
    both = merge({"spec": {"topologySpreadConstraints": [first]}}, {"spec": {"topologySpreadConstraints": [second]}})
    assert both["spec"]["topologySpreadConstraints"] == [first, second]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_of_kubernetes_has_no_list_that_merges_otherwise(version: str) -> None:
    ours = {path: kind.keys for path, kind in LISTS.items()}
    assert {path: keys for path, keys in merged_lists(published(version)).items() if ours.get(path) != keys} == {}


def test_no_list_merges_that_no_version_of_kubernetes_has() -> None:
    assert LISTS.keys() == set().union(*(merged_lists(published(version)) for version in VERSIONS))


def test_volumes_and_claims_are_the_lists_whose_items_have_one_source() -> None:
    assert merged_lists(published(VERSIONS[-1]), strategy="retainKeys").keys() == RETAIN_KEYS


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        pytest.param("PodSpec", pod_fields.POD_FIELDS, id="pod"),
        pytest.param("Container", pod_fields.CONTAINER_FIELDS, id="container"),
        pytest.param("PodSecurityContext", pod_fields.POD_SECURITY_FIELDS, id="security context of a pod"),
        pytest.param("SecurityContext", pod_fields.CONTAINER_SECURITY_FIELDS, id="security context of a container"),
        pytest.param("Volume", pod_fields.POD_VOLUME_TYPES | VOLUME_TYPES | {"name"}, id="volume"),
        pytest.param("VolumeProjection", pod_fields.PROJECTIONS | {"serviceAccountToken", "podCertificate"}, id="projection"),
        pytest.param("EnvVarSource", pod_fields.VALUE_FROM_FIELDS, id="source of a variable"),
        pytest.param("EnvFromSource", pod_fields.ENV_FROM_FIELDS, id="source of variables"),
    ],
)
def test_every_field_that_kubernetes_has_is_known(kind: str, known: frozenset[str]) -> None:
    found = [properties(published(version), f"io.k8s.api.core.v1.{kind}") for version in VERSIONS]
    assert known == frozenset().union(*found)


TEMPLATES = [pod_template(make_spec(**changes), OWNER, cluster) for changes in SPECS.values() for cluster in (CURRENT, OLD)]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_merged_with_itself_stays_as_it_is(template: dict[str, Any]) -> None:
    assert merge(template, template) == template


NAMES = st.sampled_from(["A", "B", "C", "D"])
VARIABLES = st.lists(st.fixed_dictionaries({"name": NAMES, "value": st.text(max_size=2)}), max_size=4, unique_by=lambda one: one["name"])
PATCHES = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"value": st.text(max_size=2), "$patch": st.just("delete")}),
    max_size=4,
    unique_by=lambda one: one["name"],
)


@settings(max_examples=60)
@given(VARIABLES, PATCHES)
def test_no_item_is_lost_that_the_patch_does_not_name(base: list[dict[str, Any]], patch: list[dict[str, Any]]) -> None:
    path = ("spec", "containers", "env")
    after, named = merge(base, patch, path), {one["name"] for one in patch}
    assert [one for one in after if one["name"] not in named] == [one for one in base if one["name"] not in named]
    keys = [item_key(one, LISTS[path]) for one in after]
    assert len(keys) == len(set(keys))
    assert merge(after, patch, path) == after
