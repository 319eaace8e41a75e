"""Our word pieces are the library's."""

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from alise_scheduler.predictor.models.wordpiece import Vocabulary

_CHARS = string.ascii_lowercase + string.digits + string.punctuation + "äéßñ日本"
_PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *_CHARS,
    *(f"##{char}" for char in _CHARS),
    "the",
    "write",
    "##ing",
    "##er",
    "essay",
    "un",
    "##able",
    "2026",
]
PIECES = list(dict.fromkeys(_PIECES))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return Vocabulary(path)


@pytest.fixture(scope="module")
def theirs() -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Write the essay, unwritable in 2026!", id="words, punctuation, numbers"),
        pytest.param("Ärger über É and ñ", id="accents are taken off"),
        pytest.param("日本 writer", id="each ideograph is a word"),
        pytest.param("a" * 101 + " the", id="a word over 100 characters is unknown"),
        pytest.param("tab\tline\nnull\x00end\u200b", id="control characters and odd spaces"),
        pytest.param("", id="nothing"),
        pytest.param("😀 the", id="a character without a piece"),
    ],
)
def test_a_text_has_the_librarys_pieces(ours: Vocabulary, theirs: Tokenizer, text: str) -> None:
    assert ours.ids(text) == theirs.encode(text, add_special_tokens=False).ids


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from(_CHARS + string.ascii_uppercase + " \n\t"), max_size=60))
def test_any_text_of_known_characters_has_the_librarys_pieces(ours: Vocabulary, theirs: Tokenizer, text: str) -> None:
    assert ours.ids(text) == theirs.encode(text, add_special_tokens=False).ids
