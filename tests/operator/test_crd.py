"""The generated CRD: fresh, with its defaults, descriptions and rules."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from alise_operator.crd import custom_resource_definition, render
from alise_operator.spec import Spec
from tests.operator.builders import raw_spec
from tests.operator.built import SPECS
from tests.operator.old_crd import crd_without_rules, schema_without_rules
from tests.tools.kubernetes_schemas import validate

MANIFESTS = Path(__file__).parents[2] / "manifests"
# What a structural schema must not hold (apiextensions.k8s.io/v1).
FORBIDDEN = {"$ref", "$defs", "definitions", "title", "const", "examples", "discriminator", "exclusiveMinimum", "patternProperties"}


@cache
def version() -> dict[str, Any]:
    found: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]
    return found


def schema() -> dict[str, Any]:
    found: dict[str, Any] = version()["schema"]["openAPIV3Schema"]
    return found


@cache
def validator(*, with_rules: bool) -> Any:
    """The schema as a validator, which has checked the schema itself once."""
    found = schema() if with_rules else schema_without_rules()
    kind = jsonschema.validators.validator_for(found)
    kind.check_schema(found)
    return kind(found)


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


@pytest.mark.parametrize(("name", "text"), render().items())
def test_the_generated_file_is_fresh(name: str, text: str) -> None:
    assert (MANIFESTS / name).read_text() == text, "run `make crd`"


def test_the_crd_is_valid_for_a_current_cluster() -> None:
    assert validate(custom_resource_definition())


def test_the_schema_is_structural() -> None:
    for path, node in nodes(schema()):
        assert not FORBIDDEN & set(node), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert node.get("additionalProperties") is not False, path
        assert not ("properties" in node and "additionalProperties" in node), path


def test_every_field_is_described_for_kubectl_explain() -> None:
    undescribed = [
        path
        for path, node in nodes(schema())
        if path.startswith((".spec", ".status")) and "[]" not in path[-2:] and "description" not in node
    ]
    assert undescribed == []


def fields_of_the_spec() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every field of the spec with its path and whether it is required."""
    for path, node in nodes(schema()["properties"]["spec"], ".spec"):
        for name, child in node.get("properties", {}).items():
            yield f"{path}.{name}", child, name in node.get("required", ())


def test_kubectl_explain_shows_the_default_of_every_field_that_can_be_left_out() -> None:
    """An object whose fields have defaults needs none of its own."""
    silent = [
        path
        for path, node, is_required in fields_of_the_spec()
        if not is_required and "properties" not in node and "Default: " not in node["description"]
    ]
    assert silent == [], "the descriptions do not say `Default: `"


UNITS = (
    "second",
    "millisecond",
    "token",
    "byte",
    "Number of",
    "number of",
    "Minimum amount",
    "Maximum amount",
    "multiple",
    "weight",
    "percent",
)


def test_kubectl_explain_shows_the_unit_of_every_number() -> None:
    """A map has the unit of its values, which are numbers unless they are strings, as those of annotations."""
    fields = [(path, node["description"], node.get("additionalProperties", node)) for path, node, _ in fields_of_the_spec()]
    numbers = [(path, text) for path, text, value in fields if value.get("type") == "integer" or value.get("x-kubernetes-int-or-string")]
    unclear = [path for path, text in numbers if not any(unit in text for unit in UNITS)]
    assert unclear == [], f"the descriptions say none of {', '.join(UNITS)}"


def given(value: Any, path: str = ".spec") -> Iterator[str]:
    """The path of every field in this value."""
    for name, child in value.items() if isinstance(value, dict) else ():
        yield f"{path}.{name}"
        yield from given(child, f"{path}.{name}")
    for item in value if isinstance(value, list) else ():
        yield from given(item, path + "[]")


def test_the_specs_of_the_tests_between_them_reach_every_field() -> None:
    reached = {path for changes in SPECS.values() for path in given(raw_spec(**changes))}
    assert [path for path, _, _ in fields_of_the_spec() if path not in reached] == [], "add them to SPECS in tests/operator/built.py"


