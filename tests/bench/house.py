"""How the repository is kept: circles of imports, sizes, prose, and what is documented. Counted over the tree in seconds, nothing is run.

`make bench-house` runs it. `python -m tests.tools.house [FIGURE…]` prints what is counted, with file and line.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench.harness import Figure, Row, Settings
from tests.tools.house import figures as house

# Those that have a goal other than 0, and what they count.
_SIZES: Final = {
    "predictor_lines": (house.predictor_lines, 2_000.0),
    "product_lines": (house.product_lines, None),
    "readme_lines": (house.readme_lines, 90.0),
}


def measure(settings: Settings) -> Iterator[Row]:
    """Yields a row for each figure, with what it counts."""
    for name, findings in house.FINDINGS.items():
        found = findings()
        yield {"figure": name, "value": len(found), "found": [str(one) for one in found]}
    for name, (count, _) in _SIZES.items():
        yield {"figure": name, "value": count()}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    goals = {name: goal for name, (_, goal) in _SIZES.items()}
    return [
        Figure(row["figure"], row["value"], "lines" if row["figure"] in _SIZES else "", "lower", goals.get(row["figure"], 0.0))
        for row in rows
    ]
