"""Whole simulations: policies beside one another, replicas, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from alise_scheduler.core.rank import Policy
from alise_simulator.__main__ import main
from alise_simulator.baselines import FcfsDriver
from alise_simulator.hardware import HARDWARE
from alise_simulator.model import EngineModel
from alise_simulator.predictions import oracle
from alise_simulator.routing import ROUTERS
from alise_simulator.run import simulate
from alise_simulator.trace import Trace, at_load, heavy_tail, make_trace
from tests.simulation.builders import core_driver

pytestmark = pytest.mark.process

MODEL = EngineModel()


def test_shortest_first_beats_arrival_order_in_the_mean_at_high_load() -> None:
    trace = at_load(heavy_tail(3000, 3), 0.95, MODEL)
    ours, theirs = simulate(trace, MODEL, lambda: core_driver(trace, MODEL)), simulate(trace, MODEL, FcfsDriver)
    assert ours.normalized_seconds.mean() < 0.8 * theirs.normalized_seconds.mean()


def test_without_a_queue_no_policy_gains_anything() -> None:
    trace = at_load(heavy_tail(500, 3), 0.3, MODEL)
    ours, theirs = simulate(trace, MODEL, lambda: core_driver(trace, MODEL)), simulate(trace, MODEL, FcfsDriver)
    assert ours.e2e_seconds == pytest.approx(theirs.e2e_seconds)


@pytest.mark.parametrize("routing", sorted(ROUTERS))
def test_replicas_share_the_work(routing: str) -> None:
    trace = at_load(heavy_tail(1500, 4), 0.8, MODEL, replicas=10)
    outcome = simulate(trace, MODEL, FcfsDriver, 10, ROUTERS[routing](10, oracle(trace.output_tokens).mean(axis=1)))
    assert (outcome.e2e_seconds > 0).all()
    assert outcome.ttft_seconds.mean() < 0.5


def test_looking_at_the_queues_beats_taking_turns() -> None:
    trace = at_load(heavy_tail(3000, 4), 0.95, MODEL, replicas=8)
    work = oracle(trace.output_tokens).mean(axis=1)
    turns, fewest = (simulate(trace, MODEL, FcfsDriver, 8, ROUTERS[name](8, work)) for name in ("round-robin", "least-requests"))
    assert fewest.ttft_seconds.mean() < turns.ttft_seconds.mean()


def test_one_replica_behind_a_router_is_one_replica() -> None:
    trace = at_load(heavy_tail(400, 4), 0.9, MODEL, replicas=2)
    work = oracle(trace.output_tokens).mean(axis=1)
    routed = simulate(trace, MODEL, FcfsDriver, 2, ROUTERS["round-robin"](2, work))
    alone = simulate(trace.rows(np.arange(0, 400, 2)), MODEL, FcfsDriver)
    assert routed.e2e_seconds[::2] == pytest.approx(alone.e2e_seconds)


def with_flood(times: int) -> Trace:
    """A quiet tenant at a tenth of the capacity, and another at `times` that; prompts fit into one step, whose order is the engine's."""
    model = MODEL
    quiet = at_load(heavy_tail(150, 6), 0.1, model)
    span = quiet.arrival_seconds[-1]
    loud = at_load(heavy_tail(150 * times, 7), 0.1 * times, model)
    keep = loud.arrival_seconds <= span
    arrivals = np.concatenate([quiet.arrival_seconds, loud.arrival_seconds[keep]])
    inputs = np.minimum(np.concatenate([quiet.input_tokens, loud.input_tokens[keep]]), 1024)
    outputs = np.concatenate([quiet.output_tokens, loud.output_tokens[keep]])
    return make_trace("flood", arrivals, inputs, outputs, np.repeat([0, 1], [len(quiet), int(keep.sum())]))


def quiet_p99(times: int, policy: Policy | None) -> float:
    trace = with_flood(times)
    outcome = simulate(trace, MODEL, FcfsDriver if policy is None else lambda: core_driver(trace, MODEL, policy))
    return float(np.quantile(outcome.ttft_seconds[outcome.tenant == 0], 0.99))


