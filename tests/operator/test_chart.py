"""The Helm chart: fresh, and what it installs is what kustomize installs."""

import copy
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import manifests
from tests.tools.chart.chart import FOLDER, MANIFESTS, ChartError, files, links
from tests.tools.chart.rendering import complaints, rendered
from tests.tools.chart.template import Inline, Lines, block, guarded, render, when
from tests.tools.helm import sdk
from tests.tools.kubectl import kubectl

Object = dict[str, Any]
# The labels that Helm's own tools look for.
HELM_LABELS = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}
ALL_COMPONENTS = dict.fromkeys(yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))["components"], True)
# Lists of a container and a pod in which the order of the items means nothing.
UNORDERED = ("env", "ports", "volumeMounts", "volumes")
EVERY_VALUE: Object = {
    "images": {"operator": "registry.test/team/alise-operator:1", "engineCpu": "registry.test/team/alise-engine-cpu:1"},
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "regcred"}],
    "logLevel": "debug",
    "settings": {"ALISE_RESYNC_SECONDS": 30, "ALISE_POD_PATCH_ALLOW": "hostIPC"},
    "replicas": 2,
    "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "infra", "operator": "Exists"}],
    "priorityClassName": "system-cluster-critical",
}


def by_name(documents: Iterable[Object]) -> dict[str, Object]:
    return {f"{one['kind']} {one['metadata']['name']}": one for one in documents}


def deployment(documents: Iterable[Object]) -> Object:
    (found,) = [one for one in documents if one["kind"] == "Deployment"]
    return found


def container(documents: Iterable[Object]) -> Object:
    (found,) = deployment(documents)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def as_kustomize(documents: Iterable[Object]) -> dict[str, Object]:
    """The chart's objects without Helm's labels, and without the level of the log, which is the operator's default."""
    found = by_name(copy.deepcopy(list(documents)))
    for one in found.values():
        labels = one["metadata"].get("labels", {})
        assert set(labels) >= HELM_LABELS, one["metadata"]["name"]
        one["metadata"]["labels"] = {key: value for key, value in labels.items() if key not in HELM_LABELS}
        if one["kind"] == "Deployment":
            first = one["spec"]["template"]["spec"]["containers"][0]
            first["env"] = [variable for variable in first["env"] if variable["name"] != "ALISE_LOG_LEVEL"]
    return {name: ordered(one) for name, one in found.items()}


def ordered(document: Object) -> Object:
    """The object with the lists of its pod in the order of their names, if it has a pod."""
    found = copy.deepcopy(document)
    if found["kind"] == "Deployment":
        pod = found["spec"]["template"]["spec"]
        for holder in (pod, *pod["containers"]):
            for key in UNORDERED:
                if key in holder:
                    holder[key].sort(key=lambda item: str(item["name"]))
    return found


@cache
def every_kustomization() -> list[manifests.Manifest]:
    return manifests.rendered(kubectl())


def kustomized(origin: str) -> dict[str, Object]:
    """What kustomize makes, without the CRD and the namespace, which a chart does not hold."""
    made = [one.body for one in every_kustomization() if one.origin == origin]
    assert made, origin
    return by_name(ordered(one) for one in made if one["kind"] not in ("CustomResourceDefinition", "Namespace"))


def test_the_chart_is_fresh() -> None:
    generated = files(MANIFESTS)
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file() and not path.is_symlink()}
    assert there == set(generated), "run `make chart`"
    for name, text in generated.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name} is stale: run `make chart`"


def test_the_charts_links_lead_to_the_files_that_other_tools_read() -> None:
    there = {str(path.relative_to(FOLDER)): str(path.readlink()) for path in FOLDER.rglob("*") if path.is_symlink()}
    assert there == links(MANIFESTS), "run `make chart`"
    assert [name for name in there if not (FOLDER / name).is_file()] == []


def test_a_component_that_the_chart_cannot_express_is_refused(tmp_path: Path) -> None:
    for name in ("operator", "overlays"):
        (tmp_path / name).symlink_to(MANIFESTS / name)
    folder = tmp_path / "components" / "new"
    folder.mkdir(parents=True)
    patch = {"target": {"kind": "Service", "name": "a"}, "patch": '[{"op": "remove", "path": "/spec/type"}]'}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"kind": "Component", "patches": [patch]}), encoding="utf-8")
    with pytest.raises(ChartError, match="this one changes /spec/type"):
        files(tmp_path)


def test_a_template_has_expressions_in_place_of_values() -> None:
    document = {
        "name": Inline(".Values.name"),
        "labels": {"a": "b", "more": Lines(("{{- labels }}",))},
        "secrets": block("secrets", ".Values.secrets"),
        "rules": [{"verbs": ["get"]}, when(".Values.more", [{"verbs": ["list"]}])],
        "summary": "{{ $labels.pod }} is slow",
    }
    assert guarded(".Values.all", render(document)) == (
        "{{- if .Values.all }}\n"
        "name: {{ .Values.name }}\n"
        "labels:\n"
        "  a: b\n"
        "  {{- labels }}\n"
        "{{- with .Values.secrets }}\n"
        "secrets:\n"
        "{{- toYaml . | nindent 2 }}\n"
        "{{- end }}\n"
        "rules:\n"
        "- verbs:\n"
        "  - get\n"
        "{{- if .Values.more }}\n"
        "- verbs:\n"
        "  - list\n"
        "{{- end }}\n"
        'summary: \'{{ "{{" }} $labels.pod {{ "}}" }} is slow\'\n'
        "{{- end }}\n"
    )


