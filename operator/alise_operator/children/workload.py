"""Builds the Deployment of the engine pods: number of pods, rollout strategy, and the patched pod template with its stamp.

Pure; `children()` in __init__.py calls it.
"""

import hashlib
import json
from typing import Final

from alise_operator.children.meta import TEMPLATE_ANNOTATION, Manifest, Owner, metadata, selector
from alise_operator.children.pod import STARTUP_SECONDS, one_node, pod_template
from alise_operator.children.pod_patch import patched
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

# Time beyond the longest start after which a rollout counts as stuck.
_PROGRESS_MARGIN_SECONDS: Final = 600


def deployment(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest:
    """Returns the Deployment. Raises InvalidSpec if the user's patch breaks what alise needs of its pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner),
        "spec": {
            "replicas": 0 if spec.suspend else spec.replicas,
            "selector": {"matchLabels": selector(owner)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _rollout(spec)},
            "progressDeadlineSeconds": STARTUP_SECONDS + _PROGRESS_MARGIN_SECONDS,
            "revisionHistoryLimit": 3,
            "template": _stamped(patched(pod_template(spec, owner, cluster), spec, owner, cluster)),
        },
    }


def _rollout(spec: Spec) -> Manifest:
    """Returns the rollout strategy.

    A new pod serves before an old one stops, because a stream cannot move to another pod; unless the spec says that there is no capacity
    for an extra pod, or the two could not mount the same volume.
    """
    if spec.engine.rollout == "replace" or one_node(spec):
        return {"maxUnavailable": 1, "maxSurge": 0}
    return {"maxUnavailable": 0, "maxSurge": 1}


def _stamped(template: Manifest) -> Manifest:
    meta = template["metadata"]
    stamp = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]
    return template | {"metadata": meta | {"annotations": (meta.get("annotations") or {}) | {TEMPLATE_ANNOTATION: stamp}}}
