"""The model that an emulated device serves: a configuration and a tokenizer, no weights.

The tokenizer is a byte-level BPE trained on Python's own documentation, so that an English prompt has about as many tokens as with a real
model's (a token per byte would fill the KV cache with prompts). It is built once and kept in $ALISE_CACHE/models. `launch.py` and
`worker.py` read it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import models

# The KV cache is described as layers of 8 heads of 128 channels, as many as make up the device's bytes per token.
HEADS: Final = 8
HEAD_DIM: Final = 128
VOCABULARY: Final = 8192
MAX_POSITION: Final = 131_072


def folder() -> Path:
    """Returns the model's folder, which is built if it is missing."""
    # Another Python has another documentation.
    return models.kept(f"emulated-{VOCABULARY}-{sys.version_info[0]}.{sys.version_info[1]}", write)


def prompt_tokens(texts: Sequence[str]) -> list[int]:
    """Returns how many tokens each text has as a chat's only message."""
    return [len(tokens) for tokens in chat_tokens(texts)]


def chat_tokens(texts: Sequence[str]) -> list[list[int]]:
    """Returns the tokens of each text as a chat's only message, as the server has them."""
    from jinja2 import Template
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    template = Template(json.loads((folder() / "tokenizer_config.json").read_text())["chat_template"])
    chats = [template.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True) for text in texts]
    return [list(encoding.ids) for encoding in tokenizer.encode_batch(chats, add_special_tokens=False)]


def write(out: Path) -> None:
    """Writes configuration and tokenizer."""
    from alise_engine.serve import tiny_model

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = trained_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    bos, eos = tokenizer.token_to_id(tiny_model.BOS), tokenizer.token_to_id(tiny_model.EOS)
    files: dict[str, dict[str, object]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float16",
            "vocab_size": VOCABULARY,
            "hidden_size": HEADS * HEAD_DIM,
            "intermediate_size": HEADS * HEAD_DIM,
            "num_hidden_layers": 1,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITION,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "bos_token_id": bos,
            "eos_token_id": eos,
        },
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": eos},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tiny_model.BOS,
            "eos_token": tiny_model.EOS,
            "model_max_length": MAX_POSITION,
            "clean_up_tokenization_spaces": False,
            "chat_template": tiny_model.CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {"bos_token": tiny_model.BOS, "eos_token": tiny_model.EOS},
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n")


def trained_tokenizer() -> Any:
    """Returns a byte-level BPE of English prose and some source code."""
    from pydoc_data import topics

    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers import models as kinds

    from alise_engine.serve import tiny_model

    tokenizer = Tokenizer(kinds.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(tiny_model.SPECIALS),
        initial_alphabet=tiny_model.byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(topics.topics.values()), trainer)
    return tokenizer
