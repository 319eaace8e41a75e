"""A simulation's outcome in numbers, and as a plot. The command (`__main__.py`) and the benchmarks call it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.lengths import Floats

from .run import Outcome

_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def spread(name: str, values: Floats) -> dict[str, float]:
    """Mean, quantiles and maximum under `name_…_seconds`."""
    found = {f"{name}_mean_seconds": float(values.mean())}
    found |= {f"{name}_{label}_seconds": float(np.quantile(values, share)) for label, share in _QUANTILES.items()}
    return found | {f"{name}_max_seconds": float(values.max())}


def summary(outcome: Outcome) -> dict[str, float]:
    """Every figure of one simulation. Times are those of the requests that were not refused. Raises ValueError when all were."""
    served = outcome.served
    if not served.any():
        raise ValueError(f"all {len(served)} requests were refused; allow longer waits")
    return {
        "requests": len(served),
        "refused": int((~served).sum()),
        **spread("normalized", outcome.normalized_seconds[served]),
        **spread("ttft", outcome.ttft_seconds[served]),
        **spread("e2e", outcome.e2e_seconds[served]),
        "wait_max_seconds": float(outcome.waited_seconds.max()),
        "preemptions": int(outcome.preemptions.sum()),
        "saved_gb": outcome.saved_bytes / 1e9,
        "restored_gb": outcome.restored_bytes / 1e9,
        "host_peak_gb": outcome.host_peak_bytes / 1e9,
        "recomputed_tokens": outcome.recomputed_tokens,
        "cached_tokens": outcome.cached_tokens,
        "span_seconds": float((outcome.arrival_seconds + outcome.e2e_seconds)[served].max()),
        "busy_seconds": outcome.busy_seconds,
    }


def plot_latencies(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """How many requests (y) ended or began within how long (x), one line per policy. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5))
    for axis, title, pick in zip(
        axes,
        ("normalized latency, s per token", "time to first token, s", "end to end, s"),
        ("normalized_seconds", "ttft_seconds", "e2e_seconds"),
        strict=True,
    ):
        for name, outcome in outcomes.items():
            values = np.sort(getattr(outcome, pick)[outcome.served])
            axis.plot(np.maximum(values, 1e-4), (np.arange(len(values)) + 1) / len(outcome.served), label=name)
        axis.set(xscale="log", xlabel=title, ylabel="share of requests")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
