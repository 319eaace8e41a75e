"""Which replicas are ready, from a real API server with the rights that a picker has."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from alise_operator.kube import HttpKube
from alise_picker.endpoints import SERVICE_LABEL, follow
from alise_picker.replicas import Target
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.controlplane

RBAC = Path(__file__).parents[2] / "manifests" / "operator" / "rbac.yaml"
SECONDS = 60.0


@pytest.fixture(scope="module")
def picker_kubeconfig() -> Iterator[tuple[ControlPlane, Path]]:
    """An API server, and the credentials of a picker in `default`."""
    roles = [one for one in yaml.safe_load_all(RBAC.read_text()) if one["metadata"]["name"] == "alise-picker"]
    with ControlPlane() as cp:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tiny-picker", "namespace": "default"}}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "tiny-picker", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "alise-picker"},
            "subjects": [{"kind": "ServiceAccount", "name": "tiny-picker", "namespace": "default"}],
        }  # fmt: skip
        cp.access.kubectl("apply", "-f", "-", text_in=yaml.safe_dump_all([*roles, account, binding]))
        yield cp, cp.kubeconfig_for("default", "tiny-picker")


async def test_replicas_come_and_go_with_the_endpoint_slices_of_the_service(picker_kubeconfig: tuple[ControlPlane, Path]) -> None:
    cp, kubeconfig = picker_kubeconfig
    version = "v1" if int(cp.access.get("/version")["gitVersion"].split(".")[1]) >= 21 else "v1beta1"

    def apply(ready: bool, service: str = "tiny") -> None:
        slice_ = {
            "apiVersion": f"discovery.k8s.io/{version}", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{service}-1", "namespace": "default", "labels": {SERVICE_LABEL: service}},
            "ports": [{"name": "http", "port": 8000}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        }  # fmt: skip
        cp.access.kubectl("apply", "-f", "-", text_in=yaml.safe_dump(slice_))

    seen: asyncio.Queue[list[Target]] = asyncio.Queue()

    async def until(wanted: list[Target]) -> None:
        async with asyncio.timeout(SECONDS):
            while await seen.get() != wanted:
                pass

    apply(ready=True, service="other")
    async with HttpKube(kubeconfig) as kube:
        following = asyncio.create_task(follow(kube, "default", "tiny", lambda targets: seen.put_nowait(list(targets))))
        await until([])
        await asyncio.to_thread(apply, True)
        await until([Target("10.0.0.1:8000", "10.0.0.1:9401")])
        await asyncio.to_thread(apply, False)
        await until([])
        following.cancel()
