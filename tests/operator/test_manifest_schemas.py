"""Overlays and the chart are valid on every Kubernetes that is supported, and the samples' children on the oldest.

The tests of the builders check the children on the newest one. `make bench-operator` checks them on all versions, and checkov's rules
(tests/bench/manifests.py).
"""

import copy

import pytest

from tests.tools import manifests
from tests.tools.checkov import Skip, covers
from tests.tools.kubectl import kubectl
from tests.tools.manifests import VERSIONS, Finding, Manifest

OLDEST = VERSIONS[0]


def test_every_manifest_is_valid() -> None:
    assert list(manifests.against_schemas(manifests.files(), [OLDEST])) == []


def test_the_children_of_every_sample_are_valid() -> None:
    children = manifests.built(int(OLDEST.partition(".")[2]))
    assert {"Deployment", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "Ingress"} <= {
        one.body["kind"] for one in children
    }
    assert list(manifests.against_schemas(children, [OLDEST])) == []


@pytest.fixture(scope="module")
def rendered() -> list[Manifest]:
    """What kustomize makes of every overlay, alone and with all components, and Helm of the chart."""
    return [*manifests.rendered(kubectl()), *manifests.charted()]


@pytest.mark.process
@pytest.mark.parametrize("version", VERSIONS)
def test_every_overlay_and_the_chart_are_valid(rendered: list[Manifest], version: str) -> None:
    assert {one.origin for one in rendered} >= {
        "manifests",
        "manifests/overlays/namespaced",
        "manifests/overlays/production",
        "manifests/chart",
    }
    assert list(manifests.against_schemas(rendered, [version])) == []


def test_a_field_that_kubernetes_does_not_have_is_found() -> None:
    body = copy.deepcopy(next(one.body for one in manifests.built(34) if one.body["kind"] == "Deployment"))
    body["spec"]["replica"] = 1
    (finding,) = manifests.against_schemas([Manifest("a test", body)], [VERSIONS[-1]])
    assert (finding.manifest, finding.check) == ("a test: Deployment tiny-auth", "kubernetes 1.37")
    assert "replica" in finding.message


@pytest.mark.parametrize(
    ("skip", "covered"),
    [
        pytest.param(Skip("CKV_1", "samples/.*: Deployment ", "why"), True, id="of its objects"),
        pytest.param(Skip("CKV_1", "operator", "why"), False, id="of other objects"),
        pytest.param(Skip("CKV_2", "samples/.*: Deployment ", "why"), False, id="by another rule"),
    ],
)
def test_a_skip_is_for_one_rule_and_some_objects(skip: Skip, covered: bool) -> None:
    assert covers(skip, Finding("samples/tiny.yaml: Deployment tiny", "CKV_1", "a rule")) is covered
