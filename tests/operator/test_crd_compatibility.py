"""Today's CRD takes what the CRD of the last release takes: a resource that is stored stays readable, and a manifest that worked works.

What a new version of the resource may change is in docs/contribute/crd-versions.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alise_operator.crd import custom_resource_definition
from alise_operator.rules import check
from alise_operator.spec import parse

RELEASES = Path(__file__).with_name("releases")
Schema = dict[str, Any]
# A bound that may grow, and one that may fall.
UPPER, LOWER = ("maximum", "maxLength", "maxItems", "maxProperties"), ("minimum", "minLength", "minItems", "minProperties")


def versions(crd: Schema) -> dict[str, Schema]:
    return {one["name"]: one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["served"]}


def released() -> Schema:
    found: Schema = yaml.safe_load((RELEASES / "crd-0.1.0.yaml").read_text(encoding="utf-8"))
    return found


def resources() -> list[Schema]:
    return list(yaml.safe_load_all((RELEASES / "resources-0.1.0.yaml").read_text(encoding="utf-8")))


def narrower(old: Schema, new: Schema, path: str = "") -> Iterator[str]:
    """Where the new schema refuses, drops or changes what the old one takes."""
    if old.get("type") != new.get("type"):
        yield f"{path}: was {old.get('type')} and is {new.get('type')}"
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{path}.{name}: is required now"
    if "enum" in new:
        gone = sorted(set(old["enum"]) - set(new["enum"])) if "enum" in old else ["everything else"]
        if gone:
            yield f"{path}: no longer takes {', '.join(map(str, gone))}"
    for bound in UPPER:
        if new.get(bound, float("inf")) < old.get(bound, float("inf")):
            yield f"{path}: {bound} was {old.get(bound)} and is {new[bound]}"
    for bound in LOWER:
        if new.get(bound, 0) > old.get(bound, 0):
            yield f"{path}: {bound} was {old.get(bound, 0)} and is {new[bound]}"
    if old.get("default") != new.get("default") and "default" in old:
        yield f"{path}: the default was {old['default']!r} and is {new.get('default')!r}"
    for name, child in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{path}.{name}: is gone"
        else:
            yield from narrower(child, new["properties"][name], f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict):
            yield from narrower(old[key], new.get(key, {}), f"{path}[]")


def test_the_schema_takes_what_the_last_release_takes() -> None:
    new = versions(custom_resource_definition())
    assert [
        f"{name}{finding}"
        for name, old in versions(released()).items()
        for finding in narrower(old["properties"]["spec"], new[name]["properties"]["spec"])
    ] == []


def test_every_served_version_of_the_last_release_is_still_served() -> None:
    assert set(versions(released())) <= set(versions(custom_resource_definition()))


@pytest.mark.parametrize("resource", resources(), ids=lambda resource: resource["metadata"]["name"])
def test_the_operator_takes_a_resource_of_the_last_release(resource: Schema) -> None:
    check(parse(resource["spec"]), resource["metadata"]["name"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({"properties": {}}, ".a: is gone", id="a field that is removed"),
        pytest.param({"properties": {"a": {"type": "string", "maximum": 9}}}, ".a: was integer and is string", id="another type"),
        pytest.param({"required": ["a"]}, ".a: is required now", id="a field that is required"),
        pytest.param({"properties": {"a": {"type": "integer", "maximum": 8}}}, ".a: maximum was 9 and is 8", id="a lower bound"),
        pytest.param(
            {"properties": {"a": {"type": "integer", "maximum": 9, "enum": [1]}}}, ".a: no longer takes everything else", id="an enum"
        ),
        pytest.param({"properties": {"a": {"type": "integer", "maximum": 99}, "b": {}}}, None, id="a new field and a wider bound"),
    ],
)
def test_a_narrower_schema_is_found(change: Schema, found: str | None) -> None:
    old = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}}
    assert list(narrower(old, old | change)) == ([] if found is None else [found])
