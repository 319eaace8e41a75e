"""What the comparison with stock vLLM counts, and what of the machine it may not count twice."""

from pathlib import Path

import pytest

from tests.bench.harness import Row, Settings
from tests.bench.serving import by_seed, end_ms, figures, mean, order
from tests.bench.serving_processes import Running, parse_stat

QUICK = Settings(quick=True, seeds=2, dataset=None)


def request(system: str, number: int, seconds: float, error: str = "", seed: int = 0) -> Row:
    return {
        "kind": "request", "system": system, "seed": seed, "load": 0.9, "workload": "w", "encoder": True, "number": number, "tokens": 10,
        "end_seconds": seconds, "ttft_seconds": seconds / 2, "error": error,
    }  # fmt: skip


def run(system: str, tokens: int, seed: int = 0) -> Row:
    spent = {"engine_core": 8.0, "api_server": 1.0, "sidecar": 2.0 if system == "alise" else 0.0}
    return {"kind": "run", "system": system, "seed": seed, "load": 0.9, "tokens": tokens, "seconds": 10.0, "cpu_seconds": spent}


def test_only_requests_that_both_answered_are_compared() -> None:
    rows = [request("stock", 0, 1.0), request("stock", 1, 100.0), request("alise", 0, 2.0), request("alise", 1, 0.1, error="refused")]
    assert by_seed(rows, 0.9, end_ms, mean) == [{"stock": 1000.0, "alise": 2000.0}]


def test_a_seed_without_a_common_answer_has_no_ratio() -> None:
    assert by_seed([request("stock", 0, 1.0), request("alise", 1, 1.0)], 0.9, end_ms, mean) == []


def test_the_systems_take_turns_in_going_first() -> None:
    assert [order(seed)[0] for seed in range(3)] == ["stock", "alise", "stock"]


def test_throughput_cpu_time_and_failures_are_told_of_each_system() -> None:
    rows = [request("stock", 0, 1.0), request("alise", 0, 1.5), request("alise", 1, 1.0, error="refused")]
    rows += [run("stock", 1000), run("alise", 900)]
    made = {figure.name: figure.value for figure in figures(rows, QUICK)}
    assert [made["tokens_per_s_stock_load090_w"], made["tokens_per_s_vs_stock_load090_w"]] == pytest.approx([100.0, 0.9])
    assert (made["cpu_s_sidecar_alise_load090_w"], made["cpu_s_engine_core_stock_load090_w"]) == (2.0, 8.0)
    assert "cpu_s_sidecar_stock_load090_w" not in made
    assert (made["failed_requests_stock_w"], made["failed_requests_alise_w"]) == (0, 1)


def stat(pid: int, session: int, ticks: tuple[int, int, int, int]) -> str:
    """/proc/PID/stat of a process with brackets and blanks in its name."""
    return f"{pid} (a ) b) S 1 {pid} {session} 0 -1 0 0 0 0 0 {' '.join(map(str, ticks))} 20 0 1 0"


def test_cpu_time_holds_that_of_children_that_have_ended() -> None:
    session, one = parse_stat(stat(7, 5, (100, 0, 0, 0)))
    assert session == 5
    assert parse_stat(stat(7, 5, (100, 200, 300, 400)))[1] == pytest.approx(10 * one)


def test_cpu_time_is_that_of_the_processes_of_the_session(tmp_path: Path) -> None:
    for pid, session, title in ((10, 10, "vllm serve"), (11, 10, "VLLM::EngineCore"), (20, 20, "alise-scheduler"), (30, 30, "other")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat(pid, session, (pid, 0, 0, 0)))
        (tmp_path / str(pid) / "cmdline").write_text(title)
    spent = Running("http://x", engine=10, sidecar=20).cpu_seconds(tmp_path)
    tick = parse_stat(stat(1, 1, (1, 0, 0, 0)))[1]
    assert {name: round(seconds / tick) for name, seconds in spent.items()} == {"engine_core": 11, "api_server": 10, "sidecar": 20}
