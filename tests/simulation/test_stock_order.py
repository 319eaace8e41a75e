"""What vLLM 0.32's own scheduler does when KV blocks are short, step by step (v1/core/sched/scheduler.py)."""

from typing import Any

import numpy as np
import pytest

from alise_simulator.baselines import FcfsDriver, PriorityDriver
from alise_simulator.driver import PolicyDriver
from alise_simulator.predictions import oracle
from alise_simulator.replica import Replica
from alise_simulator.request import Request
from alise_simulator.run import simulate
from tests.simulation.builders import Row, make_model, trace_of


class Recorded(Replica):
    """Notes who is preempted and who is admitted, with the number of steps by then."""

    def __init__(self, rows: list[Row], driver: PolicyDriver, **model: Any) -> None:
        super().__init__(make_model(**model), driver)
        self.preempted: list[tuple[int, int]] = []
        self.begun: list[tuple[int, int]] = []
        self.inbox.extend(Request(index, *row) for index, row in enumerate(rows))

    def _preempt(self, request: Request, limits: Any) -> None:
        self.preempted.append((self.steps_run, request.index))
        super()._preempt(request, limits)

    def _admit(self, budget: int) -> tuple[int, int]:
        before = set(map(id, self.running))
        found = super()._admit(budget)
        self.begun += [(self.steps_run, request.index) for request in self.running if id(request) not in before]
        return found


def test_first_come_first_served_preempts_the_last_that_was_admitted_and_takes_it_back_first() -> None:
    # Twelve blocks of 16 tokens for three requests that grow; a fourth and a fifth wait.
    rows: list[Row] = [(0.0, 30, 60), (0.0, 30, 60), (0.0, 30, 60), (0.1, 10, 5), (0.2, 10, 5)]
    pod = Recorded(rows, FcfsDriver(), max_num_seqs=3, num_device_blocks=12, max_num_batched_tokens=256)
    pod.advance()
    assert [index for _, index in pod.preempted] == [2]
    # Behind the first three comes the preempted one again, before those that waited.
    assert [index for _, index in pod.begun] == [0, 1, 2, 2, 3, 4]


def test_stock_priority_preempts_the_lowest_priority_wherever_it_runs() -> None:
    rows: list[Row] = [(0.0, 30, 90), (0.0, 30, 60), (0.0, 30, 50)]
    trace = trace_of(rows)
    pod = Recorded(rows, PriorityDriver(oracle(trace.output_tokens)), max_num_seqs=3, num_device_blocks=12, max_num_batched_tokens=256)
    pod.advance()
    # The longest one has the lowest priority; it was admitted last, and would have been first by arrival.
    assert [index for _, index in pod.preempted] == [0]


def test_no_waiting_request_is_admitted_in_a_step_that_preempted_for_memory() -> None:
    # The small one that waits would fit into what the preempted one gives back.
    rows: list[Row] = [(0.0, 30, 60), (0.0, 30, 60), (0.0, 30, 60), (0.1, 5, 5)]
    pod = Recorded(rows, FcfsDriver(), max_num_seqs=4, num_device_blocks=9, max_num_batched_tokens=256)
    pod.advance()
    assert pod.preempted
    assert not {step for step, _ in pod.preempted} & {step for step, _ in pod.begun}


def test_what_was_preempted_starts_over_without_the_prefix_cache() -> None:
    rows: list[Row] = [(0.0, 30, 60), (0.0, 30, 60)]
    outcome = simulate(trace_of(rows), make_model(num_device_blocks=8, prefix_caching=False), FcfsDriver)
    assert outcome.preemptions.tolist() == [0, 1]
    # Its prompt and what it had generated but for one token that would have been computed in any case.
    assert outcome.recomputed_tokens > 30


def test_a_request_is_admitted_only_when_all_its_tokens_have_blocks() -> None:
    # 60 tokens need four blocks; the first holds five of eight.
    pod = Recorded([(0.0, 70, 4), (0.01, 60, 2)], FcfsDriver(), num_device_blocks=8, max_num_batched_tokens=256)
    pod.advance()
    begun = {index: step for step, index in pod.begun}
    assert begun[1] >= 4


@pytest.mark.parametrize(
    ("ahead", "seconds"),
    [
        pytest.param(False, 0.011, id="without it, in the next step"),
        pytest.param(True, 0.021, id="with it, one step later: the next one is scheduled already"),
    ],
)
def test_async_scheduling_sees_an_arrival_one_step_later(ahead: bool, seconds: float) -> None:
    # Steps of 10 ms and 1 ms for a prompt token; the second arrives at the very beginning of a step.
    rows: list[Row] = [(0.0, 1, 100), (0.1111, 1, 1)]
    outcome = simulate(trace_of(rows), make_model(async_scheduling=ahead), FcfsDriver)
    wait = outcome.ttft_seconds[1] - (0.121 - 0.1111)
    assert wait == pytest.approx(seconds, abs=1e-6)


def test_async_scheduling_holds_the_slot_of_what_ended_for_one_more_step() -> None:
    rows: list[Row] = [(0.0, 1, 10), (0.0, 1, 100), (0.0, 1, 5)]
    at_once, later = (simulate(trace_of(rows), make_model(async_scheduling=ahead), FcfsDriver) for ahead in (False, True))
    assert later.ttft_seconds[2] - at_once.ttft_seconds[2] == pytest.approx(0.010)
    assert np.isfinite(later.e2e_seconds).all()
