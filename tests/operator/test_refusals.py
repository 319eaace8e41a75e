"""A child that the cluster refuses is refused in the resource's own fields."""

import pytest

from alise_operator.refusals import with_source


@pytest.mark.parametrize(
    ("kind", "refusal", "fields"),
    [
        pytest.param(
            "NetworkPolicy",
            'NetworkPolicy.networking.k8s.io "tiny" is invalid: spec.ingress[0].from[1].ipBlock.cidr: Invalid value: "x"',
            "spec.networkPolicy.from",
            id="who may come in",
        ),
        pytest.param(
            "NetworkPolicy",
            "failed to create typed patch object (default/tiny; networking.k8s.io/v1, Kind=NetworkPolicy): .spec.egress[1].foo: field not "
            "declared in schema",
            "spec.networkPolicy.egress",
            id="a field that a child does not have",
        ),
        pytest.param("Ingress", 'metadata.annotations: Invalid value: "a b"', "spec.route.annotations", id="an annotation's name"),
        pytest.param("Ingress", 'spec.rules[0].host: Invalid value: "1.2.3.4"', "spec.route.hosts", id="a host"),
        pytest.param("HTTPRoute", 'spec.hostnames[0]: Invalid value: ""', "spec.route.hosts", id="a host of an HTTPRoute"),
        pytest.param(
            "PersistentVolumeClaim", "spec.resources[storage]: Invalid value: 0", "spec.model.cache.size", id="a claim without a size"
        ),
        pytest.param(
            "Deployment",
            "spec.template.spec.containers[0].resources.limits[gpu]: Invalid value",
            "spec.engine.resources, spec.scheduling.resources or spec.podTemplate",
            id="a resource",
        ),
        pytest.param(
            "Deployment",
            "cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.hostUsers of "
            "type bool",
            "spec.podTemplate",
            id="a type",
        ),
        pytest.param(
            "Deployment",
            'failed to convert new object: unable to convert unstructured object to apps/v1, Kind=Deployment: parsing time "x"',
            "spec.podTemplate",
            id="a time that is none",
        ),
        pytest.param(
            "Ingress",
            "[spec.rules[0].host: Invalid value, spec.rules[1].host: Invalid value, spec.ingressClassName: Invalid value]",
            "spec.route.hosts, spec.route.className",
            id="several",
        ),
    ],
)
def test_a_refusal_names_the_fields_that_it_comes_from(kind: str, refusal: str, fields: str) -> None:
    assert with_source(kind, refusal) == f", whose value comes from {fields}: {refusal}"


@pytest.mark.parametrize(
    "refusal", ["exceeded quota: compute, requested: pods=1", "admission webhook denied the request: see https://x/spec.html"]
)
def test_a_quota_and_a_webhook_speak_for_themselves(refusal: str) -> None:
    assert with_source("Deployment", refusal) == f": {refusal}"
