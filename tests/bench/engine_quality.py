"""What INT8 does to a model that was really trained: next-token distributions after n preemptions, against those without any.

Teacher-forced on text that the model has not seen. A preemption sends all blocks that the host does not have yet through the codec and
back, as the engine does: complete blocks once, the last one each time. Rows are sums over one window, so that every figure can be
computed from them. `engine.py` runs it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.bench import models
from tests.bench.harness import Figure, Row, Settings

BLOCK_SIZES: Final = (32, 64, 128)
PREEMPTIONS: Final = (1, 4, 16)
# The block size and the preemptions that the figures are of.
SHOWN: Final = (128, 4)
_TRAINING_STEPS: Final = (150, 600)


def measure(settings: Settings) -> Iterator[Row]:
    """One row per window, block size and number of preemptions."""
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    model: Any = LlamaForCausalLM.from_pretrained(models.trained(_TRAINING_STEPS[not settings.quick]), dtype=torch.float32).eval()
    unseen = models.text(held_out=True)
    windows = 6 if settings.quick else 32
    with torch.inference_mode():
        for window in range(windows):
            start = window * (len(unseen) - models.CONTEXT) // windows
            tokens = torch.tensor(list(unseen[start : start + models.CONTEXT]))[None]
            for count in PREEMPTIONS:
                cuts = [models.CONTEXT * (number + 1) // (count + 1) for number in range(count)]
                exact = _logits(model, tokens, cuts, None)
                for block_size in BLOCK_SIZES:
                    rounded = _logits(model, tokens, cuts, block_size)
                    yield {"window": window, "preemptions": count, "block_size": block_size, **_compare(exact, rounded, tokens, cuts[0])}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Over all tokens behind the first preemption."""
    import math

    def total(column: str, block_size: int, preemptions: int) -> float:
        return float(sum(row[column] for row in rows if (row["block_size"], row["preemptions"]) == (block_size, preemptions)))

    def change_pct(block_size: int, preemptions: int) -> float:
        more = total("rounded_nats", block_size, preemptions) - total("exact_nats", block_size, preemptions)
        return (math.exp(more / total("tokens", block_size, preemptions)) - 1) * 100

    worst = max((change_pct(SHOWN[0], count) for count in PREEMPTIONS), key=abs)
    found = [
        Figure("int8_perplexity_change_pct", abs(worst), "%", "lower", goal=0.1),
        Figure("model_perplexity", math.exp(total("exact_nats", *SHOWN) / total("tokens", *SHOWN)), "per byte", "lower"),
        Figure("int8_token_agreement_pct", 100 * total("agreeing", *SHOWN) / total("tokens", *SHOWN), "%", "higher"),
    ]
    for block_size in BLOCK_SIZES:
        kl = total("kl_nats", block_size, SHOWN[1]) / total("tokens", block_size, SHOWN[1])
        found.append(Figure(f"int8_kl_block_{block_size}_micronats", kl * 1e6, "1e-6 nats", "lower"))
    return found


def plot(rows: Sequence[Row], axes: Any) -> None:
    """KL divergence by block size, a line per number of preemptions."""
    for count in PREEMPTIONS:
        chosen = [[row for row in rows if (row["block_size"], row["preemptions"]) == (size, count)] for size in BLOCK_SIZES]
        kl = [sum(row["kl_nats"] for row in some) / sum(row["tokens"] for row in some) for some in chosen]
        axes.plot(BLOCK_SIZES, kl, marker="o", label=f"{count} preemptions")
    axes.set(
        xlabel="block size (tokens per key scale)", ylabel="KL, nats per token", title="INT8 against the exact cache", xticks=BLOCK_SIZES
    )
    axes.legend()


def _logits(model: Any, tokens: Any, cuts: list[int], block_size: int | None) -> Any:
    """`[tokens, vocabulary]`, preempted at the cuts; the cache goes through INT8 unless `block_size` is None."""
    import torch
    from transformers import DynamicCache

    cache, parts, start, saved_blocks = DynamicCache(), [], 0, 0
    for end in [*cuts, tokens.shape[1]]:
        parts.append(model(tokens[:, start:end], past_key_values=cache, use_cache=True).logits[0])
        if block_size is not None and end < tokens.shape[1]:
            for layer in cache.layers:
                _through_int8(layer.keys, layer.values, saved_blocks, block_size)
            saved_blocks = end // block_size
        start = end
    return torch.cat(parts)


def _through_int8(keys: Any, values: Any, first_block: int, block_size: int) -> None:
    """In place, from that block on: `[1, heads, tokens, head_dim]`."""
    import torch

    from alise_engine.kv.int8 import INT8, KeyLayout, LayerShape

    first = first_block * block_size
    both = torch.cat([keys, values], dim=3)[0, :, first:]
    tokens, blocks = both.shape[1], -(-both.shape[1] // block_size)
    padded = torch.nn.functional.pad(both, (0, 0, 0, blocks * block_size - tokens))
    layer = padded.unflatten(1, (blocks, block_size)).transpose(0, 1).contiguous()
    shape = LayerShape(keys.shape[1], block_size, keys.shape[3], keys.dtype, KeyLayout.PER_TOKEN)
    index, rows = torch.arange(blocks), torch.empty(blocks, INT8.row_bytes(shape), dtype=torch.uint8)
    INT8.encode(layer, index, shape, tokens, rows)
    INT8.decode(rows, layer, index, shape)
    restored = layer.transpose(0, 1).flatten(1, 2)[:, :tokens]
    keys[0, :, first:], values[0, :, first:] = restored.chunk(2, dim=2)


def _compare(exact: Any, rounded: Any, tokens: Any, first: int) -> Row:
    """Sums over the tokens that are predicted behind the first preemption."""
    ours, theirs = (logits[first:-1].log_softmax(1) for logits in (rounded, exact))
    said = tokens[0, first + 1 :, None]
    return {
        "tokens": len(said),
        "exact_nats": -float(theirs.gather(1, said).sum()),
        "rounded_nats": -float(ours.gather(1, said).sum()),
        "kl_nats": float((theirs.exp() * (theirs - ours)).sum()),
        "agreeing": int((ours.argmax(1) == theirs.argmax(1)).sum()),
    }
