"""Specs of three kinds: of the CRD's schema, good ones with some fields replaced by anything, and good ones with a patch of their pods.

`run.py` draws them.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from hypothesis import strategies as st

from tests.operator.builders import raw_spec
from tests.operator.built import SPECS
from tests.operator.fuzz.args import ARGUMENTS
from tests.operator.fuzz.pods import EGRESS_RULES, ENV_SOURCES, PEERS, POD_PATCHES
from tests.operator.fuzz.values import HOSTS, JSON, NAMES, QUANTITIES, RESOURCE_NAMES, TEXTS, Values, integers, several, strings
from tests.operator.old_crd import schema_without_rules

SAMPLES: Final = sorted((Path(__file__).parents[3] / "manifests" / "samples").glob("*.yaml"))
# Without rules it has the patterns that they are made of.
_SCHEMA: Final = schema_without_rules()["properties"]["spec"]
_OPAQUE: Final[Mapping[str, Values]] = {
    "podTemplate": POD_PATCHES, "valueFrom": ENV_SOURCES, "from": PEERS, "lengthsFrom": PEERS, "egress": EGRESS_RULES,
}  # fmt: skip
_ANNOTATIONS: Final = st.dictionaries(
    st.sampled_from(("a", "cert-manager.io/issuer", "nginx.ingress.kubernetes.io/proxy-body-size", "nginx.ingress.kubernetes.io/limit-rps",
                     "nginx.ingress.kubernetes.io/server-snippet", "a b", "/", "x/y/z", "", "kubernetes.io/ingress.class", "A" * 64)),
    st.sampled_from(("", "1", "10m", "a;b", "a\nb", "x" * 20_000, "ü")), max_size=2,
)  # fmt: skip


def admitted(node: Mapping[str, Any], name: str = "") -> Values:
    """Values that the schema's node admits, those of the field of this name."""
    if name == "args":
        return ARGUMENTS
    if name == "annotations":
        return _ANNOTATIONS
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return _OPAQUE[name].filter(lambda value: isinstance(value, dict))
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return QUANTITIES
    match node["type"]:
        case "string":
            pattern = str(node.get("pattern", ""))
            if name == "hosts":
                return HOSTS
            return NAMES.filter(lambda text: len(text) <= node.get("maxLength", 253)) if "[-a-z0-9.]*" in pattern else strings(name, node)
        case "integer":
            return integers(node)
        case "boolean":
            return st.booleans()
        case "array":
            return _lists(node, name)
        case _:
            return _objects(node, name)


def _lists(node: Mapping[str, Any], name: str) -> Values:
    item = admitted(node["items"], {"aliases": "servedName"}.get(name, name))
    keys = node.get("x-kubernetes-list-map-keys")

    def unique(one: Any) -> object:
        return tuple(one.get(key) for key in keys) if keys else repr(one)

    is_set = keys is not None or node.get("x-kubernetes-list-type") == "set"
    few = st.lists(item, max_size=3, unique_by=unique) if is_set else st.lists(item, max_size=3)
    if is_set:
        return few
    return few | st.builds(lambda one: [one] * node["maxItems"], item)


def _objects(node: Mapping[str, Any], name: str) -> Values:
    if "properties" not in node:
        keys = RESOURCE_NAMES if name in ("requests", "limits") else TEXTS
        return st.dictionaries(keys, admitted(node["additionalProperties"]), max_size=3)
    children = {key: admitted(child, key) for key, child in node["properties"].items()}
    required = {key: children[key] for key in node.get("required", ())}
    return _chosen(required, {key: child for key, child in children.items() if key not in required})


@st.composite
def _chosen(draw: st.DrawFn, required: Mapping[str, Values], optional: Mapping[str, Values]) -> dict[str, Any]:
    names = dict.fromkeys(several(draw, st.sampled_from(sorted(optional)), 0, 4)) if optional else ()
    return {**{key: draw(value) for key, value in required.items()}, **{key: draw(optional[key]) for key in names}}


# The least comes first: it is what hypothesis makes of a finding's other fields.
_GOOD: Final = [*(raw_spec(**changes) for changes in SPECS.values()), *(yaml.safe_load(path.read_text())["spec"] for path in SAMPLES)]
_GOOD_ONES: Final = st.sampled_from(_GOOD).map(copy.deepcopy)
_WHOLE: Final = admitted(_SCHEMA)
_SECTIONS: Final = {name: admitted(child, name) for name, child in _SCHEMA["properties"].items()}


@st.composite
def _of_the_schema(draw: st.DrawFn) -> Any:
    """All of it by the schema, or a good one with some sections by the schema."""
    if draw(st.integers(0, 3)) == 3:
        return draw(_WHOLE)
    good = draw(_GOOD_ONES)
    for name in several(draw, st.sampled_from(sorted(_SECTIONS)), 1, 2):
        section, before = draw(_SECTIONS[name]), good.get(name)
        good[name] = {**before, **section} if isinstance(before, dict) and isinstance(section, dict) else section
    return good


@st.composite
def _with_wrong_fields(draw: st.DrawFn) -> Any:
    good = draw(_GOOD_ONES)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(good))))
        holder[key] = draw(JSON)
    return good


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of the value that can be written to, and for each object a new field."""
    if isinstance(value, dict):
        yield value, "newField"
        for key, child in value.items():
            yield value, key
            yield from _places(child)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield value, index
            yield from _places(child)


@st.composite
def _with_a_patch(draw: st.DrawFn) -> Any:
    good = draw(_GOOD_ONES)
    good["podTemplate"] = draw(POD_PATCHES)
    if draw(st.integers(0, 3)) == 3:
        good.setdefault("engine", {})["env"] = [{"name": "A", "valueFrom": draw(ENV_SOURCES)}]
    return good


SPECS_BY_THE_SCHEMA: Final[Values] = _of_the_schema()
ANY_SPECS: Final[Values] = st.one_of(SPECS_BY_THE_SCHEMA, _with_wrong_fields(), _with_a_patch())
