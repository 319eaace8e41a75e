"""`kubectl explain` prints descriptions and no defaults, so each description says its field's default."""

from collections.abc import Iterator
from typing import Any

from alise_operator.crd import custom_resource_definition


def optional(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the fields that may be left out, without those that only hold other fields."""
    for name, child in node.get("properties", {}).items():
        if name not in node.get("required", ()) and "properties" not in child:
            yield f"{path}.{name}", child
        yield from optional(f"{path}.{name}", child)
        yield from optional(f"{path}.{name}[]", child.get("items", {}))


def fields() -> dict[str, dict[str, Any]]:
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return dict(optional("spec", schema["properties"]["spec"]))


def test_every_field_that_may_be_left_out_says_its_default() -> None:
    assert [path for path, field in fields().items() if "Default: " not in field["description"]] == []


def test_no_field_says_two_defaults() -> None:
    assert [path for path, field in fields().items() if field["description"].count("Default: ") > 1] == []
