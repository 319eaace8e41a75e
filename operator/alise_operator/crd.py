"""Generates the CustomResourceDefinition from the models in spec.py. A tool of `make crd`; the operator itself never imports it.

`python -m alise_operator.crd [MANIFESTS_DIR]` writes `crd/aliseengines.yaml`; a test fails when that file is stale. The reference page of
the documentation is generated from `custom_resource_definition()` too.

pydantic writes JSON Schema 2020, and Kubernetes reads the structural subset of OpenAPI v3. So references are inlined, and "or null", titles
and `additionalProperties: false` are removed: Kubernetes expresses null by an absent field, and the server prunes unknown fields.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final, cast

import yaml

from alise_contract.names import API_GROUP, API_VERSION, KIND, PLURAL
from alise_operator import reasons
from alise_operator.spec import Spec
from alise_operator.spec_types import NAME_MAX_LENGTH, NAME_PATTERN, rule
from alise_operator.spec_words import PATTERNS_IN_WORDS

Schema = dict[str, Any]

# name, type, path, description, priority (1: only with -o wide)
_COLUMNS: Final = (
    ("Model", "string", ".spec.model.uri", "Model that is served", 0),
    ("Policy", "string", ".spec.scheduling.policy", "Order in which requests run", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether at least one pod serves requests", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Reason of the condition Ready", 0),
    (
        "Degraded",
        "string",
        '.status.conditions[?(@.type=="Degraded")].reason',
        "Reason of the condition Degraded; AsExpected if nothing is wrong",
        0,
    ),
    ("Replicas", "integer", ".status.replicas", "Number of pods", 0),
    ("URL", "string", ".status.url", "Base URL of the OpenAI API", 0),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "Message of the condition Ready", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Time since the AliseEngine was created", 0),
)


def resource_schema() -> Schema:
    """Returns the schema of an AliseEngine, in which texts have patterns."""
    return {
        "type": "object",
        "description": "A large language model that vLLM pods serve, with a scheduler in each pod that decides the order of requests.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Version of the schema of this object, {API_GROUP}/{API_VERSION}."},
            "kind": {"type": "string", "description": f"Kind of this object, {KIND}."},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": NAME_MAX_LENGTH, "pattern": NAME_PATTERN}},
            },
            "spec": structural(Spec.model_json_schema(by_alias=True)),
            "status": _status_schema(),
        },
    }


def custom_resource_definition() -> Schema:
    """Returns the CRD."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{API_GROUP}", "labels": {"app.kubernetes.io/name": "alise-operator"}},
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["alise"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": API_VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": patterns_as_rules(resource_schema())},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": text, "priority": priority}
                        for name, kind, path, text, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


# Marks a field that is absent unless the user sets it.
_ABSENT: Final = "x-alise-absent"


def structural(document: Schema) -> Schema:
    """Returns a JSON Schema document as one structural OpenAPI v3 schema without references."""
    definitions = document.get("$defs", {})

    def convert(node: Schema) -> Schema:
        node = dict(node)
        if "$ref" in node:
            target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
            node = target | node
        if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
            # Only "X or null" is used; an absent field says null.
            (kept,) = (choice for choice in node.pop("anyOf") if choice.get("type") != "null")
            node = convert(kept) | node
            if node.get("default", 0) is None:
                del node["default"]
                node[_ABSENT] = True
        for dropped in ("title", "$defs"):
            node.pop(dropped, None)
        if node.get("additionalProperties") is False:
            del node["additionalProperties"]
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                node[key] = convert(node[key])
        if "properties" in node:
            node["properties"] = {name: convert(child) for name, child in node["properties"].items()}
            if all("default" not in child for child in node["properties"].values()) and node.get("default") == {}:
                # A default of {} only matters where fields below have defaults to be filled in.
                del node["default"]
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
        if node.get("type") == "integer":
            node.setdefault("format", "int32")
        return node

    converted = convert(document)
    _default_objects(converted)
    _describe_defaults(converted)
    return cast(Schema, _without(converted, _ABSENT))


def _describe_defaults(node: Schema) -> None:
    """Appends each default to the description of its field, because `kubectl explain` prints descriptions and no defaults."""
    for child in (*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])):
        if "description" in child:
            child["description"] += default_text(child)
        _describe_defaults(child)


