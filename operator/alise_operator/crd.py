"""Writes the CustomResourceDefinition from the models in spec.py.

`python -m alise_operator.crd [MANIFESTS_DIR]` writes `crd/aliseengines.yaml`; a test says when it is stale.
pydantic speaks JSON Schema 2020, Kubernetes the structural subset of OpenAPI v3: references are inlined, "or null" is dropped (an
absent field is how Kubernetes says it), titles go, and `additionalProperties: false` goes, because the server prunes unknown fields.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final, cast

import yaml

from alise_contract.names import API_GROUP, API_VERSION, KIND, PLURAL
from alise_operator.spec import Spec
from alise_operator.spec_types import NAME_MAX_LENGTH, NAME_PATTERN, rule
from alise_operator.spec_words import PATTERNS_IN_WORDS

Schema = dict[str, Any]

# name, type, path, description, priority (1: only with -o wide)
_COLUMNS: Final = (
    ("Model", "string", ".spec.model.uri", "What is served", 0),
    ("Policy", "string", ".spec.scheduling.policy", "Order of requests", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether it serves requests", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not", 0),
    (
        "Degraded",
        "string",
        '.status.conditions[?(@.type=="Degraded")].reason',
        "What is wrong, although it may serve; AsExpected: nothing",
        0,
    ),
    ("Replicas", "integer", ".status.replicas", "Pods that exist", 0),
    ("URL", "string", ".status.url", "Base URL of the OpenAI API", 0),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "The state, its cause and what to do", 1),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was created", 0),
)


def custom_resource_definition(*, validation_rules: bool = True) -> Schema:
    """The CRD. Without `validation_rules` it holds no CEL: kubectl refuses a CRD with rules on servers before 1.25."""
    schema = {
        "type": "object",
        "description": "A large language model served by vLLM pods that make the wait short.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
            "kind": {"type": "string", "description": "The kind of this object, AliseEngine."},
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": NAME_MAX_LENGTH, "pattern": NAME_PATTERN}},
            },
            "spec": structural(Spec.model_json_schema(by_alias=True)),
            "status": _status_schema(),
        },
    }
    schema = patterns_as_rules(schema) if validation_rules else without_rules(schema)
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
                    "schema": {"openAPIV3Schema": schema},
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


# Marks a field that is absent unless it is given.
_ABSENT: Final = "x-alise-absent"


def structural(document: Schema) -> Schema:
    """A JSON Schema document as one structural OpenAPI v3 schema without references."""
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
    _say_defaults(converted)
    return cast(Schema, _without(converted, _ABSENT))


def _say_defaults(node: Schema) -> None:
    """Appends each default to its field's description: `kubectl explain` prints descriptions, and no defaults."""
    for child in (*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])):
        if "description" in child:
            child["description"] += default_text(child)
        _say_defaults(child)


def default_text(node: Schema) -> str:
    """Returns what a field's description says of its default; nothing when there is none."""
    default = node.get("default")
    return f" Default: {default if isinstance(default, str) else json.dumps(default)}." if default not in (None, {}, []) else ""


def _default_objects(node: Schema) -> None:
    """Gives optional objects whose fields have defaults the default {}, so that the server fills the fields in; not to those that mean
    something by being there at all."""
    required = set(node.get("required", ()))
    for name, child in node.get("properties", {}).items():
        _default_objects(child)
        has_defaults = any("default" in grandchild for grandchild in child.get("properties", {}).values())
        if has_defaults and name not in required and not child.get("required") and _ABSENT not in child:
            child["default"] = {}
        elif child.get("default") in ({}, []):
            del child["default"]


def patterns_as_rules(node: Any) -> Any:
    """A copy with a CEL rule for each pattern of a string: of a pattern the API server prints the regular expression, of a rule its words.

    A quantity keeps its pattern. The API server refuses a CRD whose rules may cost too much, and for "number or string" it reckons with a
    string as long as a request.
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


def without_rules(node: Any) -> Any:
    """A copy without CEL rules."""
    return _without(node, "x-kubernetes-validations")


def _without(node: Any, dropped: str) -> Any:
    """A copy without that key, wherever it is."""
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
            "type": {"type": "string", "description": "Ready, Progressing, Degraded, RouteReady or KVCacheShort."},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
            "reason": {"type": "string", "description": "Why, in one word."},
            "message": {"type": "string", "description": "The state, its cause and what to do."},
            "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When status last changed."},
            "observedGeneration": {"type": "integer", "format": "int64", "description": "Generation of the resource this was found at."},
        },
    }
    return {
        "type": "object",
        "description": "What the operator last found.",
        "properties": {
            "conditions": {
                "type": "array",
                "description": "Ready, Progressing, Degraded, RouteReady and KVCacheShort.",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "replicas": {"type": "integer", "format": "int32", "description": "Pods that exist."},
            "readyReplicas": {"type": "integer", "format": "int32", "description": "Pods that serve requests."},
            "selector": {"type": "string", "description": "Label selector of the pods, for autoscalers."},
            "url": {"type": "string", "description": "Base URL of the OpenAI API; absent while the route leads nowhere."},
            "observedGeneration": {"type": "integer", "format": "int64", "description": "Generation of the resource last acted on."},
        },
    }


def render() -> dict[str, str]:
    """The generated files: path below manifests/ -> text."""
    crd = custom_resource_definition()
    head = "# Made by `make crd` from operator/alise_operator/spec.py. Do not edit.\n"
    return {
        "crd/aliseengines.yaml": head + yaml.safe_dump(crd, sort_keys=False, width=140, allow_unicode=True),
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("manifests")
    for name, text in render().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
