"""Builds the children of an AliseEngine, the objects that should exist for it: `children(spec, owner, cluster) -> list[Manifest]`.

Pure: reconcile.py calls `children()`, and apply.py applies the result. There is one builder per kind; it returns its object, or None if the
object is not wanted. Everything that a builder needs is an argument.
"""

from typing import Final

from alise_operator.children.adapters import adapters
from alise_operator.children.disruption_budget import disruption_budget
from alise_operator.children.inference_pool import inference_pool
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.model_cache import model_cache
from alise_operator.children.network_policy import network_policy
from alise_operator.children.picker import picker
from alise_operator.children.route import GatewayLimits, http_route, ingress
from alise_operator.children.scaled_object import scaled_object
from alise_operator.children.service import service
from alise_operator.children.service_account import service_account
from alise_operator.children.workload import deployment
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

__all__ = ["Owner", "children"]

NO_LIMITS: Final = GatewayLimits()


def children(spec: Spec, owner: Owner, cluster: Cluster, limits: GatewayLimits = NO_LIMITS) -> list[Manifest]:
    """Returns the children in the order in which they are applied; `limits` are those of the Gateway.

    Raises InvalidSpec if the pod template patch breaks what alise needs or an annotation is not allowed, and MissingApi if the cluster does
    not serve a kind that the spec requires.
    """
    workload = deployment(spec, owner, cluster)
    wanted = [
        service_account(owner),
        model_cache(spec, owner, workload["spec"]["template"]),
        adapters(spec, owner),
        network_policy(spec, owner, cluster),
        service(owner),
        disruption_budget(spec, owner, cluster),
        workload,
        ingress(spec, owner, cluster),
        http_route(spec, owner, cluster, limits),
        scaled_object(spec, owner, cluster),
        *picker(spec, owner, cluster, workload["spec"]["template"]),
        inference_pool(spec, owner, cluster),
    ]
    return [manifest for manifest in wanted if manifest is not None]
