"""API objects and a pod's report become values, in the words of the cluster and of the pod."""

from typing import Any

import pytest

from alise_operator.children.workload import deployment as build_deployment
from alise_operator.cluster import Cluster
from alise_operator.observation import Trouble, view_pod, view_report, view_workload
from tests.operator.builders import CURRENT, OWNER, container, deployment_object, make_spec, pod_object, report_text

OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
DIED = {
    "terminated": {
        "exitCode": 2,
        "reason": "Error",
        "message": "alise-engine: --kv-cache-dtype int4 is not supported on a CPU: use one of auto\n",
    }
}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        pytest.param(
            pod_object(containers=[container({"waiting": {"reason": "ErrImagePull", "message": "not found"}})]),
            "ImagePull",
            "container engine of pod tiny-1: image 'reg/engine:1': ErrImagePull: not found",
            id="an image that is not there",
        ),
        pytest.param(
            pod_object(containers=[container({"waiting": {"reason": "ImagePullBackOff"}}, name="scheduler")]),
            "ImagePull",
            "container scheduler of pod tiny-1",
            id="the sidecar's image",
        ),
        pytest.param(
            pod_object(containers=[container(BACK_OFF, last=DIED, restarts=3)]),
            "PodsCrashing",
            "ended with exit code 2 (Error): alise-engine: --kv-cache-dtype int4 is not supported on a CPU: use one of auto",
            id="a crash loop, in the words of the process",
        ),
        pytest.param(
            pod_object(containers=[container({"running": {}}, last=OOM, restarts=1)]),
            "PodsCrashing",
            "OOMKilled); raise spec.engine.resources.limits.memory",
            id="killed for its memory and started again",
        ),
        pytest.param(
            pod_object(containers=[container({"running": {}}, last=OOM, restarts=1, name="scheduler")]),
            "PodsCrashing",
            "raise spec.scheduling.resources.limits.memory",
            id="the sidecar killed for its memory",
        ),
        pytest.param(
            pod_object(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no nvidia.com/gpu"}
                ]
            ),
            "Unschedulable",
            "pod tiny-1 cannot be scheduled: 0/3 nodes: no nvidia.com/gpu",
            id="no node fits",
        ),
        pytest.param(
            pod_object(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: 1 Insufficient cpu."}
                ]
            )
            | {
                "spec": {
                    "containers": [{"name": "engine", "resources": {"requests": {"cpu": "2", "memory": "3Gi"}}}],
                    "initContainers": [
                        {"name": "scheduler", "restartPolicy": "Always", "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}
                    ],
                }
            },
            "Unschedulable",
            "1 Insufficient cpu; the pod requests 2.25 cpu and 4Gi memory in total; lower spec.engine.resources.requests.cpu, stop another "
            "workload, add a node, or wait if a pod is about to leave, as in a rollout",
            id="no node has room for its requests",
        ),
        pytest.param(
            pod_object(
                containers=[
                    container(
                        {"terminated": {"exitCode": 2, "message": "INFO line of a log\nalise-engine: set spec.kvOffload.hostMemory to 0\n"}}
                    )
                ]
            ),
            "PodsCrashing",
            "ended with exit code 2 (Error): alise-engine: set spec.kvOffload.hostMemory to 0; see",
            id="the engine's own last sentence, without the log before it",
        ),
        pytest.param(
            pod_object(containers=[container(OOM | {"terminated": OOM["terminated"] | {"message": "loading shard 3"}}, restarts=1)]),
            "PodsCrashing",
            "raise spec.engine.resources.limits.memory; its last message: loading shard 3",
            id="killed for its memory, with last words",
        ),
        pytest.param(
            pod_object(containers=[container(BACK_OFF, last={"terminated": {"exitCode": 0, "reason": "Completed"}}, restarts=1)]),
            "PodsCrashing",
            "ended with exit code 0 (Completed) and left no message; see kubectl logs",
            id="exit code 0 without words",
        ),
        pytest.param(
            pod_object(
                containers=[
                    container({"waiting": {"reason": "RunContainerError", "message": 'exec: "tini": executable file not found in $PATH'}})
                ]
            ),
            "PodNotStarting",
            "container engine of pod tiny-1: the image reg/engine:1 has no alise engine; set spec.engine.image to an alise engine image",
            id="an image without alise's command",
        ),
        pytest.param(
            pod_object(
                containers=[container(BACK_OFF, last={"terminated": {"exitCode": 0, "reason": "Completed", "message": "done"}}, restarts=1)]
            ),
            "PodsCrashing",
            "ended with exit code 0 (Completed): done; see kubectl logs",
            id="exit code 0 with words",
        ),
        pytest.param(
            pod_object(
                containers=[container(BACK_OFF, last={"terminated": {"exitCode": 139, "reason": "Error", "message": "core"}}, restarts=1)]
            ),
            "PodsCrashing",
            "was terminated by signal 11 (SIGSEGV), exit code 139 (Error): core; see kubectl logs",
            id="a signal",
        ),
        pytest.param(
            pod_object(containers=[container(BACK_OFF, last={"terminated": {"exitCode": 137, "reason": "Error"}}, restarts=1)]),
            "PodsCrashing",
            "was terminated by signal 9 (SIGKILL), exit code 137 (Error) and left no message; the cause may be a node that is out of "
            "memory",
            id="killed",
        ),
        pytest.param(
            pod_object(containers=[container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}})]),
            "MissingSecret",
            'CreateContainerConfigError: secret "hub" not found',
            id="a container that waits for a Secret",
        ),
        pytest.param(
            pod_object(containers=[container({"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "m" not found'}})]),
            "PodNotStarting",
            'CreateContainerConfigError: configmap "m" not found',
            id="a container that cannot be made",
        ),
        pytest.param(
            pod_object(phase="Failed") | {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}},
            "PodsCrashing",
            "pod tiny-1 failed: Evicted The node was low on memory; the cluster starts another pod; kubectl delete pod",
            id="an evicted pod",
        ),
    ],
)
def test_a_pod_in_trouble_says_why_in_its_own_words(pod: dict[str, Any], reason: str, words: str) -> None:
    (trouble,) = view_pod(pod).troubles
    assert trouble.reason == reason
    assert words in trouble.message


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(pod_object(ready=True, containers=[container({"running": {}}, last=OOM, restarts=1)]), id="recovered from a crash"),
        pytest.param(pod_object(containers=[container({"waiting": {"reason": "ContainerCreating"}})]), id="being created"),
        pytest.param(pod_object(containers=[container({"waiting": {"reason": "PodInitializing"}})]), id="waiting for the sidecar"),
        pytest.param(pod_object(containers=[container({"running": {}})]), id="loading its model"),
        pytest.param(pod_object(deleted=True, containers=[container(DIED)]), id="on its way out"),
        pytest.param({"metadata": {"name": "tiny-1", "uid": "u"}}, id="without any status"),
    ],
)
def test_a_pod_that_is_well_or_starting_is_no_trouble(pod: dict[str, Any]) -> None:
    assert view_pod(pod).troubles == ()


