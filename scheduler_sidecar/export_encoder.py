"""Turns the weights of a BERT-family sentence encoder into `encoder.onnx` (INT8) and `vocab.txt`: the folder that ALISE_ENCODER names.

    python export_encoder.py OUT_DIR --source FOLDER [--layers N] [--prompts FILE]

The build of the scheduler's image runs it (Dockerfile), and so do tests and `make serve` (tests/tools/encoder.py); after an edit both make
the folder again, which takes a minute.

FOLDER has config.json, model.safetensors and vocab.txt, as the Hugging Face hub lays them out and `fetch_encoder.py` fetches them. The
graph is written by hand from the weights, with onnxruntime's fused operators, so that neither the image nor its build needs torch. In:
`input_ids`, int32 [B, S], texts of the same number of tokens, without padding. Out: `embedding`, float32 [B, H], of length 1: the mean over
the tokens, as sentence-transformers has it.

With prompts (lines of `tokens<TAB>prompt`), neurons that the result can do without on these are left out (`narrow_encoder.py`).

The first LAYERS layers are taken. The last ones make paraphrases similar, which costs a third of the time and some of what says how long an
answer will be (ADR 13 has the measurement).
"""

import argparse
import json
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import QuantType, quantize_dynamic

from alise_scheduler.predictor.models.wordpiece import Vocabulary
from alise_scheduler.predictor.training.prior_lines import read_lines
from narrow_encoder import KEPT, narrow

OPSET, MICROSOFT = 17, "com.microsoft"
LAYERS = 4
# Every fourth prompt is looked at, and of it the first tokens, as many as `encoder.py` takes at most.
PROMPTS_APART, PROMPT_TOKENS = 4, 94

Weights = Mapping[str, NDArray[np.float32]]


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a safetensors file: a length, a JSON table of names, types, shapes and offsets, then the bytes."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    table = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, entry in table.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data, np.float32, (end - start) // 4, 8 + size + start).reshape(entry["shape"])
    return tensors


