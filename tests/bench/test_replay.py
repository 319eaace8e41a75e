"""The replay of published runs, on a run of the simulator itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from alise_scheduler.core.exec_time import Coefficients
from tests.bench.harness import Settings
from tests.bench.replay import compared, figures, measure
from tests.bench.replay_fit import replay
from tests.bench.replay_runs import NAMES, PublishedRun, read_run

STEP = Coefficients(0.02, 1e-4, 5e-5, 1e-7)


def made_run() -> PublishedRun:
    rng = np.random.default_rng(1)
    count = 40
    arrivals = np.sort(rng.uniform(0, 5, count))
    arrivals -= arrivals[0]
    inputs, outputs = rng.integers(10, 500, count), rng.integers(20, 200, count)
    nothing = np.zeros(count)
    run = PublishedRun(NAMES[0], 8, 2048, 16, 10_000, 131_072, arrivals, inputs, outputs, nothing, nothing)
    outcome = replay(run, STEP)
    first, last = arrivals + outcome.ttft_seconds, arrivals + outcome.e2e_seconds
    return PublishedRun(NAMES[0], 8, 2048, 16, 10_000, 131_072, arrivals, inputs, outputs, first, last)


def write(run: PublishedRun, folder: Path) -> None:
    """The run as it is published: arrivals in wall time, stamps on another clock."""
    rows = zip(run.arrival_seconds, run.input_tokens, run.output_tokens, run.first_token_seconds, run.last_token_seconds, strict=True)
    lines = [
        {
            "arrival_time": 1e9 + at, "queued_ts": 500 + at, "input_toks": int(i), "output_toks": int(o), "first_token_ts": 500 + f,
            "last_token_ts": 500 + e,
        }
        for at, i, o, f, e in rows
    ]  # fmt: skip
    meta = {"engine_kwargs": {"max_num_seqs": 8, "max_num_batched_tokens": 2048}, "kv_cache": {"block_size": 16, "num_kv_tokens": 10_000}}
    (folder / f"{run.name}.meta.json").write_text(json.dumps(meta))
    (folder / f"{run.name}.requests.jsonl").write_text("\n".join(json.dumps(line) for line in reversed(lines)))


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = made_run()
    write(run, tmp_path)
    again = read_run(tmp_path, run.name)
    assert again.room_tokens == 10_000
    assert again.first_token_seconds == pytest.approx(run.first_token_seconds, abs=1e-5)


def test_a_replay_with_the_right_step_model_deviates_in_nothing() -> None:
    run = made_run()
    deviation = compared(run, replay(run, STEP), other_half=True)
    assert all(abs(found[kind]) < 1e-6 for found in deviation.values() for kind in ("mean", "p99"))
    assert 0 < deviation["ttft"]["requests"] < 40


def test_a_slower_step_model_shows() -> None:
    run = made_run()
    assert compared(run, replay(run, STEP.times(1.2)), other_half=False)["tpot"]["mean"] == pytest.approx(20, abs=2)


def test_without_the_published_data_there_is_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(False, 1, tmp_path)
    assert figures(list(measure(settings)), settings) == []
    assert "vllm_runs" in capsys.readouterr().err
