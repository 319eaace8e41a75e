"""Which modules' docstrings name nothing that calls them. `test_headers.py` asks for it; it reads the tree and changes nothing.

A caller is a file that imports the module or names it in a string (vLLM and `importlib` load by name), or one of HANDS that names it. A
docstring names a caller by its file or its folder, by the package in another room, or by a command that starts the module.
"""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import PurePosixPath
from typing import Final

from tests.tools.house.tree import ROOMS, Finding, files, nodes, parsed, text

# The folders that Python searches for packages, besides the repository's own.
_SOURCES: Final = ("operator/", "scheduler_sidecar/", "engine_image/")
# Files that are no Python and start or load some.
HANDS: Final = ("Makefile", "pyproject.toml", "mkdocs.yml", "Dockerfile", "Dockerfile.cuda", "bootstrap.sh")
# How a docstring names the callers of another room, where it does not name a file.
_ROOM_WORDS: Final[Mapping[str, str]] = {
    "operator/alise_operator/": r"\boperator\b|alise_operator",
    "operator/alise_picker/": r"\bpicker\b|alise_picker",
    "operator/kubectl_alise/": r"\bkubectl alise\b|kubectl_alise|\bplugin\b",
    "scheduler_sidecar/alise_scheduler/": r"\b(?:scheduler|sidecar)\b|alise_scheduler",
    "scheduler_sidecar/alise_simulator/": r"\bsimulator\b|alise_simulator",
    "engine_image/alise_engine/": r"\bengine\b|alise_engine",
}
# Modules that only choose what to call: a command reaches what they call.
_DOORS: Final = ("__main__.py", "cli.py")
_WORD: Final = re.compile(r"[\w.*/-]+")
# Not `*` and `*.py`, which would be any file.
_LETTERS: Final = re.compile(r"(?!\*+(?:\.py)?$)[\w.*/-]+$")
_COMMAND: Final = re.compile(r"\bmake ([a-z][\w-]*)|-m ([a-z][\w.]*)|\b(kubectl alise|alise-\w+)\b")
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_FILE: Final = re.compile(r"(?:[\w.-]+/)*\w+\.py")


def headed() -> list[str]:
    """Returns the modules whose docstring has to name what calls them."""
    return [path for path in files(".py") if _has_callers(path)]


def _has_callers(path: str) -> bool:
    name = PurePosixPath(path).name
    return path.startswith((*_SOURCES, "tests/")) and not name.startswith(("test_", "conftest.", "__init__.", "__main__."))


def uncalled() -> list[Finding]:
    """Returns the modules whose docstring names nothing that calls them, with the callers that it could name."""
    return [
        Finding(path, 1, f"the docstring names none of {', '.join(sorted(callers_of(path))) or 'no caller at all'}")
        for path in headed()
        if not names_a_caller(ast.get_docstring(parsed(path)) or "", path, callers_of(path), commands_of(path))
    ]


def names_a_caller(docstring: str, path: str, callers: Collection[str], commands: Collection[str]) -> bool:
    """Whether the docstring of the module at `path` names one of its callers, or a command that starts it."""
    code = {one.strip("/") for one in re.findall(r"`([^`\s]+)`", docstring)}
    words = {word.rstrip(".").strip("/") for word in _WORD.findall(docstring)}
    # A plain word such as "core" is a folder's name only between backticks.
    places = code | {word for word in words if word.endswith(".py") or "/" in word or word in HANDS}
    return (
        any(_is_at(caller, place, path) for caller in callers for place in places if _LETTERS.match(place))
        or any(re.search(words, docstring) for room, words in _ROOM_WORDS.items() if _is_other_room(room, path, callers))
        or any(command in commands for command in commands_in(docstring))
    )


def _is_at(caller: str, place: str, path: str) -> bool:
    """Whether the word names the file of the caller, or its folder unless that is the whole room of the module."""
    if fnmatch(f"/{caller}", f"*/{place}"):
        return True
    folders = f"/{PurePosixPath(caller).parent}/"
    return f"/{place}/" in folders and place not in {PurePosixPath(room).name for room in ROOMS.values() if path.startswith(f"{room}/")}


def _is_other_room(room: str, path: str, callers: Collection[str]) -> bool:
    return not path.startswith(room) and any(caller.startswith(room) for caller in callers)


def commands_in(docstring: str) -> set[str]:
    """Returns the commands that a docstring names: `make X`, `python -m X` as `-m X`, and programs of pyproject.toml."""
    found = set()
    for target, module, program in _COMMAND.findall(docstring):
        found.add(f"make {target}" if target else f"-m {module.rstrip('.')}" if module else program)
    return found


