"""Which files the figures of the house are about.

The other files of `tests/tools/house` ask it; it runs `git ls-files` and reads the tree.
"""

import ast
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
# The folders of the packages that images hold.
ROOMS: Final = {
    "alise_operator": "operator/alise_operator",
    "alise_picker": "operator/alise_picker",
    "alise_scheduler": "scheduler_sidecar/alise_scheduler",
    "alise_engine": "engine_image/alise_engine",
    "alise_contract": "engine_image/alise_contract",
}
# The folders of the packages that users run from the repository, and no image holds.
TOOLS: Final = {"alise_simulator": "scheduler_sidecar/alise_simulator", "kubectl_alise": "operator/kubectl_alise"}
PREDICTOR: Final = "scheduler_sidecar/alise_scheduler/predictor/"
_GENERATED: Final = ("_pb2.py", "_pb2_grpc.py")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a figure counts: where it is, and what it is."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@cache
def files(ending: str) -> tuple[str, ...]:
    """Returns the paths of the repository's files with that ending, sorted; generated Python is not among them."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"*{ending}"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return tuple(sorted(path for path in set(listed) if not path.endswith(_GENERATED) and (ROOT / path).is_file()))


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def parsed(path: str) -> ast.Module:
    return ast.parse(text(path))


@cache
def nodes(path: str) -> tuple[ast.AST, ...]:
    """Returns all nodes of a Python file. Several tests look at each of them, and walking takes as long as parsing."""
    return tuple(ast.walk(parsed(path)))


def product() -> list[str]:
    """Returns the Python files of the packages that images hold."""
    return _python_in(ROOMS.values())


def product_and_tools() -> list[str]:
    """Returns the Python files of the packages that images hold, and of the tools of users."""
    return _python_in([*ROOMS.values(), *TOOLS.values()])


def _python_in(folders: Iterable[str]) -> list[str]:
    return [path for path in files(".py") if path.startswith(tuple(f"{folder}/" for folder in folders))]


def lines(path: str) -> int:
    return len(text(path).splitlines())
