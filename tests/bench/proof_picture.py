"""`python -m tests.bench.proof_picture` draws README's picture from the rows of the simulator's grid: docs/pictures/gain.png."""

import sys
from typing import Final

from tests.bench import proof_pictures
from tests.bench.harness import ROOT
from tests.bench.proof_sources import kept_runs
from tests.bench.proof_tables import MAIN_SYSTEMS

FOLDER: Final = ROOT / "docs" / "pictures"
# Sharp on a page, and less than 150 kB.
_DPI: Final = 100


def main() -> None:
    """Draws the picture. Raises SystemExit without rows of a full run."""
    rows = kept_runs()
    if not rows or rows[0]["window_seconds"] < 600:
        sys.exit("there are no rows of a full run in bench-results/gain.kept.jsonl: run `DATASET=FOLDER make bench-gain` first")
    lacking = [system for system in MAIN_SYSTEMS if not any(row["system"] == system for row in rows)]
    if lacking:
        sys.exit(f"the rows of {', '.join(lacking)} are of an earlier version: run `DATASET=FOLDER make bench-gain` first")
    picture = proof_pictures.gain(rows, FOLDER, dpi=_DPI)
    path = FOLDER / f"{picture.name}.png"
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB, {picture.caption}")


if __name__ == "__main__":
    main()
