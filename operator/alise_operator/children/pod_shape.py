"""Checks that a pod patch can be merged: objects where objects belong, items with their keys, and known directives.

Pure: pod_patch.py calls `patch_problems()` before it merges. The API server checks the fields of the merged template; this module checks
only what merging needs, and names the field as the user wrote it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from alise_operator.children.merge import DIRECTIVE, RETAIN, is_list_replaced, item_key
from alise_operator.children.pod_lists import CONTAINER_LISTS, KEY_DEFAULTS, LISTS, MergedList, Path
from alise_operator.errors import Problem
from alise_operator.sentences import quote

FIELD: Final = "spec.podTemplate"
# A pod template is about ten levels deep.
_MAX_DEPTH: Final = 50
_DIRECTIVES: Final = ("delete", "replace", "merge")
# Objects that alise reads, besides those on the path to a list.
_OBJECTS: Final = {
    ("metadata", "labels"),
    ("metadata", "annotations"),
    ("spec", "securityContext"),
    *(("spec", containers, field) for containers in CONTAINER_LISTS for field in ("lifecycle", "resources", "securityContext")),
    *(("spec", containers, "resources", field) for containers in CONTAINER_LISTS for field in ("limits", "requests")),
    *(path[:length] for path in LISTS for length in range(1, len(path))),
} - set(LISTS)


def patch_problems(patch: Mapping[str, Any]) -> Iterator[Problem]:
    """Yields a problem for each place where the patch cannot be merged."""
    if patch.get(DIRECTIVE) in ("delete", "replace"):
        yield Problem(
            f"{FIELD}.{DIRECTIVE}", f"{quote(patch[DIRECTIVE])} is not allowed, because the pod's containers must stay; leave it out"
        )
    yield from _object_problems(patch, (), FIELD)


def named(field: str, item: Mapping[str, Any], kind: MergedList, index: int) -> str:
    """Returns the field of an item of a list, with its key if it has one, else with its index."""
    key = item_key(item, kind)
    known = [str(part) for part in key if isinstance(part, str | int)]
    return f"{field}[{'/'.join(known)}]" if len(known) == len(key) else f"{field}[{index}]"


def _problems(value: object, path: Path, field: str) -> Iterator[Problem]:
    if len(path) > _MAX_DEPTH:
        yield Problem(field, "is nested too deeply for a pod template")
        return
    kind = LISTS.get(path)
    if value is None or value == {DIRECTIVE: "delete"}:
        return
    if kind is not None:
        yield from _list_problems(value, kind, path, field)
    elif isinstance(value, dict):
        yield from _object_problems(value, path, field)
    elif path in _OBJECTS:
        yield Problem(field, f"{quote(value)} is not allowed; it must be an object")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, (*path, ""), f"{field}[{index}]")


def _object_problems(value: Mapping[str, Any], path: Path, field: str) -> Iterator[Problem]:
    for key, child in value.items():
        where = f"{field}.{key}"
        if key == DIRECTIVE:
            if child not in _DIRECTIVES:
                yield Problem(where, f"{quote(child)} is not allowed; use delete or replace")
        elif key == RETAIN:
            missing = [name for name in value if not name.startswith("$") and (not isinstance(child, list) or name not in child)]
            if missing or not isinstance(child, list):
                yield Problem(where, f"{quote(child)} is not allowed; it must list every field that stays, including those in the patch")
        elif key.startswith("$"):
            instead = "write the list as it should be" if key.startswith("$delete") else "lists keep the order of the generated pod"
            yield Problem(where, f"is a directive that is not supported; leave it out: {instead}")
        else:
            yield from _problems(child, (*path, key), where)


def _list_problems(value: object, kind: MergedList, path: Path, field: str) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(field, f"{quote(value)} is not allowed; it must be a list")
        return
    seen = set()
    for index, item in enumerate(value):
        if not kind.keys or is_list_replaced(item):
            continue
        if not isinstance(item, dict):
            yield Problem(f"{field}[{index}]", f"{quote(item)} is not allowed; it must be an object")
            continue
        missing = [key for key in kind.keys if not _is_key(item.get(key, KEY_DEFAULTS.get(key)), key)]
        for key in missing:
            yield Problem(f"{field}[{index}].{key}", f"{quote(item.get(key))} is not allowed; it must be {_wanted(key)}")
        if missing:
            continue
        where = named(field, item, kind, index)
        if (unique := item_key(item, kind)) in seen:
            yield Problem(where, "is listed twice; keep one of them")
        seen.add(unique)
        yield from _object_problems(item, path, where)


def _is_key(value: object, key: str) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) if key == "containerPort" else isinstance(value, str)


def _wanted(key: str) -> str:
    if key == "containerPort":
        return "the number of a port"
    return "a name" if key == "name" else "a string, because it identifies the items of this list"
