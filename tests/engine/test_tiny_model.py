"""The model that everything runs on when there is no model hub."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from alise_engine.serve import tiny_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_model(tmp_path_factory.mktemp("tiny"))


def test_the_same_seed_writes_the_same_bytes(model_dir: Path, tmp_path: Path) -> None:
    again = tiny_model.write_model(tmp_path)
    for file in sorted(model_dir.iterdir()):
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_seed_writes_other_weights(model_dir: Path, tmp_path: Path) -> None:
    other = tiny_model.write_model(tmp_path, seed=tiny_model.SEED + 1)
    assert (other / "model.safetensors").read_bytes() != (model_dir / "model.safetensors").read_bytes()


def test_every_text_survives_the_tokenizer() -> None:
    tokenizer = tiny_model.build_tokenizer()
    text = "Hello, wörld!\n\t数 \x00 end"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_token_is_a_byte_and_specials_are_one_token() -> None:
    encoded = tiny_model.build_tokenizer().encode("<|user|>aé<|end|>")
    assert encoded.ids == [256 + tiny_model.SPECIALS.index("<|user|>"), ord("a"), *"é".encode(), 256 + tiny_model.SPECIALS.index("<|end|>")]


def test_the_chat_template_ends_where_the_assistant_begins(model_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=False)
    assert text == "<|bos|><|user|>hi<|end|><|assistant|>"


def test_no_weight_is_infinite_and_all_shapes_are_a_llamas(model_dir: Path) -> None:
    weights = load_file(model_dir / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert weights["model.embed_tokens.weight"].shape == (tiny_model.VOCABULARY, tiny_model.HIDDEN)
    assert weights["model.layers.3.self_attn.k_proj.weight"].shape == (tiny_model.KV_HEADS * tiny_model.HEAD_DIM, tiny_model.HIDDEN)


def test_the_weights_can_be_read_by_whoever_serves_them(model_dir: Path) -> None:
    assert (model_dir / "model.safetensors").stat().st_mode & 0o444 == 0o444
