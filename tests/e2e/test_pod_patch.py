"""What a user writes of pods, on the real node: merged as Kubernetes merges, admitted as built, or refused in words.

The resource is suspended, so that no engine starts: the Deployment shows what was built, and the API server is asked whether it takes such
a pod.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.image_manifests import with_registry
from tests.cluster.resource import NAMESPACE, Resource
from tests.e2e.conftest import manifest
from tests.tools import run_cluster

pytestmark = pytest.mark.e2e

NAME = "patched"
SECONDS = 60.0
CLAIM = "team-weights"
Spec = dict[str, Any]


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """The resource of the other tests is not needed here."""


@pytest.fixture(scope="module")
def resource(target: run_cluster.Target) -> Iterator[Resource]:
    found = Resource(target.access, NAME)
    yield found
    found.kubectl("delete", "alise", NAME, "--ignore-not-found", "--wait=true", timeout_seconds=200)
    found.kubectl("delete", "pvc", CLAIM, "--ignore-not-found", "--wait=true")


@pytest.fixture
def write(target: run_cluster.Target, resource: Resource) -> Callable[..., None]:
    """Writes the resource, suspended, with these fields of its spec."""

    def apply(**changes: Any) -> None:
        wanted = manifest(NAME, **{"suspend": True, "route": {"type": "None"}} | changes)
        resource.access.kubectl("-n", NAMESPACE, "apply", "-f", "-", text_in=with_registry(json.dumps(wanted), target.registry))

    return apply


def pod_of(resource: Resource) -> Spec:
    """The pod of the Deployment, once the operator has acted on the newest spec."""
    resource.wait_condition("Ready", "False", SECONDS, reason="Suspended")
    deployment = resource.access.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}")
    found: Spec = deployment["spec"]["template"]["spec"]
    return found


def container(pod: Spec, name: str) -> Spec:
    found: Spec = next(one for one in [*pod.get("initContainers", []), *pod["containers"]] if one["name"] == name)
    return found


def admitted(resource: Resource, pod: Spec) -> bool:
    """Whether the API server, with its admission, takes such a pod: it is asked and makes none. Raises CommandFailed in its words."""
    tried = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": f"{NAME}-"}, "spec": pod}
    return "created" in resource.access.kubectl("-n", NAMESPACE, "create", "--dry-run=server", "-f", "-", text_in=json.dumps(tried))


def patch(**fields: Any) -> Spec:
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


def test_one_volume_is_mounted_at_several_paths_and_the_pods_own_mounts_stay(write: Callable[..., None], resource: Resource) -> None:
    mounts = [{"name": "hub", "mountPath": f"/data/{name}", "subPath": name} for name in ("weights", "adapters")]
    mounts += [{"name": "scratch", "mountPath": "/var/cache/hub"}, {"name": "shm", "mountPath": "/dev/shm2"}]
    write(podTemplate={"spec": {"volumes": [{"name": "hub", "emptyDir": {}}], **patch(volumeMounts=mounts)["spec"]}})
    pod = pod_of(resource)
    mounted = [(one["name"], one["mountPath"]) for one in container(pod, "engine")["volumeMounts"]]
    assert mounted[:3] == [("run", "/run/alise"), ("scratch", "/scratch"), ("shm", "/dev/shm")]
    assert mounted[3:] == [(one["name"], one["mountPath"]) for one in mounts]
    assert admitted(resource, pod)


@pytest.mark.parametrize("device", ["nvidia.com/mig-1g.10gb", "habana.ai/gaudi"])
def test_a_device_is_asked_for_by_the_name_that_the_user_gave(write: Callable[..., None], resource: Resource, device: str) -> None:
    write(engine={"device": "cuda", "resources": {"requests": {device: 1}, "limits": {"memory": "16Gi"}}})
    pod = pod_of(resource)
    resources = container(pod, "engine")["resources"]
    assert (resources["limits"], resources["requests"]) == ({device: "1", "memory": "16Gi"}, {device: "1"})
    assert admitted(resource, pod)


@pytest.mark.parametrize("written", ["containers", "initContainers"])
def test_the_scheduler_is_patched_wherever_it_lives_on_this_cluster(write: Callable[..., None], resource: Resource, written: str) -> None:
    variable = {"name": "ALISE_LOG_LEVEL", "value": "debug"}
    write(podTemplate={"spec": {written: [{"name": "scheduler", "env": [variable]}]}})
    pod = pod_of(resource)
    assert variable in container(pod, "scheduler")["env"]
    assert admitted(resource, pod)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"model": {"uri": "org/model", "cache": {"claimName": CLAIM}}}, id="named by the cache"),
        pytest.param(
            {
                "model": {"uri": "org/model", "cache": {"size": "1Gi"}},
                "podTemplate": {"spec": {"volumes": [{"name": "model-cache", "persistentVolumeClaim": {"claimName": CLAIM}}]}},
            },
            id="named in the pod patch",
        ),
    ],
)
def test_a_claim_that_exists_is_mounted_and_none_is_made(write: Callable[..., None], resource: Resource, changes: Spec) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM, "namespace": NAMESPACE}, "spec": spec}
    resource.access.kubectl("-n", NAMESPACE, "apply", "-f", "-", text_in=json.dumps(claim))
    write(**changes)
    pod = pod_of(resource)
    assert {"name": "model-cache", "persistentVolumeClaim": {"claimName": CLAIM}} in pod["volumes"]
    assert admitted(resource, pod)
    assert resource.kubectl("get", "pvc", NAME, "--ignore-not-found") == ""


@pytest.mark.parametrize(
    ("changes", "field", "term"),
    [
        pytest.param(
            {"spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}}, "spec.volumes[root].hostPath", "hostPath=/", id="hostPath"
        ),
        pytest.param(
            patch(securityContext={"privileged": True}), "containers[engine].securityContext.privileged", "privileged", id="privileged"
        ),
        pytest.param({"spec": {"hostNetwork": True}}, "spec.hostNetwork", "hostNetwork", id="hostNetwork"),
        pytest.param({"spec": {"nodeName": "any"}}, "spec.nodeName", "nodeName=any", id="nodeName"),
        pytest.param(
            {"spec": {"serviceAccountName": "default", "automountServiceAccountToken": True}},
            "spec.automountServiceAccountToken",
            "automountServiceAccountToken",
            id="a ServiceAccount with its token",
        ),
        pytest.param(
            patch(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "others", "key": "k"}}}]),
            "containers[engine].env[X].valueFrom.secretKeyRef.name",
            "secrets=others",
            id="a Secret",
        ),
    ],
)
def test_what_reaches_beyond_the_namespace_is_refused_with_field_and_setting(
    write: Callable[..., None], resource: Resource, changes: Spec, field: str, term: str
) -> None:
    write(podTemplate=changes)
    found = resource.wait_condition("Degraded", "True", SECONDS, reason="InvalidSpec")["message"]
    assert f"{field}: " in found
    assert f"add {term} to the comma-separated list ALISE_POD_PATCH_ALLOW in" in found
    assert found in " ".join(resource.describe().split())