def build(weights: Weights, config: Mapping[str, Any], layers: int, seen: Sequence[str] = ()) -> onnx.ModelProto:
    """The first layers of the encoder as an ONNX model in float32, with `seen` as its outputs if there are any. Raises KeyError when a
    tensor of a BERT is not there."""
    nodes: list[onnx.NodeProto] = []
    held: dict[str, onnx.TensorProto] = {}

    def const(name: str, value: NDArray[Any] | None = None) -> str:
        held[name] = numpy_helper.from_array(np.ascontiguousarray(weights[name] if value is None else value), name)
        return name

    def add(op: str, inputs: list[str], output: str, domain: str = "", extra: int = 0, **attributes: Any) -> str:
        outputs = [output, *(f"{output}.{number}" for number in range(extra))]
        nodes.append(helper.make_node(op, inputs, outputs, name=output, domain=domain, **attributes))
        return output

    epsilon = float(config["layer_norm_eps"])
    words = const("embeddings.word_embeddings.weight")
    # All is of the first segment.
    places = const("places", weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0])
    norm = [const("embeddings.LayerNorm.weight"), const("embeddings.LayerNorm.bias")]
    hidden = add("EmbedLayerNormalization", ["input_ids", "", words, places, "", *norm], "embedded", MICROSOFT, 1, epsilon=epsilon)
    for layer in range(min(layers, int(config["num_hidden_layers"]))):
        at = f"encoder.layer.{layer}."
        parts = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        joined = const(f"{at}qkv.weight", np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1))
        bias = const(f"{at}qkv.bias", np.concatenate([weights[f"{part}.bias"] for part in parts]))
        heads = int(config["num_attention_heads"])
        heard = add("Attention", [hidden, joined, bias], f"{at}attention", MICROSOFT, num_heads=heads)
        for kind, inner in (("attention.output", heard), ("output", "")):
            if not inner:
                wide = add("MatMul", [hidden, const(f"{at}wide", weights[f"{at}intermediate.dense.weight"].T)], f"{at}wide.out")
                inner = add("BiasGelu", [wide, const(f"{at}intermediate.dense.bias")], f"{at}gelu", MICROSOFT)
            out = add("MatMul", [inner, const(f"{at}{kind}.matrix", weights[f"{at}{kind}.dense.weight"].T)], f"{at}{kind}.out")
            # Not SkipLayerNormalization: onnxruntime's takes five times as long on a CPU as these three (1.30, 16 tokens).
            out = add("Add", [out, const(f"{at}{kind}.dense.bias")], f"{at}{kind}.biased")
            out = add("Add", [out, hidden], f"{at}{kind}.sum")
            rest = [const(f"{at}{kind}.LayerNorm.weight"), const(f"{at}{kind}.LayerNorm.bias")]
            hidden = add("LayerNormalization", [out, *rest], f"{at}{kind}.norm", axis=-1, epsilon=epsilon)
    add("ReduceSum", [hidden, const("tokens", np.array([1], np.int64))], "summed", keepdims=0)
    # A vector of length 1 does not care what it was divided by before: the sum will do for the mean.
    add("LpNormalization", ["summed"], "embedding", axis=1, p=2)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "tokens"])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", int(config["hidden_size"])])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", None]) for name in seen] or [embedding]
    graph = helper.make_graph(nodes, "encoder", [ids], outputs, list(held.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def narrowed(weights: Weights, config: Mapping[str, Any], layers: int, prompts: Sequence[Sequence[int]]) -> Weights:
    """The weights without the neurons that can be done without on these prompts, token ids each. Raises ValueError for another number
    of layers than is known of how many neurons they can do without."""
    taken = min(layers, int(config["num_hidden_layers"]))
    if taken != len(KEPT):
        raise ValueError(f"neurons are left out of {len(KEPT)} layers, not of {taken}: go without --prompts")

    def look(held: Weights, names: Sequence[str]) -> list[NDArray[np.float32]]:
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = build(held, config, layers, names).SerializeToString()
        session = InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"])
        told = [session.run(list(names), {"input_ids": np.array([ids], np.int32)}) for ids in prompts]
        return [np.concatenate([part[0] for part in parts]) for parts in zip(*told, strict=True)]

    return narrow(weights, look)


def export(source: Path, out: Path, layers: int = LAYERS, prompts: Path | None = None) -> None:
    """Writes encoder.onnx and vocab.txt into `out`. Raises ValueError when the source is not a BERT or neurons cannot be left out of it,
    OSError when a file is not there."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ValueError(f"{source}/config.json has model_type {config.get('model_type')!r}; only BERT encoders with GELU can be exported")
    weights: Weights = read_safetensors(source / "model.safetensors")
    if prompts is not None:
        words = Vocabulary(source / "vocab.txt")
        texts = [line.text for line in read_lines(prompts.read_text(encoding="utf-8"))[::PROMPTS_APART]]
        weights = narrowed(weights, config, layers, [[words.cls, *words.ids(text)[:PROMPT_TOKENS], words.sep] for text in texts])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(build(weights, config, layers), plain)
        # Seven bits for weights: with eight, processors without VNNI saturate.
        types = {"DefaultTensorType": TensorProto.FLOAT}
        made = out / "encoder.onnx"
        quantize_dynamic(plain, made, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True, extra_options=types)
    shutil.copyfile(source / "vocab.txt", out / "vocab.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exports a sentence encoder to ONNX INT8.")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--source", type=Path, required=True, help="folder with config.json, model.safetensors, vocab.txt")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"how many of its layers, from the first (default {LAYERS})")
    parser.add_argument("--prompts", type=Path, help="lines of `tokens<TAB>prompt`; without them, no neuron is left out")
    arguments = parser.parse_args()
    export(arguments.source, arguments.out, arguments.layers, arguments.prompts)


if __name__ == "__main__":
    main()
