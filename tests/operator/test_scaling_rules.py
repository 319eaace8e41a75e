"""The rules of spec.autoscaling that join several fields: each problem names its field and the way out; and the number of pods at first."""

from typing import Any

import pytest

from alise_operator.scaling_condition import at_first
from alise_operator.scaling_rules import autoscaling_problems
from tests.operator.builders import make_spec

CACHE = {"uri": "a/b", "cache": {"size": "1Gi"}}


@pytest.mark.parametrize(
    ("changes", "field", "way_out"),
    [
        pytest.param(
            {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}},
            "spec.autoscaling.minReplicas",
            "3 is greater than maxReplicas, which is 2; lower minReplicas or raise maxReplicas",
            id="a minimum above the maximum",
        ),
        pytest.param(
            {"autoscaling": {"maxReplicas": 2}, "model": CACHE},
            "spec.autoscaling.maxReplicas",
            "use ReadWriteMany or maxReplicas 1",
            id="several pods with a volume of one node",
        ),
        pytest.param(
            {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}},
            "spec.autoscaling.minReplicas",
            "0 requires spec.routing.endpointPicker, because without pods only a picker can hold a request",
            id="no pods and no picker",
        ),
        pytest.param(
            {"autoscaling": {"minReplicas": 0, "maxReplicas": 2}, "routing": {"endpointPicker": {"hold": {"maxRequests": 0}}}},
            "spec.autoscaling.minReplicas",
            "0 requires spec.routing.endpointPicker.hold.maxRequests of 1 or more",
            id="a picker that holds nothing",
        ),
    ],
)
def test_a_problem_names_its_field_and_the_way_out(changes: dict[str, Any], field: str, way_out: str) -> None:
    (problem,) = autoscaling_problems(make_spec(**changes))
    assert problem.field == field
    assert way_out in problem.text


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="no autoscaling"),
        pytest.param({"autoscaling": {"maxReplicas": 1}, "model": CACHE}, id="one pod with a volume of one node"),
        pytest.param(
            {"autoscaling": {"maxReplicas": 2}, "model": CACHE | {"cache": {"size": "1Gi", "accessMode": "ReadWriteMany"}}},
            id="several pods with a shared volume",
        ),
        pytest.param({"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}, id="equal bounds"),
        pytest.param({"autoscaling": {"minReplicas": 0, "maxReplicas": 2}, "routing": {"endpointPicker": {}}}, id="no pods and a picker"),
        pytest.param(
            {"autoscaling": {"minReplicas": 2, "maxReplicas": 4}, "replicas": 9}, id="a number outside the bounds, which is corrected"
        ),
    ],
)
def test_what_fits_together_is_no_problem(changes: dict[str, Any]) -> None:
    assert list(autoscaling_problems(make_spec(**changes))) == []


@pytest.mark.parametrize(
    ("replicas", "serving", "has_condition", "expected"),
    [
        pytest.param(1, 3, False, 3, id="autoscaling begins: those that serve stay"),
        pytest.param(1, 9, False, 4, id="but for those above the maximum"),
        pytest.param(1, 3, True, 2, id="later: not below the minimum"),
        pytest.param(1, 1, True, 1, id="more than serve, which the autoscaler adds"),
        pytest.param(3, 2, False, 3, id="more than serve"),
        pytest.param(5, 5, True, 5, id="above the maximum, which the autoscaler lowers"),
        pytest.param(0, 3, False, 0, id="paused"),
    ],
)
def test_a_scaled_resource_has_this_number_of_pods_before_their_work_is_known(
    replicas: int, serving: int, has_condition: bool, expected: int
) -> None:
    spec = make_spec(replicas=replicas, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    conditions = [{"type": "AutoscalingActive", "status": "True"}] if has_condition else []
    assert at_first(spec, {"readyReplicas": serving, "conditions": conditions}).replicas == expected