@pytest.mark.parametrize(
    ("pod", "served"),
    [
        pytest.param(pod_object(ready=True, containers=[container({"running": {}}) | {"started": True}]), True, id="ready"),
        pytest.param(
            pod_object(deleted=True, containers=[container({"running": {}}) | {"started": True}]),
            True,
            id="not ready any more, which a pod that drains is",
        ),
        pytest.param(pod_object(containers=[container({"running": {}}) | {"started": False}]), False, id="loading its model"),
        pytest.param(
            pod_object(containers=[container({"running": {}}, name="scheduler") | {"started": True}]),
            False,
            id="of which only the sidecar runs",
        ),
        pytest.param(pod_object(containers=[container({"running": {}})]), False, id="of a cluster that does not say"),
        pytest.param({"metadata": {"name": "tiny-1", "uid": "u"}}, False, id="without any status"),
    ],
)
def test_a_pod_may_have_streams_once_its_engine_has_started(pod: dict[str, Any], served: bool) -> None:
    assert view_pod(pod).served is served


def test_an_init_container_that_has_done_its_work_is_no_trouble_after_it_ran_again() -> None:
    done = container({"running": {}}, last={"terminated": {"exitCode": 0, "reason": "Completed"}}, name="prepare", restarts=1)
    pod = pod_object() | {"spec": {"initContainers": [{"name": "prepare"}]}}
    assert view_pod(pod | {"status": pod["status"] | {"initContainerStatuses": [done]}}).troubles == ()


