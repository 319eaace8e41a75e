"""What an AliseEngine wants to exist: `children(spec, owner, cluster) -> list[Manifest]`, pure.

One builder per kind returns its object, or None when it is not wanted. Everything a builder needs arrives as an argument.
"""

from typing import Final

from alise_operator.children.disruption_budget import disruption_budget
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.model_cache import model_cache
from alise_operator.children.network_policy import network_policy
from alise_operator.children.route import GatewayLimits, http_route, ingress
from alise_operator.children.service import service
from alise_operator.children.service_account import service_account
from alise_operator.children.workload import deployment
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

__all__ = ["Manifest", "Owner", "children"]

NO_LIMITS: Final = GatewayLimits()


def children(spec: Spec, owner: Owner, cluster: Cluster, limits: GatewayLimits = NO_LIMITS) -> list[Manifest]:
    """The objects of a resource, in the order in which they are to be applied; `limits` are those of its Gateway.

    Raises InvalidSpec when the pod template patch breaks what alise needs or an annotation is not allowed, MissingApi when the cluster does
    not serve a kind that the spec asks for.
    """
    workload = deployment(spec, owner, cluster)
    wanted = [
        service_account(owner),
        model_cache(spec, owner, workload["spec"]["template"]),
        network_policy(spec, owner, cluster),
        service(owner),
        disruption_budget(spec, owner, cluster),
        workload,
        ingress(spec, owner, cluster),
        http_route(spec, owner, cluster, limits),
    ]
    return [manifest for manifest in wanted if manifest is not None]
