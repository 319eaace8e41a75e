"""What the figures of the house count (`make bench-house`), on small cases."""

import ast

import pytest

from tests.bench import house
from tests.bench.harness import Row, Settings
from tests.tools.house import dead, imports, links, prose
from tests.tools.house.figures import FINDINGS, REMEDIES, predictor_lines, product_lines
from tests.tools.house.tree import ROOMS, TOOLS


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("The pod told the operator.", ["told"], id="a word of the lexicon"),
        pytest.param("Nobody waits.", ["Nobody"], id="at the beginning of a sentence"),
        pytest.param("The field `told` counts.", [], id="code is no prose"),
        pytest.param("The rollout made no progress.", [], id="English that means what it says"),
        pytest.param("Of all requests, most wait.", ["Of all requests,"], id="a fronted part"),
        pytest.param("Of course, it waits.", [], id="no fronted part"),
        pytest.param("The step is over.", ["is over"], id="an end"),
        pytest.param("A tenant that is over its share waits.", [], id="no end"),
        pytest.param("Alone to read the clock.", ["Alone to"], id="a sentence without a verb"),
    ],
)
def test_words_of_the_lexicon_in_a_line(line: str, words: list[str]) -> None:
    assert prose.words_in(line) == words


def test_docstrings_and_single_words_are_no_sentences() -> None:
    module = ast.parse('"""A docstring of words."""\nNAME = "word"\nprint("two words")\n')
    assert list(prose.sentences(list(ast.walk(module)))) == [(3, "two words")]


def test_comments_and_docstrings_are_notes_and_other_strings_are_none() -> None:
    code = (
        '"""First.\n\nSecond.\n"""\n\nSQL = """\nselect\n"""\n\n\ndef one() -> None:\n    """One."""\n    x = 1  # a count\n    # alone\n'
    )
    assert [note for _, note in prose.notes_of(code) if note] == ["First.", "Second.", "One.", "a count", "alone"]


def test_code_tables_comments_and_pictures_are_no_prose() -> None:
    markdown = "# Title\n\n| a | b |\n<!-- note -->\n![x](y.png)\n```\ncode\n```\ntext\n"
    assert [line for _, line in prose.prose_of(markdown) if line] == ["# Title", "text"]


def test_a_circle_is_named_in_the_direction_of_its_imports() -> None:
    found = imports.circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert " imports ".join(found) in {
        "a imports b imports c imports a", "b imports c imports a imports b", "c imports a imports b imports c",
    }  # fmt: skip


def test_every_package_is_searched_for_circles() -> None:
    assert {module.partition(".")[0] for module in imports.imports()} == {*ROOMS, *TOOLS}


def test_headings_have_the_anchors_of_github_and_of_mkdocs() -> None:
    assert {"apis-and-keys", "route-in-the-cluster"} <= links.anchors_of("# APIs and keys\n\n## `Route` in the cluster\n")
    assert {"a--b", "a-b"} <= links.anchors_of("# A & B\n")


# It parses the whole tree.
@pytest.mark.process
def test_an_exception_of_the_dead_names_is_still_one() -> None:
    unused = {one.key for one in dead.unused()}
    assert sorted(set(dead.EXCEPTIONS) - unused) == []


@pytest.mark.parametrize("figure", ["lexicon_hits", "prose_lines_over_100", "docs_broken_links", "import_circles", "files_over_400_lines"])
def test_what_the_figure_counts_is_not_there(figure: str) -> None:
    found = [str(one) for one in FINDINGS[figure]()]
    assert found == [], f"{REMEDIES[figure]}; .venv/bin/python -m tests.tools.house {figure} lists them"


def test_the_figures_are_those_of_the_house_and_each_row_is_one() -> None:
    rows: list[Row] = [{"figure": name, "value": 0} for name in (*FINDINGS, "predictor_lines", "product_lines", "readme_lines")]
    found = house.figures(rows, Settings(quick=True, seeds=1, dataset=None))
    assert {figure.name: figure.goal for figure in found} == {
        **dict.fromkeys(FINDINGS, 0.0),
        "predictor_lines": 2000.0,
        "product_lines": None,
        "readme_lines": 90.0,
    }


def test_the_predictor_is_a_part_of_the_product() -> None:
    assert 0 < predictor_lines() < product_lines()
