"""Traces: files, synthetic ones, loads, and predictions for them."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from alise_simulator.baselines import FcfsDriver
from alise_simulator.model import EngineModel
from alise_simulator.predictions import blind, noisy, oracle
from alise_simulator.run import simulate
from alise_simulator.trace import at_load, capacity_per_second, heavy_tail, load_csv, make_trace


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_csv_is_read_and_empty_answers_are_left_out(tmp_path: Path) -> None:
    trace = load_csv(write(tmp_path / "t.csv", "arrival_s,input_tokens,output_tokens,tenant\n2.5,10,20,a\n1.5,5,6,b\n3,7,0,a\n"))
    assert trace.arrival_seconds.tolist() == [0.0, 1.0]
    assert trace.output_tokens.tolist() == [6, 20]
    assert trace.tenant.tolist() == [1, 0]


def test_a_compressed_csv_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"arrival_s,input_tokens,output_tokens\n0,1,2\n"))
    assert len(load_csv(path)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("arrival_s,output_tokens\n0,1\n", "lacks the columns \\['input_tokens'\\]", id="a column is missing"),
        pytest.param("arrival_s,input_tokens,output_tokens\n0,1,2\n1,x,2\n", "line 3", id="no number"),
        pytest.param("arrival_s,input_tokens,output_tokens\n", "no request", id="nothing in it"),
        pytest.param("arrival_s,input_tokens,output_tokens\nnan,1,2\n", "no finite numbers", id="no time"),
    ],
)
def test_a_bad_csv_is_refused_with_its_fault(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_csv(write(tmp_path / "t.csv", text))


def test_a_trace_without_span_has_no_load() -> None:
    trace = make_trace("t", np.zeros(2), np.ones(2, dtype=int), np.ones(2, dtype=int))
    with pytest.raises(ValueError, match="spans 0"):
        at_load(trace, 0.9, EngineModel())


def test_the_capacity_is_what_a_full_engine_does() -> None:
    model = EngineModel()
    trace = heavy_tail(2000, 1)
    # Everything is there at once: the engine is full until the last few.
    outcome = simulate(at_load(trace, 100.0, model), model, FcfsDriver)
    assert len(trace) / outcome.busy_seconds == pytest.approx(capacity_per_second(trace, model), rel=0.15)


def test_predictions_hold_what_they_promise() -> None:
    lengths = heavy_tail(4000, 1).output_tokens
    assert (oracle(lengths).mean(axis=1) == lengths).all()
    assert len(np.unique(blind(lengths), axis=0)) == 1
    noise = noisy(lengths, 0.5, 1)
    assert (np.diff(noise, axis=1) >= 0).all()
    # Calibrated: each of the ten quantiles is passed as often as it says.
    assert (lengths[:, None] <= noise).mean(axis=0) == pytest.approx(np.arange(0.05, 1, 0.1), abs=0.04)
