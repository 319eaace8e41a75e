"""Each module's docstring names what calls it, so that a file opened alone says what a change of it concerns."""

import ast
import re
import tomllib

import pytest

from tests.tools.house import headers, tree

CALLERS = ["engine_image/alise_engine/api/server.py", "operator/alise_operator/app.py", "tests/operator/test_app.py", "Makefile"]
PATH = "engine_image/alise_engine/api/control.py"
# The import contract of the operator's plain functions.
PLAIN = "What the operator wants and says is decided in plain functions"


# It parses the whole tree.
@pytest.mark.process
def test_every_module_names_what_calls_it() -> None:
    assert [str(one) for one in headers.uncalled()] == []


def test_what_calls_itself_pure_in_the_operator_is_held_to_it_by_the_import_contract() -> None:
    contracts = tomllib.loads(tree.text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (listed,) = [
        one["source_modules"] for one in contracts if one["name"] == "What the operator wants and says is decided in plain functions"
    ]
    pure = [path for path in tree.files(".py") if path.startswith("operator/alise_operator/") and is_pure(path)]
    names = [headers.module_of(path) for path in pure]
    assert [name for name in names if not f"{name}.".startswith(tuple(f"{one}." for one in listed))] == [], "list them in pyproject.toml"


def is_pure(path: str) -> bool:
    return re.search(r"\bpure\b", ast.get_docstring(tree.parsed(path)) or "", re.IGNORECASE) is not None


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "caller"),
    [
        pytest.param("operator/alise_operator/rules.py", "operator/alise_operator/reconcile.py", id="an absolute or a relative import"),
        pytest.param("scheduler_sidecar/alise_scheduler/rpc/http.py", "scheduler_sidecar/alise_scheduler/run.py", id="importlib"),
        pytest.param("tests/bench/policies_core.py", "tests/bench/policies.py", id="code in a string"),
        pytest.param("tests/tools/hardware_tables.py", "tests/tools/hardware.py", id="a file by its name"),
        pytest.param("engine_image/alise_engine/serve/plugin.py", "pyproject.toml", id="an entry point"),
        pytest.param("scheduler_sidecar/fetch_encoder.py", "scheduler_sidecar/Dockerfile", id="the build of an image"),
    ],
)
def test_a_caller_is_found_however_it_calls(path: str, caller: str) -> None:
    assert caller in headers.callers_of(path)


@pytest.mark.process
def test_a_test_is_no_caller_of_what_images_hold() -> None:
    assert not any(one.startswith("tests/") for one in headers.callers_of("engine_image/alise_engine/compat/names.py"))


@pytest.mark.process
@pytest.mark.parametrize(
    ("path", "command"),
    [
        pytest.param("tests/tools/run.py", "make run", id="what a target starts"),
        pytest.param("tests/tools/run_report.py", "make run", id="what that calls at once"),
        pytest.param("tests/bench/gain.py", "make bench-gain", id="a benchmark"),
        pytest.param("operator/kubectl_alise/ui.py", "kubectl alise", id="a program of pyproject.toml"),
        pytest.param("tests/fuzz/child.py", "-m tests.fuzz.child", id="a module that Python runs"),
    ],
)
def test_a_command_counts_for_what_it_starts(path: str, command: str) -> None:
    assert command in headers.commands_of(path)


@pytest.mark.process
def test_a_command_does_not_count_for_what_is_further_away() -> None:
    assert "make bench-gain" not in headers.commands_of("scheduler_sidecar/alise_simulator/prefix_cache.py")


@pytest.mark.parametrize(
    "docstring",
    [
        pytest.param("Counts. `server.py` calls it.", id="a file"),
        pytest.param("Counts. api/server.py calls it.", id="a file with its folder, without quotes"),
        pytest.param("Counts. The files of `api` call it.", id="a folder"),
        pytest.param("Counts. `test_*.py` call it.", id="several files at once"),
        pytest.param("Counts. The operator calls it.", id="another room"),
        pytest.param("Counts: `make count` calls it.", id="a target of make"),
        pytest.param("Counts: `python -m alise_engine.api.control`.", id="a module that Python runs"),
    ],
)
def test_a_docstring_that_names_a_caller_passes(docstring: str) -> None:
    assert headers.names_a_caller(docstring, PATH, CALLERS, ["make count", "-m alise_engine.api.control"])


@pytest.mark.parametrize(
    "docstring",
    [
        pytest.param("", id="no docstring"),
        pytest.param("Counts.", id="no caller"),
        pytest.param("Counts. The API server calls it.", id="a caller that is no file"),
        pytest.param("Counts. `observer.py` calls it.", id="a file that does not call it"),
        pytest.param("Counts what `alise_engine` needs.", id="its own room"),
        pytest.param("Counts. A part of every api.", id="a plain word that is a folder's name, too"),
        pytest.param("Counts: `make other`.", id="a target that does not start it"),
        pytest.param("Counts `*` and `*.py`.", id="every file"),
    ],
)
def test_a_docstring_that_names_no_caller_is_found(docstring: str) -> None:
    assert not headers.names_a_caller(docstring, PATH, CALLERS, ["make count"])


def test_imports_are_read_in_all_their_forms() -> None:
    modules = {"a", "a.b", "a.b.c", "a.d", "e"}
    code = "import e\nfrom a import d\nfrom . import c\nfrom .c import name\nfrom ..d import name\nfrom a.b import other\nimport json\n"
    found = headers.imported(list(ast.walk(ast.parse(code))), "a/b/f.py", modules)
    assert list(found) == ["e", "a.d", "a.b.c", "a.b.c", "a.d", "a.b"]
