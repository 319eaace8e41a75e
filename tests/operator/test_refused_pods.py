"""Why the cluster makes no pods, in its own words (those of Kubernetes' admission plugins), and the field to change."""

import pytest

from alise_operator.refused_pods import explain

POD = 'pods "tiny-7f4bcff8d-pbl5b" is forbidden: '


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        pytest.param(
            "no PriorityClass with name gpu-high was found",
            "no PriorityClass with name gpu-high was found. Set spec.podTemplate.spec.priorityClassName to one that exists (kubectl "
            "get priorityclasses), or leave it out",
            id="a PriorityClass that does not exist",
        ),
        pytest.param(
            'pod rejected: RuntimeClass "nvidia" not found',
            'pod rejected: RuntimeClass "nvidia" not found. Set spec.podTemplate.spec.runtimeClassName to one that exists (kubectl '
            "get runtimeclasses), or leave it out",
            id="a RuntimeClass that does not exist",
        ),
        pytest.param(
            "exceeded quota: team, requested: pods=1, used: pods=0, limited: pods=0",
            "limited: pods=0; the quota allows no pods: ask the quota's owner for as many as spec.replicas needs, and one more for "
            "rollouts (kubectl describe quota -n ml)",
            id="a quota that allows no pods",
        ),
        pytest.param(
            "exceeded quota: team, requested: count/pods=1,requests.nvidia.com/gpu=1, used: count/pods=0,requests.nvidia.com/gpu=0, "
            "limited: count/pods=0,requests.nvidia.com/gpu=0",
            "; the quota allows no pods and no requests.nvidia.com/gpu: ask the quota's owner for as many as spec.replicas needs, and one "
            "more for rollouts (kubectl describe quota -n ml)",
            id="a quota that allows no pods and no GPUs",
        ),
        pytest.param(
            "exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2",
            "limited: pods=2; lower spec.replicas, or ask the quota's owner for more (kubectl describe quota -n ml)",
            id="a quota of pods",
        ),
        pytest.param(
            "exceeded quota: team, requested: pods=1,requests.memory=4Gi, used: requests.memory=8Gi, limited: requests.memory=9Gi",
            "=9Gi; lower spec.replicas, or spec.engine.resources and spec.scheduling.resources, or ask the quota's owner for more",
            id="a quota of memory",
        ),
        pytest.param(
            "failed quota: team: must specify limits.cpu for: engine,scheduler",
            "; set these in spec.engine.resources and spec.scheduling.resources (kubectl describe quota -n ml shows what is limited)",
            id="a quota of what the pods do not name",
        ),
        pytest.param(
            "maximum memory usage per Container is 1Gi, but limit is 4Gi",
            "but limit is 4Gi; change spec.engine.resources and spec.scheduling.resources (kubectl describe limitrange -n ml",
            id="a LimitRange",
        ),
        pytest.param(
            'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
            "; correct spec.podTemplate, or ask an administrator to change the label pod-security.kubernetes.io/enforce of namespace ml",
            id="a stricter Pod Security Standard",
        ),
        pytest.param("no reason that is known.", "the cluster refuses the pods: no reason that is known", id="another plugin"),
    ],
)
def test_a_refusal_names_no_pod_and_says_what_to_do(said: str, wanted: str) -> None:
    text = explain(POD + said, "ml")
    assert text.startswith("the cluster refuses the pods: ")
    assert "tiny-7f4bcff8d-pbl5b" not in text
    assert wanted in text


def test_the_words_of_a_webhook_stay_as_they_are() -> None:
    said = 'admission webhook "policy.example.com" denied the request: images come from reg.example.com'
    assert explain(said, "ml") == f"the cluster refuses the pods: {said}"


def test_a_long_refusal_keeps_its_reason_and_its_way_out_and_names_no_pod() -> None:
    amounts = ",".join(f"requests.example.com/device-{number}=1" for number in range(12))
    said = explain(f"{POD}exceeded quota: team, requested: {amounts}, used: {amounts}, limited: {amounts}", "ml")
    assert said.startswith("the cluster refuses the pods: exceeded quota: team, requested: ")
    assert "…; lower spec.replicas, or spec.engine.resources and spec.scheduling.resources, or ask the quota's owner for more" in said
    assert "tiny-7f4bcff8d" not in said
