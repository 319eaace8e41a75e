"""The tables and plots of the policy sweep, from small rows."""

from tests.bench.policies_report import banded, gains, table


def run(policy: str, seed: int, normalized: float, load: float = 0.9) -> dict[str, object]:
    row = {"data": "d", "load": load, "policy": policy, "predictions": "none" if policy == "vllm-fcfs" else "noise", "seed": seed}
    columns = ("ttft_mean", "ttft_p99", "e2e_mean", "e2e_p50", "e2e_p90", "e2e_p99", "wait_max")
    return {
        **row, **{f"{name}_seconds": 1.0 for name in columns}, "normalized_mean_seconds": normalized, "preemptions": 0, "saved_gb": 0.0,
    }  # fmt: skip


def test_a_band_is_the_mean_and_the_extremes() -> None:
    assert banded([1.0, 2.0, 6.0]) == "3 (1 to 6)"
    assert banded([4.0]) == "4"


def test_gains_are_paired_by_seed_and_loads_without_one_are_named() -> None:
    rows = [run("vllm-fcfs", 0, 0.1), run("vllm-fcfs", 1, 0.4), run("boost", 0, 0.05), run("boost", 1, 0.1)]
    rows += [run("vllm-fcfs", 0, 0.1, load=0.5), run("boost", 0, 0.099, load=0.5)]
    text = gains(rows, "boost")
    assert "| 0.9 | 0.375 (0.25 to 0.5) | 1 | 1 | 1 |" in text
    assert "gains less than 5% at: 0.5." in text


def test_the_table_has_a_section_per_load_in_milliseconds_per_token() -> None:
    text = table("d", [run("boost", 0, 0.05), run("boost", 1, 0.07)])
    assert "## Load 0.9" in text
    assert "| boost | noise | 60 (50 to 70) |" in text
