"""What predictions are worth: figures of predicted distributions against real lengths, and the plot of them.

`predictor.py` and `ablation.py` call it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from alise_scheduler.core.lengths import PROBABILITIES
from alise_scheduler.predictor.models.calibration import interval
from tests.bench.harness import RESULTS, Row


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
    """Metric, value, unit and which way is better, of one contender's held-out rows."""
    tokens = np.array([row["tokens"] for row in rows], float)
    quantiles = np.array([row["quantiles"] for row in rows], float)
    point = middle(rows)
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


def kendall_interval(point: Any, tokens: Any, draws: int = 200) -> tuple[float, float]:
    """The 95% interval of Kendall's tau over rows drawn again: how much of it is luck."""
    chance = np.random.default_rng(0)
    made = [kendall(point[rows], tokens[rows]) for rows in (chance.integers(len(tokens), size=len(tokens)) for _ in range(draws))]
    return float(np.quantile(made, 0.025)), float(np.quantile(made, 0.975))


def middle(rows: Sequence[Row]) -> Any:
    """The predicted medians of rows, [N]."""
    quantiles = np.array([row["quantiles"] for row in rows], float)
    half = quantiles.shape[1] // 2
    return (quantiles[:, half - 1] + quantiles[:, half]) / 2
