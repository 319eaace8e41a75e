"""Which rows the report takes, and what it makes of those of the emulated engine and of clients."""

from typing import Any

import pytest

from tests.bench.harness import Row
from tests.bench.proof_served import clients, commands, cpu, over_http, paired, summaries
from tests.bench.proof_sources import PARTS, chosen, current


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, PARTS, id="all without PARTS"),
        pytest.param({"PARTS": "clients, gain"}, ("gain", "clients"), id="the named ones, in the report's order"),
        pytest.param({"PARTS": "none"}, (), id="none"),
    ],
)
def test_parts_that_are_measured(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert chosen(environment) == expected


def test_an_unknown_part_is_refused_with_the_ones_that_exist() -> None:
    with pytest.raises(SystemExit, match="PARTS=gain gpu: there is no part gpu; name some of gain, replay"):
        chosen({"PARTS": "gain gpu"})


def kept(system: str, probe: str, window: float = 600.0, **changes: Any) -> Row:
    row = {"profile": "p", "kv_bits": 16, "data": "d", "load": 1.0, "seed": 0}
    return {**row, "system": system, "probe": probe, "window_seconds": window, **changes}


def test_rows_of_an_older_system_and_of_a_quick_look_are_left_out() -> None:
    rows = [kept("alise", "old"), kept("alise", "new", seed=1), kept("srpt", "s"), kept("srpt", "s", 120.0)]
    assert current(rows, {"alise": "new", "srpt": "s"}) == [rows[1], rows[2]]


def test_without_rows_there_are_none() -> None:
    assert current([], {}) == []


def request(system: str, seed: int = 0, **changes: Any) -> Row:
    return {
        "kind": "request", "system": system, "seed": seed, "load": 0.9, "workload": "alpaca", "device": "h100-qwen3-32b", "time_scale": 2.0,
        "ttft_seconds": 1.0, "end_seconds": 4.0, "alone_seconds": 1.0, "error": "", **changes,
    }  # fmt: skip


def run(system: str) -> Row:
    return {
        "kind": "run", "system": system, "seed": 0, "load": 0.9, "device": "h100-qwen3-32b", "tokens": 100, "seconds": 10.0,
        "cpu_seconds": {"engine_core": 0.2, "api_server": 0.4, "sidecar": 0.1}, "tally": {"steps": 10, "late_steps": 1},
    }  # fmt: skip


def test_a_failed_request_is_a_miss_and_has_no_latency() -> None:
    (cell,) = summaries([request("stock"), request("stock", error="429", end_seconds=0.1), request("stock", end_seconds=11.0)])
    assert (cell["system"], cell["requests"], cell["failed"], round(cell["in10"], 3), cell["e2e_mean"]) == ("stock-fcfs", 3, 1, 0.333, 7.5)


def test_the_tables_say_at_which_pace_time_ran_and_what_cpu_a_request_took() -> None:
    cells = summaries([request("alise"), request("alise"), run("alise")])
    assert "Time ran 2.00 times slower on Qwen3-32B on one H100 80 GB." in over_http(cells).note
    assert cpu(cells).rows[0][4:] == ("100", "200", "50.0")


def test_a_seed_that_one_system_lacks_is_not_compared() -> None:
    rows = [request("stock"), request("alise"), request("stock", seed=1)]
    assert paired(rows) == rows[:2]


def client(system: str, seed: int, e2e: float) -> Row:
    return {
        "kind": "client", "client": "GuideLLM", "client_version": "0.8.1", "profile": "h100-qwen3-32b", "load": 0.9, "seed": seed,
        "system": system, "requests": 50, "failed": 0, "ttft_mean": 0.5, "tpot_mean": 0.03, "e2e_mean": e2e, "e2e_p99": 9.0,
        "command": "guidellm run",
    }  # fmt: skip


def test_clients_are_shown_with_their_version_and_stock_first() -> None:
    rows = [client("alise", 0, 4.0), client("stock", 0, 5.0), client("stock", 1, 7.0)]
    found = clients(rows).rows
    assert [row[0] for row in found] == ["GuideLLM 0.8.1", "GuideLLM 0.8.1"]
    assert found[0][3:6] == ("stock vLLM, first come, first served", "100", "0")
    assert found[0][8] == "6.00 (5.00–7.00)"
    assert commands(rows) == ["guidellm run"]