def callers_of(path: str) -> Collection[str]:
    """Returns the files that import or name the module. A test is no caller of what images hold."""
    found = _callers()[path]
    return {one for one in found if not one.startswith("tests/")} if path.startswith(tuple(ROOMS.values())) else found


@cache
def commands_of(path: str) -> frozenset[str]:
    """Returns the commands that start the module, or a module that calls it at once."""
    return frozenset(command for command, started in _commands().items() if path in started)


@cache
def _modules() -> Mapping[str, str]:
    """Returns the path of each module of the tree."""
    return {module_of(path): path for path in files(".py")}


@cache
def _paths() -> frozenset[str]:
    return frozenset(_modules().values())


def module_of(path: str) -> str:
    """Returns the dotted name by which Python imports the file."""
    for folder in _SOURCES:
        path = path.removeprefix(folder)
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def _callers() -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in files(".py"):
        for called in _called(path):
            found[called].add(path)
    for path in (path for hand in HANDS for path in files(hand)):
        # What pyproject.toml says below its entry points is about imports, not calls.
        for called in _named(text(path).partition("[tool.")[0]):
            found[called].add(path)
    return found


@cache
def _called(path: str) -> frozenset[str]:
    """Returns the modules that a Python file imports or names."""
    modules = _modules()
    found = {modules[one] for one in imported(nodes(path), path, modules)}
    # A docstring names callers, and a string that stands alone calls nothing.
    alone = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            found |= set(_named(node.value, path))
    return frozenset(found - {path})


def imported(module: Collection[ast.AST], path: str, modules: Collection[str]) -> Iterator[str]:
    """Yields which of the modules a Python file at `path` imports, by absolute and by relative names."""
    package = module_of(path) if path.endswith("/__init__.py") else module_of(path).rpartition(".")[0]
    for node in module:
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in modules)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                source = ".".join([*base, *([name] if name else [])])
                for alias in names:
                    yield from [one for one in (f"{source}.{alias.name}", source) if one in modules][:1]


def _named(words: str, path: str = "") -> Iterator[str]:
    """Yields the modules that a text names, by their dotted names or their files; `.b.c` and `c.py` may be beside `path`."""
    modules = _modules()
    if re.fullmatch(r"(?:\.\w+)+", words):
        words = module_of(path).rpartition(".")[0] + words
    for dotted in _DOTTED.findall(words):
        # A module alone, or something in it.
        named = next((one for one in (dotted, dotted.rpartition(".")[0]) if one in modules or f"{one}.__main__" in modules), "")
        yield from (modules[one] for one in (named, f"{named}.__main__") if one in modules)
    for name in _FILE.findall(words):
        yield from (one for one in (name, str(PurePosixPath(path).parent / name)) if one in _paths())


@cache
def _commands() -> Mapping[str, set[str]]:
    """Returns for each command the modules that it starts, and those that these call at once."""
    modules = _modules()
    started: dict[str, set[str]] = defaultdict(set)
    for name, path in modules.items():
        if path.endswith("/__main__.py") or '__name__ == "__main__"' in text(path):
            started[f"-m {name.removesuffix('.__main__')}"] |= _reached(path)
    for target, recipe in re.findall(r"^([a-z][\w-]*):.*\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE):
        for name in re.findall(r"-m ([\w.]+)", recipe):
            started[f"make {target}"] |= started.get(f"-m {name}", set())
    for name, module in _benchmarks():
        started[f"make bench-{name}"] |= _reached(modules[module])
    for program, entry in tomllib.loads(text("pyproject.toml"))["project"]["scripts"].items():
        started[program.replace("kubectl-", "kubectl ")] |= _reached(modules[entry.partition(":")[0]])
    return started


def _benchmarks() -> Iterator[tuple[str, str]]:
    """Yields the names by which `make bench-NAME` runs the benchmarks, and their modules."""
    for node in nodes("tests/bench/__main__.py"):
        match node:
            case ast.Dict(keys=names, values=values):
                for name, value in zip(names, values, strict=True):
                    if isinstance(name, ast.Constant) and isinstance(value, ast.Constant) and str(value.value).startswith("tests.bench."):
                        yield str(name.value), str(value.value)


def _reached(path: str) -> set[str]:
    """Returns the module, what it calls, and what the doors among them call."""
    found, todo = {path}, [path]
    while todo:
        called = _called(todo.pop()) - found
        found |= called
        todo += [one for one in called if one.endswith(_DOORS)]
    return found
