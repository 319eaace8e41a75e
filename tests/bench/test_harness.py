"""The benchmarks' own arithmetic and inputs."""

from pathlib import Path

import pytest

from tests.bench.__main__ import settings_from
from tests.bench.harness import Figure, median, percentile, present, table, verdict
from tests.bench.workload import load, synthetic


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 50, id="the median of 1..100"),
        pytest.param(0.99, 99, id="the 99th percentile of 1..100"),
        pytest.param(0.0, 1, id="the smallest"),
        pytest.param(1.0, 100, id="the largest"),
    ],
)
def test_percentile_takes_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        percentile([], 0.5)


def test_files_that_a_folder_lacks_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alpaca.parquet").touch()
    assert present(tmp_path, ("alpaca.parquet", "azure.csv.gz")) == [tmp_path / "alpaca.parquet"]
    assert f"left out, not in {tmp_path}: azure.csv.gz" in capsys.readouterr().err


def test_a_folder_without_any_of_the_files_is_refused_with_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"none of alpaca\.parquet"):
        present(tmp_path, ("alpaca.parquet",))


def test_median_of_an_even_count_is_between_the_middle_two() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [
        pytest.param("lower", 1.0, "met", id="at most the goal where lower is better"),
        pytest.param("lower", 3.0, "missed", id="over the goal where lower is better"),
        pytest.param("higher", 3.0, "met", id="over the goal where higher is better"),
        pytest.param("higher", 1.0, "missed", id="under the goal where higher is better"),
    ],
)
def test_a_figure_meets_its_goal_or_misses_it(better: str, value: float, expected: str) -> None:
    assert verdict(Figure("x", value, "ms", better, goal=2.0)) == expected  # type: ignore[arg-type]


def test_the_table_shows_value_unit_and_goal() -> None:
    assert "admit_p50_ms  1.25   ms    ≤ 5   met" in table([Figure("admit_p50_ms", 1.25, "ms", "lower", 5)])


def test_the_same_seed_makes_the_same_workload() -> None:
    assert synthetic(50, seed=3) == synthetic(50, seed=3) != synthetic(50, seed=4)


def test_a_synthetic_workload_says_so_in_its_name() -> None:
    assert load(None, 5, seed=0).name == "synthetic"


def test_a_missing_data_set_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"alpaca\.parquet is not there"):
        load(tmp_path, 5, seed=0)


def test_a_named_data_set_that_does_not_exist_stops_the_run() -> None:
    with pytest.raises(SystemExit, match="DATASET=/nowhere does not exist"):
        settings_from({"DATASET": "/nowhere"})


def test_seeds_must_be_a_positive_number() -> None:
    with pytest.raises(SystemExit, match="SEEDS=0"):
        settings_from({"SEEDS": "0"})
