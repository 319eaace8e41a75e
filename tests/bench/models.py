"""Models of the benchmarks, built once and kept in $ALISE_CACHE/models: a trained one, and one with a realistic KV cache.

`engine_quality.py`, `engine_restore.py`, `gpu_vllm.py`, `serving_processes.py` and `tests/emulated` use them.
"""

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SEED: Final = 7
CONTEXT: Final = 768
# What the trained model has never seen.
HELD_OUT: Final = ("argparse.py", "datetime.py", "heapq.py", "statistics.py", "textwrap.py", "tarfile.py")


def trained(steps: int) -> Path:
    """A byte-level Llama of 2.6 million parameters and head_dim 128, trained for `steps` steps on Python's standard library."""
    return kept(f"trained-{CONTEXT}-{steps}", lambda out: _train(out, steps))


def wide() -> Path:
    """A random bf16 Llama of 25 million parameters: 8 layers, 2 KV heads of 128 channels, 8 KiB of KV per token. Its text is noise."""
    return kept("wide-25m", _write_wide)


def eight_billion() -> Path:
    """The shape of an 8B Llama without its weights, 128 KiB of bf16 KV per token: for `load_format="dummy"`, and answers never decoded."""
    return kept("shape-8b", _write_eight_billion)


def text(held_out: bool) -> bytes:
    """The standard library's sources, or the files of it that are left out for testing."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in folder.glob("*.py") if (path.name in HELD_OUT) == held_out)
    return b"\n\n".join(path.read_bytes() for path in files)


def kept(name: str, write: Callable[[Path], None]) -> Path:
    """Returns the folder of this name, which `write` fills where it is missing."""
    cache = Path(os.environ.get("ALISE_CACHE", "~/.cache/alise")).expanduser() / "models"
    if not (cache / name).exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Written aside and moved, so that a run that was stopped leaves no incomplete folder.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            write(Path(folder) / name)
            shutil.move(Path(folder) / name, cache / name)
    return cache / name


def _config(vocab_size: int = 0, **sizes: int) -> Any:
    from transformers import LlamaConfig

    from alise_engine.serve import tiny_model

    return LlamaConfig(
        vocab_size=vocab_size or tiny_model.VOCABULARY,
        max_position_embeddings=8192,
        bos_token_id=256,
        eos_token_id=tiny_model.EOS_ID,
        **sizes,
    )


def _train(out: Path, steps: int) -> None:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(SEED)
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 128}
    model: Any = LlamaForCausalLM(_config(hidden_size=256, intermediate_size=640, **sizes))
    data = torch.frombuffer(bytearray(text(held_out=False)), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        starts = torch.randint(len(data) - CONTEXT, (4,)).tolist()
        batch = torch.stack([data[start : start + CONTEXT] for start in starts]).long()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(out)


def _write_wide(out: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    from alise_engine.serve import tiny_model

    torch.manual_seed(SEED)
    # The tokenizer, of which only the vocabulary's size matters here; then its own configuration and weights.
    tiny_model.write_model(out)
    sizes = {"num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128}
    model: Any = LlamaForCausalLM(_config(hidden_size=512, intermediate_size=1408, **sizes))
    model.to(torch.bfloat16).save_pretrained(out)


def _write_eight_billion(out: Path) -> None:
    from alise_engine.serve import tiny_model

    tiny_model.write_model(out)
    (out / "model.safetensors").unlink()
    sizes = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    config = _config(vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, **sizes)
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    config.save_pretrained(out)
