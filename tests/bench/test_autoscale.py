"""The benchmark of the autoscaler: its pool, its HorizontalPodAutoscaler, and what it makes of its runs."""

from dataclasses import replace

import numpy as np
import pytest

from alise_simulator import predictions
from alise_simulator.hardware import engine_model
from alise_simulator.systems import Setup
from alise_simulator.trace import Trace, heavy_tail
from tests.bench.autoscale import TARGETS, TRACES, chosen, figures, judging, requests, tuning
from tests.bench.autoscale_pool import AUTOSCALERS, MOST_PODS, START_SECONDS, Hpa, Pod, run
from tests.bench.harness import Row, Settings

SETTINGS = Settings(quick=False, seeds=1, dataset=None)


def busy(count: int = 600, per_second: float = 12.0) -> Setup:
    trace = heavy_tail(count, 3)
    trace = trace.rows((trace.input_tokens + trace.output_tokens < 4000).nonzero()[0])
    trace = replace(trace, arrival_seconds=np.arange(len(trace)) / per_second * 6)
    return Setup(trace, engine_model("h100-qwen3-32b"), predictions.oracle(trace.output_tokens))


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_a_pool_under_load_grows_within_its_bounds_and_answers_every_request(name: str) -> None:
    setup = busy()
    outcome = run(setup, AUTOSCALERS[name](TARGETS[name][0]))
    assert np.isfinite(outcome.normalized_seconds).all()
    assert (outcome.normalized_seconds > 0).all()
    span = float(setup.trace.arrival_seconds[-1]) / 3600
    assert span <= outcome.pod_hours <= MOST_PODS * span
    assert all(1 <= count <= MOST_PODS for _, count in outcome.steps)


def test_a_pod_serves_only_after_it_has_started() -> None:
    setup = busy(200)
    short = replace(setup, trace=setup.trace.first(100), lengths=setup.lengths[:100])
    assert float(short.trace.arrival_seconds[-1]) < START_SECONDS
    one = run(short, Hpa(lambda pod: 0.0, 1.0))
    many = run(short, Hpa(lambda pod: 100.0, 1.0))
    assert many.pod_hours > one.pod_hours
    assert many.normalized_seconds == pytest.approx(one.normalized_seconds)


def pods(count: int) -> list[Pod]:
    return [Pod(None, 0.0, float(number)) for number in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "replicas", "wanted"),
    [
        pytest.param(10.0, 2, 2, id="at its target"),
        pytest.param(10.9, 2, 2, id="within a tenth of it"),
        pytest.param(12.0, 2, 3, id="above it"),
        pytest.param(100.0, 2, 6, id="at most four pods more at once"),
        pytest.param(100.0, 6, 12, id="or twice as many"),
    ],
)
def test_the_horizontal_pod_autoscaler_adds_pods_as_kubernetes_documents_it(value: float, replicas: int, wanted: int) -> None:
    assert Hpa(lambda _: value, 10.0).wanted(0.0, replicas, pods(replicas)) == wanted


def test_the_horizontal_pod_autoscaler_removes_pods_after_five_minutes() -> None:
    values = iter([20.0] * 2 + [1.0] * 40)
    autoscaler = Hpa(lambda _: next(values), 10.0)
    wanted = [autoscaler.wanted(tick * 15.0, 2, pods(1)) for tick in range(40)]
    # The second look at 15 s was the last one that needed both.
    assert wanted.index(1) * 15.0 == 330.0


def test_a_multiple_of_a_trace_has_as_many_requests_near_each_arrival() -> None:
    base = Trace("t", np.array([0.0, 100.0]), np.array([1, 2]), np.array([3, 4]), np.zeros(2, dtype=np.int64), np.ones(2))
    many = requests(base, 3, seed=0)
    assert len(many) == 6
    assert sorted(np.round(many.arrival_seconds, -2).tolist()) == [0.0] * 3 + [100.0] * 3
    assert sorted(many.output_tokens.tolist()) == [3, 3, 3, 4, 4, 4]


def row(trace: str, name: str, target: float, in_10x: float, hours: float) -> Row:
    return {"trace": trace, "autoscaler": name, "target": target, "seed": 0, "in_10x": in_10x, "gpu_hours": hours, "most_pods": 2}


def test_the_cheapest_target_with_which_enough_are_in_time_counts() -> None:
    rows = [row("t", "a", 1.0, 0.99, 5.0), row("t", "a", 2.0, 0.92, 3.0), row("t", "a", 3.0, 0.5, 1.0)]
    assert [one["target"] for one in chosen(rows)] == [2.0]
    assert [one["target"] for one in chosen(rows[2:])] == [3.0]


def test_the_targets_are_chosen_by_one_seed_and_judged_by_others() -> None:
    tuned = [
        row(cell.trace, cell.autoscaler, cell.target, 0.95, 5.0 if cell.target == TARGETS[cell.autoscaler][1] else 9.0) for cell in tuning()
    ]
    cells = judging(tuned, 2)
    assert {(cell.seed, cell.target) for cell in cells} == {(seed, targets[1]) for seed in (1, 2) for targets in TARGETS.values()}


def test_the_figure_is_the_worse_trace_beside_the_better_autoscaler() -> None:
    hours = {"predicted work": 2.0, "queue length": 4.0, "running requests": 3.0}
    rows = [row(trace, name, 1.0, 0.95, hours[name]) | {"seed": seed} for seed in (1, 2) for trace in TRACES for name in TARGETS]
    tuned = [one | {"seed": 0, "gpu_hours": 100.0} for one in rows]
    last = figures([*tuned, *rows], SETTINGS)[-1]
    assert (last.name, last.goal) == ("autoscale_attainment_per_gpu_hour", 1.15)
    assert last.value == pytest.approx(1.5)
