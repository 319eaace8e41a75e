"""Refusing in overload: are those refused that would have waited too long, and are those served that were let in?

    DATASET=FOLDER python -m tests.bench.shedding [--loads 1.1 1.3] [--bounds 60] [--seeds 2] [--window 600]

Three runs of the same requests on the same simulated engine, with the default policy and learned predictions: one that refuses no request,
one that refuses those whose predicted wait exceeds the bound (`admission.maxWaitSeconds`), and one that does so but lets in, by lot, one
in twenty of those. A line of the table is a mean over seeds:

    refused        share of the requests that are refused
    true, half     of these, the shares that waited longer than the bound, and than half of it, in the run that refuses none
    let in         seconds that the median one of those let in by lot waited
    in time        of those that were admitted, the share that waited no longer than the bound
    in 10x         share of all requests that end within ten times their unloaded time; a refused one is a miss; before: refusing none
    worst          seconds of the longest end-to-end time, and before
"""

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.rank import Policy
from alise_simulator.driver import CoreDriver
from alise_simulator.hardware import engine_model
from alise_simulator.request import Request
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, core_driver
from tests.bench.gain import SETS, counted, requests
from tests.bench.policies_data import answered

COLUMNS: Final = ("refused", "true", "half", "let in", "in time", "in 10x", "before", "worst", "before")
_SPARED: Final = 0.05


class Sparing(CoreDriver):
    """Lets in one in twenty of those that it would refuse; which ones is a matter of their number."""

    def refuses(self, request: Request, level: float, now: float, limits: AdmitLimits) -> bool:
        if not super().refuses(request, level, now, limits):
            return False
        if np.random.default_rng([7, request.index]).uniform() >= _SPARED:
            return True
        spared.add(request.index)
        super().refuses(request, level, now, AdmitLimits())
        return False


spared: set[int] = set()


def compared(setup: Setup, bound: float) -> list[float]:
    """The columns of one seed."""
    limits, policy = AdmitLimits(bound), Policy()
    spared.clear()
    before, after, sparing = (
        simulate(setup.trace, setup.model, core_driver(setup, policy, kind, given))
        for kind, given in ((CoreDriver, None), (CoreDriver, limits), (Sparing, limits))
    )
    refused, let_in = ~after.served, np.array(sorted(spared), dtype=np.int64)
    counts, counts_before = (counted(outcome, setup.model) for outcome in (after, before))
    return [
        float(refused.mean()), share(before.waited_seconds[refused] > bound), share(before.waited_seconds[refused] > bound / 2),
        float(np.median(sparing.waited_seconds[let_in])) if len(let_in) else np.nan, share(after.waited_seconds[after.served] <= bound),
        counts["in10"], counts_before["in10"], counts["e2e_worst"], counts_before["e2e_worst"],
    ]  # fmt: skip


def share(which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Of none it is no number."""
    return float(which.mean()) if len(which) else np.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--loads", type=float, nargs="+", default=[1.1, 1.3])
    parser.add_argument("--bounds", type=float, nargs="+", default=[60.0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--window", type=float, default=600.0)
    options = parser.parse_args(arguments)
    if "DATASET" not in os.environ:
        print("shedding: set DATASET to a folder with alpaca.parquet and sharegpt.parquet", file=sys.stderr)
        return 2
    print(f"{'engine and data':16} {'load':>5} {'bound':>6} " + " ".join(f"{name:>8}" for name in COLUMNS))
    for name, load, bound in product(options.sets, options.loads, options.bounds):
        hardware, data_name = SETS[name]
        data, model = answered(Path(os.environ["DATASET"]) / f"{data_name}.parquet", False), engine_model(hardware)
        assert data.real is not None
        rows = []
        for seed in range(options.seeds):
            trace, which = requests(data.trace, load, seed, options.window, model)
            rows.append(compared(Setup(trace, model, data.real[which]), bound))
        values = np.nanmean(np.array(rows), axis=0)
        print(
            f"{name:16} {load:5.2f} {bound:6.0f} " + " ".join(f"{value:8.3f}" if value < 1.5 else f"{value:8.1f}" for value in values),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
