"""The benchmark of the gain: what is counted, what is compared, and what is kept of a run that was broken off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alise_simulator import predictions
from alise_simulator.hardware import HARDWARE, engine_model
from alise_simulator.model import DEFAULT_SHAPE, EngineModel
from alise_simulator.run import simulate
from alise_simulator.trace import at_load, heavy_tail
from tests.bench import gain, gain_figures
from tests.bench.gain_systems import DESCRIPTIONS, MAIN, Predicted, system
from tests.bench.harness import Row, Settings

SETS = {"h100_sharegpt": ("h100-qwen3-32b", "sharegpt")}


def row(system: str, seed: int, load: float = 0.9, kv_bits: int = 16, **columns: float) -> Row:
    values = {"in5": 0.9, "in10": 0.9, "ttft_mean": 1.0, "e2e_p99": 1.0, "e2e_worst": 1.0, "norm_mean": 1.0, **columns}
    return {
        "kind": "gain", "profile": "h100-qwen3-32b", "kv_bits": kv_bits, "data": "sharegpt", "load": load, "system": system,
        "seed": seed, **values
    }  # fmt: skip


def test_ratios_are_of_the_same_seed() -> None:
    rows = [
        row("alise", 0, ttft_mean=1.0),
        row("alise", 1, ttft_mean=8.0),
        row("stock-fcfs", 0, ttft_mean=2.0),
        row("stock-fcfs", 1, ttft_mean=4.0),
    ]
    assert gain_figures.ratios(rows, rows, "alise", "stock-fcfs", "ttft_mean") == {0: 0.5, 1: 2.0}


def test_the_rate_lies_between_the_last_load_that_attains_it_and_the_next() -> None:
    rows = [row("alise", 0, load, in5=share) for load, share in ((0.8, 0.99), (0.9, 0.88), (1.0, 0.95), (1.1, 0.85))]
    assert gain_figures.rate_at(rows, "alise", 0) == pytest.approx(1.05)


@pytest.mark.parametrize("share", [pytest.param(0.99, id="at every load"), pytest.param(0.5, id="at none")])
def test_without_a_load_on_either_side_there_is_no_rate(share: float) -> None:
    assert gain_figures.rate_at([row("alise", 0, load, in5=share) for load in (0.9, 1.0)], "alise", 0) is None


def test_the_rate_with_8_bits_is_compared_with_stock_at_both_precisions() -> None:
    rows = [row("alise", 0, load, 8, in5=share) for load, share in ((1.8, 1.0), (2.0, 0.8))]
    rows += [row("stock-fcfs", 0, load, 8, in5=share) for load, share in ((1.0, 1.0), (2.0, 0.8))]
    rows += [row("stock-fcfs", 0, load, 16, in5=share) for load, share in ((0.9, 1.0), (1.1, 0.8))]
    found = {figure.name: figure.value for figure in gain_figures.figures(rows, SETS)}
    assert found["rate8_vs_stock16_h100_sharegpt"] == pytest.approx(1.9)
    assert found["rate8_vs_stock8_h100_sharegpt"] == pytest.approx(1.9 / 1.5)


def test_the_worst_place_beside_stock_priority_is_named() -> None:
    rows = [row(name, 0, load, norm_mean=value) for name, load, value in (
        ("alise", 0.7, 3.0), ("stock-priority", 0.7, 2.0), ("alise", 1.1, 1.0), ("stock-priority", 1.1, 1.0), ("alise", 1.3, 9.0),
        ("stock-priority", 1.3, 1.0),
    )]  # fmt: skip
    (worst,) = [figure for figure in gain_figures.figures(rows, SETS) if figure.name == "mean_vs_stock_priority_worst"]
    assert (worst.value, "load 0.7" in worst.unit) == (1.5, True)


def test_a_request_that_was_refused_is_a_miss_and_has_no_latency() -> None:
    trace = heavy_tail(50, 1)
    model = EngineModel()
    predicted = Predicted(predictions.oracle(trace.output_tokens), predictions.blind(trace.output_tokens))
    outcome = simulate(trace, *system("alise", trace, predicted, model))
    refused = replace(outcome, served=np.arange(50) >= 10, e2e_seconds=np.where(np.arange(50) >= 10, outcome.e2e_seconds, -1.0))
    counted = gain.counted(refused, model)
    assert (counted["rejected"], counted["in10"] <= 0.8, counted["e2e_mean"] > 0) == (10, True, True)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_system_serves_all_requests(name: str) -> None:
    model = EngineModel(replace(DEFAULT_SHAPE, max_num_seqs=4))
    trace = at_load(heavy_tail(40, 3), 1.2, model)
    predicted = Predicted(predictions.noisy(trace.output_tokens, 0.8, 1), predictions.blind(trace.output_tokens))
    outcome = simulate(trace, *system(name, trace, predicted, model))
    assert outcome.served.all() or name == "alise:refusing"
    assert (outcome.e2e_seconds[outcome.served] > 0).all()


def test_a_store_without_the_default_limit_holds_all_that_the_device_does() -> None:
    engine = engine_model("h200-qwen3-8b")
    trace = heavy_tail(10, 1)
    predicted = Predicted(predictions.oracle(trace.output_tokens), predictions.blind(trace.output_tokens))
    full, _ = system("alise-full-host", trace, predicted, engine)
    assert (
        engine.shape.host_limit_bytes == 8 << 30 < full.shape.host_limit_bytes == engine.shape.num_device_blocks * engine.shape.block_bytes
    )


def test_only_requests_that_fit_the_device_are_sent() -> None:
    model = engine_model("v100-opt-13b")
    trace = heavy_tail(2000, 3)
    sent, rows = gain.requests(trace, 0.9, 0, 60.0, model)
    room = min(model.shape.num_device_blocks * model.shape.block_size, model.shape.max_model_len)
    assert (sent.input_tokens + sent.output_tokens).max() <= room < (trace.input_tokens + trace.output_tokens).max()
    assert np.array_equal(trace.output_tokens[rows], sent.output_tokens)


def test_no_run_is_planned_twice_and_all_have_five_seeds() -> None:
    cells = gain.plan(Settings(False, 1, Path()))
    assert len(set(cells)) == len(cells)
    assert {cell.seed for cell in cells} == set(range(5))
    assert set(MAIN) < {cell.system for cell in cells} == set(DESCRIPTIONS)


def test_a_kept_run_counts_only_for_the_same_code_predictions_engine_and_window(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    own = {**row("alise", 0), "probe": "a", "predictions": "p", "engine": "e", "window_seconds": 600.0}
    changes: list[Row] = [{"probe": "b"}, {"predictions": "q"}, {"engine": "f"}, {"window_seconds": 60.0}]
    others = [{**own, "seed": seed, **changed} for seed, changed in enumerate(changes, 1)]
    path.write_text("".join(json.dumps(one) + "\n" for one in (own, *others)))
    assert list(gain.kept(path, 600.0, {"alise": "a"}, {"sharegpt": "p"}, {("h100-qwen3-32b", 16): "e"}).values()) == [own]


def test_an_engine_is_told_from_another_by_what_it_holds() -> None:
    pairs = [(profile, bits) for profile in HARDWARE for bits in (16, 8)]
    assert len({gain.engine_digest(*pair) for pair in pairs}) == len(pairs)


# It simulates.
@pytest.mark.process
def test_the_probe_tells_a_rule_from_another() -> None:
    assert gain.probe("alise") != gain.probe("alise:deadline")


def test_runs_whose_data_set_is_not_there_are_left_out_and_equal_answers_are_made_of_sharegpt(tmp_path: Path) -> None:
    (tmp_path / "sharegpt.parquet").touch()
    cells = gain.plan(Settings(False, 1, tmp_path))
    assert {cell.data for cell in gain.measurable(cells, tmp_path)} == {"sharegpt", gain.EQUAL}
