"""Whether a kind has a field, by the schema of its CRD or by the API server's OpenAPI document. Pure; kube.py reads them."""

from collections.abc import Sequence

from alise_operator.children.meta import Manifest


def has_field(definition: Manifest, version: str, path: Sequence[str]) -> bool:
    """Returns whether the CRD's schema of the version has the field. It descends into items of lists; open objects have every field."""
    schemas = [one.get("schema", {}).get("openAPIV3Schema", {}) for one in definition["spec"]["versions"] if one["name"] == version]
    return all(_has_path(schema, path) for schema in schemas)


def documents_field(document: Manifest, kind: str, path: Sequence[str]) -> bool:
    """Returns whether the kind has the field in an OpenAPI v3 document of the API server."""
    schemas = (document.get("components") or {}).get("schemas") or {}
    fitting = [one for one in schemas.values() if any(of.get("kind") == kind for of in one.get("x-kubernetes-group-version-kind") or ())]
    return bool(fitting) and all(_has_path(one, path) for one in fitting)


def _has_path(node: Manifest, path: Sequence[str]) -> bool:
    for name in path:
        if node.get("x-kubernetes-preserve-unknown-fields"):
            return True
        child = node.get("properties", {}).get(name)
        if child is None:
            return False
        node = child.get("items", child)
    return True
