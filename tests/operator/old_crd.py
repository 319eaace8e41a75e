"""The CRD without CEL, for servers before 1.25, on which kubectl refuses a CRD with rules, and for validators that know patterns alone.

`control_plane.py` and `fuzz/specs.py` call it.
"""

from typing import Any

from alise_operator.crd import custom_resource_definition, resource_schema


def without_rules(node: Any) -> Any:
    """Returns a copy without CEL rules, at every level."""
    if isinstance(node, dict):
        return {key: without_rules(value) for key, value in node.items() if key != "x-kubernetes-validations"}
    if isinstance(node, list):
        return [without_rules(item) for item in node]
    return node


def schema_without_rules() -> dict[str, Any]:
    """Returns the schema of the resource, in which texts have patterns."""
    schema: dict[str, Any] = without_rules(resource_schema())
    return schema


def crd_without_rules() -> dict[str, Any]:
    crd = custom_resource_definition()
    (version,) = crd["spec"]["versions"]
    version["schema"]["openAPIV3Schema"] = schema_without_rules()
    return crd