def test_a_flooding_tenant_does_not_make_a_quiet_one_wait() -> None:
    calm = quiet_p99(5, Policy())
    assert quiet_p99(20, Policy()) < 2 * calm
    assert quiet_p99(20, None) > 20 * calm


def test_the_command_replays_a_trace_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i},{10 + i},{5 + 7 * i % 90}\n" for i in range(60)))
    out = tmp_path / "out.json"
    assert main([str(path), "--load", "0.5", "0.9", "--policies", "vllm-fcfs", "boost", "mlfq", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["policy"] for row in rows] == ["vllm-fcfs", "boost", "mlfq"] * 2
    assert [row["load"] for row in rows] == [0.5] * 3 + [0.9] * 3
    assert all(row["requests"] == 60 and row["e2e_p99_seconds"] > 0 for row in rows)
    assert "boost" in capsys.readouterr().out


def test_the_command_lists_the_hardware_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-hardware"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and hardware.description in listed for name, hardware in HARDWARE.items())
    assert "h100-qwen3-32b (default)" in listed


def test_kv_in_8_bits_lets_an_engine_that_is_short_of_kv_serve_sooner(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    waits = {}
    for bits in ("16", "8"):
        arguments = ["heavy-tail", "--requests", "400", "--load", "3", "--policies", "vllm-fcfs", "--kv-bits", bits, "--out", str(out)]
        assert main([*arguments, "--hardware", "h100-qwen3-32b"]) == 0
        waits[bits] = json.loads(out.read_text())[0]
    assert waits["16"]["kv_bits"] == 16
    # A load is a share of what the engine can do, so with 8 bits the requests even come sooner one after the other.
    assert waits["8"]["ttft_mean_seconds"] < 0.5 * waits["16"]["ttft_mean_seconds"]
    assert waits["8"]["preemptions"] < waits["16"]["preemptions"]


def test_the_command_draws_a_plot_per_load(tmp_path: Path) -> None:
    assert main(["heavy-tail", "--requests", "50", "--load", "0.5", "0.9", "--plots", str(tmp_path)]) == 0
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["heavy_tail-0.5.png", "heavy_tail-0.9.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in made)


def test_progress_is_shown_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["heavy-tail", "--requests", "50"]) == 0
    assert "heavy_tail 0.9 boost [##############################] 50/50" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert main(["heavy-tail", "--requests", "50"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("routing", sorted(ROUTERS))
def test_ten_thousand_replicas_are_routed_to(routing: str) -> None:
    trace = at_load(heavy_tail(2000, 4), 0.9, MODEL, replicas=10_000)
    work = oracle(trace.output_tokens).mean(axis=1)
    outcome = simulate(trace, MODEL, FcfsDriver, 10_000, ROUTERS[routing](10_000, work))
    assert np.isfinite(outcome.e2e_seconds).all()
    # There is a replica for each: no request waits for another.
    alone = simulate(at_load(heavy_tail(2000, 4), 1e-4, MODEL), MODEL, FcfsDriver)
    assert outcome.ttft_seconds.mean() == pytest.approx(alone.ttft_seconds.mean(), rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "name a trace", id="no trace"),
        pytest.param(["nowhere.csv"], "nowhere.csv", id="no such trace"),
        pytest.param(["heavy-tail", "--predictions", "noise:x"], "noise takes a number", id="noise that is no number"),
        pytest.param(["heavy-tail", "--predictions", "magic"], "use oracle, blind or noise", id="unknown predictions"),
        pytest.param(["heavy-tail", "--replicas", "20000"], "--replicas must be 1 to 10,000", id="too many replicas"),
        pytest.param(["heavy-tail", "--requests", "10", "--kv-blocks", "3"], "the engine holds 32", id="an engine too small"),
    ],
)
def test_what_cannot_be_simulated_ends_with_a_sentence(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_no_image_holds_the_simulator() -> None:
    root = Path(__file__).parents[2]
    dockerfiles = list(root.glob("*/Dockerfile*"))
    assert dockerfiles
    assert [path.name for path in dockerfiles if "alise_simulator" in path.read_text()] == []
