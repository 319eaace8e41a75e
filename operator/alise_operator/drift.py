"""What other writers have changed on a child: which fields the operator sets back, and how, if server-side apply alone cannot.

Pure: apply.py writes, and restores.py words the event. The API server records in `managedFields` which writer owns which field. A field
that the operator sets and no longer owns was changed or removed by another writer; what others add beside the operator's fields stays.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from alise_operator.children.meta import MANAGER, Manifest

# A node of `fieldsV1`: "f:NAME" for a field, 'k:{"KEY":VALUE}' for an item of a list; an empty node is owned with all below it.
Tree = Mapping[str, Any]

_UNCHANGEABLE: Final = frozenset({"apiVersion", "kind"})


def edited_fields(manifest: Manifest, seen: Mapping[str, Any], restored: Mapping[str, Any]) -> list[str]:
    """Returns the fields of the manifest that another writer had changed in `seen`, and that have their value again in `restored`.

    Both are the child as the API server returns it, with its defaults. Items of lists are named by their name, if they have one.
    """
    wanted = {name: value for name, value in manifest.items() if name not in _UNCHANGEABLE}
    return [_text(path) for path in _differences(wanted, seen, restored, _trees(seen, own=True), ())]


def writer_of(seen: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Returns the writer that last changed one of the fields; empty if the API server does not say it, as for a field that was removed."""
    paths = [field.partition("[")[0].split(".") for field in fields]
    writers = [
        (str(entry.get("time") or ""), str(entry.get("manager")))
        for entry in _entries(seen, own=False)
        if any(_has(entry.get("fieldsV1") or {}, path) for path in paths)
    ]
    return max(writers, default=("", ""))[1]


def taken_back(manifest: Manifest, live: Mapping[str, Any]) -> Manifest | None:
    """Returns a JSON merge patch that writes the manifest's spec into the child and removes what other writers added to it.

    Needed if the two together are not valid, for example a port of a Service with another number under the same name. None if no other
    writer owns any of it. Labels and annotations of pods stay: they contradict nothing, and `kubectl rollout restart` writes one.
    """
    trees = [tree["f:spec"] for tree in _trees(live, own=False) if "f:spec" in tree]
    wanted = manifest.get("spec")
    if not trees or not isinstance(wanted, dict):
        return None
    return {"spec": _written_over(wanted, trees)}


def kept_entries(child: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns `managedFields` without what the operator owns by other means than server-side apply.

    Such a field would stay in the child when a later manifest no longer has it.
    """
    entries = child["metadata"].get("managedFields") or ()
    return [one for one in entries if one.get("manager") != MANAGER or one.get("operation") != "Update"]


def applied_fields(child: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns which fields the operator owns by server-side apply, and when it last changed one; nothing if the API server does not say it.

    Controllers that add fields of their own change neither.
    """
    return [{"fields": entry.get("fieldsV1"), "time": entry.get("time")} for entry in _own_applies(child)]


def applied_metadata(child: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns which labels, annotations and owners the operator owns by server-side apply."""
    return [(entry.get("fieldsV1") or {}).get("f:metadata") or {} for entry in _own_applies(child)]


def _own_applies(child: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in _entries(child, own=True) if entry.get("operation") == "Apply"]


def _entries(child: Mapping[str, Any], *, own: bool) -> Iterator[Mapping[str, Any]]:
    for entry in child["metadata"].get("managedFields") or ():
        if (entry.get("manager") == MANAGER) == own and entry.get("subresource") != "status":
            yield entry


def _trees(child: Mapping[str, Any], *, own: bool) -> list[Tree]:
    return [tree for entry in _entries(child, own=own) if (tree := entry.get("fieldsV1"))]


def _differences(wanted: Any, seen: Any, restored: Any, owned: Sequence[Tree], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if seen == restored:
        return
    if isinstance(wanted, dict) and isinstance(seen, dict) and isinstance(restored, dict):
        for name, value in wanted.items():
            yield from _differences(value, seen.get(name), restored.get(name), _below(owned, f"f:{name}"), (*path, name))
    elif _have_names(wanted) and isinstance(seen, list) and isinstance(restored, list):
        for item in wanted:
            one, other = _named(seen, item["name"]), _named(restored, item["name"])
            yield from _differences(item, one, other, _of_item(owned, item), (*path, f"[{item['name']}]"))
    elif not owned:
        yield path


def _have_names(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(item, dict) and "name" in item for item in items)


def _named(items: Sequence[Any], name: str) -> Any:
    return next((item for item in items if isinstance(item, dict) and item.get("name") == name), None)


def _below(trees: Sequence[Tree], name: str) -> list[Tree]:
    return [tree[name] if tree else tree for tree in trees if not tree or name in tree]


def _of_item(trees: Sequence[Tree], item: Manifest) -> list[Tree]:
    """Returns what is owned of the item of a list; its keys are in the name of the node. A key that the item omits has its default."""
    found = [tree for tree in trees if not tree]
    for tree in trees:
        for name, below in tree.items():
            if name.startswith("k:") and all(item.get(key, value) == value for key, value in json.loads(name[2:]).items()):
                found.append(below)
    return found


def _has(tree: Tree, path: Sequence[str]) -> bool:
    for depth, name in enumerate(path):
        if f"f:{name}" not in tree:
            # Below an empty node, everything is owned.
            return depth > 0 and not tree
        tree = tree[f"f:{name}"]
    return True


def _written_over(wanted: Manifest, trees: Sequence[Tree]) -> Manifest:
    added = {key[2:] for tree in trees for key in tree if key.startswith("f:")} - wanted.keys()
    changes: Manifest = dict.fromkeys(sorted(added))
    for name, value in wanted.items():
        is_object = isinstance(value, dict) and name != "metadata"
        changes[name] = _written_over(value, _below(trees, f"f:{name}")) if is_object else value
    return changes


def _text(path: Sequence[str]) -> str:
    """Writes names that have dots, as those of annotations, in brackets."""
    text = ""
    for name in path:
        text += name if name.startswith("[") else f"[{name}]" if "." in name or "/" in name else f".{name}" if text else name
    return text
