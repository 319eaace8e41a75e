"""Autoscaling against a real API server: the scale subresource, its rights, conditions and events; and KEDA's ScaledObject."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from alise_contract.v1 import externalscaler_pb2 as pb
from alise_contract.v1.externalscaler_pb2_grpc import ExternalScalerStub
from alise_operator.children.meta import DELETION_COST_ANNOTATION
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, Object, OperatorProcess, eventually, install, running_operator
from tests.operator.keda_crd import scaled_object_crd
from tests.operator.test_scaler import write_certificate

pytestmark = pytest.mark.controlplane

SCALING = {"minReplicas": 2, "maxReplicas": 3}


def steps(engine: Engine) -> list[tuple[str, str]]:
    return [(one["reason"], one["message"]) for one in engine.events() if one["reason"] in ("ScaledUp", "ScaledDown")]


def test_too_few_pods_are_raised_through_the_scale_subresource_and_an_event_says_why(engine: Engine) -> None:
    engine.apply(autoscaling=SCALING)
    engine.wait_for_pods(2)
    assert engine.get()["spec"]["replicas"] == 2
    eventually("an event says why", lambda: steps(engine) == [("ScaledUp", "from 1 to 2 replicas: spec.autoscaling.minReplicas is 2")])
    condition = engine.until("AutoscalingActive", "True", "PodsStarting")
    assert "; last step: from 1 to 2 at " in condition["message"]


def test_a_manifest_that_has_autoscaling_instead_of_replicas_stops_no_pod(engine: Engine) -> None:
    engine.apply(replicas=3)
    pods = engine.wait_for_pods(3)
    for pod in pods:
        engine.make_ready(pod)
    eventually("the status has them", lambda: engine.get()["status"].get("readyReplicas") == 3)
    engine.apply(autoscaling=SCALING)  # kubectl removes the field, and the API server sets its default, 1.
    eventually("autoscaling has begun", lambda: engine.condition("AutoscalingActive"))
    assert engine.get()["spec"]["replicas"] == 3
    assert {pod["metadata"]["uid"] for pod in engine.pods()} == {pod["metadata"]["uid"] for pod in pods}
    assert steps(engine) == [("ScaledUp", "from 1 to 3 replicas: autoscaling begins with the 3 pods that serve requests")]


def test_a_number_above_the_maximum_is_lowered_and_one_within_the_bounds_is_kept(engine: Engine) -> None:
    engine.apply(autoscaling=SCALING)
    engine.wait_for_pods(2)
    engine.kubectl("scale", "alise/tiny", "--replicas=5")
    eventually("the maximum holds", lambda: engine.get()["spec"]["replicas"] == 3)
    eventually("an event says why", lambda: ("ScaledDown", "from 5 to 3 replicas: spec.autoscaling.maxReplicas is 3") in steps(engine))
    engine.wait_for_pods(3)


def test_scaling_to_0_by_hand_pauses_and_scaling_up_resumes(engine: Engine) -> None:
    engine.apply(autoscaling=SCALING)
    engine.wait_for_pods(2)
    engine.kubectl("scale", "alise/tiny", "--replicas=0")
    assert "scale to 2 or more to resume it" in engine.until("AutoscalingActive", "False", "Paused")["message"]
    eventually("no pod is left", lambda: not engine.pods())
    engine.kubectl("scale", "alise/tiny", "--replicas=1")
    engine.wait_for_pods(2)


def test_without_the_field_the_condition_goes_and_the_number_stays(engine: Engine) -> None:
    engine.apply(autoscaling=SCALING)
    engine.until("AutoscalingActive", "True", "PodsStarting")
    engine.patch({"autoscaling": None})
    eventually("the condition is gone", lambda: engine.condition("AutoscalingActive") == {})
    assert engine.get()["spec"]["replicas"] == 2


def test_ready_pods_whose_work_is_not_known_are_said_and_kept(engine: Engine) -> None:
    engine.apply(autoscaling=SCALING | {"scaleDown": {"stabilizationSeconds": 0}, "minReplicas": 1}, replicas=2)
    for pod in engine.wait_for_pods(2):
        engine.make_ready(pod)
    engine.until("AutoscalingActive", "Unknown", "WorkUnknown")
    assert engine.get()["spec"]["replicas"] == 2


def test_a_scale_down_marks_the_pod_that_should_leave_and_no_other(engine: Engine) -> None:
    engine.apply(replicas=3)
    pods = engine.wait_for_pods(3)
    for pod in pods:
        engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    before = {pod["metadata"]["name"] for pod in pods}
    engine.kubectl("scale", "alise/tiny", "--replicas=2")

    def marked() -> dict[str, str]:
        costs = {one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(DELETION_COST_ANNOTATION) for one in engine.pods()}
        return {name: cost for name, cost in costs.items() if cost is not None and name in before}

    # The pods report no work, so the first by name leaves; it may be gone already where the server follows the annotation.
    eventually("a pod is marked or has left", lambda: marked() == {min(before): "-1"} or min(before) not in marked())
    engine.wait_for_pods(2)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"autoscaling": {"minReplicas": 1}}, "spec.autoscaling.maxReplicas", id="no maximum"),
        pytest.param({"autoscaling": {"maxReplicas": 101}}, "spec.autoscaling.maxReplicas", id="more than are observed"),
        pytest.param({"autoscaling": {"maxReplicas": 2, "targetBacklogSeconds": 0}}, "targetBacklogSeconds", id="no target"),
    ],
)
def test_the_api_server_refuses_what_the_schema_forbids(engine: Engine, spec: dict[str, object], said: str) -> None:
    engine.apply()
    with pytest.raises(Exception, match=said):
        engine.patch(spec)


def test_a_rollout_does_not_keep_autoscaling_from_its_minimum(engine: Engine) -> None:
    engine.apply()
    engine.wait_for_pods(1)
    for round_ in range(3):
        engine.patch({"engine": {"env": [{"name": "ROUND", "value": str(round_)}]}})
    engine.patch({"autoscaling": SCALING})
    last = {"name": "ROUND", "value": "2"}

    def has_last_edit(pod: Object) -> bool:
        return last in pod["spec"]["containers"][0]["env"]

    eventually(
        "the Deployment has the last edit and the minimum",
        lambda: (spec := engine.one("deployment")["spec"])["replicas"] == 2 and has_last_edit(spec["template"]),
    )
    # A pod of an older template stays until one of the newest is ready.
    eventually("two pods of the newest template exist", lambda: len(list(filter(has_last_edit, engine.pods()))) == 2)
    assert "pods are starting" in engine.until("AutoscalingActive", "True", "PodsStarting")["message"]
    assert "older ones, which stay until enough newer ones are ready" in engine.until("Progressing", "True", "RollingOut")["message"]
    engine.wait_for_pods(3)


# --- KEDA ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keda_plane() -> Iterator[ControlPlane]:
    """A cluster of its own: the CRD of KEDA would make other tests' operators use it."""
    with ControlPlane() as cp:
        install(cp)
        cp.access.apply(scaled_object_crd())
        cp.access.kubectl("wait", "--for=condition=Established", "crd/scaledobjects.keda.sh", "--timeout=30s")
        cp.access.kubectl("create", "namespace", "keda-test")
        yield cp


