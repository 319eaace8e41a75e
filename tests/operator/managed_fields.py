"""Which writer owns which fields of an object, as an API server records it in `managedFields`. `fake_kube.py` asks it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Object = dict[str, Any]
# Names of nodes of `fieldsV1`, from the root to a field.
Path = tuple[str, ...]

# Lists whose items are owned one by one, and by which of their fields; every other list is owned as a whole.
_KEYS: Final[Mapping[str, Sequence[tuple[str, ...]]]] = {
    "containers": [("name",)],
    "initContainers": [("name",)],
    "volumes": [("name",)],
    "env": [("name",)],
    "imagePullSecrets": [("name",)],
    "volumeMounts": [("mountPath",)],
    "ports": [("containerPort", "protocol"), ("port", "protocol")],
    "ownerReferences": [("uid",)],
}
_OWNED_METADATA: Final = ("labels", "annotations", "ownerReferences")


def after_write(before: Object, after: Object, manager: str, operation: str, time: str) -> list[Object]:
    """The entries after a write that turned `before`, which is empty for a new object, into `after`.

    Who applies owns all that is applied; who updates owns what is another value now. Both take over what they change.
    """
    old, new = _fields(before), _fields(after)
    taken = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = old.keys() - new.keys()
    entries = {(one["manager"], one["operation"]): one for one in before.get("metadata", {}).get("managedFields") or ()}
    writer, found = (manager, operation), list[Object]()
    for who in dict.fromkeys([*entries, writer]):
        entry = entries.get(who, {})
        owned = set(_paths(entry.get("fieldsV1") or {}))
        if who != writer:
            now_owned = owned - gone - taken
        elif operation == "Apply":
            now_owned = set(new)
        else:
            now_owned = (owned - gone) | taken
        is_same = now_owned == owned and not (who == writer and (taken or gone))
        if now_owned or (is_same and entry):
            fields = {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": _tree(now_owned)}
            found.append(entry if is_same and entry else {"manager": who[0], "operation": who[1], "time": time, **fields})
    return found


def _fields(manifest: Object) -> dict[Path, Any]:
    """All fields that can be owned, with their values."""
    meta = {name: value for name, value in manifest.get("metadata", {}).items() if name in _OWNED_METADATA}
    rest = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata", "status")}
    return dict(_leaves(rest | ({"metadata": meta} if meta else {}), ""))


def _leaves(value: Any, field: str) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from (((f"f:{name}", *path), leaf) for path, leaf in _leaves(below, name))
    elif isinstance(value, list) and (keys := _keys_of(field, value)):
        for item in value:
            # The server fills in the protocol that a port omits.
            node = "k:" + json.dumps({key: item.get(key, "TCP") for key in keys}, separators=(",", ":"))
            yield (node, "."), None
            yield from (((node, *path), leaf) for path, leaf in _leaves(item, ""))
    else:
        yield (), value


def _keys_of(field: str, items: Sequence[Any]) -> tuple[str, ...]:
    for keys in _KEYS.get(field, ()):
        if items and all(isinstance(item, dict) and keys[0] in item for item in items):
            return keys
    return ()


def _tree(paths: set[Path]) -> Object:
    root: Object = {}
    for path in sorted(paths):
        node = root
        for name in path:
            node = node.setdefault(name, {})
    return root


def _paths(tree: Mapping[str, Any]) -> Iterator[Path]:
    for name, below in tree.items():
        if below:
            yield from ((name, *path) for path in _paths(below))
        else:
            yield (name,)
