"""How well lengths are predicted: every row is predicted before its answer is known, and the answer is learned when its job ends.

Prequential (test, then train): rows come in the file's order, 32 at a time are running, and longer answers end later; a new head is put
to use some answers after the rows that it was trained on, one for every ROWS_PER_LAG of them, as if training took that long. Held out are
the last 5,000 rows, of a smaller file the last half. ALISE_ENCODER names the encoder's folder (built when it is not set; `none`: features
alone). What it costs in a sidecar is `sidecar.py`'s and `admit.py`'s.

Beside the learned predictor: the paper's rule, the mean of a request's class, the prompt's length, and another answer of the same model.
And the split: trained once on all rows before the held-out ones, and learning only a conversation's answers. It leaves out the held-out
rows of conversations that began among those before; the others are scored on its rows as well (`…_on_split_rows`). `make bench-predictor`
runs it.
"""

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from alise_research.classes import ClassMean
from alise_research.rules import LEARNED, PAPER, Rule
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.predictor.features.conversation import Conversations, complete
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.features.row import EMBEDDING, ModelInput
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.models import prior
from alise_scheduler.predictor.models.encoder import OnnxEncoder
from alise_scheduler.predictor.training import prior_fit
from alise_scheduler.predictor.training.fit import MAX_ROWS, MIN_ROWS
from alise_scheduler.predictor.training.samples import History
from tests.bench import admit, sidecar
from tests.bench.harness import Figure, Row, Settings, present
from tests.bench.predictor_scores import kendall, kendall_interval, middle, scores
from tests.bench.predictor_scores import plot as plot
from tests.bench.workload import synthetic
from tests.tools import encoder as encoders

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
    """What is evaluated: a predictor, and how it is trained."""

    @property
    def predictor(self) -> Any:
        """Predicts for what `prequential` was given of each row, and learns from it."""

    def after(self, learned: int) -> None:
        """Takes in how many answers have been learned, and trains if it is time."""


class Untrained:
    """A predictor that needs no training."""

    def __init__(self, predictor: ClassMean) -> None:
        self.predictor = predictor

    def after(self, learned: int) -> None:
        """Nothing to do."""


