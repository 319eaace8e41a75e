"""The predictor's benchmark: what its figures say of known predictions, and that no row is judged by what it taught."""

import numpy as np
import pytest

from alise_research.classes import ClassMean
from alise_research.rules import PAPER
from alise_scheduler.core.lengths import QUANTILES
from alise_scheduler.predictor.features.request import extract
from tests.bench.harness import Row, Settings
from tests.bench.predictor import Example, Untrained, figures, prequential, question, split
from tests.bench.predictor_scores import kendall_interval, scores
from tests.scheduler.predictor_builders import ENCODER

LENGTHS = tuple(range(10, 410))


def rows(point: list[float]) -> list[dict[str, object]]:
    return [{"tokens": tokens, "quantiles": [value] * QUANTILES} for tokens, value in zip(LENGTHS, point, strict=True)]


def test_a_perfect_prediction_has_perfect_figures() -> None:
    made = {metric: value for metric, value, _, _ in scores(rows([float(tokens) for tokens in LENGTHS]))}
    assert [made["kendall"], made["pairs"], made["buckets5"]] == pytest.approx([1.0, 1.0, 1.0])
    assert (made["mae"], made["crps"], made["coverage80"]) == (0.0, 0.0, 100.0)


def test_a_reversed_prediction_orders_every_pair_wrong() -> None:
    made = {metric: value for metric, value, _, _ in scores(rows([-float(tokens) for tokens in LENGTHS]))}
    assert [made["kendall"], made["pairs"]] == pytest.approx([-1.0, 0.0])


def test_the_interval_of_tau_holds_it() -> None:
    chance = np.random.default_rng(1)
    tokens = np.arange(300.0)
    low, high = kendall_interval(tokens + chance.normal(0, 200, 300), tokens, draws=50)
    assert -1.0 < low < high < 1.0


def test_the_class_mean_is_of_the_class() -> None:
    examples = [Example("translate this", 10), Example("write a story", 300)] * 40
    said = list(prequential(examples, [example.text for example in examples], Untrained(ClassMean())))
    assert (round(said[-2].median), round(said[-1].median)) == (10, 300)


def test_the_split_leaves_out_conversations_that_it_learned_from() -> None:
    names = [*(f"c{number}" for number in range(199)), "both", "both", "new"]
    examples = [Example(f"tell me about {name}", 50, group=name, turn=int(at == 200)) for at, name in enumerate(names)]
    vectors = ENCODER.encode([example.text for example in examples])
    features = [extract(question(e, v), b"salt") for e, v in zip(examples, vectors, strict=True)]
    assert [number for number, _ in split(examples, features, 200, PAPER)] == [201]


def counted(label: str, numbers: range) -> list[Row]:
    """Perfect predictions of these rows."""
    return [
        {
            "kind": "row",
            "data": "d",
            "by": label,
            "row": n,
            "tokens": n + 10,
            "another": 0,
            "chars": n % 7,
            "quantiles": [float(n + 10)] * QUANTILES,
        }
        for n in numbers
    ]


def test_the_others_are_scored_on_the_rows_of_the_split_as_well() -> None:
    cost: Row = {"kind": "cost", "data": "d", "encode_ms": 1.0, "features_ms": 1.0, "encoder": False}
    rows_ = [cost, *counted("learned", range(40)), *counted("paper", range(40)), *counted("split", range(30))]
    made = {figure.name: figure.value for figure in figures(rows_, Settings(quick=True, seeds=1, dataset=None))}
    assert (made["counted_d"], made["counted_d_split"]) == (40, 30)
    assert {"kendall_d_learned_on_split_rows", "kendall_d_paper_on_split_rows"} <= set(made)


def test_data_too_small_for_any_training_has_figures_all_the_same() -> None:
    cost: Row = {"kind": "cost", "data": "d", "encode_ms": 1.0, "features_ms": 1.0, "encoder": False}
    made = {figure.name for figure in figures([cost, *counted("learned", range(40))], Settings(quick=True, seeds=1, dataset=None))}
    assert "kendall_d" in made
    assert "trained_rows_per_s_d" not in made
