"""Import circles between the modules of the product and of its tools. Imports inside functions and for type checkers count, too.

`figures.py` counts them.
"""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import grimp

from tests.tools.house.tree import ROOMS, TOOLS, Finding


def circles() -> list[Finding]:
    """Returns a finding for a circle if there are any: modules that import one another, directly or not."""
    found = circle(imports())
    return [Finding((ROOMS | TOOLS)[found[0].partition(".")[0]], 1, " imports ".join(found))] if found else []


def imports() -> Mapping[str, set[str]]:
    """Returns what each module imports directly, of the product and of its tools."""
    graph = grimp.build_graph(*ROOMS, *TOOLS, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns a circle of imports, from a module back to itself, in the direction of its imports; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []
