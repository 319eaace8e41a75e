"""The rules of `spec.autoscaling` that join several fields. Pure; rules.py calls `autoscaling_problems()` and explains its other rules."""

from collections.abc import Iterator

from alise_operator.errors import Problem
from alise_operator.spec import Spec


def autoscaling_problems(spec: Spec) -> Iterator[Problem]:
    scaling, cache = spec.autoscaling, spec.model.cache
    if scaling is None:
        return
    if scaling.min_replicas > scaling.max_replicas:
        yield Problem(
            "spec.autoscaling.minReplicas",
            f"{scaling.min_replicas} is greater than maxReplicas, which is {scaling.max_replicas}; lower minReplicas or raise maxReplicas",
        )
    picker = spec.routing.endpoint_picker
    if scaling.min_replicas == 0 and (picker is None or picker.hold.max_requests == 0):
        missing = "spec.routing.endpointPicker" if picker is None else "spec.routing.endpointPicker.hold.maxRequests of 1 or more"
        yield Problem(
            "spec.autoscaling.minReplicas",
            f"0 requires {missing}, because without pods only a picker can hold a request and have a pod started; set it, or use 1",
        )
    if cache is not None and cache.access_mode == "ReadWriteOnce" and scaling.max_replicas > 1:
        yield Problem(
            "spec.autoscaling.maxReplicas",
            f"{scaling.max_replicas} pods cannot share spec.model.cache with accessMode ReadWriteOnce, which allows one node; use "
            "ReadWriteMany or maxReplicas 1",
        )
