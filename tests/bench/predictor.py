"""How well lengths are predicted: every row is predicted before its answer is known, and the answer is learned when its job ends.

Prequential (test, then train): rows come in the file's order, 32 at a time are running, and longer answers end later; a new head is put
to use some answers after the rows that it was trained on, one for every ROWS_PER_LAG of them, as if training took that long. Counted are
the last 5,000 rows, of a smaller file the last half. ALISE_ENCODER names the encoder's folder (made when it is not set; `none`: features
alone). What it costs in a sidecar is `sidecar.py`'s.
"""

import heapq
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from alise_scheduler.core.lengths import PROBABILITIES, Lengths
from alise_scheduler.predictor.calibration import interval
from alise_scheduler.predictor.encoder import Encoder, OnnxEncoder
from alise_scheduler.predictor.features import Features, Question, extract
from alise_scheduler.predictor.learned import LearnedPredictor, equip
from alise_scheduler.predictor.model import BucketPredictor, Observation, Predictor
from alise_scheduler.predictor.train import train
from tests.bench import sidecar
from tests.bench.harness import RESULTS, Figure, Row, Settings
from tests.bench.workload import synthetic
from tests.tools.encoder import ensure

RUNNING: Final = 32
ROWS_PER_LAG: Final = 50
COUNTED: Final = 5000
QUICK_ROWS: Final = 1500
_CHARS_PER_WORD: Final = 6
_GOALS: Final = {"kendall_alpaca": 0.54, "kendall_sharegpt": 0.44}


@dataclass(frozen=True, slots=True)
class Example:
    """A request and its answer: `text` the newest turn, `earlier_chars` before it, `group` the conversation, `turn` from 0."""

    text: str
    tokens: int
    group: str = ""
    turn: int = 0
    earlier_chars: int = 0
    # The same model's answer to the same prompt, drawn again; 0: not known.
    another: int = 0


def read(path: Path) -> list[Example]:
    """The rows of a parquet file. Raises ValueError when it lacks prompt or output_tokens."""
    import pyarrow.parquet as parquet

    held: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    missing = {"prompt", "output_tokens"} - set(held)
    if missing:
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; it has {sorted(held)}")
    count = len(held["prompt"])

    def column(name: str, default: Any) -> list[Any]:
        return held.get(name, [default] * count)

    rows = zip(
        held["prompt"], held["output_tokens"], column("group", ""), column("turn", 0), column("ctx_words", 0),
        column("output_tokens_t05", 0), strict=True,
    )  # fmt: skip
    return [
        Example(text, int(tokens), str(group), int(turn), _CHARS_PER_WORD * int(words), int(another or 0))
        for text, tokens, group, turn, words, another in rows
        if text is not None and tokens and tokens > 0
    ]


def question(example: Example, embedding: Any = None) -> Question:
    """What the middleware would say of this row."""
    return Question(
        endpoint=1, prompt=example.text, prompt_chars=len(example.text) + example.earlier_chars, turns=2 * example.turn + 1,
        conversation=f"{example.group} {example.turn}" if example.turn else "",
        conversation_now=f"{example.group} {example.turn}" if example.group else "",
        conversation_previous=f"{example.group} {example.turn - 1}" if example.group and example.turn else "",
        embedding=embedding,
    )  # fmt: skip


class Contender(Protocol):
    """What is evaluated: a predictor and how it is trained."""

    @property
    def predictor(self) -> Predictor:
        """The predictor."""

    def after(self, learned: int) -> None:
        """So many answers have been learned; train if it is time."""


