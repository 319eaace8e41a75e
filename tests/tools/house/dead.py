"""Names of the product that no code of the product uses: those that only tests use, and those that nothing uses.

A name counts as used where it is read: as a variable, as an attribute of anything, in a pattern, or as the last part of a dotted path in a
string (vLLM and entry points load classes by such paths). So a name that another thing has as well can be missed, and none is reported that
is used. `figures.py` counts them.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.tools.house.tree import Finding, files, parsed, product_and_tools, text

# `path:name` -> why it stays although the product does not use it.
EXCEPTIONS: Final[Mapping[str, str]] = {
    "engine_image/alise_engine/api/endpoint.py:required_tasks": "vLLM reads it of an endpoint plugin",
    "engine_image/alise_engine/api/endpoint.py:attach_router": "vLLM calls it of an endpoint plugin",
    "engine_image/alise_engine/api/endpoint.py:init_state": "vLLM calls it of an endpoint plugin",
    "operator/alise_operator/reasons.py:remedy": "what users read about a reason: docs/reference/conditions.md is generated from it",
    "operator/alise_operator/reasons.py:UNAPPLIED": "what users read about these reasons, see remedy",
    "operator/alise_operator/reasons.py:OTHERS": "what users read about these reasons, see remedy",
    "scheduler_sidecar/alise_scheduler/metrics.py:collect": "prometheus_client calls it of a registered collector",
}
# Decorators that leave a function to be called by its name. A function with another one is called by whatever decorates it.
_TRANSPARENT: Final = frozenset(
    {"property", "staticmethod", "classmethod", "cache", "lru_cache", "cached_property", "dataclass", "contextmanager"}
    | {"asynccontextmanager", "override", "abstractmethod", "runtime_checkable", "final"}
)
_OWN_BASES: Final = frozenset({"object", "Protocol", "Generic", "ABC", "Exception", "ValueError", "RuntimeError"})
_EXPRESSION_IN_TEMPLATE: Final = re.compile(r"{[{%](.*?)[}%]}", re.DOTALL)
_PATH_IN_TEXT: Final = re.compile(r"[A-Za-z_][\w.:]*")


@dataclass(frozen=True, slots=True)
class Name:
    """A name that the product defines, and the lines of its definition."""

    path: str
    name: str
    first: int
    last: int

    @property
    def key(self) -> str:
        return f"{self.path}:{self.name}"


def dead_names() -> list[Finding]:
    """Returns the names that no code of the product uses, but for EXCEPTIONS."""
    in_tests = set(_uses([path for path in files(".py") if path.startswith("tests/")]))
    return [
        Finding(one.path, one.first, f"{one.name} is used by {'tests alone' if one.name in in_tests else 'nothing'}")
        for one in unused()
        if one.key not in EXCEPTIONS
    ]


def unused() -> list[Name]:
    """Returns the names that no code of the product uses."""
    paths = product_and_tools()
    uses = _uses(paths)
    # Entry points, and what images start.
    loaded = set(_PATH_IN_TEXT.findall(text("pyproject.toml"))) | {
        one for name in files("Dockerfile") for one in re.findall(r"\w+", text(name))
    }
    # Templates read attributes in their expressions.
    loaded |= {word for path in files(".html") for code in _EXPRESSION_IN_TEMPLATE.findall(text(path)) for word in re.findall(r"\w+", code)}
    named = {part for one in loaded for part in re.split(r"[.:]", one)}
    return [
        one
        for path in paths
        for one in _defined(path)
        if one.name not in named and not any(where != path or not one.first <= line <= one.last for where, line in uses.get(one.name, ()))
    ]


def _defined(path: str) -> Iterator[Name]:
    own = _own_classes()
    for node in parsed(path).body:
        yield from _names(path, node)
        # asyncio.Protocol is not typing's: its methods are called by the library.
        if isinstance(node, ast.ClassDef) and all(_last(base) in own and not isinstance(base, ast.Attribute) for base in node.bases):
            for child in node.body:
                yield from _names(path, child)


@cache
def _own_classes() -> frozenset[str]:
    """Returns the classes whose methods only our code calls, as far as their names tell."""
    return _OWN_BASES | {node.name for path in product_and_tools() for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)}


def _names(path: str, node: ast.stmt) -> Iterator[Name]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            found = [node.name] if all(_last(one) in _TRANSPARENT for one in node.decorator_list) else []
        case ast.Assign():
            found = [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            found = [name]
        case _:
            found = []
    yield from (Name(path, name, node.lineno, node.end_lineno or node.lineno) for name in found if not name.startswith("__"))


def _uses(paths: list[str]) -> Mapping[str, list[tuple[str, int]]]:
    """Returns where each name is read."""
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path in paths:
        for node in ast.walk(parsed(path)):
            for name in _read(node):
                found[name].append((path, node.lineno))  # type: ignore[attr-defined]
    return found


def _read(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(ctx=ast.Load()):
            yield node.id
        case ast.Attribute(ctx=ast.Load()):
            yield node.attr
        case ast.MatchClass():
            yield from node.kwd_attrs
        case ast.Constant(value=str()) if _PATH_IN_TEXT.fullmatch(str(node.value)):
            yield re.split(r"[.:]", str(node.value))[-1]


def _last(node: ast.expr) -> str:
    """Returns the last part of a dotted name, of what is called or of what has parameters."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Call():
            return _last(node.func)
        case ast.Subscript():
            return _last(node.value)
        case _:
            return ""
