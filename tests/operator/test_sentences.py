"""A text that another condition has in full is repeated if it is short; else its first clause and where the rest is."""

import pytest

from alise_operator.sentences import gist

SEE = "see the condition Degraded"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        pytest.param([], "", id="nothing to repeat"),
        pytest.param(["no image; check its name"], "no image; check its name", id="a short text"),
        pytest.param(["no image; check its name, " + "or " * 50], f"no image; {SEE}", id="a long text"),
        pytest.param(["no image", "no node " * 20], f"no image; {SEE}", id="several parts"),
        pytest.param(["no image. Check its name, " + "or " * 50], f"no image; {SEE}", id="a text of several sentences"),
        pytest.param(["no image (a; b), alas; " + "or " * 50], f"no image (a; b), alas; {SEE}", id="a semicolon in parentheses"),
        pytest.param(["wor d" * 30 + "."], "wor d" * 30 + ".", id="one clause, which has no rest"),
        pytest.param(["no image.", "no node " * 20], f"no image; {SEE}", id="a part that ends like a sentence"),
        pytest.param(["word " * 60], f"{('word ' * 40).rstrip()}…; {SEE}", id="a long clause"),
        pytest.param(["x" * 300], f"{'x' * 200}…; {SEE}", id="a long word"),
    ],
)
def test_a_text_that_stands_elsewhere_is_repeated_by_its_first_clause(parts: list[str], text: str) -> None:
    assert gist(parts, SEE) == text
