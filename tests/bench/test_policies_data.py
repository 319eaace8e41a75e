"""Which predictions the policy sweep takes from disk, and what its figures say of them."""

from pathlib import Path

import pytest

from tests.bench.policies import seen
from tests.bench.policies_data import kept_name
from tests.tools import encoder


@pytest.mark.parametrize("name", [pytest.param("head.py", id="in its code"), pytest.param("prior.tsv", id="in its prior")])
def test_predictions_are_made_again_after_a_change_of_the_predictor(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("one")
    before = kept_name("alpaca", 10, None, tmp_path)
    (tmp_path / name).write_text("another")
    assert kept_name("alpaca", 10, None, tmp_path) != before


def test_a_comment_or_a_docstring_of_the_predictor_costs_no_predictions(tmp_path: Path) -> None:
    (tmp_path / "head.py").write_text("def one():\n    return 1\n")
    before = kept_name("alpaca", 10, None, tmp_path)
    (tmp_path / "head.py").write_text('"""The head."""\n\n\ndef one():\n    """One."""\n    return 1  # always\n')
    assert kept_name("alpaca", 10, None, tmp_path) == before


@pytest.mark.parametrize("other", [pytest.param(None, id="none"), pytest.param(Path("/other"), id="another one")])
def test_predictions_are_made_again_with_this_encoder(tmp_path: Path, other: Path | None) -> None:
    assert kept_name("alpaca", 10, other, tmp_path) != kept_name("alpaca", 10, Path("/encoder"), tmp_path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        pytest.param(True, ", with the encoder", id="with it"),
        pytest.param(False, ", without an encoder", id="without"),
        pytest.param(None, "", id="noise sees no prompt"),
    ],
)
def test_a_figure_says_what_its_predictions_saw(told: bool | None, words: str) -> None:
    assert seen([{"encoder": told}]) == words


def test_no_encoder_is_used_or_made_where_the_user_wants_none() -> None:
    assert encoder.wanted({"ALISE_ENCODER": "none"}) is None
    assert encoder.setting(None) == ""


def test_the_encoder_that_the_user_names_is_used() -> None:
    assert encoder.wanted({"ALISE_ENCODER": "/mine"}) == Path("/mine")
