"""How the operator finds the API server, and what it takes from its answers."""

import json
from typing import Any

import pytest
import yaml

from alise_operator.errors import ApplyError, ClusterError, Gone, OperatorError
from alise_operator.kube import answered, as_yaml, in_cluster_server, proxy_for
from alise_operator.schema_fields import has_field

TYPED_PATCH = (
    "failed to create typed patch object (default/tiny; apps/v1, Kind=Deployment): .spec.nodeSelectr: field not declared in schema"
)


@pytest.mark.parametrize(
    ("env", "server"),
    [
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.0.0.1:6443", id="an address and a port"
        ),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "https://10.0.0.1:443", id="no port named"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443", id="an IPv6 address"
        ),
    ],
)
def test_a_pod_reaches_the_api_server_by_the_address_in_its_environment(env: dict[str, str], server: str) -> None:
    assert in_cluster_server(env) == server


@pytest.mark.parametrize(
    ("status", "answer", "kind", "is_failure"),
    [
        pytest.param(404, {"message": "not found"}, Gone, False, id="what is not there is gone"),
        pytest.param(409, {"message": "the object has been modified"}, ClusterError, False, id="an overtaken write is tried again"),
        pytest.param(410, {"message": "expired"}, ClusterError, False, id="an expired version is asked for again"),
        pytest.param(429, {"message": "too many requests"}, ClusterError, False, id="too many requests are tried again"),
        pytest.param(403, {"message": "exceeded quota"}, ApplyError, None, id="a quota is the user's to see"),
        pytest.param(422, {"message": "Invalid value"}, ApplyError, None, id="an invalid object is the user's to see"),
        pytest.param(500, {"message": TYPED_PATCH}, ApplyError, None, id="a field that the kind does not have is no server's failure"),
        pytest.param(
            500,
            {"message": "failed to create typed patch object: key protocol"},
            ApplyError,
            None,
            id="nor is a list's missing key, on old servers",
        ),
        pytest.param(500, {"message": "failed calling webhook"}, ClusterError, True, id="a webhook that fails is reported and tried again"),
        pytest.param(503, {"message": "etcd"}, ClusterError, True, id="a server that fails is reported and tried again"),
        pytest.param(
            403,
            {"message": "forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
            ClusterError,
            False,
            id="a namespace that goes away is no refusal",
        ),
    ],
)
def test_a_bad_answer_says_whose_turn_it_is(
    status: int, answer: dict[str, Any], kind: type[OperatorError], is_failure: bool | None
) -> None:
    with pytest.raises(OperatorError) as caught:
        answered("PATCH /x", status, json.dumps(answer).encode())
    assert type(caught.value) is kind
    assert getattr(caught.value, "is_failure", None) == is_failure
    assert answer["message"] in str(caught.value)


def test_a_good_answer_is_its_object() -> None:
    assert answered("GET /x", 200, b'{"kind": "Pod"}') == {"kind": "Pod"}


def definition(rule: dict[str, Any]) -> dict[str, Any]:
    """A CRD whose spec.rules[] have this schema."""
    spec = {"properties": {"rules": {"type": "array", "items": rule}}}
    return {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"spec": spec}}}}]}}


@pytest.mark.parametrize(
    ("rule", "has"),
    [
        pytest.param({"properties": {"timeouts": {"type": "object"}}}, True, id="a rule with timeouts"),
        pytest.param({"properties": {"matches": {"type": "array"}}}, False, id="a rule without"),
        pytest.param({"x-kubernetes-preserve-unknown-fields": True}, True, id="a rule that takes everything"),
    ],
)
def test_a_crds_schema_says_whether_a_field_is_there(rule: dict[str, Any], has: bool) -> None:
    assert has_field(definition(rule), "v1", ("spec", "rules", "timeouts")) is has


@pytest.mark.parametrize("text", ["\U0001f600", "\x7f", "\x85", "\u2028", "\ufeff", "\x00", "\x1b[31m", "\\ud83d", "é", '"', "a\nb"])
def test_what_is_applied_is_the_same_to_a_reader_of_yaml_and_of_json(text: str) -> None:
    manifest = {text: [text, None, 1.5]}
    assert yaml.safe_load(as_yaml(manifest)) == json.loads(as_yaml(manifest)) == manifest


@pytest.mark.parametrize(
    ("env", "proxy"),
    [
        pytest.param({}, None, id="no proxy"),
        pytest.param({"https_proxy": "http://proxy:3128"}, "http://proxy:3128", id="one for its scheme"),
        pytest.param({"http_proxy": "http://proxy:3128"}, None, id="one for another scheme"),
        pytest.param({"https_proxy": "http://proxy:3128", "no_proxy": "api.test"}, None, id="the server is excepted"),
    ],
)
def test_the_proxy_of_the_environment_is_used(env: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert proxy_for("https://api.test:6443") == proxy
