"""Merges a user's patch into a pod template as Kubernetes' strategic merge patch does.

Pure: pod_patch.py merges the patch, and devices.py the resources of a container. Objects merge field by field. Lists in pod_lists.py merge
item by item, identified by the list's own keys; other lists and plain values are replaced. `null` and `$patch: delete` remove a field or an
item, `$patch: replace` replaces an object, an item, or (as an item of its own) a whole list, and `$retainKeys` drops the fields that it
does not name.

Two rules go beyond Kubernetes. An object that may have one of several fields, such as the source of a volume, loses the others if the patch
sets one. An item with keys and `$patch: replace` replaces the item with these keys, as in Kustomize.

`merge` expects a patch that `patch_problems` (pod_shape.py) accepted: it has objects where they belong, and items have their keys.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Final

from alise_operator.children.pod_lists import KEY_DEFAULTS, LISTS, MergedList, Path, one_of

DIRECTIVE: Final = "$patch"
RETAIN: Final = "$retainKeys"
Key = tuple[Hashable, ...]


def merge(base: Any, patch: Any, path: Path = ()) -> Any:
    """Returns a new value, the base with the patch merged into it. `path` is the path of both in a pod template, without indices."""
    if isinstance(patch, dict):
        return _merged_object(base if isinstance(base, dict) else {}, patch, path)
    kind = LISTS.get(path)
    if isinstance(patch, list) and kind is not None:
        return _merged_list(base if isinstance(base, list) else [], patch, kind, path)
    return patch


def item_key(item: Mapping[str, Any], kind: MergedList) -> Key:
    """Returns the values that identify the item in its list."""
    return tuple(item.get(key, KEY_DEFAULTS.get(key)) for key in kind.keys)


def is_list_replaced(item: object) -> bool:
    """Returns whether the item is the directive that makes the other items replace the whole list."""
    return item == {DIRECTIVE: "replace"}


def _merged_object(base: Mapping[str, Any], patch: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if patch.get(DIRECTIVE) == "replace":
        base = {}
    if RETAIN in patch:
        base = {key: value for key, value in base.items() if key in patch[RETAIN]}
    given = {key for key, value in patch.items() if not key.startswith("$") and not _removes(value)}
    exclusive = one_of(path, frozenset(base) | given)
    dropped = exclusive - given if exclusive & given else frozenset()
    merged = {key: value for key, value in base.items() if key not in dropped}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if _removes(value):
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value, (*path, key))
    return merged


def _merged_list(base: list[Any], patch: list[Any], kind: MergedList, path: Path) -> list[Any]:
    if not kind.keys:
        return [*base, *(value for value in patch if value not in base)]
    if any(is_list_replaced(item) for item in patch):
        base = []
    merged: dict[Key, Any] = {item_key(item, kind): item for item in base}
    for item in patch:
        if is_list_replaced(item):
            continue
        key = item_key(item, kind)
        if _removes(item):
            merged.pop(key, None)
        else:
            keyed = dict(zip(kind.keys, key, strict=True))
            merged[key] = merge(merged.get(key), item | keyed, path)
    return list(merged.values())


def _removes(value: object) -> bool:
    return value is None or (isinstance(value, dict) and value.get(DIRECTIVE) == "delete")
