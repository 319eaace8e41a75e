"""Replay traces of requests through the production scheduler on simulated engines.

For example, compare the default policy with stock vLLM at 80% and 100% load:

    python -m alise_simulator heavy-tail --policies boost vllm-fcfs --load 0.8 1.0

A trace is a CSV file with the columns arrival_s, input_tokens and output_tokens,
and optionally tenant, or prefix_group and prefix_tokens. It may be compressed (.gz).
The name heavy-tail stands for a synthetic trace. An engine is a model on a device:
--hardware chooses one, and --list-hardware shows all. The results are printed as a
table; --out writes them as JSON, and --plots draws the latencies.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.rank import POLICIES, Policy

from .hardware import DEFAULT_HARDWARE, HARDWARE, KV_BITS, engine_model, hardware_table
from .model import EngineModel
from .predictions import predicted
from .report import plot_latencies, summary
from .routing import ROUTERS, Router
from .run import Outcome, simulate
from .systems import BASELINES, Setup, driver_named
from .trace import at_load, read_trace

_USAGE_ERROR: Final = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alise_simulator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", nargs="*", metavar="TRACE", help="a CSV file, or heavy-tail")
    parser.add_argument("--hardware", default=DEFAULT_HARDWARE, choices=HARDWARE, metavar="NAME",
                        help=f"model and device of the engines (default: {DEFAULT_HARDWARE})")  # fmt: skip
    parser.add_argument("--list-hardware", action="store_true", help="print the models and devices that --hardware accepts, and exit")
    parser.add_argument("--kv-bits", type=int, default=16, choices=KV_BITS, help="bits per KV value on the device (default: 16)")
    parser.add_argument("--policies", nargs="+", default=["vllm-fcfs", Policy().name], choices=[*POLICIES, *BASELINES], metavar="NAME",
                        help=f"policies: {', '.join((*POLICIES, *BASELINES))} (default: vllm-fcfs {Policy().name})")  # fmt: skip
    parser.add_argument(
        "--load", type=float, nargs="+", default=[0.9], help="offered load as shares of the engines' capacity (default: 0.9)"
    )
    parser.add_argument(
        "--predictions", default="noise:0.8", help="predicted lengths: oracle, blind, or noise:SIGMA on the log length (default: noise:0.8)"
    )
    parser.add_argument(
        "--requests", type=int, default=0, help="number of requests to replay; 0 is all of a file, or 20,000 synthetic ones (default: 0)"
    )
    parser.add_argument("--replicas", type=int, default=1, help="number of engines, up to 10,000 (default: 1)")
    parser.add_argument(
        "--routing", choices=[*ROUTERS], default="least-requests", help="how requests are routed to replicas (default: least-requests)"
    )
    parser.add_argument("--slots", type=int, help="max_num_seqs of an engine (default: that of the hardware)")
    parser.add_argument(
        "--kv-blocks", type=int, help="KV blocks on the device, of 16 tokens each, or 32 with slots32 (default: that of the hardware)"
    )
    parser.add_argument(
        "--host-gib", type=float, help="GiB of host memory for the KV of preempted requests (default: that of the hardware)"
    )
    parser.add_argument("--max-wait", type=float, default=0.0, metavar="SECONDS",
                        help="refuse requests with a longer predicted wait; 0 refuses none; baselines never do (default: 0)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of synthetic traces and of noise (default: 0)")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    parser.add_argument("--plots", type=Path, help="draw latency plots into this folder (needs matplotlib)")
    return parser


def _progress(label: str, total: int) -> Callable[[int], None]:
    if not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        filled = 30 * done // max(1, total)
        print(f"\r\033[K{label} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}", end="", file=sys.stderr, flush=True)

    return show


def _line(row: dict[str, object]) -> str:
    cells = [f"{row[key]:10.3f}" for key in _SHOWN]
    return f"{row['trace']!s:22} {row['load']:>5} {row['policy']!s:14} " + " ".join(cells)


_SHOWN: Final = (
    "normalized_mean_seconds",
    "ttft_mean_seconds",
    "ttft_p99_seconds",
    "e2e_mean_seconds",
    "e2e_p99_seconds",
    "preemptions",
    "saved_gb",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulations. Returns the exit status: 0, or 2 if an argument is invalid."""
    options = _parser().parse_args(arguments)
    if options.list_hardware:
        print(hardware_table())
        return 0
    if not options.traces:
        print("simulate: name a trace: a CSV file, or heavy-tail", file=sys.stderr)
        return _USAGE_ERROR
    model = _model(options)
    shape = model.shape
    if not 1 <= options.replicas <= 10_000 or shape.max_num_seqs < 1 or shape.num_device_blocks < 2 or shape.host_limit_bytes < 0:
        print(
            "simulate: --replicas must be 1 to 10,000, --slots at least 1, --kv-blocks at least 2, and --host-gib at least 0",
            file=sys.stderr,
        )
        return _USAGE_ERROR
    try:
        rows = _run_all(options, model)
    except (OSError, ValueError) as error:
        print(f"\nsimulate: {error}", file=sys.stderr)
        return _USAGE_ERROR
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _model(options: argparse.Namespace) -> EngineModel:
    """The engine of the hardware, with the changes that the options ask for."""
    model = engine_model(options.hardware, options.kv_bits)
    given = {
        "max_num_seqs": options.slots,
        "num_device_blocks": options.kv_blocks,
        "host_limit_bytes": None if options.host_gib is None else int(options.host_gib * 2**30),
    }
    return replace(model, shape=replace(model.shape, **{name: value for name, value in given.items() if value is not None}))


def _run_all(options: argparse.Namespace, model: EngineModel) -> list[dict[str, object]]:
    print(f"{'trace':22} {'load':>5} {'policy':14} " + " ".join(f"{key.removesuffix('_seconds')[-10:]:>10}" for key in _SHOWN))
    rows: list[dict[str, object]] = []
    for name in options.traces:
        trace = read_trace(name, options.requests, options.seed)
        lengths = predicted(options.predictions, trace.output_tokens, options.seed)
        for load in options.load:
            setup = Setup(at_load(trace, load, model, options.replicas), model, lengths)
            outcomes: dict[str, Outcome] = {}
            for policy in options.policies:
                router: Router | None = ROUTERS[options.routing](options.replicas, lengths.mean(axis=1)) if options.replicas > 1 else None
                began = time.perf_counter()
                on_progress = _progress(f"{trace.name} {load} {policy}", len(trace))
                limits = AdmitLimits(options.max_wait) if options.max_wait > 0 else None
                drivers = driver_named(policy, setup, admit_limits=limits)
                outcomes[policy] = simulate(setup.trace, model, drivers, options.replicas, router, on_progress)
                row = {"trace": trace.name, "load": load, "policy": policy, "replicas": options.replicas}
                row |= {"hardware": options.hardware, "kv_bits": options.kv_bits}
                row |= {"predictions": options.predictions, "simulated_seconds": time.perf_counter() - began, **summary(outcomes[policy])}
                rows.append(row)
                print(("\r\033[K" if sys.stderr.isatty() else "") + _line(row), flush=True)
            if options.plots:
                options.plots.mkdir(parents=True, exist_ok=True)
                plot_latencies(outcomes, options.plots / f"{trace.name}-{load}.png")
    return rows


if __name__ == "__main__":
    sys.exit(main())
