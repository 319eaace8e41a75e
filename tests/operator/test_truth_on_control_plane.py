"""What the resource says while something is wrong, by the real operator process against a real API server."""

from typing import Any

import pytest

from tests.operator.control_plane import Engine, eventually

pytestmark = pytest.mark.controlplane

BAD_DTYPE = {"engine": {"kvCacheDtype": "int4"}}
INGRESS = {"type": "Ingress", "className": "alise-test", "hosts": ["llm.alise.test"]}


def replicas(engine: Engine) -> int:
    return int(engine.one("deployment")["spec"]["replicas"])


def described(engine: Engine) -> str:
    return " ".join(engine.kubectl("describe", "alise", engine.name).split())


def test_pods_that_serve_stay_ready_and_are_scaled_whatever_else_is_wrong(engine: Engine) -> None:
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    template = engine.child("deployment")["spec"]["template"]
    engine.patch(BAD_DTYPE | {"replicas": 3})
    said = engine.until("Degraded", "True", "InvalidSpec")["message"]
    engine.until("Ready", "True", "ServingOldSpec")
    assert said in described(engine)
    eventually("the Deployment is scaled", lambda: replicas(engine) == 3)
    engine.patch({"suspend": True})
    eventually("the Deployment is stopped", lambda: replicas(engine) == 0)
    assert engine.child("deployment")["spec"]["template"] == template


def test_a_secret_that_the_kubelet_misses_is_named_with_its_field_and_the_command_that_creates_it(engine: Engine) -> None:
    engine.apply(model={"uri": "org/model", "tokenSecretRef": {"name": "hub"}})
    (pod,) = engine.wait_for_pods(1)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    status = {"name": "engine", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    engine.set_pod_status(pod["metadata"]["name"], {"containerStatuses": [status]})
    engine.until("Degraded", "True", "MissingSecret")
    said = f"spec.model.tokenSecretRef: Secret {engine.namespace}/hub does not exist; create it: kubectl create secret generic hub"
    assert said in described(engine)


def test_a_deployment_scaled_by_hand_is_set_back_and_kubectl_describe_names_the_right_way(engine: Engine) -> None:
    engine.apply()
    engine.wait_for_pods(1)
    engine.until("Ready", "False", "Starting")

    scaled: list[str] = []

    def reset() -> bool:
        """Scales it again if it was set back without an event: the operator was just writing, which it is not all the time."""
        if replicas(engine) == 1:
            scaled.append(engine.kubectl("scale", "deployment", "tiny", "--replicas=3"))
            assert len(scaled) <= 5, "it is set back without an event again and again"
        return any(one["reason"] == "ReplicasReset" for one in engine.events())

    eventually("an event says so", reset)
    eventually("the number is set back", lambda: replicas(engine) == 1)
    assert f"kubectl scale alise tiny -n {engine.namespace} --replicas=3" in described(engine)


@pytest.mark.parametrize(
    ("route", "reason", "said"),
    [
        pytest.param(
            INGRESS | {"className": "no-such-class"},
            "MissingIngressClass",
            "spec.route.className: IngressClass no-such-class does not exist, so no controller handles the Ingress; use alise-test",
            id="a class that does not exist",
        ),
        pytest.param(
            {"type": "Ingress", "hosts": ["llm.alise.test"]},
            "NoIngressClass",
            "spec.route.className is not set and the cluster has no default IngressClass",
            id="no class, and no default class",
        ),
    ],
)
def test_an_ingress_that_no_controller_takes_is_not_ready_and_has_no_url(
    engine: Engine, route: dict[str, Any], reason: str, said: str
) -> None:
    engine.apply(route=route, suspend=True)
    engine.until("RouteReady", "False", reason)
    assert said in described(engine)
    assert engine.condition("Degraded")["reason"] == reason
    assert "url" not in engine.get()["status"]


def test_an_annotation_that_a_controller_would_run_is_refused_with_the_setting_that_allows_it(engine: Engine) -> None:
    engine.apply(route=INGRESS | {"annotations": {"nginx.ingress.kubernetes.io/server-snippet": "return 200;"}}, suspend=True)
    engine.until("Degraded", "True", "InvalidSpec")
    assert "spec.route.annotations[nginx.ingress.kubernetes.io/server-snippet]: this operator does not allow the annotation" in described(
        engine
    )
    assert engine.one("ingresses.networking.k8s.io") == {}


def test_a_picker_that_cannot_be_pulled_is_in_degraded_until_it_is_ready(engine: Engine) -> None:
    engine.apply(routing={"endpointPicker": {}})
    label = f"alise.dev/picker={engine.name}"

    def picker_pod() -> str:
        return engine.kubectl("get", "pods", "-l", label, "-o", "jsonpath={.items[0].metadata.name}", "--ignore-not-found")

    pod = eventually("the picker has a pod", lambda: picker_pod() if engine.kubectl("get", "pods", "-l", label, "-o", "name") else None)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    status = {"name": "picker", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    engine.set_pod_status(pod, {"containerStatuses": [status]})
    said = engine.until("Degraded", "True", "PickerUnavailable")["message"]
    assert "ImagePullBackOff: no such image" in said
    assert f"kubectl describe pods -n {engine.namespace} -l {label}" in said
    running = status | {"ready": True, "started": True, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"} for kind in ("PodScheduled", "Ready")]
    engine.set_pod_status(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [running]})
    engine.until("Degraded", "False", "AsExpected")
