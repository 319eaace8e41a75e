"""A small Llama with random weights, so that everything runs without a model hub: `python -m alise_engine.serve.tiny_model OUT_DIR`.

Its text is noise, its scheduling is real. The weights depend on the seed alone, and are chosen so that

- attention matters: a wrong KV cache changes the greedy answer within a few tokens;
- answers are printable ASCII, so that a stream shows every token when it is generated (half a UTF-8 character is held back);
- the end of the answer is possible and rare: about one token in 200 when sampling at temperature 1.

Llama has no bias on its logits. Every embedding therefore carries the same offset vector, which the layers neither read nor write, and
which the output rows of wanted and unwanted tokens point along or against.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SEED: Final = 20_240
HIDDEN: Final = 256
LAYERS: Final = 4
HEADS: Final = 8
KV_HEADS: Final = 4
HEAD_DIM: Final = 32
INTERMEDIATE: Final = 512
MAX_POSITION: Final = 32768

BOS: Final = "<|bos|>"
EOS: Final = "<|eos|>"
SPECIALS: Final = (BOS, EOS, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
VOCABULARY: Final = 256 + len(SPECIALS)
EOS_ID: Final = 256 + SPECIALS.index(EOS)

CHAT_TEMPLATE: Final = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, in the order of the bytes (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [table[byte] for byte in range(256)]


def build_tokenizer() -> Tokenizer:
    """One token per byte, then the specials."""
    vocabulary = {character: index for index, character in enumerate(byte_alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    return tokenizer


def build_weights(seed: int) -> dict[str, torch.Tensor]:
    """bf16 tensors under the names of a Hugging Face Llama checkpoint."""
    generator = torch.Generator().manual_seed(seed)

    offset = torch.randn(HIDDEN, generator=generator)
    offset /= offset.norm()

    def matrix(rows: int, columns: int, gain: float) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * (gain / math.sqrt(columns))

    def reads(rows: int, gain: float) -> torch.Tensor:
        weight = matrix(rows, HIDDEN, gain)
        return weight - (weight @ offset).outer(offset)

    def writes(columns: int, gain: float) -> torch.Tensor:
        weight = matrix(HIDDEN, columns, gain)
        return weight - offset.outer(offset @ weight)

    weights = {
        "model.embed_tokens.weight": torch.randn(VOCABULARY, HIDDEN, generator=generator) + offset * math.sqrt(HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": reads(VOCABULARY, 2.0) + _leaning().outer(offset),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        # Sharp attention: queries and keys with a gain far above one.
        weights[f"{prefix}.self_attn.q_proj.weight"] = reads(HEADS * HEAD_DIM, 4.0)
        weights[f"{prefix}.self_attn.k_proj.weight"] = reads(KV_HEADS * HEAD_DIM, 4.0)
        weights[f"{prefix}.self_attn.v_proj.weight"] = reads(KV_HEADS * HEAD_DIM, 1.5)
        weights[f"{prefix}.self_attn.o_proj.weight"] = writes(HEADS * HEAD_DIM, 1.5)
        weights[f"{prefix}.mlp.gate_proj.weight"] = reads(INTERMEDIATE, 1.0)
        weights[f"{prefix}.mlp.up_proj.weight"] = reads(INTERMEDIATE, 1.0)
        weights[f"{prefix}.mlp.down_proj.weight"] = writes(INTERMEDIATE, 1.0)
        weights[f"{prefix}.input_layernorm.weight"] = torch.ones(HIDDEN)
        weights[f"{prefix}.post_attention_layernorm.weight"] = torch.ones(HIDDEN)
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}


def _leaning() -> torch.Tensor:
    """How far each token's output row points along the offset: printable ASCII and the end are possible, all else is not."""
    leaning = torch.full((VOCABULARY,), -4.0)
    leaning[0x20:0x7F] = 0.0
    leaning[EOS_ID] = 0.0
    return leaning


def write_model(out: Path, seed: int = SEED) -> Path:
    """Writes the checkpoint, the tokenizer and their configuration into `out` (created if missing), and returns it."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(build_weights(seed), out / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes it readable for its owner only, and another user serves the model (root builds the image, 65532 runs it).
    (out / "model.safetensors").chmod(0o644)
    build_tokenizer().save(str(out / "tokenizer.json"))
    files: dict[str, dict[str, object]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITION,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": 256 + SPECIALS.index(BOS),
            "eos_token_id": EOS_ID,
        },
        "generation_config.json": {"bos_token_id": 256 + SPECIALS.index(BOS), "eos_token_id": EOS_ID, "do_sample": True},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "model_max_length": MAX_POSITION,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {"bos_token": BOS, "eos_token": EOS},
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a small random-weight Llama that vllm can serve without a network.")
    parser.add_argument("out_dir", type=Path, help="Folder to write the model to; created if it does not exist.")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    print(write_model(arguments.out_dir, arguments.seed))


if __name__ == "__main__":
    main()