class Learned:
    """The learned predictor with one of its rules, trained here and now, used some answers later."""

    def __init__(self, rule: Rule = LEARNED, known: prior.Prior | None = None) -> None:
        self._rule = rule
        self.predictor = rule.predictor()
        self.predictor.prior = known if rule.prior else None
        self.trainings: list[tuple[int, float]] = []
        self._ready: tuple[int, Any] | None = None

    def after(self, learned: int) -> None:
        if self._ready is not None and learned >= self._ready[0]:
            self.predictor.install(self._ready[1])
            self._ready = None
        if self._ready is None and self.predictor.wants_training():
            history = self.predictor.newest()
            began = time.process_time()
            served = self._rule.serve(history, len(self.trainings) + 1)
            self.trainings.append((len(history.log_tokens), time.process_time() - began))
            self._ready = (learned + max(10, len(history.log_tokens) // ROWS_PER_LAG), served)


def prequential(examples: Sequence[Example], asked: Sequence[Any], contender: Contender) -> Iterator[Lengths]:
    """The prediction of each row in turn, by what is `asked` of it. A conversation's turn waits for the answer before it."""
    running: list[tuple[float, int]] = []
    ended: set[int] = set()
    newest: dict[str, int] = {}
    typical = sum(example.tokens for example in examples) / len(examples)
    learned = 0

    def end(row: int) -> None:
        nonlocal learned
        if row not in ended:
            ended.add(row)
            contender.predictor.learn(asked[row], Observation(examples[row].tokens, True))
            learned += 1
            contender.after(learned)

    for number, example in enumerate(examples):
        while running and running[0][0] <= number:
            end(heapq.heappop(running)[1])
        if example.group and example.group in newest:
            end(newest[example.group])
        lengths: Lengths = contender.predictor.predict(asked[number], 0)
        yield lengths
        newest[example.group] = number
        heapq.heappush(running, (number + RUNNING * example.tokens / typical, number))


def measure(settings: Settings) -> Iterator[Row]:
    """One row per counted request: real tokens and each contender's quantiles; and one per training."""
    folder = encoders.wanted()
    data = _datasets(settings)
    yield from sidecar.measure([example.text for example in data[0][1]], folder, settings.quick)
    yield from admit.measure(settings, folder)
    for name, examples in data:
        yield from _evaluate(name, examples, folder)


def _evaluate(name: str, examples: list[Example], folder: Path | None) -> Iterator[Row]:
    encoder = OnnxEncoder(folder) if folder else None
    began = time.process_time()
    vectors = encoder.encode([example.text for example in examples]) if encoder else [None] * len(examples)
    encoded = time.process_time()
    features = [extract(question(e, v), b"bench") for e, v in zip(examples, vectors, strict=True)]
    extracted = time.process_time()
    yield {
        "kind": "cost", "data": name, "encode_ms": 1000 * (encoded - began) / len(examples),
        "features_ms": 1000 * (extracted - encoded) / len(examples), "encoder": encoder is not None,
    }  # fmt: skip
    first = len(examples) - min(COUNTED, len(examples) // 2)
    known = prior.from_bytes(prior_fit.obtain(folder))
    contenders: list[tuple[str, Contender, Sequence[Any]]] = [
        ("class", Untrained(ClassMean()), [example.text for example in examples]), ("paper", Learned(PAPER), features),
        ("learned", Learned(known=known), features),
    ]  # fmt: skip
    for label, contender, asked in contenders:
        spent = time.process_time()
        for number, lengths in enumerate(prequential(examples, asked, contender)):
            if number >= first:
                yield {
                    "kind": "row", "data": name, "by": label, "row": number, "tokens": examples[number].tokens,
                    "another": examples[number].another, "chars": len(examples[number].text),
                    "quantiles": [round(value, 2) for value in lengths.tokens],
                }  # fmt: skip
        yield {"kind": "pass", "data": name, "by": label, "ms": 1000 * (time.process_time() - spent) / len(examples)}
        if isinstance(contender, Learned):
            for rows, seconds in contender.trainings:
                yield {"kind": "training", "data": name, "by": label, "rows": rows, "cpu_seconds": round(seconds, 2)}
    for label, rule in (("split", LEARNED), ("split_paper", PAPER)):
        for number, quantiles in split(examples, features, first, rule, known):
            yield {"kind": "row", "data": name, "by": label, "row": number, "tokens": examples[number].tokens, "quantiles": quantiles}


def split(
    examples: Sequence[Example], features: Sequence[ModelInput], first: int, rule: Rule, known: prior.Prior | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Each counted row's number and quantiles by a head of the newest rows before `first`; conversations that began there are left out."""
    logs = np.log(np.maximum([example.tokens for example in examples], 1)).astype(np.float32)
    nothing = np.zeros(EMBEDDING, np.float32)
    held = Conversations()
    rows: list[NDArray[np.float32]] = []
    roots: list[int] = []
    before, equipped = range(max(0, first - MAX_ROWS), first), None
    seen = {examples[number].group for number in before} - {""}
    for number, detail in enumerate(features):
        if number == first and len(before) >= MIN_ROWS:
            part = slice(before.start, before.stop)
            vectors = np.stack([nothing if d.embedding is None else d.embedding for d in features[part]])
            hashes = np.array(roots, np.uint64).astype(np.int64)[part]
            history = History(np.stack(rows)[part], vectors, logs[part], np.ones(len(before), np.bool_), hashes)
            equipped = rule.serve(history, 1)
        past = held.find(detail.previous)
        expected = known.expect(detail.numbers, detail.embedding) if known else math.nan
        row, residual = complete(detail, past, expected), math.nan
        if equipped is not None and examples[number].group not in seen:
            foreseen = equipped.predict(row, detail.embedding, past)
            residual = equipped.head.rank(float(logs[number])) - foreseen.expected
            yield number, [round(float(value), 2) for value in np.exp(foreseen.log_quantiles)]
        rows.append(row)
        roots.append(past.root if past else detail.now or number)
        held.add(detail.previous, detail.now, float(logs[number]), detail.embedding, expected, residual)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Figures of each data set, from the rows alone."""
    made = sidecar.figures(rows) + admit.figures(rows)
    for name in dict.fromkeys(row["data"] for row in rows if "data" in row):
        counted = [row for row in rows if row["kind"] == "row" and row["data"] == name]
        told = {label: [row for row in counted if row["by"] == label] for label in dict.fromkeys(row["by"] for row in counted)}
        told |= _on_split_rows(told)
        for label, own in told.items():
            suffix = name if label == "learned" else f"{name}_{label}"
            made += [
                Figure(f"{metric}_{suffix}", value, unit, better, _GOALS.get(f"{metric}_{suffix}"))
                for metric, value, unit, better in scores(own)
            ]
            if label in ("learned", "split"):
                made.append(Figure(f"counted_{suffix}", len(own), "rows", "higher"))
        own = [row for row in counted if row["by"] == "learned"]
        tokens = np.array([row["tokens"] for row in own])
        low, high = kendall_interval(middle(own), tokens)
        made += [Figure(f"kendall_{name}_low", low, "tau", "higher"), Figure(f"kendall_{name}_high", high, "tau", "higher")]
        made.append(Figure(f"kendall_{name}_prompt_length", kendall([row["chars"] for row in own], tokens), "tau", "higher"))
        if all(row["another"] for row in own):
            made.append(Figure(f"kendall_{name}_another_sample", kendall([row["another"] for row in own], tokens), "tau", "higher"))
        cost = next(row for row in rows if row["kind"] == "cost" and row["data"] == name)
        made += [Figure(f"{part}_{name}", cost[part], "ms", "lower") for part in ("encode_ms", "features_ms")]
        trained = max(
            (row for row in rows if row["kind"] == "training" and row["data"] == name),
            key=lambda row: (row["by"] == "learned", row["rows"]),
            default=None,
        )
        if trained is not None:
            made.append(Figure(f"trained_rows_per_s_{name}", trained["rows"] / trained["cpu_seconds"], "1/s", "higher"))
    return made


def _on_split_rows(told: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows of the learned predictor and of the paper's rule that the split has too; nothing where it has them all."""
    numbers = {row["row"] for row in told.get("split", ())}
    if not numbers or len(numbers) == len(told["learned"]):
        return {}
    return {f"{label}_on_split_rows": [row for row in told[label] if row["row"] in numbers] for label in ("learned", "paper")}


def _datasets(settings: Settings) -> list[tuple[str, list[Example]]]:
    if settings.dataset is None:
        rows = [Example(p.text, p.output_tokens) for p in synthetic(QUICK_ROWS if settings.quick else 6000, seed=0).prompts]
        return [("synthetic", rows)]
    folder = settings.dataset.is_dir()
    paths = present(settings.dataset, ("alpaca.parquet", "sharegpt.parquet")) if folder else [settings.dataset]
    made = [(path.stem, read(path)) for path in paths]
    return [(name, rows[:QUICK_ROWS] if settings.quick else rows) for name, rows in made]
