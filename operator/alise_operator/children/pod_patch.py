"""Applies the user's patch to the generated pod template: checks its shape, merges it, and checks the result.

Pure: workload.py calls `patched()`. pod_shape.py checks what a patch looks like, pod_needs.py what of the generated pod must stay, and
pod_policy.py what no pod may have. The last two check the merged template, so it does not matter which field a value comes from. The API
server judges the rest.
"""

from collections.abc import Mapping
from typing import Any, Final

from alise_operator.children.merge import merge
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.pod_lists import CONTAINER_LISTS
from alise_operator.children.pod_needs import need_problems
from alise_operator.children.pod_policy import policy_problems
from alise_operator.children.pod_shape import patch_problems
from alise_operator.cluster import Cluster
from alise_operator.errors import InvalidSpec
from alise_operator.spec import Spec

# Defaults for a container that the user adds, without which the restricted Pod Security Standard refuses it.
_ADDED_CONTAINER: Final[Manifest] = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}


def patched(template: Manifest, spec: Spec, owner: Owner, cluster: Cluster) -> Manifest:
    """Returns the template with the patch merged into it. Raises InvalidSpec if the patch cannot be merged or the pod is not allowed."""
    problems = list(patch_problems(spec.pod_template))
    if not problems:
        merged: Manifest = merge(template, _with_defaults(_relocated(spec.pod_template, template), template))
        problems = [*need_problems(merged, template, spec, owner), *policy_problems(merged, spec, owner, cluster.allowed)]
    if problems:
        raise InvalidSpec(problems)
    return merged


def _homes(template: Manifest) -> dict[str, str]:
    """Returns the list that contains each generated container; the scheduler's depends on the version of the cluster."""
    return {container["name"]: key for key in CONTAINER_LISTS for container in template["spec"].get(key, ())}


def _relocated(patch: Mapping[str, Any], template: Manifest) -> Manifest:
    """Returns the patch with its items for alise's containers moved to the lists that contain these on this cluster."""
    pod, homes = patch.get("spec"), _homes(template)
    if not isinstance(pod, dict):
        return dict(patch)
    lists = {key: list(pod[key]) for key in CONTAINER_LISTS if isinstance(pod.get(key), list)}
    moved = [(homes[item["name"]], item) for key, items in lists.items() for item in items if homes.get(item.get("name"), key) != key]
    if not moved:
        return dict(patch)
    kept = {key: [item for item in items if homes.get(item.get("name"), key) == key] for key, items in lists.items()}
    for home, item in moved:
        # A list that the patch removes stays removed, and is refused later.
        if pod.get(home, ()) is not None:
            kept.setdefault(home, []).append(item)
    return {**patch, "spec": {**pod, **kept}}


def _with_defaults(patch: Manifest, template: Manifest) -> Manifest:
    pod, homes = patch.get("spec"), _homes(template)
    if not isinstance(pod, dict):
        return patch
    filled = {
        key: [item if "name" not in item or item["name"] in homes else _added(item, key) for item in pod[key]]
        for key in CONTAINER_LISTS
        if isinstance(pod.get(key), list)
    }
    return {**patch, "spec": {**pod, **filled}}


def _added(item: Manifest, key: str) -> Manifest:
    if item.get("$patch") == "delete":
        return item
    filled: Manifest = merge(_ADDED_CONTAINER, item, ("spec", key))
    return filled
