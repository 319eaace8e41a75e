"""The Deployment of the engine pods."""

from collections.abc import Iterator
from typing import Final

from alise_contract.names import ENGINE_CONTAINER, RUN_DIR, SCHEDULER_CONTAINER
from alise_operator.build.merge import merge
from alise_operator.build.meta import Manifest, Owner, metadata, selector
from alise_operator.build.pod import STARTUP_SECONDS, pod_template
from alise_operator.cluster import Cluster
from alise_operator.errors import InvalidSpec, Problem
from alise_operator.spec import Spec

_FIELD: Final = "spec.podTemplate"
# Time over the longest start after which a rollout counts as stuck.
_PROGRESS_MARGIN_SECONDS: Final = 600


def deployment(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest:
    """Raises InvalidSpec when the user's patch breaks what alise needs of its pods."""
    template = merge(pod_template(spec, owner, cluster), spec.pod_template)
    problems = list(_patch_problems(template, owner))
    if problems:
        raise InvalidSpec(problems)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner),
        "spec": {
            "replicas": 0 if spec.suspend else spec.replicas,
            "selector": {"matchLabels": selector(owner)},
            # A new pod serves before an old one goes: streams move only by ending.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "progressDeadlineSeconds": STARTUP_SECONDS + _PROGRESS_MARGIN_SECONDS,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def _patch_problems(template: Manifest, owner: Owner) -> Iterator[Problem]:
    for key, value in selector(owner).items():
        if template.get("metadata", {}).get("labels", {}).get(key) != value:
            yield Problem(
                f"{_FIELD}.metadata.labels", f"must leave {key}={value} as it is: the Service and the Deployment find the pods by it"
            )
    pod = template.get("spec")
    if not isinstance(pod, dict):
        yield Problem(f"{_FIELD}.spec", "must be an object")
        return
    containers = {
        container.get("name"): container
        for key in ("containers", "initContainers")
        for container in pod.get(key) or ()
        if isinstance(container, dict)
    }
    for name in (ENGINE_CONTAINER, SCHEDULER_CONTAINER):
        container = containers.get(name)
        if container is None:
            yield Problem(f"{_FIELD}.spec.containers", f"must keep the container {name!r}")
        elif RUN_DIR not in [mount.get("mountPath") for mount in container.get("volumeMounts") or () if isinstance(mount, dict)]:
            yield Problem(f"{_FIELD}.spec.containers", f"must keep the mount {RUN_DIR} of container {name!r}: its sockets are there")
