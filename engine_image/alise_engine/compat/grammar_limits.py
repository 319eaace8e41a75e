"""Limits the size of grammars for structured output; pure.

vLLM compiles what a client sends in the API server's process and in EngineCore's, and bounds its depth only. A schema of 35 bytes,
`{"type": "array", "minItems": 1000000000}`, takes 20 GB there, and an alternative of a thousand strings of different lengths 5 GB and half
a minute. The limits are far above what people write, and what they let through takes seconds and some tens of megabytes at most.
`patches.py` calls it before vLLM compiles a grammar.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

MAX_BYTES: Final = 64 * 1024
# minItems and maxItems, over the whole schema: each item becomes a symbol of the grammar.
MAX_ITEMS: Final = 10_000
# Of one anyOf or oneOf.
MAX_ALTERNATIVES: Final = 100
# Of the form {n,m}, in one regular expression or grammar.
MAX_REPETITIONS: Final = 100
_TEXTS: Final = ("regex", "grammar")
_JSON: Final = ("json", "structural_tag")


def complaint(params: Any) -> str | None:
    """Returns what is too large about vLLM's `StructuredOutputsParams`, None when nothing is."""
    texts = [text for name in _TEXTS if isinstance(text := getattr(params, name), str)]
    choices = [choice for choice in params.choice or () if isinstance(choice, str)]
    schemas = [_parsed(getattr(params, name)) for name in _JSON]
    size = sum(map(len, [*texts, *choices])) + sum(len(json.dumps(schema)) for schema in schemas if schema is not None)
    if size > MAX_BYTES:
        return f"it has {size} characters, the limit is {MAX_BYTES}"
    nodes = [node for schema in schemas for node in _objects(schema)]
    if (items := sum(_count(node.get(name)) for node in nodes for name in ("minItems", "maxItems"))) > MAX_ITEMS:
        return f"minItems and maxItems add up to {items}, the limit is {MAX_ITEMS}"
    if (alternatives := _most(len(node[name]) for node in nodes for name in ("anyOf", "oneOf") if isinstance(node.get(name), list))) > (
        MAX_ALTERNATIVES
    ):
        return f"a choice in it has {alternatives} alternatives, the limit is {MAX_ALTERNATIVES}"
    patterns = [*texts, *(text for node in nodes for text in (*node.values(), *node) if isinstance(text, str))]
    if (repetitions := _most(text.count("{") for text in patterns)) > MAX_REPETITIONS:
        return f"a pattern in it has {repetitions} bounded repetitions, the limit is {MAX_REPETITIONS}"
    return None


def _parsed(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError):
        # vLLM refuses it in its own words; its size counts all the same.
        return given


def _objects(root: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value. vLLM has refused deep ones before, and this does not recurse in any case."""
    rest = [root]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            yield node
            rest += node.values()
        elif isinstance(node, list):
            rest += node


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < float("inf") else 0


def _most(counts: Iterable[int]) -> int:
    return max(counts, default=0)
