"""Refusing in overload, simulated: who is refused, whether it is true, and that no tenant pays for another one's flood."""

from dataclasses import replace

import numpy as np
import pytest

from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.lengths import Floats
from alise_simulator.predictions import noisy
from alise_simulator.report import summary
from alise_simulator.run import Outcome, simulate
from alise_simulator.systems import Setup, core_driver, policy_named
from alise_simulator.trace import Trace, at_load, heavy_tail, poisson
from tests.simulation.builders import make_model

pytestmark = pytest.mark.process

BOUND = 30.0
LOAD = 1.6
MODEL = make_model(Coefficients(), max_num_seqs=8, max_num_batched_tokens=2048, num_device_blocks=4096)


def overload(load: float = LOAD, requests: int = 1200) -> Trace:
    trace = heavy_tail(requests, 3)
    trace = trace.rows((trace.input_tokens + trace.output_tokens < 1500).nonzero()[0])
    return at_load(replace(trace, arrival_seconds=poisson(len(trace), np.random.default_rng(3))), load, MODEL)


def predicted(trace: Trace) -> Floats:
    return noisy(trace.output_tokens, 0.5, 3)


def run(trace: Trace, bound: float = BOUND, policy: str = "boost") -> Outcome:
    limits = AdmitLimits(bound) if bound else None
    return simulate(trace, MODEL, core_driver(Setup(trace, MODEL, predicted(trace)), policy_named(policy), admit_limits=limits))


@pytest.fixture(scope="module")
def trace() -> Trace:
    return overload()


@pytest.fixture(scope="module")
def before(trace: Trace) -> Outcome:
    return run(trace, 0.0)


@pytest.fixture(scope="module")
def after(trace: Trace) -> Outcome:
    return run(trace)


def test_without_a_bound_no_request_is_refused(before: Outcome) -> None:
    assert before.served.all()


def test_most_of_those_refused_would_have_waited_longer_than_the_bound(before: Outcome, after: Outcome) -> None:
    refused = ~after.served
    assert refused.sum() > 50
    assert (before.waited_seconds[refused] > BOUND).mean() > 0.7


def test_nearly_all_that_are_admitted_wait_no_longer_than_the_bound(before: Outcome, after: Outcome) -> None:
    assert (after.waited_seconds[after.served] <= BOUND).mean() > 0.95
    assert (before.waited_seconds <= BOUND).mean() < 0.9


def test_no_more_work_is_refused_than_is_too_much(trace: Trace, after: Outcome) -> None:
    refused = trace.output_tokens[~after.served].sum() / trace.output_tokens.sum()
    assert refused < 1 - 1 / LOAD + 0.05


def test_the_long_are_refused_and_the_short_are_served(trace: Trace, after: Outcome) -> None:
    expected = predicted(trace).mean(axis=1)
    assert np.median(expected[~after.served]) > 3 * np.median(expected[after.served])


def test_below_saturation_hardly_a_request_is_refused() -> None:
    assert run(overload(0.8, requests=800)).served.mean() > 0.99


@pytest.mark.parametrize("policy", ["alise", "gittins", "sjf", "fcfs"])
def test_with_every_policy_those_refused_are_those_that_would_wait_longest(policy: str) -> None:
    trace = overload(requests=500)
    refused, waits = ~run(trace, policy=policy).served, run(trace, 0.0, policy).waited_seconds
    assert refused.any()
    assert np.median(waits[refused]) > np.quantile(waits[~refused], 0.75)


def test_a_flood_of_one_tenant_refuses_no_request_of_another() -> None:
    trace = overload(3.0, requests=800)
    quiet = np.arange(len(trace)) % 20 == 0
    trace = replace(trace, tenant=quiet.astype(np.int64))
    served = run(trace).served
    assert served[quiet].all()
    assert not served[~quiet].all()


def test_the_report_counts_the_refused_and_times_the_others(after: Outcome) -> None:
    found = summary(after)
    assert found["refused"] == (~after.served).sum()
    assert found["e2e_max_seconds"] == after.e2e_seconds[after.served].max()
