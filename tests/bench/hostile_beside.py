"""How long honest clients wait for their first token beside a hostile client, over how long beside the same client when it is honest.

Honest requests come at a fixed rate whatever becomes of them, and are short. Beside them one client sends a hostile input as fast as its
connections allow; and the same client, with as many connections, sends honest requests at the pace that it reached (if an input is an odd
honest request itself, its twin as fast as it can). Both clients, the
engine and the scheduler share the cores of this machine. The ratio is of 99th percentiles over all seeds; where a side has fewer than 100
honest requests it is of 95th percentiles, and the figure says so. Run it on a machine that does nothing else: on a busy one the ratios are
those of its other work. `hostile.py` runs it.
"""

import asyncio
import contextlib
import json
import math
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from alise_contract.names import STATUS_PATH
from tests.bench.harness import Figure, Row, Settings, median, percentile
from tests.bench.hostile_client import Orders
from tests.bench.hostile_inputs import COMPLETIONS, GOOD, INPUTS, JSON_TYPE, SHORT, Input
from tests.bench.hostile_served import Pod, Setting, serving
from tests.bench.hostile_wire import Answer, exchange, message

# Honest requests a second; fewer beside a flood, where at most five of them may wait at once (half of maxPending).
RATE: Final = 12.0
FLOODED_RATE: Final = 4.0
SIDE_SECONDS: Final = 5.0
# Before both sides of an input, not counted.
LEAD_SECONDS: Final = 2.0
ENOUGH: Final = 100
ORDINARY: Final = Setting(slots=8)
FLOODED: Final = Setting(slots=8, keyed=True, max_pending=10)
_WARM: Final = 20
_ANSWER_SECONDS: Final = 20.0
_BEGIN_SECONDS: Final = 30.0
_QUIET_SECONDS: Final = 10.0
_ALIVE_SECONDS: Final = 60.0
# The hostile client is at full speed before the first honest request.
_AHEAD_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class _Side:
    """What both clients saw in one stretch of time."""

    honest: list[Answer]
    client: dict[str, Any]


def measure(model: Path, settings: Settings, seeds: int, inputs: Sequence[Input] = INPUTS) -> Iterator[Row]:
    """Rows of kind beside, one per input, seed and side; of kind death where an engine did not survive an input."""
    inputs = [one for one in inputs if one.quick or not settings.quick]
    for setting in (ORDINARY, FLOODED):
        waiting = [(seed, one) for seed in range(seeds) for one in inputs if one.flood == (setting == FLOODED)]
        while waiting:
            with serving(model, setting) as pod, _client() as client:
                asyncio.run(_warm(pod, setting))
                while waiting:
                    seed, one = waiting.pop(0)
                    common = {"input": one.id, "case": one.case, "control": one.control, "seed": seed, "setting": setting.name}
                    # The lead finds the pace and warms up: the first seconds of an input meet an empty prefix cache and a scheduler that
                    # has not seen such requests, which would count for whichever side came first. The order alternates as well.
                    lead = asyncio.run(_side(pod, setting, client, one, 0.0, LEAD_SECONDS))
                    # An input that costs as much as its honest twin: the twin reaches the same pace by itself, with the same bursts.
                    pace = math.inf if one.good is not None else max(0.1, lead.client["sent"] / LEAD_SECONDS)
                    for side in ("hostile", "good") if seed % 2 == 0 else ("good", "hostile"):
                        seen = asyncio.run(_side(pod, setting, client, one, 0.0 if side == "hostile" else pace, SIDE_SECONDS))
                        yield {"kind": "beside", "side": side, **common, **_row(one, side, seen)}
                    if not asyncio.run(_alive(pod, setting)):
                        yield {"kind": "death", "where": f"beside honest clients, {setting.name}", **common}
                        break


def _row(one: Input, side: str, seen: _Side) -> Row:
    statuses = {int(status): times for status, times in seen.client["statuses"].items()}
    wrong = sorted(status for status in statuses if side == "hostile" and status not in one.expected and status != 0)
    return {
        "ttft_ms": [round(1000 * answer.first_seconds, 2) for answer in seen.honest],
        # Whatever else than a whole answer within _ANSWER_SECONDS.
        "rejected": sum(not _whole(answer) for answer in seen.honest),
        "honest_statuses": dict(Counter(answer.status for answer in seen.honest)),
        "honest_failures": sorted({answer.body[:300].decode(errors="replace") for answer in seen.honest if not _whole(answer)})[:3],
        "sent": seen.client["sent"],
        "pace": round(seen.client["sent"] / SIDE_SECONDS, 2),
        "statuses": statuses,
        "wrong_statuses": wrong,
        "failures": seen.client["failures"],
    }


@contextlib.contextmanager
def _client() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.bench.hostile_client"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def _whole(answer: Answer) -> bool:
    return answer.status == 200 and b"data: [DONE]" in answer.body


async def _side(pod: Pod, setting: Setting, client: "subprocess.Popen[str]", one: Input, pace: float, seconds: float) -> _Side:
    """Runs both clients for `seconds`."""
    orders = Orders(pod.port, one.id, seconds, pace, {**setting.headers("hostile"), **one.headers})
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(asdict(orders)) + "\n")
    client.stdin.flush()
    await asyncio.wait_for(asyncio.to_thread(client.stdout.readline), _BEGIN_SECONDS)
    await asyncio.sleep(_AHEAD_SECONDS)
    honest = await _honest(pod, setting, seconds - 2 * _AHEAD_SECONDS)
    said = json.loads(await asyncio.wait_for(asyncio.to_thread(client.stdout.readline), seconds + _BEGIN_SECONDS))
    await _quiet(pod)
    return _Side(honest, said)


