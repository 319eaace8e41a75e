"""The cluster is asked about one resource: its Deployment, its pods, their events and the certificate."""

from alise_operator.apply import OWNED_KINDS
from alise_operator.missing_secrets import Gap
from alise_operator.observation import Trouble
from alise_operator.observe import SECRETS, observe
from alise_operator.pods import EVENT_REASONS, EVENTS, PODS, REPLICA_SETS
from alise_operator.poller import Poller
from tests.operator.builders import OWNER, container, deployment_object, pod_object, set_object
from tests.operator.fake_kube import FakeKube


def running() -> FakeKube:
    """A cluster with the Deployment of OWNER, its ReplicaSet and its pod, which no container speaks for."""
    kube = FakeKube()
    for resource, thing in ((OWNED_KINDS["Deployment"][0], deployment_object(readyReplicas=1)), (REPLICA_SETS, set_object())):
        kube.put(resource, thing)
    kube.put(PODS, pod_object())
    return kube


def put_event(
    kube: FakeKube, name: str, reason: str, at: str, *, of: str = "uid-1", said: str | None = None, container: str | None = None
) -> None:
    involved = {"kind": "Pod", "uid": of} | ({"fieldPath": f"spec.containers{{{container}}}"} if container else {})
    kube.put(
        EVENTS,
        {
            "metadata": {"name": name},
            "involvedObject": involved,
            "reason": reason,
            "message": said or f"words of {name}",
            "lastTimestamp": at,
        },
    )


async def test_a_pod_without_a_container_status_is_explained_by_its_newest_event() -> None:
    kube = running()
    put_event(kube, "a", "FailedMount", "2026-01-01T00:00:02Z")
    put_event(kube, "b", "FailedCreatePodSandBox", "2026-01-01T00:00:01Z")
    put_event(kube, "c", "Unhealthy", "2027")
    put_event(kube, "d", "FailedMount", "2027", of="another pod")
    async with Poller(1) as poller:
        seen = await observe(kube, poller, OWNER)
    assert seen.pods[0].troubles == (Trouble("PodNotStarting", "pod tiny-1: FailedMount: words of a"),)


async def test_a_volume_whose_secret_is_missing_is_named_although_newer_events_sum_up() -> None:
    kube = running()
    put_event(
        kube, "a", "FailedMount", "2026-01-01T00:00:01Z", said='MountVolume.SetUp failed for volume "api-keys" : secret "keys" not found'
    )
    put_event(kube, "b", "FailedMount", "2026-01-01T00:00:02Z", said="Unable to attach or mount volumes: unmounted volumes=[api-keys]")
    async with Poller(1) as poller:
        (trouble,) = (await observe(kube, poller, OWNER)).pods[0].troubles
    assert (trouble.reason, trouble.gap) == ("MissingSecret", Gap("keys"))


def put_ended_pod(kube: FakeKube) -> None:
    """The pod, whose engine ended with 0 and is started again."""
    state = {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z"}
    pod = pod_object(containers=[container({"running": {}}, last={"terminated": state}, restarts=1)])
    kube.put(PODS, pod | {"spec": {"containers": [{"name": "engine", "livenessProbe": {"httpGet": {"path": "/healthz"}}}]}})


async def test_an_ended_container_is_explained_by_the_event_of_its_probe() -> None:
    kube = running()
    put_ended_pod(kube)
    said = "Liveness probe failed: HTTP probe failed with statuscode: 404"
    put_event(kube, "a", "Unhealthy", "2026-01-01T00:00:05Z", said=said, container="engine")
    put_event(kube, "b", "Unhealthy", "2026-01-01T00:00:06Z", said="Liveness probe failed: another pod's", container="engine", of="another")
    async with Poller(1) as poller:
        (trouble,) = (await observe(kube, poller, OWNER)).pods[0].troubles
    assert (
        "its liveness probe failed (HTTP probe failed with statuscode: 404), so the kubelet stopped it; the engine answers"
        in trouble.message
    )
    assert [fields for plural, fields in kube.lists if plural == "events"] == [
        "involvedObject.kind=Pod,type=Warning,reason=Unhealthy",
        "involvedObject.kind=Pod,type=Normal,reason=Killing",
    ]


async def test_an_ended_container_keeps_its_own_words_where_events_may_not_be_read() -> None:
    kube = running()
    put_ended_pod(kube)
    kube.forbidden = {"events"}
    async with Poller(1) as poller:
        (trouble,) = (await observe(kube, poller, OWNER)).pods[0].troubles
    assert (
        "the kubelet stops a container in this way after its liveness probe failed: kubectl describe pod tiny-1 says which"
        in trouble.message
    )


async def test_the_certificate_is_no_trouble_where_secrets_may_not_be_read() -> None:
    kube = FakeKube()
    kube.forbidden = {"secrets"}
    async with Poller(1) as poller:
        assert (await observe(kube, poller, OWNER, tls_secret="cert")).troubles == ()


async def test_the_events_of_all_pods_are_one_list_per_reason() -> None:
    kube = running()
    for number in range(2, 200):
        kube.put(PODS, pod_object() | {"metadata": pod_object()["metadata"] | {"name": f"tiny-{number}", "uid": f"uid-{number}"}})
        put_event(kube, f"of-{number}", "FailedMount", "2026-01-01T00:00:02Z", of=f"uid-{number}")
    async with Poller(1) as poller:
        seen = await observe(kube, poller, OWNER)
    assert sum(plural == "events" for plural, _ in kube.lists) == len(EVENT_REASONS)
    assert sum(len(pod.troubles) for pod in seen.pods) == 198


async def test_deployment_and_pods_are_observed_together() -> None:
    kube = running()
    other = {"name": "other", "uid": "u", "labels": {"alise.dev/engine": "other"}}
    kube.put(PODS, pod_object() | {"metadata": pod_object()["metadata"] | other})
    async with Poller(1) as poller:
        seen = await observe(kube, poller, OWNER)
    assert seen.workload is not None
    assert seen.workload.ready == 1
    assert [pod.name for pod in seen.pods] == ["tiny-1"]


async def test_without_a_deployment_there_is_nothing_to_see() -> None:
    kube = FakeKube()
    kube.put(PODS, pod_object())
    async with Poller(1) as poller:
        seen = await observe(kube, poller, OWNER)
    assert (seen.workload, seen.pods) == (None, ())


async def test_the_certificates_secret_is_looked_for_and_its_creation_is_named() -> None:
    kube = FakeKube()
    async with Poller(1) as poller:
        (missing,) = (await observe(kube, poller, OWNER, tls_secret="cert")).troubles
        kube.put(SECRETS, {"metadata": {"name": "cert"}})
        found = await observe(kube, poller, OWNER, tls_secret="cert")
    assert missing.reason == "MissingTlsSecret"
    assert "kubectl create secret tls cert -n default" in missing.message
    assert found.troubles == ()
