"""The documentation site: built strictly, complete in its folder, and its build fails for what is broken."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.docs_hooks import missing, with_folders, without_outside_links

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a folder that holds mkdocs.yml and docs/, as `make docs` does: with --quiet MkDocs would count no warning."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def swallowed(html: str) -> list[str]:
    """Returns lines of paragraphs that were meant to begin an item, a row, a heading or a block: the empty line before is missing."""
    article = re.sub(r"<pre.*?</pre>", "", html, flags=re.DOTALL)
    paragraphs = re.findall(r"<(?:p|li|td)>(.*?)</(?:p|li|td)>", article, re.DOTALL)
    return [line for text in paragraphs for line in text.split("\n")[1:] if re.match(r"\s*(\d{1,2}\. |[-*] |\||#+ |```)", line)]


@pytest.mark.process
def test_no_paragraph_of_the_site_swallows_the_item_after_it(site: Path) -> None:
    assert swallowed("<p>one\n4. two</p>") == ["4. two"]
    found = {page.name: lines for page in site.rglob("*.html") if (lines := swallowed(page.read_text(encoding="utf-8")))}
    assert found == {}


@pytest.mark.process
def test_the_site_builds_and_takes_nothing_from_the_network(site: Path) -> None:
    loaded = {
        source
        for page in site.rglob("*.html")
        for tag in re.findall(r"<(?:script|img|link|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        for source in re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', tag)
    }
    assert loaded == set()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small site with the repository's settings."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(settings[: settings.index("\nnav:")] + "\nnav: [index.md]\n", encoding="utf-8")
    (tmp_path / "tests/tools").mkdir(parents=True)
    shutil.copyfile(ROOT / "tests/tools/docs_hooks.py", tmp_path / "tests/tools/docs_hooks.py")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Home\n\nText.\n", encoding="utf-8")
    return tmp_path


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("index.md", "# Home\n\n[a page](nowhere.md)\n", "nowhere.md", id="a link to a page that does not exist"),
        pytest.param("index.md", "# Home\n\n[a part](#nowhere)\n", "nowhere", id="a link to a heading that does not exist"),
        pytest.param("index.md", "# Home\n\n[a file](../nowhere.py)\n", "nowhere.py", id="a link to a file outside that does not exist"),
        pytest.param("other.md", "# Other\n", "other.md", id="a page that the navigation does not list"),
    ],
)
def test_the_build_fails_and_names_what_is_broken(copy: Path, name: str, text: str, said: str) -> None:
    assert build(copy, copy / "site").returncode == 0
    (copy / "docs" / name).write_text(text, encoding="utf-8")
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert said in done.stderr


def test_a_folder_of_the_navigation_lists_its_pages_by_name_after_its_index(tmp_path: Path) -> None:
    (tmp_path / "adr").mkdir()
    for name in ("0002-b.md", "index.md", "0001-a.md"):
        (tmp_path / "adr" / name).touch()
    nav = ["index.md", {"Parts": [{"Decisions": "adr/"}]}]
    assert with_folders(nav, tmp_path) == [
        "index.md",
        {"Parts": [{"Decisions": ["adr/index.md", "adr/0001-a.md", "adr/0002-b.md"]}]},
    ]


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        pytest.param("see [the code](../../operator/x.py#L3).", "see the code.", id="a file outside of docs"),
        pytest.param("see [a page](../a.md).", "see [a page](../a.md).", id="a page"),
        pytest.param("see [a site](https://a.example/b).", "see [a site](https://a.example/b).", id="another site"),
        pytest.param("see [a part](#part).", "see [a part](#part).", id="a heading"),
        pytest.param("![a picture](../../x.png)", "![a picture](../../x.png)", id="a picture"),
    ],
)
def test_a_link_that_leaves_docs_becomes_its_text(markdown: str, shown: str) -> None:
    assert without_outside_links(markdown, "how-to/page.md") == shown


def test_a_link_to_a_file_outside_that_does_not_exist_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "there.py").touch()
    assert list(missing("[a](../there.py) [b](../nowhere.py) [c](page.md)", "page.md", tmp_path / "docs")) == ["../nowhere.py"]
