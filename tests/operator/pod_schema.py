"""What an OpenAPI schema of Kubernetes says of pod templates.

`test_merge.py`, `test_pods_on_control_plane.py` and `fuzz/pods.py` ask it.
"""

from collections.abc import Iterator
from typing import Any

TEMPLATE = "io.k8s.api.core.v1.PodTemplateSpec"
Definitions = dict[str, Any]


def merged_lists(definitions: Definitions, *, strategy: str = "merge") -> dict[tuple[str, ...], tuple[str, ...]]:
    """Lists below a pod template that merge item by item, with the keys of their items; none for sets. Only those of the patch strategy."""
    return dict(_lists(definitions, _named(definitions, TEMPLATE), (), strategy))


def properties(definitions: Definitions, name: str) -> frozenset[str]:
    return frozenset(definitions[name]["properties"]) if name in definitions else frozenset()


def _lists(definitions: Definitions, node: dict[str, Any], path: tuple[str, ...], strategy: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in node.get("properties", {}).items():
        here, items = (*path, name), child.get("items")
        keys = tuple(child.get("x-kubernetes-list-map-keys") or ())
        strategies = str(child.get("x-kubernetes-patch-strategy", "")).split(",")
        # Some versions have the key of the patch only, and some lists the keys of server-side apply only.
        keys = keys or ((child["x-kubernetes-patch-merge-key"],) if "x-kubernetes-patch-merge-key" in child else ())
        if items is not None and not keys and strategy not in strategies:
            # Replaced as a whole, with all that its items hold.
            continue
        if items is not None and (strategy in strategies or (strategy == "merge" and keys)):
            yield here, keys
        target = _referred(items if items is not None else child)
        if target is not None:
            yield from _lists(definitions, _named(definitions, target), here, strategy)


def _referred(node: dict[str, Any]) -> str | None:
    """The definition that a node is, in OpenAPI v2's or v3's spelling."""
    references = [node, *node.get("allOf", ()), *node.get("anyOf", ())]
    return next((one["$ref"].rpartition("/")[2] for one in references if "$ref" in one), None)


def _named(definitions: Definitions, name: str) -> dict[str, Any]:
    found: dict[str, Any] = definitions[name]
    return found
