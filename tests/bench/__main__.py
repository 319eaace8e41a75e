"""`python -m tests.bench [NAME…]`: run suites, print their figures, write bench-results/.

The environment sets DATASET (a file or folder; ALISE_DATA otherwise; a seeded synthetic workload without either), SEEDS and QUICK=1.
With DEVICE (and TIME_SCALE, see tests/emulated/launch.py) `serving` serves on an emulated device; `clients` always does.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import cast

from tests.bench.harness import RESULTS, Row, Settings, Suite, rows_path, table, write_result

SUITES = {
    "engine": "tests.bench.engine",
    "hostile": "tests.bench.hostile",
    "house": "tests.bench.house",
    "operator": "tests.bench.operator",
    "policies": "tests.bench.policies",
    "predictor": "tests.bench.predictor",
    "replay": "tests.bench.replay",
    "serving": "tests.bench.serving",
    "soak": "tests.bench.soak",
}
# Not among all of them: they take an hour, or need what few machines have.
ON_REQUEST = {
    "ablation": "tests.bench.ablation",
    "autoscale": "tests.bench.autoscale",
    "fuzz": "tests.bench.fuzz",
    "gain": "tests.bench.gain",
    "gpu": "tests.bench.gpu",
    "emulated": "tests.bench.serving_emulated",
    "clients": "tests.bench.clients",
    "picker": "tests.bench.picker",
    "proof": "tests.bench.proof",
}


def settings_from(environment: dict[str, str]) -> Settings:
    """Read DATASET, SEEDS and QUICK. Raises SystemExit when one makes no sense."""
    named = environment.get("DATASET") or environment.get("ALISE_DATA")
    dataset = Path(named) if named else None
    if dataset is not None and not dataset.exists():
        raise SystemExit(f"DATASET={named} does not exist; name a file or a folder, or leave it out for the synthetic workload")
    seeds = environment.get("SEEDS", "3")
    if not seeds.isdigit() or int(seeds) < 1:
        raise SystemExit(f"SEEDS={seeds} is not a positive number")
    quick = environment.get("QUICK", "") not in ("", "0")
    return Settings(quick, int(seeds), dataset, environment.get("DEVICE", ""), environment.get("TIME_SCALE", ""))


def run_suite(name: str, settings: Settings, recompute: bool) -> list[str]:
    """Measure (or read the rows again), then write and print the figures. What a suite says that failed, a sentence each."""
    suite = cast(Suite, importlib.import_module((SUITES | ON_REQUEST)[name]))
    started = time.monotonic()
    if recompute:
        rows: list[Row] = [json.loads(line) for line in rows_path(name).read_text().splitlines()]
    else:
        RESULTS.mkdir(exist_ok=True)
        rows = []
        with rows_path(name).open("w") as out:
            for row in suite.measure(settings):
                out.write(json.dumps(row) + "\n")
                out.flush()
                rows.append(row)
                print(f"\r\033[K[{name}] {len(rows)} rows, {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    figures = suite.figures(rows, settings)
    path = write_result(name, figures)
    plots = suite.plot(rows) if hasattr(suite, "plot") else []
    written = ", ".join([path.name, *plots])
    print(f"{table(figures)}\n{len(rows)} rows in {rows_path(name).name}, figures in {written}\n", flush=True)
    return list(suite.failures(rows, settings)) if hasattr(suite, "failures") else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Runs the benchmarks.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join([*SUITES, *ON_REQUEST])}; without one all but {', '.join(ON_REQUEST)}"
    )
    parser.add_argument("--recompute", action="store_true", help="compute the figures from the rows of the last run")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SUITES | ON_REQUEST]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join([*SUITES, *ON_REQUEST])}")
    # As after Ctrl-C, the engines and schedulers that a suite has started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed: list[str] = []
    for name in arguments.names or SUITES:
        settings = settings_from(dict(os.environ))
        failed += run_suite("emulated" if name == "serving" and settings.device else name, settings, arguments.recompute)
    if failed:
        sys.exit("\n".join(["", *(f"FAILED {sentence}" for sentence in failed)]))


if __name__ == "__main__":
    main()
