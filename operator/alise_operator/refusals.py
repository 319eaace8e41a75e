"""Maps the fields of a child to the fields of the AliseEngine that they come from, for refusals and for restored children.

Pure: the API server names fields of the child that it refuses, and apply.py adds the fields that the user can change. restores.py names
them when another writer has changed the child instead.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from alise_contract.names import ENGINE_CONTAINER, SCHEDULER_CONTAINER

_CHILD_FIELD: Final = re.compile(r"(?<![\w/])\.?(?:[A-Z]\w*\.)?((?:metadata|spec)(?:\.\w+|\[[^\]]*\])*)")
# The API server says this of a child without naming a field, for example if a time is invalid.
UNCONVERTED: Final = "unable to convert unstructured object"
_ROUTE: Final = (("metadata.annotations", "spec.route.annotations"),)
_POD: Final = "spec.template.spec."
# By kind: the beginning of a field in the child (without indices), and where it comes from; the first match counts. Only restored children
# name a container, as in containers[engine].
_SOURCES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "Ingress": (
        *_ROUTE,
        ("spec.rules", "spec.route.hosts"),
        ("spec.tls.hosts", "spec.route.hosts"),
        ("spec.tls", "spec.route.tlsSecret"),
        ("spec.ingressClassName", "spec.route.className"),
        ("spec", "spec.route"),
    ),
    "HTTPRoute": (
        *_ROUTE,
        ("spec.hostnames", "spec.route.hosts"),
        ("spec.parentRefs", "spec.route.parentRef"),
        ("spec", "spec.route"),
    ),
    "PersistentVolumeClaim": (
        ("spec.storageClassName", "spec.model.cache.storageClass"),
        ("spec.resources", "spec.model.cache.size"),
        ("spec", "spec.model.cache"),
    ),
    "NetworkPolicy": (
        ("spec.ingress", "spec.networkPolicy.from"),
        ("spec.egress", "spec.networkPolicy.egress"),
        ("spec", "spec.networkPolicy"),
    ),
    "Deployment": (
        ("spec.replicas", "spec.replicas"),
        ("spec.strategy", "spec.engine.rollout"),
        (f"{_POD}terminationGracePeriodSeconds", "spec.drainSeconds"),
        *((f"{_POD}containers[{ENGINE_CONTAINER}].{name}", f"spec.engine.{name} or spec.podTemplate")
          for name in ("image", "args", "resources")),
        *((f"{_POD}{containers}[{SCHEDULER_CONTAINER}].{name}", f"spec.scheduling.{name} or spec.podTemplate")
          for containers in ("containers", "initContainers") for name in ("image", "resources")),
        *((f"{_POD}{containers}.resources", "spec.engine.resources, spec.scheduling.resources or spec.podTemplate")
          for containers in ("containers", "initContainers")),
        (f"{_POD}containers.env", "spec.engine.env or spec.podTemplate"),
        *((f"{_POD}{containers}.image", "spec.engine.image, spec.scheduling.image or spec.podTemplate")
          for containers in ("containers", "initContainers")),
        (f"{_POD}volumes.secret", "spec.auth.secretRef or spec.podTemplate"),
        (f"{_POD}volumes.persistentVolumeClaim", "spec.model.cache or spec.podTemplate"),
        ("spec.template", "spec.podTemplate"),
    ),
}  # fmt: skip


def with_source(kind: str, refusal: str) -> str:
    """Returns the fields that the refused value comes from, and the refusal; the refusal alone if it names no field, as quotas do."""
    found = list(dict.fromkeys(_sources(kind, refusal)))
    if not found and UNCONVERTED in refusal:
        found = [source for _, source in _SOURCES.get(kind, ())[-1:]]
    return f", whose value comes from {', '.join(found)}: {refusal}" if found else f": {refusal}"


def source_of(kind: str, field: str) -> str | None:
    """Returns the fields of the AliseEngine that a field of the child comes from; None if no field changes it."""
    plain = re.sub(r"\[[^\]]*\]", "", field)
    for beginning, source in _SOURCES.get(kind, ()):
        if any(one == beginning or one.startswith(f"{beginning}.") for one in (field, plain)):
            return source
    return None


def _sources(kind: str, refusal: str) -> Iterator[str]:
    for match in _CHILD_FIELD.finditer(refusal):
        source = source_of(kind, match[1])
        if source is not None:
            yield source
