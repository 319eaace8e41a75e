"""The fields of `spec.autoscaling`. Pure; spec.py includes them, and autoscaling.py follows them."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from alise_operator.spec_types import SpecModel, rule, rules

# The number of pods whose status the operator reads. More pods would be scaled without knowing their work.
MAX_AUTOSCALED: Final = 100


class ScaleDown(SpecModel):
    stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """Time, in seconds, for which fewer pods must have been enough before pods are removed."""


class Autoscaling(SpecModel):
    model_config = ConfigDict(
        json_schema_extra=rules(rule("self.minReplicas <= self.maxReplicas", "minReplicas must not be greater than maxReplicas"))
    )

    min_replicas: Annotated[int, Field(ge=0, le=MAX_AUTOSCALED)] = 1
    """Least number of pods. 0 lets the last pod be removed after idleSeconds without a request; it requires spec.routing.endpointPicker,
    which holds requests until a pod is ready."""
    max_replicas: Annotated[int, Field(ge=1, le=MAX_AUTOSCALED)]
    """Largest number of pods."""
    target_backlog_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Time, in seconds, within which the pods should serve all requests that are there, while they also serve those that arrive. The
    smaller it is, the sooner pods are added."""
    scale_down: ScaleDown = Field(default_factory=ScaleDown)
    """When pods are removed. A removed pod finishes its open answers first, and the pod with the least predicted work is removed first."""
    idle_seconds: Annotated[int, Field(ge=60, le=86_400)] = 600
    """Time, in seconds, without a request after which the last pod is removed. Used only if minReplicas is 0."""
