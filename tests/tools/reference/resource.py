"""The page of the resource's fields, from the schema of the custom resource definition.

`__main__.py` writes it to docs/reference/aliseengine.md.
"""

import json
from collections.abc import Iterator
from typing import Any

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator.crd import custom_resource_definition, default_text
from tests.tools.reference.page import code, page, prose, table

Schema = dict[str, Any]
HEADER = ("field", "type", "default", "allowed", "description")


def render() -> str:
    """Returns the page: a table for each field of the spec, then the status, then the rules that join fields."""
    version = custom_resource_definition()["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    spec, status = properties["spec"], properties["status"]
    return page(
        KIND,
        "operator/alise_operator/spec.py",
        prose(
            f"An {KIND} is a model that vLLM pods serve. Its `apiVersion` is `{API_GROUP}/{API_VERSION}`, and its short name is `alise`: "
            "`kubectl get alise` lists the resources of a namespace. `kubectl explain alise.spec` prints the descriptions and defaults "
            "that are listed here."
        ),
        ["## spec", "", *table(HEADER, (_row("spec", name, child, spec) for name, child in spec["properties"].items()))],
        *_sections("spec", spec),
        ["## status", "", *prose(str(status["description"])), "", *table(HEADER, _rows("status", status))],
        ["## Rules that join fields", "", *prose("From Kubernetes 1.25 on, the API server checks these rules. The operator always does.")],
        table(("object", "rule"), ((code(path), message) for path, message in _rules("spec", spec))),
        ["## Columns", "", *prose("`kubectl get alise` prints these columns.")],
        table(("column", "description"), map(_column, version["additionalPrinterColumns"])),
    )


def _column(column: Schema) -> tuple[str, str]:
    return column["name"], column["description"] + (" (only with `-o wide`)" if column["priority"] else "")


def _sections(path: str, spec: Schema) -> Iterator[list[str]]:
    """Yields a section for each field that has fields."""
    for name, child in spec["properties"].items():
        rows = list(_rows(f"{path}.{name}", child))
        if rows:
            yield [f"## {path}.{name}", "", *prose(str(child["description"])), "", *table(HEADER, rows)]


def _rows(path: str, node: Schema) -> Iterator[tuple[str, ...]]:
    """Yields a row for each field below, depth first."""
    for name, child in node.get("properties", {}).items():
        yield _row(path, name, child, node)
        yield from _rows(f"{path}.{name}", child)
    if "properties" in node.get("items", {}):
        yield from _rows(f"{path}[]", node["items"])


def _row(path: str, name: str, child: Schema, parent: Schema) -> tuple[str, ...]:
    default = "**required**" if name in parent.get("required", ()) and path.startswith("spec") else ""
    if "default" in child and child["default"] != {}:
        default = code(json.dumps(child["default"]))
    return code(f"{path}.{name}"), _type(child), default, _allowed(child), child.get("description", "").removesuffix(default_text(child))


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_type(node['additionalProperties'])}"
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    return str(node.get("type", "object"))


def _allowed(node: Schema) -> str:
    if "enum" in node:
        return ", ".join(code(value) for value in node["enum"])
    bounds = [f"≥ {node['minimum']}"] if "minimum" in node else []
    return ", ".join([*bounds, *([f"≤ {node['maximum']}"] if "maximum" in node else [])])


def _rules(path: str, node: Schema) -> Iterator[tuple[str, str]]:
    """Yields the path and the message of each rule of an object."""
    if node.get("type") == "object":
        yield from ((path, one["message"]) for one in node.get("x-kubernetes-validations", ()))
    for name, child in node.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", child)