def test_the_scale_subresource_points_at_fields_that_exist() -> None:
    scale = version()["subresources"]["scale"]
    paths = {path for path, _ in nodes(schema())}
    assert set(scale.values()) <= paths
    assert "status" in version()["subresources"]


def test_columns_show_model_policy_ready_its_reason_what_is_wrong_replicas_url_and_age() -> None:
    narrow = [column["name"] for column in version()["additionalPrinterColumns"] if not column["priority"]]
    assert narrow == ["Model", "Policy", "Ready", "Reason", "Degraded", "Replicas", "URL", "Age"]


def test_rules_can_be_stripped_for_servers_that_do_not_know_them() -> None:
    assert "x-kubernetes-validations" in str(custom_resource_definition())
    assert "x-kubernetes-validations" not in str(crd_without_rules())


def test_defaults_of_the_schema_are_the_defaults_of_the_operator() -> None:
    spec_schema = schema()["properties"]["spec"]
    defaults = {
        path: node["default"] for path, node in nodes(spec_schema) if "default" in node and node["default"] != {} and "[]" not in path
    }
    given = {"model": {"uri": "x", "tokenSecretRef": {"name": "x"}, "cache": {"size": "1Gi"}, "lora": {}}, "engine": {}}
    shared = {"history": {"postgres": {"dsnSecretRef": {"name": "x"}, "keySecretRef": {"name": "x"}}}}
    traces = {"traces": {"endpoint": "http://x:1"}}
    optional = {"autoscaling": {"maxReplicas": 2}, "routing": {"endpointPicker": {}}, "observability": traces}
    spec = Spec.model_validate(raw_spec(**given, predictor=shared, auth={"secretRef": {"name": "x"}}, **optional))
    dumped = spec.model_dump(by_alias=True)
    for path, default in defaults.items():
        value: Any = dumped
        for step in path.strip(".").split("."):
            value = value[step]
        assert value == default, path


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": -1},
        {"scheduling": {"policy": "lifo"}},
        {"drainSeconds": "x"},
        {"route": {"hosts": ["A B"]}},
        {"scheduling": {"classes": [{"name": "a\r\nb"}]}},
        {"scheduling": {"classes": [{"name": "a,b"}]}},
        {"auth": {}},
        {"auth": {"secretRef": {"name": "keys"}, "tenants": [{"name": "team a", "class": "gold"}]}},
        {"admission": {"bodySeconds": 0}},
    ],
)
def test_the_api_server_refuses_what_the_schema_can_say(changes: dict[str, Any]) -> None:
    """A rule says the same as the pattern that it is made of; a validator of JSON schemas knows the pattern."""
    with pytest.raises(jsonschema.ValidationError):
        validator(with_rules=False).validate({"spec": raw_spec(**changes)})


def test_a_pattern_of_a_string_is_a_rule_that_says_it_in_words() -> None:
    """The API server would print the regular expression."""
    patterns = [path for path, node in nodes(schema()["properties"]["spec"]) if "pattern" in node and node.get("type") == "string"]
    assert patterns == []
    (rule,) = schema()["properties"]["spec"]["properties"]["model"]["properties"]["servedName"]["x-kubernetes-validations"]
    assert rule["rule"].startswith("self.matches(r'^[^-")
    assert "is not a single word; a name has no spaces and does not begin with a dash" in rule["message"]


@pytest.mark.parametrize("path", sorted((MANIFESTS / "samples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_samples_fit_the_schema(path: Path) -> None:
    validator(with_rules=True).validate(yaml.safe_load(path.read_text()))
    assert path.suffix == ".yaml"


def test_the_server_makes_no_cache_for_a_resource_that_asks_for_none() -> None:
    cache = schema()["properties"]["spec"]["properties"]["model"]["properties"]["cache"]
    assert cache["properties"]["accessMode"]["default"] == "ReadWriteOnce"
    assert "default" not in cache
