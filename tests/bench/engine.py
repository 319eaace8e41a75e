"""The engine's figures in five parts: what alise costs per step, how fast KV is written down, what a save costs its step, how long a
resume takes, what INT8 changes.

Each part is a module with `measure` and `figures` of its own; its rows say which part they are of. They run one after another in this
process, some with a real engine, and `plot()` writes pictures to bench-results/. `make bench-engine` runs it.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import engine_codec, engine_copies, engine_quality, engine_restore, engine_steps
from tests.bench.harness import RESULTS, Figure, Row, Settings, Suite

_PLOTTED: Final = {
    "codec": engine_codec,
    "copies": engine_copies,
    "steps": engine_steps,
    "restore": engine_restore,
    "quality": engine_quality,
}
PARTS: Final[dict[str, Suite]] = dict(_PLOTTED)


def measure(settings: Settings) -> Iterator[Row]:
    """The parts one after another in this process."""
    for name, part in PARTS.items():
        yield from ({"part": name, **row} for row in part.measure(settings))


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    return [figure for name, part in PARTS.items() for figure in part.figures(_of(rows, name), settings)]


def plot(rows: Sequence[Row]) -> list[str]:
    """Writes bench-results/engine-PART.png, and returns the names."""
    from matplotlib.figure import Figure as Canvas

    names = []
    for name, part in _PLOTTED.items():
        canvas = Canvas(figsize=(7, 4.5), layout="constrained")
        part.plot(_of(rows, name), canvas.add_subplot())
        names.append(f"engine-{name}.png")
        canvas.savefig(RESULTS / names[-1], dpi=120)
    return names


def _of(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]