@pytest.mark.process
def test_the_chart_has_no_complaints_from_helm() -> None:
    assert complaints() == []
    assert complaints(values=EVERY_VALUE | {"components": ALL_COMPONENTS, "scope": "namespace"}) == []


@pytest.mark.process
def test_the_chart_installs_what_kustomize_installs() -> None:
    assert as_kustomize(rendered()) == kustomized("manifests")


@pytest.mark.process
def test_with_all_components_it_installs_what_kustomize_installs_with_them() -> None:
    assert as_kustomize(rendered({"components": ALL_COMPONENTS})) == kustomized("manifests with all components")


@pytest.mark.process
def test_for_one_namespace_it_installs_what_the_overlay_installs() -> None:
    # There a user names the namespace of the components' objects; the chart puts them beside the others.
    expected = json.loads(json.dumps(kustomized("manifests/overlays/namespaced with all components")).replace("alise-system", "alise"))
    assert as_kustomize(rendered({"scope": "namespace", "components": ALL_COMPONENTS}, namespace="alise")) == expected


@pytest.mark.process
def test_with_two_replicas_it_installs_what_the_overlay_for_production_installs() -> None:
    found = as_kustomize(rendered({"replicas": 2, "components": {"operatorEgress": True}}))
    assert found == kustomized("manifests/overlays/production")


def test_every_component_of_kustomize_is_a_value() -> None:
    folders = {path.parent.name for path in MANIFESTS.rglob("kustomization.yaml") if "kind: Component" in path.read_text(encoding="utf-8")}
    values = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))["components"]
    assert (
        {name.replace("-", "").lower() for name in folders}
        == {name.lower() for name in values}
        == {name.lower() for name in ALL_COMPONENTS}
    )


@pytest.mark.process
def test_every_value_has_its_effect() -> None:
    documents = rendered(EVERY_VALUE)
    spec, pod, first = deployment(documents)["spec"], deployment(documents)["spec"]["template"]["spec"], container(documents)
    environment = {one["name"]: one["value"] for one in first["env"]}
    assert (first["image"], first["imagePullPolicy"]) == ("registry.test/team/alise-operator:1", "Always")
    assert environment["ALISE_IMAGE_ENGINE_CPU"] == "registry.test/team/alise-engine-cpu:1"
    assert environment["ALISE_IMAGE_SCHEDULER"] == "localhost/alise/scheduler:dev"
    assert (environment["ALISE_LOG_LEVEL"], environment["ALISE_RESYNC_SECONDS"]) == ("debug", "30")
    assert first["resources"] == {"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    assert spec["replicas"] == 2
    assert {key: pod[key] for key in ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")} == {
        key: EVERY_VALUE[key] for key in ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")
    }


@pytest.mark.process
@pytest.mark.parametrize("address", ["https://docs.test/runbooks", "https://docs.test/runbooks/"])
def test_alerts_link_to_the_runbooks_if_the_value_says_where_they_are(address: str) -> None:
    rules = by_name(rendered({"runbooks": address, "components": {"monitoring": True}}))["PrometheusRule alise"]
    annotations = {one["alert"]: one["annotations"] for group in rules["spec"]["groups"] for one in group["rules"]}
    assert annotations["AliseOperatorDown"]["runbook_url"] == "https://docs.test/runbooks/AliseOperatorDown.html"
    assert [name for name, one in annotations.items() if not one["runbook_url"].endswith(f"/runbooks/{name}.html")] == []


@pytest.mark.process
def test_the_users_roles_can_be_left_out() -> None:
    assert set(by_name(rendered())) - set(by_name(rendered({"userRoles": False}))) == {"ClusterRole alise-view", "ClusterRole alise-edit"}


@pytest.mark.process
@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({"images": {"operator": 5}}, "'/images/operator': got number, want string", id="a number for an image"),
        pytest.param({"scope": "everything"}, "'/scope': value must be one of 'cluster', 'namespace'", id="an unknown scope"),
        pytest.param({"replcas": 1}, "additional properties 'replcas' not allowed", id="a value that does not exist"),
        pytest.param({"settings": {"ALISE_X": 1}}, "'/settings': additional properties 'ALISE_X'", id="an unknown setting"),
        pytest.param({"settings": {"ALISE_RESYNC_SECONDS": 0}}, "'/settings/ALISE_RESYNC_SECONDS': minimum", id="a setting out of bounds"),
        pytest.param({"resources": {"limits": {"memory": "5 GB"}}}, "'/resources/limits/memory': '5 GB'", id="no quantity"),
        pytest.param({"components": {"readSecrets": "yes"}}, "'/components/readSecrets': got string, want boolean", id="no boolean"),
        pytest.param({"logLevel": "loud"}, "'/logLevel': value must be one of", id="an unknown level"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(values: Object, named: str) -> None:
    with pytest.raises(sdk().HelmValuesError, match=named):
        rendered(values)


@pytest.mark.process
def test_the_crd_is_apart_so_that_no_release_removes_it() -> None:
    assert not (FOLDER / "crds").exists()
    assert "CustomResourceDefinition" not in {one["kind"] for one in rendered({"components": ALL_COMPONENTS})}