class Untrained:
    """A predictor that needs no training."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def after(self, learned: int) -> None:
        """Nothing to do."""


class Learned:
    """The learned predictor, trained here and now, used some answers later."""

    def __init__(self) -> None:
        self.predictor = LearnedPredictor()
        self.trainings: list[tuple[int, float]] = []
        self._ready: tuple[int, Any, int] | None = None

    def after(self, learned: int) -> None:
        if self._ready is not None and learned >= self._ready[0]:
            self.predictor.install(self._ready[1], self._ready[2])
            self._ready = None
        if self._ready is None and self.predictor.wants_training():
            history, seen = self.predictor.newest()
            began = time.process_time()
            head = train(history, len(self.trainings) + 1)
            self.trainings.append((len(history.log_tokens), time.process_time() - began))
            self._ready = (learned + max(10, len(history.log_tokens) // ROWS_PER_LAG), equip(head, history), seen)


def prequential(examples: Sequence[Example], features: Sequence[Features], contender: Contender) -> Iterator[Lengths]:
    """The prediction of each row in turn. A conversation's turn waits for the answer before it."""
    running: list[tuple[float, int]] = []
    ended: set[int] = set()
    newest: dict[str, int] = {}
    typical = sum(example.tokens for example in examples) / len(examples)
    learned = 0

    def end(row: int) -> None:
        nonlocal learned
        if row not in ended:
            ended.add(row)
            contender.predictor.learn(features[row], Observation(examples[row].tokens, True))
            learned += 1
            contender.after(learned)

    for number, example in enumerate(examples):
        while running and running[0][0] <= number:
            end(heapq.heappop(running)[1])
        if example.group and example.group in newest:
            end(newest[example.group])
        yield contender.predictor.predict(features[number], 0)
        newest[example.group] = number
        heapq.heappush(running, (number + RUNNING * example.tokens / typical, number))


def measure(settings: Settings) -> Iterator[Row]:
    """One row per counted request: real tokens and each contender's quantiles; and one per training."""
    encoder = _encoder()
    data = _datasets(settings)
    yield from sidecar.measure([example.text for example in data[0][1]], str(_encoder_folder()), settings.quick)
    for name, examples in data:
        yield from _evaluate(name, examples, encoder)