async def _honest(pod: Pod, setting: Setting, seconds: float) -> list[Answer]:
    """Streamed answers at the setting's rate, each asked for at its moment."""
    rate = FLOODED_RATE if setting == FLOODED else RATE
    data = message("POST", COMPLETIONS, {**JSON_TYPE, **setting.headers("honest")}, json.dumps({**SHORT, "stream": True}).encode())
    began = time.monotonic()
    tasks = []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(exchange(pod.port, data, _ANSWER_SECONDS)))
    return list(await asyncio.gather(*tasks))


async def _quiet(pod: Pod) -> None:
    """Wait until no request is open, for a while."""
    ends = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < ends:
        report = await asyncio.to_thread(_status, pod)
        if not int(report.get("open_requests", 1)):
            return
        await asyncio.sleep(0.1)


def _status(pod: Pod) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        report: Mapping[str, Any] = json.load(urllib.request.urlopen(pod.url + STATUS_PATH, timeout=5.0))
        return report
    return {}


async def _warm(pod: Pod, setting: Setting) -> None:
    for number in range(_WARM):
        await exchange(pod.port, GOOD(number, setting.headers("honest")), _ANSWER_SECONDS)


async def _alive(pod: Pod, setting: Setting) -> bool:
    """Whether it answers, or does again within a minute: one that is busy with what came before is not dead."""
    ends = time.monotonic() + _ALIVE_SECONDS
    while time.monotonic() < ends:
        if (await exchange(pod.port, GOOD(0, setting.headers("honest")), _ANSWER_SECONDS)).status == 200:
            return True
        await asyncio.sleep(0.5)
    return False


# --- figures ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of one input: the quantile of the honest clients' TTFT beside it, over the same beside honest requests."""

    input: str
    value: float
    # By seed.
    least: float
    most: float
    hostile_ms: float
    good_ms: float
    share: float
    control: bool


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Return the ratio of each input, the worst first."""
    made = []
    for name in dict.fromkeys(row["input"] for row in rows if row["kind"] == "beside"):
        own = [row for row in rows if row["kind"] == "beside" and row["input"] == name]
        sides = {side: [ms for row in own if row["side"] == side for ms in row["ttft_ms"]] for side in ("hostile", "good")}
        if not all(sides.values()):
            continue
        share = 0.99 if min(map(len, sides.values())) >= ENOUGH else 0.95
        hostile_ms, good_ms = (percentile(sides[side], share) for side in ("hostile", "good"))
        by_seed = []
        for seed in sorted({row["seed"] for row in own}):
            of = {row["side"]: row["ttft_ms"] for row in own if row["seed"] == seed}
            if len(of) == 2 and all(of.values()):
                by_seed.append(percentile(of["hostile"], 0.95) / percentile(of["good"], 0.95))
        made.append(Ratio(name, hostile_ms / good_ms, min(by_seed), max(by_seed), hostile_ms, good_ms, share, own[0]["control"]))
    return sorted(made, key=lambda ratio: -ratio.value)


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The worst input's ratio, who was rejected beside it, and which statuses were wrong; none without rows.

    Beside them the worst ratio of an honest client to itself, which is pure noise: it comes from few inputs, so it is rather too small.
    """
    own = [row for row in rows if row["kind"] == "beside"]
    everything = ratios(rows)
    found = [ratio for ratio in everything if not ratio.control]
    if not found:
        return []
    controls = [ratio for ratio in everything if ratio.control]
    worst = found[0]
    rejected = sum(row["rejected"] for row in own if row["side"] == "hostile")
    unit = f"ratio of p{worst.share * 100:.0f} [{worst.least:.2f}–{worst.most:.2f} by seed, p95], {worst.input}"
    wrong = sorted({f"{row['input']}: {status}" for row in own for status in row["wrong_statuses"]})
    return [
        Figure("honest_rejected_beside_hostile", rejected, _of(own, "rejected"), "lower", 0),
        Figure("honest_p99_ttft_beside_hostile", worst.value, unit, "lower", 1.5),
        Figure("honest_p99_ttft_beside_hostile_median", median(ratio.value for ratio in found), f"ratio, of {len(found)} inputs", "lower"),
        *(
            Figure("honest_p99_ttft_beside_honest", ratio.value, f"ratio, the worst of {len(controls)} controls", "lower")
            for ratio in controls[:1]
        ),
        Figure("hostile_wrong_statuses", len(wrong), "; ".join(wrong) or "statuses", "lower", 0),
    ]


def _of(rows: Sequence[Row], key: str) -> str:
    """The inputs beside which honest requests failed, for the figure's unit."""
    names = dict.fromkeys(row["input"] for row in rows if row["side"] == "hostile" and row[key])
    return f"requests ({', '.join(names)})" if names else "requests"


def table(rows: Sequence[Row]) -> str:
    """All inputs: the ratio, its spread over seeds, the milliseconds of both sides, and the pace of the hostile client."""
    lines = [f"{'ratio':>7} {'by seed':>13} {'ms beside':>10} {'ms else':>8} {'pace/s':>8} {'statuses':<24} input"]
    for ratio in ratios(rows):
        own = [row for row in rows if row["kind"] == "beside" and row["input"] == ratio.input and row["side"] == "hostile"]
        pace = median(row["pace"] for row in own)
        statuses = ", ".join(sorted({str(status) for row in own for status in row["statuses"]})) or "none"
        spread = f"{ratio.least:.2f}–{ratio.most:.2f}"
        line = f"{ratio.value:7.2f} {spread:>13} {ratio.hostile_ms:10.1f} {ratio.good_ms:8.1f} {pace:8.1f} {statuses:<24}"
        lines.append(f"{line} {ratio.input}" + (f" ({own[0]['case']})" if own[0]["case"] else ""))
    return "\n".join(lines)