def test_long_words_keep_their_end() -> None:
    died = {"terminated": {"exitCode": 1, "message": "x " * 500 + "ValueError: no such model"}}
    (trouble,) = view_pod(pod_object(containers=[container(BACK_OFF, last=died, restarts=1)])).troubles
    assert "ValueError: no such model; see kubectl logs tiny-1 -c engine --previous" in trouble.message
    assert len(trouble.message) < 500


def test_a_deployment_is_read() -> None:
    workload = view_workload(deployment_object(observedGeneration=2, replicas=4, updatedReplicas=2, readyReplicas=1))
    assert (workload.observed, workload.desired, workload.replicas, workload.updated, workload.ready) == (True, 3, 4, 2, 1)


def test_a_deployment_whose_spec_was_not_seen_yet_is_not_observed() -> None:
    assert not view_workload(deployment_object(observedGeneration=1)).observed
    assert not view_workload(deployment_object()).observed


def test_a_stuck_rollout_and_refused_pods_are_seen() -> None:
    conditions = [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: compute"},
    ]
    workload = view_workload(deployment_object(conditions=conditions))
    assert workload.stalled
    assert workload.troubles == (
        Trouble(
            "PodsRefused",
            "the cluster refuses the pods: exceeded quota: compute; lower spec.replicas, or "
            "spec.engine.resources and spec.scheduling.resources, or ask the quota's owner for more (kubectl describe quota -n default)",
        ),
    )


def test_a_report_is_read() -> None:
    text = report_text(
        sidecar={"connected": True, "plan_fresh": True},
        admission={"recent_requests": 9, "recent_failed_open": 4, "failed_open_by_reason": {"deadline": 4, "error": 0}},
        host_memory={"limit_bytes": 2**40, "used_bytes": 7},
    )
    report = view_report(text)
    assert (report.sidecar_connected, report.plan_fresh, report.recent_failed_open) == (True, True, 4)
    assert report.failed_open_by_reason == (("deadline", 4), ("error", 0))
    assert (report.host_limit_bytes, report.host_used_bytes) == (2**40, 7)


def test_fields_of_a_newer_contract_are_ignored() -> None:
    assert view_report('{"contract_version": 2, "colour": "blue"}').contract_version == 2


@pytest.mark.parametrize("text", ["", "[]", "[1]", "7", "nonsense", '{"contract_version": "many"}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        view_report(text)


def build(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    return build_deployment(make_spec(**changes), OWNER, cluster)


def test_a_pod_and_its_deployment_know_the_template_they_are_of() -> None:
    template = build(CURRENT)["spec"]["template"]
    pod = view_pod(pod_object() | {"metadata": template["metadata"] | {"name": "tiny-1", "uid": "u"}})
    workload = view_workload(build(CURRENT))
    other = view_workload(build(CURRENT, drainSeconds=7))
    assert pod.template == workload.template != other.template
    assert view_workload(build(CURRENT, replicas=2)).template == workload.template
    assert (workload.surges, view_workload(build(CURRENT, engine={"rollout": "replace"})).surges) == (True, False)
