"""`python3 tests/bench/gpu_standalone --out DIR`: what a GPU shows of alise without vLLM, as JSON lines and a table.

It needs torch, Triton and NumPy, this checkout, and no network; a part takes two minutes at the most. What fails is printed as a failure,
the rest goes on, and the exit status is 1. `--dry-run` runs all of it on a CPU, with Triton's interpreter and tiny sizes; its numbers say
nothing of a GPU.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

if not __package__:
    # Started by its path. A package of this name that is installed on the machine would hide the folder `tests` otherwise.
    _root = Path(__file__).resolve().parents[3]
    sys.path[0] = str(_root)
    _tests = ModuleType("tests")
    _tests.__path__ = [str(_root / "tests")]
    sys.modules["tests"] = _tests

from tests.bench.gpu_standalone import parts
from tests.bench.gpu_standalone.figures import MUST_HOLD, figures, wrong
from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import FAILURE
from tests.bench.harness import RESULTS, Row, commit, machine, table, verdict


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 tests/bench/gpu_standalone", description="What a GPU shows of alise without vLLM.")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_standalone", help="folder for rows.jsonl, figures.jsonl and table.txt")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU with tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--only", action="append", choices=parts.PARTS, help="this part only; may be given again")
    parser.add_argument("--part", choices=parts.PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = Device(arguments.dry_run)
    if arguments.part:
        _one(arguments.part, arguments.rows, device)
    else:
        sys.exit(_all(arguments.only or parts.PARTS, arguments.out, device))


def _one(part: str, path: Path, device: Device) -> None:
    """A part in this process, its rows written as they come."""
    with path.open("w") as out:
        for row in parts.measure(part, device):
            out.write(json.dumps(row) + "\n")
            out.flush()


def _all(chosen: Sequence[str], out: Path, device: Device) -> int:
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with (out / "rows.jsonl").open("w") as kept:
        for part in chosen:
            began = time.monotonic()
            found = list(parts.run(part, device))
            kept.writelines(json.dumps(row) + "\n" for row in found)
            kept.flush()
            rows += found
            print(f"[{part}] {len(found)} rows, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    lines, text, status = report(rows, device)
    (out / "figures.jsonl").write_text(lines)
    (out / "table.txt").write_text(text)
    print(f"{lines}\n{text}", end="", flush=True)
    return status


def report(rows: Sequence[Row], device: Device) -> tuple[str, str, int]:
    """JSON lines (the machine first, then the figures and the failures), a table, and the exit status."""
    found = figures(rows)
    if device.dry:
        # How quick it is has no goal there.
        found = [figure if figure.name in MUST_HOLD else replace(figure, goal=None) for figure in found]
    seen = next((row for row in rows if row["kind"] == "machine"), {})
    lines = [{"machine": machine() | {key: value for key, value in seen.items() if key not in ("part", "kind")}, "commit": commit()}]
    lines += [{"figure": figure.name} | asdict(figure) | {"verdict": verdict(figure), "dry_run": device.dry} for figure in found]
    failed = [row for row in rows if row["kind"] == FAILURE]
    lines += [{"failure": row["what"], "part": row["part"], "error": row["error"]} for row in failed]
    text = "A dry run on a CPU: these numbers say nothing of any GPU.\n" if device.dry else ""
    text += ", ".join(f"{key} {value}" for key, value in seen.items() if key not in ("part", "kind")) + "\n" + table(found) + "\n"
    text += "".join(f"\nWRONG {figure.name}: {figure.value:.6g}, and it must be at most {figure.goal:g}\n" for figure in wrong(found))
    text += "".join(f"\nFAILED {row['part']}, {row['what']}: {row['error']}\n{row['trace']}" for row in failed)
    return "".join(json.dumps(line) + "\n" for line in lines), text, int(bool(failed or wrong(found)))


if __name__ == "__main__":
    main()