def scaler_port(operator: OperatorProcess) -> int | None:
    started = [line for line in operator.lines() if line.get("message") == "scaler for KEDA started"]
    return int(started[0]["port"]) if started else None


def test_where_keda_is_it_scales_by_the_operators_scaler(keda_plane: ControlPlane, tmp_path: Path) -> None:
    authority = write_certificate(tmp_path)
    settings = {"ALISE_SCALER_TLS_DIR": str(tmp_path), "ALISE_SCALER_PORT": "0", "ALISE_SCALER_ADDRESS": "scaler.example:9501"}
    with running_operator(keda_plane, tmp_path, **settings) as operator:
        engine = Engine(keda_plane.access, "keda-test")
        engine.apply(autoscaling=SCALING)
        engine.until("AutoscalingActive", "True", "ScaledByKEDA")
        scaled = engine.child("scaledobjects.keda.sh")
        assert scaled["spec"]["triggers"][0]["metadata"] == {"scalerAddress": "scaler.example:9501", "enableTLS": "true"}
        assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (2, 3)
        # The operator leaves the number to KEDA, although it is below the minimum.
        assert engine.get()["spec"]["replicas"] == 1

        port = eventually("the scaler serves", lambda: scaler_port(operator))
        reference = pb.ScaledObjectRef(namespace="keda-test", name="tiny")
        credentials = grpc.ssl_channel_credentials(authority)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = ExternalScalerStub(channel)
            assert stub.IsActive(reference, timeout=30).result
            (value,) = stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=reference), timeout=30).metricValues
        assert value.metricValueFloat == 60.0

        engine.patch({"autoscaling": None})
        eventually("the ScaledObject is pruned", lambda: not engine.one("scaledobjects.keda.sh"))
        assert operator.forbidden() == []


def test_without_a_certificate_the_operator_scales_by_itself_where_keda_is(keda_plane: ControlPlane, tmp_path: Path) -> None:
    with running_operator(keda_plane, tmp_path) as operator:
        engine = Engine(keda_plane.access, "keda-test", "own")
        engine.apply(autoscaling=SCALING)
        engine.until("AutoscalingActive", "True", "PodsStarting")
        assert engine.one("scaledobjects.keda.sh") == {}
        assert json.dumps(operator.forbidden()) == "[]"
