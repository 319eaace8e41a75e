"""The control plane behaves as production's API server does, in the points that the operator relies on."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster, processes, state
from tests.cluster.access import Access
from tests.cluster.cluster import Tier
from tests.cluster.control_plane import ControlPlane, sweep
from tests.cluster.errors import CommandFailed, NotReady
from tests.cluster.programs import control_plane_programs, kubectl_path

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.controlplane

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.cluster-tool.test"},
    "spec": {
        "group": "cluster-tool.test",
        "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}, "colour": {"type": "string"}}},
                            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                        },
                    }
                },
            }
        ],
    },
}


def gadget(**spec: object) -> dict[str, Any]:
    return {"apiVersion": "cluster-tool.test/v1", "kind": "Gadget", "metadata": {"name": "one", "namespace": "default"}, "spec": spec}


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def gadgets(control_plane: ControlPlane) -> Iterator[Access]:
    access = control_plane.access
    access.apply(CRD)
    access.kubectl("wait", "--for=condition=Established", "crd/gadgets.cluster-tool.test", "--timeout=30s")
    yield access
    access.kubectl("delete", "crd", "gadgets.cluster-tool.test", "--timeout=30s")


def test_the_api_server_says_that_it_is_ready(control_plane: ControlPlane) -> None:
    assert control_plane.access.kubectl("get", "--raw", "/readyz") == "ok"


def test_an_unbound_service_account_may_not_read_pods(control_plane: ControlPlane) -> None:
    unbound = Access(control_plane.kubeconfig_for("default", "default"))
    with pytest.raises(CommandFailed, match=r'User "system:serviceaccount:default:default" cannot list resource "pods"'):
        unbound.kubectl("get", "pods")


def test_two_field_managers_own_their_fields_after_server_side_apply(gadgets: Access) -> None:
    gadgets.apply(gadget(replicas=1), field_manager="first")
    gadgets.apply(gadget(colour="red"), field_manager="second")
    assert gadgets.get("/apis/cluster-tool.test/v1/namespaces/default/gadgets/one")["spec"] == {"replicas": 1, "colour": "red"}


def test_a_custom_resource_is_scaled_through_its_scale_subresource(gadgets: Access) -> None:
    gadgets.apply(gadget(replicas=1), field_manager="first")
    gadgets.kubectl("scale", "gadgets.cluster-tool.test/one", "--replicas=3")
    assert gadgets.get("/apis/cluster-tool.test/v1/namespaces/default/gadgets/one/scale")["spec"]["replicas"] == 3


def test_a_child_is_collected_when_its_owner_is_deleted(gadgets: Access) -> None:
    gadgets.apply({**gadget(replicas=1), "metadata": {"name": "owner", "namespace": "default"}})
    owner = gadgets.get("/apis/cluster-tool.test/v1/namespaces/default/gadgets/owner")
    reference = {"apiVersion": owner["apiVersion"], "kind": "Gadget", "name": "owner", "uid": owner["metadata"]["uid"]}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "namespace": "default", "ownerReferences": [reference]}}
    gadgets.kubectl("create", "-f", "-", text_in=json.dumps(child))
    gadgets.kubectl("delete", "gadgets.cluster-tool.test/owner")
    # The garbage collector asks only every 30 s which kinds there are.
    # One that it has already collected kubectl cannot wait for.
    with contextlib.suppress(CommandFailed):
        gadgets.kubectl("wait", "--for=delete", "configmap/child", "--timeout=90s", timeout_seconds=100)
    assert gadgets.kubectl("get", "configmap", "child", "--ignore-not-found") == ""


def test_two_control_planes_run_side_by_side(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with ControlPlane() as second:
        control_plane.access.kubectl("create", "namespace", "only-in-the-first")
        assert "only-in-the-first" not in second.access.kubectl("get", "namespaces")


def test_nothing_is_left_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with ControlPlane() as running:
        at = state.State(running.kubeconfig.parent)
        assert {process.name for process in processes.find(at)} == {"etcd", "kube-apiserver", "kube-controller-manager"}
    assert processes.find(at) == []
    assert not at.folder.exists()


KILLED_OWNER = """
import os, signal
from tests.cluster.control_plane import ControlPlane
running = ControlPlane().__enter__()
print(running.kubeconfig.parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_test_run_left_is_ended_by_the_next_start() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_OWNER], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    at = state.State(Path(killed.stdout.strip()))
    assert processes.find(at) != []
    sweep()
    assert processes.find(at) == []
    assert not at.folder.exists()


def test_the_users_own_cluster_is_used_and_left_running(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file of the user's own: one of this tool's is no sign of another cluster.
    own = tmp_path / "config"
    own.write_bytes(control_plane.kubeconfig.read_bytes())
    monkeypatch.setenv("KUBECONFIG", str(own))
    with ControlPlane() as borrowed:
        borrowed.access.kubectl("create", "namespace", "made-through-the-borrowed-one")
    assert "made-through-the-borrowed-one" in control_plane.access.kubectl("get", "namespaces")


def test_programs_of_an_assets_folder_make_the_control_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = control_plane_programs()
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (tmp_path / "etcd").symlink_to(ours.etcd)
    (tmp_path / "kube-apiserver").symlink_to(ours.apiserver)
    with ControlPlane() as running:
        assert running.access.kubectl("get", "--raw", "/readyz") == "ok"
        assert set(running.logs()) == {"etcd", "kube-apiserver"}


def test_a_start_that_fails_says_why_and_leaves_only_its_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "etcd").symlink_to(control_plane_programs().etcd)
    (assets / "kube-apiserver").write_text("#!/bin/sh\necho this server does not start\nexit 7\n")
    (assets / "kube-apiserver").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("ALISE_CACHE", str(tmp_path / "cache"))
    at = state.named()
    with pytest.raises(NotReady, match=r"kube-apiserver ended with status 7 before .*\nthis server does not start"):
        cluster.up(at, Tier.CONTROL_PLANE)
    assert processes.find(at) == []
    assert not at.folder.exists()
    assert "does not start" in (at.folder.parent / "local-failed-logs" / "kube-apiserver.log").read_text()


def test_a_named_control_plane_goes_up_stays_up_and_goes_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = control_plane_programs()
    for program in (ours.etcd, ours.apiserver, ours.controller_manager, Path(kubectl_path())):
        assert program is not None
        (tmp_path / program.name).symlink_to(program)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setenv("ALISE_CACHE", str(tmp_path / "cache"))
    at = state.named("second")
    try:
        cluster.up(at, Tier.CONTROL_PLANE)
        first = processes.find(at)
        cluster.up(at, Tier.CONTROL_PLANE)
        after_second_up = processes.find(at)
        was_up = cluster.status(at).up
    finally:
        cluster.down(at)
    assert was_up
    assert after_second_up == first
    assert not cluster.status(at).running
