"""Pods as a real API server takes them: its own lists, its own defaults, and what server-side apply makes of a field that is gone.

More, with admission as it is on a node, is in tests/e2e/test_pod_patch.py.
"""

import json
from typing import Any

import pytest

from alise_operator.children import pod_fields
from alise_operator.children.pod_lists import LISTS
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, eventually
from tests.operator.pod_schema import merged_lists, properties

pytestmark = pytest.mark.controlplane


def container(engine: Engine, name: str) -> dict[str, Any]:
    pod = engine.child("deployment")["spec"]["template"]["spec"]
    found: dict[str, Any] = next(one for one in [*pod.get("initContainers", []), *pod["containers"]] if one["name"] == name)
    return found


def security(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.child("deployment")["spec"]["template"]["spec"]["securityContext"]
    return found


def patch(**fields: Any) -> dict[str, Any]:
    """A pod patch with these fields of the engine's container."""
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


def test_the_lists_that_merge_and_the_fields_of_pods_are_those_of_the_api_server(control_plane: ControlPlane) -> None:
    definitions = control_plane.access.get("/openapi/v2")["definitions"]
    ours = {path: kind.keys for path, kind in LISTS.items()}
    found = merged_lists(definitions)
    assert {path: keys for path, keys in found.items() if ours.get(path) != keys} == {}
    assert len(found) > 15
    assert properties(definitions, "io.k8s.api.core.v1.PodSpec") <= pod_fields.POD_FIELDS
    assert properties(definitions, "io.k8s.api.core.v1.Container") <= pod_fields.CONTAINER_FIELDS


def test_a_port_of_the_users_needs_no_protocol(engine: Engine) -> None:
    engine.apply(podTemplate=patch(ports=[{"containerPort": 9000, "name": "debug"}, {"containerPort": 9000, "protocol": "UDP"}]))
    ports = [(one["containerPort"], one["protocol"]) for one in container(engine, "engine")["ports"]]
    assert ports == [(8000, "TCP"), (9000, "TCP"), (9000, "UDP")]


@pytest.mark.parametrize(
    ("removed", "options"),
    [
        pytest.param({"$patch": "delete"}, [], id="by a directive"),
        # Client-side apply and merge patches take null for themselves: it would not be in the stored resource.
        pytest.param(None, ["--server-side", "--force-conflicts"], id="by null, with server-side apply"),
    ],
)
def test_fixed_users_are_left_out_after_creation_too(engine: Engine, removed: object, options: list[str]) -> None:
    engine.apply()
    assert security(engine)["runAsUser"] == 65532
    wanted = {**engine.get(), "metadata": {"name": engine.name}}
    wanted["spec"] |= {"podTemplate": {"spec": {"securityContext": dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), removed)}}}
    engine.kubectl(
        "apply", *options, "-f", "-", text_in=json.dumps({key: wanted[key] for key in ("apiVersion", "kind", "metadata", "spec")})
    )
    kept = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    eventually("the users are left out", lambda: security(engine) == kept)


def test_an_existing_claim_is_mounted_and_neither_created_nor_deleted(engine: Engine) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "team-weights"}}
    size = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    engine.kubectl("apply", "-f", "-", text_in=json.dumps(claim | {"spec": size}))
    engine.apply(model={"uri": "org/model", "cache": {"claimName": "team-weights", "accessMode": "ReadWriteMany"}})
    volumes = engine.child("deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "model-cache", "persistentVolumeClaim": {"claimName": "team-weights"}} in volumes
    engine.kubectl("delete", "alise", engine.name, "--wait=true")
    eventually("the children are gone", lambda: engine.one("deployment") == {})
    assert engine.kubectl("get", "pvc", "-o", "name").split() == ["persistentvolumeclaim/team-weights"]


def test_ways_out_of_the_pods_are_limited_by_a_network_policy(engine: Engine) -> None:
    engine.apply(networkPolicy={"egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]})
    policy = engine.child("networkpolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 443]
