"""The pages that are written by hand name what exists: fields, commands, metrics, settings, files and messages."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from alise_operator.children import children
from alise_operator.crd import custom_resource_definition
from alise_operator.reasons import ROUTE, TROUBLES, UNAPPLIED
from alise_operator.rules import check
from alise_operator.spec import parse
from tests.bench.__main__ import ON_REQUEST, SUITES
from tests.operator.builders import CURRENT, OWNER
from tests.tools.house import tree

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
# Generated pages, records of the past and notes of experiments speak of other things.
LEFT_OUT: Final = ("reference", "adr", "research")
PAGES: Final = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in LEFT_OUT)]
# Top-level folders of the repository; a path below one of them is checked.
_PATH: Final = re.compile(r"(?:manifests|tests|operator|scheduler_sidecar|engine_image)/[\w./-]+")
_PROGRAMS: Final = ("kubectl ", "curl ", "make ", "pytest ", "vllm ", "alise-", ".venv")
# A part of a message that is shorter says nothing.
_SHORT: Final = 10


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yields the fenced blocks of a language, without their indentation."""
    text = page.read_text(encoding="utf-8")
    for indent, body in re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)


def code_spans(page: Path) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands(page: Path) -> str:
    """Everything on the page that could be typed: blocks without a language, and code in sentences."""
    return "\n".join([*blocks(page, ""), *code_spans(page)])


def resources() -> Iterator[Any]:
    """Yields (page, spec) for each AliseEngine on a page, and for each part of one, which begins with `spec:`."""
    for page in PAGES:
        here_documents = [text for block in blocks(page, "") for text in re.findall(r"<<END\n(.*?)^END$", block, re.MULTILINE | re.DOTALL)]
        for text in [*blocks(page, "yaml"), *here_documents]:
            found = yaml.safe_load(text)
            # A part of another program's configuration may be a list.
            if isinstance(found, dict) and (found.get("kind") == "AliseEngine" or set(found) == {"spec"}):
                spec = {"model": {"uri": "Qwen/Qwen3-4B"}} | found["spec"]
                yield pytest.param(spec, id=f"{name_of(page)}: {', '.join(found['spec'])}")


@pytest.mark.parametrize("raw", list(resources()))
def test_the_operator_accepts_a_resource_on_a_page(raw: dict[str, Any]) -> None:
    spec = parse(raw)
    check(spec, OWNER.name)
    assert children(spec, OWNER, CURRENT)


@cache
def fields() -> frozenset[str]:
    """Paths of all fields below `spec`, without the brackets of lists. What is below a part of a pod is Kubernetes' own."""

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        for key, child in node.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            yield here
            yield from walk(child.get("items", child), here)

    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return frozenset(walk(schema, ""))


def is_field(path: str) -> bool:
    """Whether the path, or the part of it that is not Kubernetes' own, is a field; parts may be left out at its beginning."""
    known = fields()
    whole = {name for field in known for name in (field, *(field.split(".", cut)[-1] for cut in (1, 2)))}
    opened = ("podTemplate", "resources", "networkPolicy", "valueFrom")
    return path in whole or any(part in opened for part in path.split(".")[:-1])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_field_on_a_page_is_a_field_of_the_resource(page: Path) -> None:
    tops = {field.partition(".")[0] for field in fields()}
    found = set()
    for span in code_spans(page):
        path = re.split(r"[ :=]", span, maxsplit=1)[0].replace("[]", "").removeprefix("spec.")
        is_file = re.search(r"\.(?:py|md|yaml|proto|toml)$", path)
        if not is_file and re.fullmatch(r"[a-z]\w*(?:\.\w+)+", path) and (path.partition(".")[0] in tops or span.startswith("spec.")):
            found.add(path)
    assert sorted(path for path in found if not is_field(path)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_on_a_page_is_one_of_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    targets |= {f"bench-{name}" for name in SUITES | ON_REQUEST}
    named = set(re.findall(r"(?:^|&& )(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", commands(page), re.MULTILINE))
    assert sorted(named - targets) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_metric_and_setting_on_a_page_is_in_the_reference(page: Path) -> None:
    reference = "".join((DOCS / "reference" / name).read_text(encoding="utf-8") for name in ("metrics.md", "settings.md"))
    known = set(re.findall(r"alise_(?:engine|scheduler|operator)_\w+|ALISE_\w+", reference)) | {"ALISE_CACHE", "ALISE_DATA"}
    named = set(re.findall(r"(?<![\w/])(alise_(?:engine|scheduler|operator)_[a-z_]+|ALISE_[A-Z_]+)(?![\w*./(])", commands(page)))
    assert sorted(name for name in named if name not in known and not any(one.startswith(f"{name}_") for one in known)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_on_a_page_exists(page: Path) -> None:
    named = {path.rstrip("./") for text in (*code_spans(page), *blocks(page, "")) for path in _PATH.findall(text)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_on_a_page_can_be_run(page: Path) -> None:
    named = set(re.findall(r"python3? -m ((?:alise_|tests\.)[\w.]+)", commands(page)))
    assert sorted(name for name in named if importlib.util.find_spec(name) is None) == []


@cache
def sentences() -> str:
    """Everything that the product can say: its strings, with … for each value that is filled in."""
    found = []
    for path in tree.product_and_tools():
        for node in tree.nodes(path):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[.\d]*[sdf]", "…", node.value))
    return "\n".join(" ".join(one.split()) for one in found)


def quoted(page: Path) -> Iterator[str]:
    """Messages that a page quotes: lines of `text` blocks, and code with several words that is no command."""
    for block in blocks(page, "text"):
        yield from block.splitlines()
    for span in code_spans(page):
        is_command = span.startswith(_PROGRAMS) or re.search(r"--\w|[=:] |\{", span)
        if span.count(" ") > 2 and not is_command:
            yield span


def test_every_message_that_troubleshooting_quotes_is_one_of_ours() -> None:
    said = sentences()
    parts = {part.strip() for message in quoted(DOCS / "troubleshooting.md") for part in message.split("…")}
    unknown = sorted(part for part in parts if len(part) >= _SHORT and part not in said)
    assert unknown == [], "no string of the product has them: write … for what changes, and where the code joins two strings"


def test_troubleshooting_has_every_reason_of_degraded() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    names = [reason.name for reason in (*UNAPPLIED, *ROUTE, *TROUBLES)]
    missing = [name for name in names if f"`{name}`" not in text and f" {name}`" not in text]
    assert missing == [], "describe them in docs/troubleshooting.md"


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_continuous_integration_runs_what_the_readme_calls_the_test_command() -> None:
    (command,) = re.findall(r"^exec (.*)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(rf"^{re.escape(command)} +# all tests", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
