"""What the policy sweep replays: requests, and what the sidecar's predictor predicted for each before its answer was known.

It reads the data sets, has the encoder built where it is missing (tests/tools/encoder.py), and keeps predictions in bench-results/.
`policies.py`, `gain.py`, `ablation.py` and `shedding.py` call it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats
from alise_scheduler.predictor.features.request import extract
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models import prior
from alise_scheduler.predictor.models.encoder import OnnxEncoder
from alise_scheduler.predictor.training import prior_fit
from alise_simulator.model import DEFAULT_SHAPE
from alise_simulator.trace import Trace, heavy_tail, load_csv, make_trace, poisson
from tests.bench import predictor
from tests.bench.harness import RESULTS, ROOT, Settings, present
from tests.tools import encoder as encoders
from tests.tools.sources import digest

ANSWERED: Final = ("alpaca.parquet", "sharegpt.parquet")
TRACES: Final = ("azure2023_conv.csv.gz", "azure2023_code.csv.gz", "mooncake_conversation.csv.gz")
_SOURCES: Final = ROOT / "scheduler_sidecar" / "alise_scheduler" / "predictor"
# The number of requests of a trace that are replayed and predicted. The first ones, which a cold predictor saw, do not count.
_TRACE_ROWS: Final = 4000
_COLD_ROWS: Final = 500
# ShareGPT counts word pieces and words; a LLaMA tokenizer makes this many tokens of a piece.
_TOKENS_PER_PIECE: Final = 1.176


@dataclass(frozen=True, slots=True)
class Data:
    """Requests with arrivals of any pace, and what the real predictor predicted for them where it could be asked."""

    trace: Trace
    real: Floats | None
    # Whether it saw what the prompts mean.
    encoder: bool = False


def datasets(settings: Settings) -> Iterator[Data]:
    """All data sets that a folder has and the synthetic one; or the one file; or the synthetic one alone."""
    folder = settings.dataset
    if folder is not None and folder.is_dir():
        for path in present(folder, ANSWERED if settings.quick else (*ANSWERED, *TRACES)):
            yield answered(path, settings.quick) if path.suffix == ".parquet" else traced(path)
    elif folder is not None:
        yield answered(folder, settings.quick) if folder.suffix == ".parquet" else traced(folder)
    if folder is None or not settings.quick:
        yield Data(replace(heavy_tail(20_000, 11), arrival_seconds=np.zeros(20_000)), None)


def answered(path: Path, quick: bool) -> Data:
    """A data set of prompts and answers: the rows that count, with the prediction each had before its answer was known."""
    examples = predictor.read(path)[: predictor.QUICK_ROWS * 2] if quick else predictor.read(path)
    first = len(examples) - min(predictor.COUNTED, len(examples) // 2)
    encoder = encoders.wanted()
    real = _predicted(path.stem, examples, encoder)
    trace, scale = as_trace(path.stem, examples[first:])
    return Data(trace, np.clip(real[first:] * scale, 1.0, None), encoder is not None)


def as_trace(name: str, counted: Sequence[predictor.Example]) -> tuple[Trace, float]:
    """The requests of these rows, and how many tokens of an engine one token of theirs is."""
    scale = _TOKENS_PER_PIECE if counted[0].group else 1.0
    outputs = np.maximum(1, np.rint(np.array([example.tokens for example in counted]) * scale)).astype(np.int64)
    inputs = np.array([max(1, (len(example.text) + example.earlier_chars) // 4) for example in counted])
    return make_trace(name, np.zeros(len(counted)), inputs, outputs), scale


def shipped(path: Path) -> Floats:
    """The shipped predictor's predictions for the rows that count, if it never learns an answer."""
    examples = predictor.read(path)
    counted = examples[len(examples) - min(predictor.COUNTED, len(examples) // 2) :]
    folder = encoders.wanted()
    encoder = OnnxEncoder(folder) if folder else None
    vectors = encoder.encode([example.text for example in counted]) if encoder else [None] * len(counted)
    shipped = LearnedPredictor()
    shipped.prior = prior.from_bytes(prior_fit.obtain(folder))
    features = (extract(predictor.question(e, v), b"bench") for e, v in zip(counted, vectors, strict=True))
    lengths = np.array([shipped.predict(one, 0).tokens for one in features])
    scale = _TOKENS_PER_PIECE if counted[0].group else 1.0
    made: Floats = np.clip(lengths * scale, 1.0, None)
    return made


def traced(path: Path) -> Data:
    """A trace without texts: the predictor knows how long each prompt is, and nothing else."""
    trace = load_csv(path)
    fits = trace.input_tokens + trace.output_tokens < DEFAULT_SHAPE.max_model_len
    trace = trace.rows(fits.nonzero()[0]).first(_TRACE_ROWS)
    sizes = zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    real = _predicted(trace.name, [predictor.Example("", outputs, earlier_chars=4 * inputs) for inputs, outputs in sizes], None)
    warm = np.arange(min(_COLD_ROWS, len(trace) // 2), len(trace))
    return Data(trace.rows(warm), np.clip(real[warm], 1.0, None))


def arranged(trace: Trace, count: int, seed: int) -> tuple[Trace, Ints]:
    """For this seed: a window of a trace with arrivals of its own; else the rows in another order, all of them before any comes again,
    at Poisson times.
    """
    rng = np.random.default_rng([seed, 2])
    if trace.arrival_seconds[-1] > trace.arrival_seconds[0]:
        start = int(rng.integers(max(1, len(trace) - count + 1)))
        rows = np.arange(start, min(start + count, len(trace)))
        window = trace.rows(rows)
        return replace(window, arrival_seconds=window.arrival_seconds - window.arrival_seconds[0]), rows
    rounds = -(-count // len(trace))
    rows = np.concatenate([rng.permutation(len(trace)) for _ in range(rounds)])[:count]
    return replace(trace.rows(rows), arrival_seconds=poisson(len(rows), rng)), rows


def kept_name(name: str, rows: int, encoder: Path | None, sources: Path = _SOURCES) -> str:
    """The file that predictions are kept in: another one for another predictor, for another encoder and for none."""
    files = sorted(path for path in sources.rglob("*") if path.suffix in (".py", ".tsv"))
    return f"policies.{name}.{rows}{'' if encoder is None else '.encoder'}.{digest(files, encoders.setting(encoder))}.npz"


def _predicted(name: str, examples: Sequence[predictor.Example], folder: Path | None) -> Floats:
    """Quantiles of every row: the same for all policies and loads, so computed once. Kept in bench-results/: training takes minutes."""
    kept = RESULTS / kept_name(name, len(examples), folder)
    if not kept.exists():
        encoder = OnnxEncoder(folder) if folder else None
        vectors = encoder.encode([example.text for example in examples]) if encoder else [None] * len(examples)
        features = [extract(predictor.question(e, v), b"bench") for e, v in zip(examples, vectors, strict=True)]
        known = prior.from_bytes(prior_fit.obtain(folder))
        lengths = predictor.prequential(examples, features, predictor.Learned(known=known))
        RESULTS.mkdir(exist_ok=True)
        np.savez(kept, quantiles=np.array([answer.tokens for answer in lengths]))
    found: Floats = np.load(kept)["quantiles"]
    return found
