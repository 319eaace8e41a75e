"""A digest of what source files do, for results that are kept as long as the code behind them is the same.

Comments, docstrings and formatting of Python do not count, because editing a sentence must not cost hours of computing. `encoder.py`,
`tests/bench/policies_data.py` and `tests/bench/ablation.py` use it.
"""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_CHARACTERS = 12


def digest(paths: Iterable[Path], prefix: str = "") -> str:
    """Returns the digest of these files, in the given order: Python by its syntax tree, others by their bytes. Raises SyntaxError."""
    found = hashlib.sha256(prefix.encode())
    for path in paths:
        found.update(f"\n{path.name}\n".encode() + (_tree(path.read_text(encoding="utf-8")) if path.suffix == ".py" else path.read_bytes()))
    return found.hexdigest()[:_CHARACTERS]


def _tree(code: str) -> bytes:
    module = ast.parse(code)
    for node in ast.walk(module):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(module).encode()
