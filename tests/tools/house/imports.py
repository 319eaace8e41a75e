"""Import circles between the modules of the product."""

import ast
from collections.abc import Iterator, Mapping

from tests.tools.house.tree import ROOMS, TOOLS, Finding, parsed, product_and_tools


def circles() -> list[Finding]:
    """Returns a finding for each circle: a set of modules that import one another, directly or not."""
    modules = {_module(path): path for path in product_and_tools()}
    graph = {name: set(_imports(name, path, modules)) for name, path in modules.items()}
    return [Finding(modules[found[0]], 1, f"imports in a circle: {', '.join(found)}") for found in components(graph)]


def components(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Returns the strongly connected components with more than one node, each sorted (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def _module(path: str) -> str:
    """Returns the dotted name of a file."""
    for package, folder in (ROOMS | TOOLS).items():
        if path.startswith(f"{folder}/"):
            below = path.removeprefix(f"{folder}/").removesuffix(".py").split("/")
            return ".".join([package, *(below[:-1] if below[-1] == "__init__" else below)])
    raise ValueError(f"{path} belongs to no package")


def _imports(name: str, path: str, modules: Mapping[str, str]) -> Iterator[str]:
    """Yields the modules that a module imports when it runs; those inside functions, too."""
    package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
    for node in _run(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                target = f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base
                if target in modules and target != name:
                    yield target


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Walks the code without what only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _run(child)
