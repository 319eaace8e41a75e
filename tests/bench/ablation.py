"""What each layer of the predictor is worth: the same rows, predicted with one layer turned off at a time.

`python -m tests.bench ablation` with DATASET naming the folder of alpaca.parquet and sharegpt.parquet. ShareGPT is predicted row by row
from a cold start, and the last half counts. On Alpaca, 10,000 rows train one head, and the last 5,000 are predicted row by row and learned
as they end. LAYERS names some of the layers (commas between them), DATA one of the sets. SIMULATE=0 leaves the simulator out.

Runs are kept in bench-results/ablation/ and not repeated while the predictor's sources stay as they are.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from alise_scheduler.core.lengths import Floats
from alise_scheduler.predictor.features.request import extract
from alise_scheduler.predictor.features.row import ModelInput
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.models.encoder import MODEL_FILE, OnnxEncoder
from alise_scheduler.predictor.models.prior import Prior, from_bytes
from alise_scheduler.predictor.training import prior_fit
from alise_simulator.hardware import engine_model
from alise_simulator.run import simulate
from tests.bench import gain
from tests.bench.ablation_layers import LAYERS, PREDICTOR, code_lines, turned_off
from tests.bench.gain_systems import ALISE, Predicted, system
from tests.bench.harness import RESULTS, Figure, Row, Settings, present
from tests.bench.policies_data import as_trace
from tests.bench.predictor import COUNTED, Example, Learned, prequential, question, read
from tests.bench.predictor_scores import kendall
from tests.tools import encoder as encoders
from tests.tools.sources import digest

KEPT: Final = RESULTS / "ablation"
DATA: Final = ("sharegpt", "alpaca")
# The most rows that Alpaca's head is trained on.
WARM_ROWS: Final = 10_000
CELLS: Final = (("h100-qwen3-32b", "sharegpt"), ("slots32", "alpaca"))
LOAD: Final = 1.0
WINDOW_SECONDS: Final = 300.0
# Predictions whose time is measured, after all rows.
_TIMED: Final = 400
_DRAWS: Final = 200


def measure(settings: Settings) -> Iterator[Row]:
    """Yields a row for each set and layer, and one for each simulated cell and layer. Raises SystemExit without the data sets."""
    if settings.dataset is None or not settings.dataset.is_dir():
        raise SystemExit("set DATASET to a folder with alpaca.parquet and sharegpt.parquet: layers are measured on real answers")
    KEPT.mkdir(parents=True, exist_ok=True)
    names = [name for name in os.environ.get("LAYERS", "").split(",") if name] or list(LAYERS)
    chosen = [os.environ["DATA"]] if os.environ.get("DATA") else DATA
    for path in present(settings.dataset, [f"{data}.parquet" for data in chosen]):
        data, examples = path.stem, read(path)
        prepared: dict[bool, tuple[list[ModelInput], Prior]] = {}
        for name in names:
            yield _kept(f"{data}.{name}", partial(_run, data, name, examples, prepared))
        for profile, of in CELLS if os.environ.get("SIMULATE") != "0" else ():
            for name, seed in ((name, seed) for name in names for seed in range(settings.seeds) if of == data):
                yield _kept(f"{data}.{name}.{profile}.{seed}", partial(_simulated, data, name, examples, profile, seed))


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Returns tau of each layer's run, how much the layer changes it with its 95% interval, what it costs, and what it gains in time."""
    result: list[Figure] = []
    for row in (row for row in rows if row["kind"] == "ablation"):
        name = f"{row['data']}_{row['layer'].replace(' ', '_')}"
        result.append(Figure(f"kendall_without_{name}" if row["layer"] != "all" else f"kendall_{name}", row["kendall"], "tau", "higher"))
        if row["layer"] != "all":
            change = zip(("_low", "", "_high"), _change(row["data"], row["layer"]), strict=True)
            result += [Figure(f"worth_{name}{end}", value, "tau", "higher") for end, value in change]
        result += [
            Figure(f"predict_us_{name}", row["predict_us"], "us", "lower"),
            Figure(f"training_s_{name}", row["training_seconds"], "s", "lower"),
            Figure(f"lines_{name}", code_lines(LAYERS[row["layer"]]), "lines", "lower"),
        ]
    cells: dict[str, list[float]] = {}
    for row in (row for row in rows if row["kind"] == "simulated"):
        cells.setdefault(f"in10_{row['profile']}_{row['data']}_{row['layer'].replace(' ', '_')}", []).append(row["in10"])
    return result + [Figure(name, float(np.mean(values)), "share", "higher") for name, values in cells.items()]


def _kept(name: str, make: Callable[[], Row]) -> Row:
    path = KEPT / f"{name.replace(' ', '_')}.{_digest()}.json"
    if not path.exists():
        path.write_text(json.dumps(make()))
    row: Row = json.loads(path.read_text())
    return row