def _evaluate(name: str, examples: list[Example], encoder: Encoder | None) -> Iterator[Row]:
    began = time.perf_counter()
    vectors = encoder.encode([example.text for example in examples]) if encoder else [None] * len(examples)
    encoded = time.perf_counter()
    features = [extract(question(e, v), b"bench") for e, v in zip(examples, vectors, strict=True)]
    extracted = time.perf_counter()
    yield {
        "kind": "cost", "data": name, "encode_ms": 1000 * (encoded - began) / len(examples),
        "features_ms": 1000 * (extracted - encoded) / len(examples), "encoder": encoder is not None,
    }  # fmt: skip
    first = len(examples) - min(COUNTED, len(examples) // 2)
    contenders: list[tuple[str, Contender]] = [("buckets", Untrained(BucketPredictor())), ("learned", Learned())]
    for label, contender in contenders:
        spent = time.perf_counter()
        for number, lengths in enumerate(prequential(examples, features, contender)):
            if number >= first:
                yield {
                    "kind": "row", "data": name, "by": label, "row": number, "tokens": examples[number].tokens,
                    "another": examples[number].another, "chars": len(examples[number].text),
                    "quantiles": [round(value, 2) for value in lengths.tokens],
                }  # fmt: skip
        yield {"kind": "pass", "data": name, "by": label, "ms": 1000 * (time.perf_counter() - spent) / len(examples)}
        if isinstance(contender, Learned):
            for rows, seconds in contender.trainings:
                yield {"kind": "training", "data": name, "rows": rows, "cpu_seconds": round(seconds, 2)}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Figures of each data set, from the rows alone."""
    made = sidecar.figures(rows)
    for name in dict.fromkeys(row["data"] for row in rows if "data" in row):
        for label in ("learned", "buckets"):
            own = [row for row in rows if row["kind"] == "row" and row["data"] == name and row["by"] == label]
            suffix = name if label == "learned" else f"{name}_{label}"
            made += [
                Figure(f"{metric}_{suffix}", value, unit, better, _GOALS.get(f"{metric}_{suffix}"))
                for metric, value, unit, better in scores(own)
            ]
        lengths = [row for row in rows if row["kind"] == "row" and row["data"] == name and row["by"] == "learned"]
        tokens = np.array([row["tokens"] for row in lengths])
        made.append(Figure(f"kendall_{name}_prompt_length", kendall([row["chars"] for row in lengths], tokens), "tau", "higher"))
        if all(row["another"] for row in lengths):
            made.append(Figure(f"kendall_{name}_another_sample", kendall([row["another"] for row in lengths], tokens), "tau", "higher"))
    return made


def plot(rows: Sequence[Row]) -> list[str]:
    """Draws predictor.png: real against predicted lengths, and how often the truth lies below each quantile."""
    from matplotlib.figure import Figure as Canvas

    names = list(dict.fromkeys(row["data"] for row in rows if row["kind"] == "row"))
    canvas = Canvas(figsize=(9, 4 * len(names)), layout="constrained")
    for number, name in enumerate(names):
        own = [row for row in rows if row["kind"] == "row" and row["data"] == name and row["by"] == "learned"]
        tokens, quantiles = np.array([row["tokens"] for row in own]), np.array([row["quantiles"] for row in own])
        half = quantiles.shape[1] // 2
        part = canvas.add_subplot(len(names), 2, 2 * number + 1)
        part.loglog((quantiles[:, half - 1] + quantiles[:, half]) / 2, tokens, ".", markersize=1, alpha=0.4)
        part.set(xlabel="predicted median, tokens", ylabel="real, tokens", title=f"{name}: {len(own)} answers")
        part = canvas.add_subplot(len(names), 2, 2 * number + 2)
        part.plot(PROBABILITIES, (tokens[:, None] <= quantiles).mean(axis=0), "o-")
        part.plot((0, 1), (0, 1), ":")
        part.set(xlabel="quantile", ylabel="share of answers below it", title="calibration")
    path = RESULTS / "predictor.png"
    canvas.savefig(path, dpi=110)
    return [path.name]


Scored = tuple[str, float, str, Any]


def scores(rows: Sequence[Row]) -> list[Scored]:
    """Metric, value, unit and which way is better, of one contender's counted rows."""
    tokens = np.array([row["tokens"] for row in rows], float)
    quantiles = np.array([row["quantiles"] for row in rows], float)
    half = quantiles.shape[1] // 2
    point = (quantiles[:, half - 1] + quantiles[:, half]) / 2
    ends = np.array([interval(row) for row in np.log(np.maximum(quantiles, 1.0)).astype(np.float32)])
    logs = np.log(np.maximum(tokens, 1.0))
    # A quantile that sits on the shortest or longest length there is contains it.
    covered = (logs >= ends[:, 0] - 1e-3) & (logs <= ends[:, 1] + 1e-3)
    error = tokens[:, None] - quantiles
    share = np.array(PROBABILITIES)
    crps = 2 * np.maximum(share * error, (share - 1) * error).mean()
    borders = np.quantile(tokens, (0.2, 0.4, 0.6, 0.8))
    return [
        ("kendall", kendall(point, tokens), "tau", "higher"),
        ("spearman", spearman(point, tokens), "rho", "higher"),
        ("pairs", pairs(point, tokens, 1.0), "share", "higher"),
        ("pairs2x", pairs(point, tokens, 2.0), "share", "higher"),
        ("buckets5", float((np.searchsorted(borders, point) == np.searchsorted(borders, tokens)).mean()), "share", "higher"),
        ("mae", float(np.abs(point - tokens).mean()), "tokens", "lower"),
        ("crps", float(crps), "tokens", "lower"),
        ("coverage80", 100 * float(covered.mean()), "%", "higher"),
    ]


def kendall(a: Any, b: Any) -> float:
    """Kendall's tau-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic)


def spearman(a: Any, b: Any) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def pairs(point: Any, tokens: Any, apart: float, count: int = 200_000) -> float:
    """Share of random pairs, at least `apart` times apart in truth, that are ordered right; a tie counts half."""
    chance = np.random.default_rng(0)
    one, other = chance.integers(len(tokens), size=(2, count))
    longer = np.maximum(tokens[one], tokens[other]) >= apart * np.minimum(tokens[one], tokens[other])
    use = longer & (tokens[one] != tokens[other])
    said = np.sign(point[one] - point[other])[use]
    real = np.sign(tokens[one] - tokens[other])[use]
    return float(np.where(said == 0, 0.5, said == real).mean())


def _encoder_folder() -> Path:
    """Where the encoder is: made once where nobody names another."""
    named = os.environ.get("ALISE_ENCODER", "")
    return Path(named) if named else ensure()


def _encoder() -> Encoder | None:
    """None for ALISE_ENCODER=none."""
    folder = _encoder_folder()
    return None if folder.name == "none" else OnnxEncoder(folder)


def _datasets(settings: Settings) -> list[tuple[str, list[Example]]]:
    if settings.dataset is None:
        rows = [Example(p.text, p.output_tokens) for p in synthetic(QUICK_ROWS if settings.quick else 6000, seed=0).prompts]
        return [("synthetic", rows)]
    paths = [settings.dataset / f"{name}.parquet" for name in ("alpaca", "sharegpt")] if settings.dataset.is_dir() else [settings.dataset]
    made = [(path.stem, read(path)) for path in paths]
    return [(name, rows[:QUICK_ROWS] if settings.quick else rows) for name, rows in made]
