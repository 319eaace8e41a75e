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
    if scaling.min_replicas == 0:
        yield Problem(
            "spec.autoscaling.minReplicas",
            "0 requires an endpoint picker, which holds requests until a pod is ready; use 1, or stop the pods by hand with kubectl scale",
        )
    if cache is not None and cache.access_mode == "ReadWriteOnce" and scaling.max_replicas > 1:
        yield Problem(
            "spec.autoscaling.maxReplicas",
            f"{scaling.max_replicas} pods cannot share spec.model.cache with accessMode ReadWriteOnce, which allows one node; use "
            "ReadWriteMany or maxReplicas 1",
        )
