"""Is the simulator to be believed? It replays published runs of stock vLLM on real GPUs, first come, first served.

The step model of each GPU is fitted to first and last tokens of the first half of its run (`replay_fit.py`). Compared are the means and the
99th percentiles of the other half: requests whose first token (TTFT) or last token (TPOT, end to end) came after the middle of the run.
The same over the whole run is reported beside it, without a goal. Without the published data (`vllm_runs/` in ALISE_DATA or DATASET)
nothing is measured. `make bench-replay` runs it.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alise_scheduler.core.lengths import Floats
from alise_simulator.run import Outcome
from tests.bench.harness import Figure, Row, Settings
from tests.bench.replay_fit import fitted, replay
from tests.bench.replay_runs import NAMES, PublishedRun, read_run

MEASURES: Final = ("ttft", "tpot", "e2e")
_GOALS: Final = {"mean": 5.0, "p99": 10.0}


def measure(settings: Settings) -> Iterator[Row]:
    """Yields a row per published run."""
    folder = settings.dataset / "vllm_runs" if settings.dataset is not None else None
    if folder is None or not folder.is_dir():
        print("\nreplay: left out, there is no folder vllm_runs in DATASET or ALISE_DATA", file=sys.stderr)
        return
    for name in NAMES:
        if not (folder / f"{name}.meta.json").exists():
            print(f"\nreplay: {name} is left out, it is not in {folder}", file=sys.stderr)
            continue
        run = read_run(folder, name)
        step, error = fitted(run)
        outcome = replay(run, step)
        yield {
            "run": name, "step": [step.step_seconds, step.prefill_seconds, step.decode_seconds, step.context_seconds],
            "fit_error": error, "preemptions": int(outcome.preemptions.sum()), "other_half": compared(run, outcome, other_half=True),
            "whole": compared(run, outcome, other_half=False),
        }  # fmt: skip


def compared(run: PublishedRun, outcome: Outcome, other_half: bool) -> dict[str, dict[str, float]]:
    """Returns by measure the deviation of the simulated mean and p99 from the real ones in percent, and how many requests it is of."""
    began, ended = run.first_token_seconds, run.last_token_seconds
    late = run.half_seconds if other_half else -1.0
    tokens = np.maximum(run.output_tokens - 1, 1)
    real = {"ttft": began - run.arrival_seconds, "tpot": (ended - began) / tokens, "e2e": ended - run.arrival_seconds}
    mine = {"ttft": outcome.ttft_seconds, "tpot": (outcome.e2e_seconds - outcome.ttft_seconds) / tokens, "e2e": outcome.e2e_seconds}
    seen = {"ttft": began > late, "tpot": ended > late, "e2e": ended > late}
    return {name: _deviation(real[name], mine[name], seen[name]) for name in MEASURES}


def _deviation(real: Floats, mine: Floats, seen: NDArray[np.bool_]) -> dict[str, float]:
    return {
        "requests": int(seen.sum()),
        "mean": 100 * float(mine[seen].mean() / real[seen].mean() - 1),
        "p99": 100 * float(np.quantile(mine[seen], 0.99) / np.quantile(real[seen], 0.99) - 1),
    }


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Returns the worst of the runs, in percent of the real figure."""
    if not rows:
        return []
    unit = f"%, worst of {len(rows)} published runs, second half; step model fitted to the first half"
    made = [
        Figure(f"sim_vs_real_{name}_{kind}_pct", max(abs(row["other_half"][name][kind]) for row in rows), unit, "lower", goal)
        for kind, goal in _GOALS.items()
        for name in MEASURES
    ]
    made += [
        Figure(
            f"sim_vs_real_{name}_{kind}_whole_run_pct", max(abs(row["whole"][name][kind]) for row in rows),
            f"%, worst of {len(rows)} published runs, all requests", "lower",
        )
        for kind in _GOALS
        for name in MEASURES
    ]  # fmt: skip
    return made