def _digest() -> str:
    """Changes with the code of the predictor."""
    files = sorted(path for path in PREDICTOR.rglob("*") if path.suffix in (".py", ".tsv"))
    return digest(files)


def _predictions(data: str, layer: str) -> Path:
    return KEPT / f"{data}.{layer.replace(' ', '_')}.{_digest()}.npz"


def _first(examples: Sequence[Example]) -> int:
    return len(examples) - min(COUNTED, len(examples) // 2)


def _run(data: str, name: str, examples: list[Example], prepared: dict[bool, tuple[list[ModelInput], Prior]]) -> Row:
    layer = LAYERS[name]
    if layer.encoder not in prepared:
        prepared[layer.encoder] = _prepare(examples, layer.encoder)
    features, known = prepared[layer.encoder]
    first = _first(examples)
    with turned_off(layer):
        contender = Learned(known=known if layer.prior else None)
        began = time.process_time()
        if data == "alpaca":
            _learn_at_once(contender, examples[first - WARM_ROWS : first], features[first - WARM_ROWS : first])
            lengths = list(prequential(examples[first:], features[first:], contender))
        else:
            lengths = list(prequential(examples, features, contender))[first:]
        spent = time.process_time() - began
        times = []
        for one in features[-_TIMED:]:
            before = time.thread_time()
            contender.predictor.predict(one, 0)
            times.append(time.thread_time() - before)
    quantiles = np.array([one.tokens for one in lengths])
    tokens = np.array([example.tokens for example in examples[first:]])
    np.savez(_predictions(data, name), quantiles=quantiles, tokens=tokens)
    return {
        "kind": "ablation", "data": data, "layer": name, "rows": len(tokens), "kendall": kendall(_middle(quantiles), tokens),
        "predict_us": 1e6 * float(np.median(times)), "training_seconds": sum(seconds for _, seconds in contender.trainings),
        "trainings": len(contender.trainings), "cpu_seconds": spent, "rollbacks": contender.predictor.rollbacks,
    }  # fmt: skip


def _learn_at_once(contender: Learned, examples: Sequence[Example], features: Sequence[ModelInput]) -> None:
    """Learns these answers and trains one head on all of them."""
    for example, one in zip(examples, features, strict=True):
        contender.predictor.learn(one, Observation(example.tokens, True))
    contender.after(0)
    contender.after(len(examples))


def _prepare(examples: Sequence[Example], encode: bool) -> tuple[list[ModelInput], Prior]:
    folder = encoders.wanted() if encode else None
    vectors: Any = [None] * len(examples) if folder is None else _encoded(examples, folder)
    features = [extract(question(e, v), b"bench") for e, v in zip(examples, vectors, strict=True)]
    return features, from_bytes(prior_fit.obtain(folder))


def _encoded(examples: Sequence[Example], folder: Path) -> Any:
    """Returns the vectors of all rows, which are kept for the next layers."""
    texts = [example.text for example in examples]
    digest = hashlib.sha256((folder / MODEL_FILE).read_bytes() + "\0".join(texts).encode()).hexdigest()[:12]
    path = KEPT / f"vectors.{digest}.npy"
    if not path.exists():
        np.save(path, OnnxEncoder(folder).encode(texts))
    return np.load(path)


def _simulated(data: str, name: str, examples: Sequence[Example], profile: str, seed: int) -> Row:
    base, scale = as_trace(data, examples[_first(examples) :])
    lengths: Floats = np.clip(np.load(_predictions(data, name))["quantiles"] * scale, 1.0, None)
    trace, rows = gain.requests(base, LOAD, seed, WINDOW_SECONDS, engine_model(profile))
    model, driver = system(ALISE, trace, Predicted(lengths, lengths).rows(rows), engine_model(profile))
    outcome = gain.counted(simulate(trace, model, driver), model)
    return {"kind": "simulated", "data": data, "layer": name, "profile": profile, "seed": seed, **outcome}


def _change(data: str, name: str) -> tuple[float, float, float]:
    """How much the layer adds to tau: low end, value and high end, over rows drawn again, the same ones for both runs."""
    with np.load(_predictions(data, "all")) as kept, np.load(_predictions(data, name)) as other:
        tokens, points = kept["tokens"], [_middle(held["quantiles"]) for held in (kept, other)]
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(tokens), size=len(tokens)) for _ in range(_DRAWS)]
    changes = [kendall(points[0][rows], tokens[rows]) - kendall(points[1][rows], tokens[rows]) for rows in draws]
    value = kendall(points[0], tokens) - kendall(points[1], tokens)
    return float(np.quantile(changes, 0.025)), value, float(np.quantile(changes, 0.975))


def _middle(quantiles: Any) -> Any:
    half = quantiles.shape[1] // 2
    return (quantiles[:, half - 1] + quantiles[:, half]) / 2
