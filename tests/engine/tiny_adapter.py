"""A LoRA adapter with random weights for the tiny model, as PEFT saves one.

`test_lora.py`, `test_served_adapters.py` and `tests/e2e/test_adapters.py` write one.
"""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from alise_engine.serve import tiny_model

RANK: Final = 4
# Output features of the matrices that it changes, all of which read the hidden state.
_TARGETS: Final = {"q_proj": tiny_model.HEADS * tiny_model.HEAD_DIM, "v_proj": tiny_model.KV_HEADS * tiny_model.HEAD_DIM}


def write_adapter(out: Path, seed: int, rank: int = RANK) -> Path:
    """Writes the adapter into `out` (created if missing), and returns it. Its changes are about as large as the weights themselves."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(tiny_model.LAYERS):
        for target, rows in _TARGETS.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(rank, tiny_model.HIDDEN, generator=generator) / tiny_model.HIDDEN**0.5
            weights[f"{prefix}.lora_B.weight"] = torch.randn(rows, rank, generator=generator)
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": list(_TARGETS),
        "bias": "none",
    }
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out
