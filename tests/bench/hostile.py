"""What one client can do to the others: `make bench-hostile`.

    surface   the same requests to stock vLLM and to ours: who answers otherwise, and whose engine dies (`tests/surface`)
    forging   every channel by which a client might choose its own rank (`hostile_forging.py`)
    beside    honest clients beside one that sends hostile inputs as fast as it can (`hostile_beside.py`)
    fuzz      the fuzzers, 20 s each (`tests/fuzz`)
    admit     how long an Admit takes, beside the commit before (`hostile_before.py`)

Everything is served on this machine with the tiny model, and every client talks to this machine alone. The image has its own end-to-end
test. With QUICK=1 honest clients are measured beside the inputs that reports name, once, and the channels that are about who asks are the
only ones that are tried with API keys as well.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench import hostile_before, hostile_beside, hostile_forging
from tests.bench.harness import ROOT, Figure, Row, Settings

FUZZ_SECONDS: Final = 20
HERE: Final = "this machine"
_FUZZ_LIMIT_SECONDS: Final = 1200


def measure(settings: Settings) -> Iterator[Row]:
    """Rows of kind compared, death, channel, beside, fuzz and admit_turn."""
    from alise_engine.serve import tiny_model

    with tempfile.TemporaryDirectory(prefix="alise-") as folder:
        model = tiny_model.write_model(Path(folder) / "tiny")
        yield from _surface(model)
        yield from hostile_forging.measure(model, settings.quick)
        yield from hostile_beside.measure(model, settings, 1 if settings.quick else settings.seeds)
    yield from _fuzz()
    yield from hostile_before.measure(settings)


def _surface(model: Path) -> Iterator[Row]:
    from tests.surface import servers
    from tests.surface.run import play

    with servers.both(model) as (stock, ours):
        result = play(stock, ours)
    unlike = {one.request.id: [str(difference) for difference in one.differences] for one in result.unlike}
    common = {"kind": "compared", "where": HERE}
    for id in result.compared:
        yield {**common, "id": id, "unlike": unlike.get(id, []), "wanted": id in result.wanted, "stock_dies": False}
    for id, status in result.not_compared.items():
        yield {**common, "id": id, "unlike": unlike.get(id, []), "wanted": False, "stock_dies": True, "status": status}
    for death in result.engine_deaths:
        yield {"kind": "death", "where": "compared with stock", "input": death.request.id}
    if result.ended_early:
        yield {"kind": "ended_early", "where": HERE, "why": result.ended_early}


def _fuzz() -> Iterator[Row]:
    """One row per target. Exit status 1 says that there are findings, which the rows say as well."""
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(FUZZ_SECONDS)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_FUZZ_LIMIT_SECONDS, check=False, text=True)
    for line in ended.stdout.splitlines():
        if line.startswith("{"):
            yield {"kind": "fuzz", "asked_seconds": FUZZ_SECONDS, **json.loads(line)}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """All figures; those of a part without rows are left out."""
    return [*_compared(rows), *_forged(rows), *hostile_beside.figures(rows), *_fuzzed(rows), *hostile_before.figures(rows)]


def _compared(rows: Sequence[Row]) -> list[Figure]:
    own = [row for row in rows if row["kind"] == "compared"]
    deaths = [row for row in rows if row["kind"] == "death"]
    early = next((f"; ended early: {row['why']}" for row in rows if row["kind"] == "ended_early"), "")
    unlike = [row["id"] for row in own if row["unlike"]]
    compared = [row for row in own if not row["stock_dies"]]
    made = []
    if own:
        made = [
            Figure("requests_compared", len(compared), f"requests, on {own[0]['where']}{early}", "higher", 80),
            Figure("requests_unlike_stock", len(unlike), _named("requests", unlike), "lower", 0),
            Figure("requests_with_a_wanted_difference", sum(row["wanted"] for row in own), "requests", "lower"),
        ]
    return [*made, Figure("engine_deaths", len(deaths), _named("engines", [row["input"] for row in deaths]), "lower", 0)]


def _forged(rows: Sequence[Row]) -> list[Figure]:
    own = [row for row in rows if row["kind"] == "channel"]
    if not own:
        return []
    forged = [f"{row['id']}: {reason}" for row in own if (reason := hostile_forging.forged(row))]
    settings = len({row["setting"] for row in own})
    return [
        Figure(
            "forging_channels_tried", len({row["id"] for row in own}), f"channels, {len(own)} tries in {settings} settings", "higher", 15
        ),
        Figure("rank_forged", len(forged), _named("channels", forged), "lower", 0),
    ]


def _fuzzed(rows: Sequence[Row]) -> list[Figure]:
    own = [row for row in rows if row["kind"] == "fuzz"]
    if not own:
        return []
    findings = [f"{row['target']}: {found['error']}" for row in own for found in row["findings"]]
    minutes = sum(row["asked_seconds"] for row in own) / 60
    return [
        Figure("fuzz_findings", len(findings), _named("findings", findings), "lower", 0),
        Figure("fuzz_minutes", minutes, f"minutes, {len(own)} targets, {sum(row['executions'] for row in own)} inputs", "higher"),
    ]


def _named(what: str, names: Sequence[str]) -> str:
    """The unit, with the first of what was found."""
    return f"{what} ({'; '.join(name[:120] for name in names[:5])}{'; …' if len(names) > 5 else ''})" if names else what


def plot(rows: Sequence[Row]) -> list[str]:
    """No picture: print the table of all inputs that honest clients were measured beside."""
    if any(row["kind"] == "beside" for row in rows):
        print(hostile_beside.table(rows))
    return []