def default_text(node: Schema) -> str:
    """Returns the sentence that states a field's default in its description; empty without a default."""
    default = node.get("default")
    return f" Default: {default if isinstance(default, str) else json.dumps(default)}." if default not in (None, {}, []) else ""


def _default_objects(node: Schema) -> None:
    """Gives optional objects whose fields have defaults the default {}, so that the server fills the fields in.

    Objects that change the behaviour by being present get none.
    """
    required = set(node.get("required", ()))
    for name, child in node.get("properties", {}).items():
        _default_objects(child)
        has_defaults = any("default" in grandchild for grandchild in child.get("properties", {}).values())
        if has_defaults and name not in required and not child.get("required") and _ABSENT not in child:
            child["default"] = {}
        elif child.get("default") in ({}, []):
            del child["default"]


def patterns_as_rules(node: Any) -> Any:
    """Returns a copy in which each pattern of a string is a CEL rule.

    When a pattern does not match, the API server prints the regular expression; when a rule does not hold, it prints the rule's message.
    A quantity keeps its pattern: the API server refuses a CRD whose rules may cost too much, and for "number or string" it assumes a string
    as long as a whole request.
    """
    if isinstance(node, list):
        return [patterns_as_rules(item) for item in node]
    if not isinstance(node, dict):
        return node
    copied = {key: patterns_as_rules(value) for key, value in node.items()}
    if node.get("type") == "string" and node.get("pattern") in PATTERNS_IN_WORDS:
        pattern = copied.pop("pattern")
        copied["x-kubernetes-validations"] = [rule(f"self.matches(r'{pattern}')", f"the value {PATTERNS_IN_WORDS[pattern]}")]
    return copied


def _without(node: Any, dropped: str) -> Any:
    """Returns a copy without the key, at every level."""
    if isinstance(node, dict):
        return {key: _without(value, dropped) for key, value in node.items() if key != dropped}
    if isinstance(node, list):
        return [_without(item, dropped) for item in node]
    return node


def _status_schema() -> Schema:
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": _text(f"Type of the condition, one of {', '.join(reasons.TYPES)}."),
            "status": _text("Status of the condition.", enum=["True", "False", "Unknown"]),
            "reason": _text("Reason for the status of the condition, in one word."),
            "message": _text("The state, its cause and what to do about it."),
            "lastTransitionTime": _text("Time at which the status of the condition last changed.", format="date-time"),
            "observedGeneration": _integer("Generation of the AliseEngine for which the condition was determined.", "int64"),
        },
    }
    return {
        "type": "object",
        "description": "Observed state of the AliseEngine, written by the operator.",
        "properties": {
            "conditions": {
                "type": "array",
                "description": f"Conditions of the AliseEngine: {', '.join(reasons.TYPES)}.",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "adapters": {
                "type": "array",
                "description": "LoRA adapters of spec.model.adapters, and the pods that serve them.",
                "items": {
                    "type": "object",
                    "required": ["name", "loadedPods", "message"],
                    "properties": {
                        "name": _text("Name of the adapter."),
                        "loadedPods": _integer("Number of ready pods that serve the adapter in the version of the spec.", "int32"),
                        "message": _text("In how many pods the adapter is loaded, and why it is not in another."),
                    },
                },
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
            "replicas": _integer("Number of pods.", "int32"),
            "readyReplicas": _integer("Number of pods that serve requests.", "int32"),
            "selector": _text("Label selector that matches the pods. Autoscalers read it."),
            "url": _text("Base URL of the OpenAI API. It is absent while RouteReady is not True."),
            "observedGeneration": _integer("Generation of the AliseEngine that the operator last reconciled.", "int64"),
        },
    }


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", **more, "description": description}


def _integer(description: str, size: str) -> Schema:
    return {"type": "integer", "format": size, "description": description}


def render() -> dict[str, str]:
    """Returns the generated files: path below manifests/ -> text."""
    head = "# Generated by `make crd` from operator/alise_operator/spec.py. Do not edit.\n"
    return {
        "crd/aliseengines.yaml": head + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=140, allow_unicode=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m alise_operator.crd",
        description="Generates the CustomResourceDefinition of the AliseEngine from the models in alise_operator/spec.py.",
    )
    parser.add_argument("folder", metavar="MANIFESTS_DIR", nargs="?", type=Path, default=Path("manifests"), help="default: %(default)s")
    folder: Path = parser.parse_args().folder
    for name, text in render().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
