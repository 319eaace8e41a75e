"""The execution-time model: fitted to steps, and robust against odd ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.exec_time import Coefficients, CostModel, observe
from alise_scheduler.core.reports import Step

TRUE = Coefficients(0.004, 0.000125, 0.0005, 0.0000002)


def steps(count: int, seed: int = 1, stall_every: int = 0) -> list[Step]:
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        prefill, decode, context = int(random.choice([0, 0, 0, 400])), int(random.integers(1, 32)), int(random.integers(100, 60_000))
        seconds = TRUE.step(prefill, decode, context) * random.uniform(0.95, 1.05)
        if stall_every and number % stall_every == 0:
            seconds += 2.0
        made.append(Step(float(seconds), prefill, decode, context))
    return made


def learned(made: list[Step]) -> CostModel:
    """As in production: a few steps at a time."""
    model = CostModel()
    for start in range(0, len(made), 20):
        model = observe(model, made[start : start + 20])
    return model


def test_the_fit_finds_the_machine() -> None:
    model = learned(steps(600))
    for probe in ((0, 8, 10_000), (400, 8, 10_000), (0, 30, 50_000)):
        assert model.coefficients.step(*probe) == pytest.approx(TRUE.step(*probe), rel=0.1)
    assert model.error < 0.1


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(Coefficients(0.5, 0.0005, 0.02, 0.000001), id="half a second a step"),
        pytest.param(Coefficients(0.0005, 0.000005, 0.00001, 0.000000001), id="half a millisecond a step"),
    ],
)
def test_prefills_are_found_though_few_steps_have_one(machine: Coefficients) -> None:
    random = np.random.default_rng(1)
    made = []
    for number in range(600):
        prefill, decode, context = (1000 if number % 20 == 7 else 0), int(random.integers(1, 32)), int(random.integers(100, 60_000))
        made.append(Step(machine.step(prefill, decode, context) * float(random.uniform(0.9, 1.1)), prefill, decode, context))
    assert learned(made).coefficients.prefill_seconds == pytest.approx(machine.prefill_seconds, rel=0.15)


def test_a_stall_now_and_then_does_not_bend_it() -> None:
    model = learned(steps(600, stall_every=50)[1:])
    assert model.coefficients.step(0, 8, 10_000) == pytest.approx(TRUE.step(0, 8, 10_000), rel=0.2)


def slower(made: list[Step], factor: float) -> list[Step]:
    return [replace(step, duration_seconds=step.duration_seconds * factor) for step in made]


def test_the_model_follows_a_machine_that_becomes_slower_within_a_hundred_steps() -> None:
    model = learned(steps(600) + slower(steps(100, seed=2), 1.6))
    assert model.coefficients.step(0, 8, 10_000) == pytest.approx(1.6 * TRUE.step(0, 8, 10_000), rel=0.1)
    assert model.pace > 1.3


def test_a_machine_that_was_slow_for_a_moment_is_what_it_was() -> None:
    model = learned(steps(600) + slower(steps(50, seed=2), 1.6) + steps(150, seed=3))
    assert model.coefficients.step(0, 8, 10_000) == pytest.approx(TRUE.step(0, 8, 10_000), rel=0.1)


def test_one_stall_moves_the_pace_little() -> None:
    model = observe(learned(steps(600)), [Step(30.0, 0, 8, 10_000)])
    assert model.coefficients.step(0, 8, 10_000) == pytest.approx(TRUE.step(0, 8, 10_000), rel=0.1)


def test_a_cold_start_predicts_with_the_defaults() -> None:
    seconds = CostModel().seconds_left(np.array([100.0]), np.array([50.0]), np.array([100.0]))
    assert seconds[0] == pytest.approx(100 * 0.00005 + 50 * (0.0102 + 1e-7 * 125))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(Step(0.0, 0, 4, 100), id="a step that took no time"),
        pytest.param(Step(-1.0, 0, 4, 100), id="a step that took negative time"),
        pytest.param(Step(3600.0, 0, 4, 100), id="a step that took an hour"),
        pytest.param(Step(0.01, 0, 0, 0), id="a step without work"),
        pytest.param(Step(float("nan"), 0, 4, 100), id="a step of no number"),
    ],
)
def test_nothing_is_learned_from(step: Step) -> None:
    assert observe(CostModel(), [step]).samples == 0


@given(st.lists(st.tuples(st.floats(1e-6, 50), st.integers(0, 8192), st.integers(0, 1024), st.integers(0, 10**7)), max_size=60))
def test_coefficients_are_never_negative_and_always_numbers(rows: list[tuple[float, int, int, int]]) -> None:
    model = observe(CostModel(), [Step(*row) for row in rows])
    c = model.coefficients
    values = np.array([c.step_seconds, c.prefill_seconds, c.decode_seconds, c.context_seconds])
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert model.seconds_left(np.array([0.0]), np.array([1.0]), np.array([1.0]))[0] > 0
