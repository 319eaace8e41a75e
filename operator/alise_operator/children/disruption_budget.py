"""Builds the PodDisruptionBudget, which lets voluntary disruptions such as node drains stop one pod at a time.

A single replica gets none, because it would only block the drain. Pure; `children()` in __init__.py calls it.
"""

from alise_operator.children.meta import Manifest, Owner, metadata, selector
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec


def disruption_budget(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    if cluster.disruption_budget_version is None or spec.suspend or spec.replicas < 2:
        return None
    return {
        "apiVersion": cluster.disruption_budget_version,
        "kind": "PodDisruptionBudget",
        "metadata": metadata(owner),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(owner)}},
    }
