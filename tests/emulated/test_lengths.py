"""The length of an answer follows from its prompt where a file says so."""

from pathlib import Path

from tests.emulated import lengths, model
from tests.emulated.lengths import LENGTHS_ENV


def test_a_prompt_has_the_length_that_was_written_for_its_text(tmp_path: Path) -> None:
    lengths.write(tmp_path / "lengths.json", [("Why?", 12), ("How?", 40), ("Why?", 99)])
    read = lengths.read({LENGTHS_ENV: str(tmp_path / "lengths.json")})
    assert [read.get(lengths.key(tokens)) for tokens in model.chat_tokens(["How?", "Why?", "When?"])] == [40, 12, None]


def test_without_a_file_there_are_no_lengths() -> None:
    assert lengths.read({}) == {}


def test_a_chat_has_the_tokens_that_its_template_gives() -> None:
    (tokens,) = model.chat_tokens(["Why?"])
    assert len(tokens) == model.prompt_tokens(["Why?"])[0]
    assert len(set(tokens[:2] + tokens[-2:])) == 4
