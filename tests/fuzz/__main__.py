"""`python -m tests.fuzz [--seconds N] [TARGET…]`: fuzzes what clients and the other process of a pod can send.

Prints a JSON line per target, then a summary. Inputs of findings are kept below bench-results/fuzz/. Exit status 1: there are findings.
"""

import argparse
import os
import sys

from tests.fuzz.run import FINDINGS, Outcome, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzzes what clients and the other process of a pod can send."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; without one all of them")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default 20)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="targets that run side by side (default: one per core)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.targets if name not in TARGETS]:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    chosen = {name: TARGETS[name] for name in arguments.targets or TARGETS}
    outcomes = []
    for outcome in fuzz(chosen, arguments.seconds, arguments.at_once):
        print(outcome.as_json(), flush=True)
        outcomes.append(outcome)
    print(summary(outcomes), file=sys.stderr)
    return 1 if any(outcome.findings for outcome in outcomes) else 0


def summary(outcomes: list[Outcome]) -> str:
    lines = [f"{outcome.target:14} {outcome.executions:>9} inputs in {outcome.seconds:.0f} s" for outcome in outcomes]
    for outcome in outcomes:
        for found in outcome.findings:
            lines += [
                f"\n{outcome.target}: {found.error}",
                f"  input: {found.input[:200]}{'…' if len(found.input) > 200 else ''}",
                f"  {found.file}",
            ]
    count = sum(len(outcome.findings) for outcome in outcomes)
    return "\n".join([*lines, f"\n{count} findings" + (f"; their inputs are in {FINDINGS}" if count else "")])


if __name__ == "__main__":
    sys.exit(main())
