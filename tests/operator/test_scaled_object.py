"""The ScaledObject of a resource, where KEDA is installed and served; and the metrics for KEDA."""

from dataclasses import replace

import pytest

from alise_operator.autoscaling import Memory, Pool, Rule, is_active, metric_seconds, unheard_since
from alise_operator.children import children
from alise_operator.children.meta import Manifest
from alise_operator.cluster import SCALED_OBJECT, Cluster, KedaScaler
from alise_operator.predicted_work import Work
from alise_operator.settings import load
from tests.operator.builders import CURRENT, OWNER, make_spec

SCALING = {"minReplicas": 2, "maxReplicas": 5, "scaleDown": {"stabilizationSeconds": 120}}
SERVED = replace(CURRENT, keda_scaler=KedaScaler("scaler.example:9501", "authority"))
WITH_KEDA = replace(SERVED, apis=SERVED.apis | {SCALED_OBJECT})


def scaled_objects(cluster: Cluster, **changes: object) -> list[Manifest]:
    spec = make_spec(**({"autoscaling": SCALING} | changes))
    return [one for one in children(spec, OWNER, cluster) if one["kind"] == "ScaledObject"]


def test_keda_scales_the_resource_by_the_scaler_within_its_bounds() -> None:
    (found,) = scaled_objects(WITH_KEDA)
    spec = found["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "alise.dev/v1alpha1", "kind": "AliseEngine", "name": "tiny"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 5)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {"stabilizationWindowSeconds": 120}
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "external-push"
    assert trigger["metadata"] == {"scalerAddress": "scaler.example:9501", "enableTLS": "true"}
    assert trigger["authenticationRef"] == {"kind": "ClusterTriggerAuthentication", "name": "authority"}


@pytest.mark.parametrize(
    ("cluster", "changes"),
    [
        pytest.param(SERVED, {}, id="without KEDA"),
        pytest.param(replace(WITH_KEDA, keda_scaler=None), {}, id="without a certificate"),
        pytest.param(WITH_KEDA, {"autoscaling": None}, id="without autoscaling"),
        pytest.param(WITH_KEDA, {"suspend": True}, id="suspended"),
    ],
)
def test_otherwise_there_is_none(cluster: Cluster, changes: dict[str, object]) -> None:
    assert scaled_objects(cluster, **changes) == []


@pytest.mark.parametrize(
    ("given", "address"),
    [
        pytest.param({}, "alise-operator-scaler.models.svc:9501", id="the Service beside the operator"),
        pytest.param({"ALISE_SCALER_ADDRESS": "scaler.example:443"}, "scaler.example:443", id="another one"),
    ],
)
def test_keda_is_sent_to_the_operators_own_namespace_unless_a_setting_says_otherwise(given: dict[str, str], address: str) -> None:
    scaler = load({"ALISE_SCALER_TLS_DIR": "/tls"} | given).keda_scaler("models")
    assert scaler == KedaScaler(address, "alise-operator-scaler")


RULE = Rule(least=1, most=10, target_seconds=60.0, stabilization_seconds=300.0, idle_seconds=600.0)


@pytest.mark.parametrize(
    ("pool", "pods"),
    [
        pytest.param(Pool(2, 2, Work(90.0, 1.5)), 3.0, id="work for three pods"),
        pytest.param(Pool(2, 2, Work()), 0.0, id="no work"),
        pytest.param(Pool(2, 1, Work(600.0, 1.5)), 2.0, id="a backlog while a pod starts asks for no more"),
        pytest.param(Pool(2, 1, Work(600.0, 3.5)), 3.5, id="arrivals while a pod starts do"),
        pytest.param(Pool(3, 3, Work(0.0, 0.5), silent=1), 3.0, id="unknown work asks for no fewer"),
        pytest.param(Pool(3, 3, Work(0.0, 4.0), silent=1), 4.0, id="and known work may ask for more"),
        pytest.param(Pool(3, 0), 3.0, id="no pod is ready"),
    ],
)
def test_the_metric_over_its_target_is_the_number_of_pods(pool: Pool, pods: float) -> None:
    assert metric_seconds(pool, RULE) / RULE.target_seconds == pytest.approx(pods)


@pytest.mark.parametrize(
    ("pool", "active"),
    [
        pytest.param(Pool(1, 1, Work(1.0, 0.0)), True, id="a request"),
        pytest.param(Pool(1, 1, Work(0.0, 0.1)), True, id="one came lately"),
        pytest.param(Pool(1, 1, Work()), False, id="nothing"),
        pytest.param(Pool(1, 1, Work(), silent=1), True, id="it is not known"),
        pytest.param(Pool(1, 0), True, id="a pod starts"),
        pytest.param(Pool(0, 0), False, id="no pod and no request"),
        pytest.param(Pool(0, 0, held=1), True, id="a held request"),
    ],
)
def test_there_is_work_unless_it_is_known_that_there_is_none(pool: Pool, active: bool) -> None:
    assert is_active(pool, None, 0.0) is active


@pytest.mark.parametrize(("seconds", "active"), [(59.0, False), (60.0, True)])
def test_a_picker_that_is_silent_for_a_minute_is_taken_for_work(seconds: float, active: bool) -> None:
    pool = Pool(0, 0, held=None)
    assert is_active(pool, unheard_since(Memory(), pool, 10.0), 10.0 + seconds) is active
