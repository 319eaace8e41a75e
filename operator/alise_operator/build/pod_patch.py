"""The user's patch of the pod template: its shape, and what of the generated pod it must leave as it is. Pure.

The API server checks the merged template's fields; what is checked here is what merging needs (objects where objects are, lists where lists
are) and what it cannot know: the labels and sockets by which the parts find each other, and the drain, which a patch would take away
without a word and nobody would miss before the first rollout.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from alise_contract.names import AUTH_DIR, AUTH_DIR_ENV, ENGINE_CONTAINER, RUN_DIR, SCHEDULER_CONTAINER
from alise_operator.build.merge import merge
from alise_operator.build.meta import Manifest, Owner, selector
from alise_operator.errors import InvalidSpec, Problem

_FIELD: Final = "spec.podTemplate"
_CONTAINER_LISTS: Final = ("containers", "initContainers")
# Fields of a container that hold a list; of these, the items of the first four are objects.
_CONTAINER_FIELDS: Final = ("env", "envFrom", "ports", "volumeMounts", "args", "command")
_OBJECT_ITEMS: Final = 4


def patched(template: Manifest, patch: Mapping[str, Any], owner: Owner) -> Manifest:
    """The template with the user's patch in it. Raises InvalidSpec when the patch has no pod's shape or breaks what alise needs."""
    problems = list(_shape_problems(patch))
    if not problems:
        merged: Manifest = merge(template, dict(patch))
        problems = [*_lost(merged, owner), *_lost_keys(merged, template), *_drain_problems(merged, template)]
    if problems:
        raise InvalidSpec(problems)
    return merged


def _shape_problems(patch: Mapping[str, Any]) -> Iterator[Problem]:
    metadata, pod = patch.get("metadata"), patch.get("spec")
    yield from _must_be_object(f"{_FIELD}.metadata", metadata)
    if isinstance(metadata, dict):
        for key in ("labels", "annotations"):
            yield from _must_be_object(f"{_FIELD}.metadata.{key}", metadata.get(key))
    yield from _must_be_object(f"{_FIELD}.spec", pod)
    if not isinstance(pod, dict):
        return
    for key in ("volumes", *_CONTAINER_LISTS):
        yield from _must_be_named_objects(f"{_FIELD}.spec.{key}", pod.get(key))
    for key in _CONTAINER_LISTS:
        items = pod.get(key)
        for container in items if isinstance(items, list) else ():
            if isinstance(container, dict):
                yield from _container_problems(f"{_FIELD}.spec.{key}[{container.get('name')}]", container)


def _container_problems(field: str, container: Mapping[str, Any]) -> Iterator[Problem]:
    for index, key in enumerate(_CONTAINER_FIELDS):
        yield from _must_be_list(f"{field}.{key}", container.get(key), of_objects=index < _OBJECT_ITEMS)
    for key in ("lifecycle", "resources", "securityContext"):
        yield from _must_be_object(f"{field}.{key}", container.get(key))


def _must_be_object(field: str, value: object) -> Iterator[Problem]:
    if value is not None and not isinstance(value, dict):
        yield Problem(field, f"{_short(value)} is not allowed; it must be an object")


def _must_be_list(field: str, value: object, *, of_objects: bool) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, list):
        yield Problem(field, f"{_short(value)} is not allowed; it must be a list")
    elif of_objects:
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                yield Problem(f"{field}[{index}]", f"{_short(item)} is not allowed; it must be an object")


def _must_be_named_objects(field: str, value: object) -> Iterator[Problem]:
    yield from _must_be_list(field, value, of_objects=True)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict) and not isinstance(item.get("name"), str):
            yield Problem(f"{field}[{index}].name", f"{_short(item.get('name'))} is not allowed; it must be a name")


def _lost(template: Manifest, owner: Owner) -> Iterator[Problem]:
    """What the parts find each other by."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    for key, value in selector(owner).items():
        if labels.get(key) != value:
            yield Problem(
                f"{_FIELD}.metadata.labels", f"must leave {key}={value} as it is: the Service and the Deployment find the pods by it"
            )
    if "spec" not in template:
        yield Problem(f"{_FIELD}.spec", "null is not allowed; it must be an object")
        return
    containers = _containers(template)
    for name in (ENGINE_CONTAINER, SCHEDULER_CONTAINER):
        container = containers.get(name)
        if container is None:
            yield Problem(f"{_FIELD}.spec.containers", f"must keep the container {name!r}")
        elif RUN_DIR not in [mount.get("mountPath") for mount in container.get("volumeMounts") or ()]:
            yield Problem(f"{_FIELD}.spec.containers", f"must keep the mount {RUN_DIR} of container {name!r}: its sockets are there")


def _lost_keys(template: Manifest, generated: Manifest) -> Iterator[Problem]:
    """Without its mount the engine would find no API keys, and without the variable that names it, it would ask for none."""
    ours, theirs = (_containers(one).get(ENGINE_CONTAINER, {}) for one in (generated, template))
    field = f"{_FIELD}.spec.containers[{ENGINE_CONTAINER}]"
    if _having(ours.get("volumeMounts"), "mountPath", AUTH_DIR) != _having(theirs.get("volumeMounts"), "mountPath", AUTH_DIR):
        yield Problem(f"{field}.volumeMounts", f"must leave the mount {AUTH_DIR} as it is: it holds the API keys")
    if _having(ours.get("env"), "name", AUTH_DIR_ENV) != _having(theirs.get("env"), "name", AUTH_DIR_ENV):
        yield Problem(f"{field}.env", f"must leave {AUTH_DIR_ENV} as it is: without it no API keys are required")


def _having(items: list[Manifest] | None, key: str, value: str) -> list[Manifest]:
    return [item for item in items or () if item.get(key) == value]


def _drain_problems(template: Manifest, generated: Manifest) -> Iterator[Problem]:
    """A pod that is to stop lets open streams end: the preStop hooks, the time they are given, and the flags that go with them."""
    field, needed = f"{_FIELD}.spec.terminationGracePeriodSeconds", generated["spec"]["terminationGracePeriodSeconds"]
    grace = (template.get("spec") or {}).get("terminationGracePeriodSeconds")
    if not isinstance(grace, int) or isinstance(grace, bool) or grace < needed:
        yield Problem(field, f"{_short(grace)} would cut streams: it must be {needed} or more; lower spec.drainSeconds for a shorter one")
    containers = _containers(template)
    for name, ours in _containers(generated).items():
        container = containers.get(name, ours)
        where = f"{_FIELD}.spec.containers[{name}]"
        if (container.get("lifecycle") or {}).get("preStop") != ours["lifecycle"]["preStop"]:
            given = (container.get("lifecycle") or {}).get("preStop")
            yield Problem(
                f"{where}.lifecycle.preStop", f"{_short(given)} would cut streams: leave it out; spec.drainSeconds sets its length"
            )
        for key, instead in (("command", "leave it out"), ("args", "use spec.engine.args" if name == ENGINE_CONTAINER else "leave it out")):
            if container.get(key) != ours[key]:
                yield Problem(f"{where}.{key}", f"{_short(container.get(key))} cannot be set: {instead}")


def _containers(template: Manifest) -> dict[str, Manifest]:
    pod = template.get("spec") or {}
    return {container["name"]: container for key in _CONTAINER_LISTS for container in pod.get(key) or ()}


def _short(value: object) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
