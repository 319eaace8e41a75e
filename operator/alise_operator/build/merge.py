"""Merges a user's patch into a generated object.

Like a JSON merge patch (RFC 7386), except that lists of named items (containers, volumes, environment) merge by `name`: a JSON merge patch
would make the user repeat our containers to change one field of them.
"""

from typing import Any


def merge(base: Any, patch: Any) -> Any:
    """A new value: objects merged, lists of named items merged by name, other lists and values replaced, null removes a field."""
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = merge(base.get(key), value)
        return merged
    if isinstance(patch, dict):
        return merge({}, patch)
    if isinstance(base, list) and isinstance(patch, list) and _named(base) and _named(patch):
        by_name = {item["name"]: item for item in patch}
        kept = [merge(item, by_name.pop(item["name"], {})) for item in base]
        return kept + [merge({}, item) for item in by_name.values()]
    return patch


def _named(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)
