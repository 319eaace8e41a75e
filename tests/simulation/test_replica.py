"""One simulated engine: steps, slots, blocks, preemption and the host store."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.rank import POLICIES, Policy, PreemptionRule
from alise_simulator.baselines import FcfsDriver, MlfqDriver, PriorityDriver, SrptDriver
from alise_simulator.driver import PolicyDriver
from alise_simulator.predictions import oracle
from alise_simulator.replica import Replica, steps_until
from alise_simulator.request import Request
from alise_simulator.run import Outcome, simulate
from alise_simulator.trace import Trace
from tests.simulation.builders import MODEL, SHAPE, Row, core_driver, make_model, trace_of


def run(rows: list[Row], driver: Callable[[Trace], PolicyDriver] = lambda trace: FcfsDriver(), **shape: Any) -> Outcome:
    trace = trace_of(rows)
    return simulate(trace, make_model(**shape), lambda: driver(trace))


def test_one_request_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    outcome = run([(0.0, 20, 5)])
    # A step that prefills 20 tokens and gives the first one, then four of 10 ms.
    assert outcome.ttft_seconds[0] == pytest.approx(0.030)
    assert outcome.e2e_seconds[0] == pytest.approx(0.070)


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    # 150 tokens through a budget of 64: three steps.
    assert run([(0.0, 150, 1)]).ttft_seconds[0] == pytest.approx(0.180)


def test_a_third_request_waits_for_one_of_two_slots() -> None:
    outcome = run([(0.0, 1, 10), (0.0, 1, 20), (0.0, 1, 10)])
    assert outcome.waited_seconds.tolist() == pytest.approx([0.0, 0.0, outcome.e2e_seconds[0]])


def test_context_makes_steps_longer() -> None:
    trace, cost = trace_of([(0.0, 10, 4)]), Coefficients(0.010, 0.0, 0.0, 0.001)
    # Steps attend to 10, 11, 12 and 13 tokens.
    assert simulate(trace, make_model(cost), FcfsDriver).e2e_seconds[0] == pytest.approx(0.040 + 0.046)


def test_an_arrival_is_seen_in_time_although_ended_requests_make_a_step_longer() -> None:
    # A step takes 10 ms and 4 ms for each request that decodes. Eight end at 102 ms; the step after it computes one token more for each,
    # so it ends at 148 ms and the next one at 162 ms. The request that arrives at 142 ms is in the step that begins then.
    trace = trace_of([*[(0.0, 4, 3)] * 8, (0.0, 4, 30), (0.142, 4, 1)])
    model = make_model(Coefficients(0.010, 0.0, 0.004, 0.0), async_scheduling=True, max_num_seqs=16)
    assert simulate(trace, model, FcfsDriver).ttft_seconds[-1] == pytest.approx(0.162 + 0.014 - 0.142)


@given(st.floats(0.001, 1.0), st.floats(0.0, 0.1), st.floats(0.0, 100.0))
def test_the_number_of_steps_to_a_moment_is_the_least_that_reaches_it(first: float, growth: float, seconds: float) -> None:
    def total(steps: int) -> float:
        return steps * first + growth * steps * (steps - 1) / 2

    steps = steps_until(seconds, first, growth)
    assert total(steps) >= seconds * (1 - 1e-9) - 1e-9
    assert steps == 1 or total(steps - 1) < seconds * (1 + 1e-9) + 1e-9


def test_a_short_request_preempts_a_long_one_which_comes_back_without_recompute() -> None:
    rows: list[Row] = [(0.0, 10, 1000), (0.0, 10, 1000), (1.0, 10, 5)]
    outcome = run(rows, core_driver, prefix_caching=False)
    assert outcome.ttft_seconds[2] < 0.1
    assert outcome.preemptions.tolist() == [0, 1, 0]
    assert outcome.recomputed_tokens == 0
    assert outcome.saved_bytes == outcome.restored_bytes > 0


def test_only_what_left_the_device_is_restored() -> None:
    # With blocks to spare nothing takes the preempted request's, so only its last block, which is not full, comes back.
    rows: list[Row] = [(0.0, 10, 1000), (0.0, 10, 1000), (1.0, 10, 5)]
    outcome = run(rows, core_driver)
    assert outcome.preemptions.tolist() == [0, 1, 0]
    assert 0 < outcome.restored_bytes < outcome.saved_bytes / 5
    assert outcome.recomputed_tokens == 0


def test_without_a_host_store_what_was_preempted_is_recomputed() -> None:
    rows: list[Row] = [(0.0, 10, 1000), (0.0, 10, 1000), (1.0, 10, 5)]
    outcome = run(rows, lambda trace: core_driver(trace, make_model(host_limit_bytes=0)), host_limit_bytes=0, prefix_caching=False)
    assert outcome.saved_bytes == 0
    assert outcome.recomputed_tokens > 50


def test_a_waiting_request_never_preempts_under_stock_priority() -> None:
    rows: list[Row] = [(0.0, 10, 200), (0.0, 10, 300), (0.5, 10, 50), (0.5, 10, 5)]
    outcome = run(rows, lambda trace: PriorityDriver(oracle(trace.output_tokens)))
    assert outcome.preemptions.sum() == 0
    # It goes first among those that wait.
    assert outcome.ttft_seconds[3] < outcome.ttft_seconds[2]


def test_when_blocks_run_out_the_worst_ranked_is_preempted_and_all_end() -> None:
    # Eight blocks of 16 tokens; each request grows to seven.
    outcome = run([(0.0, 10, 90), (0.0, 10, 90)], num_device_blocks=8)
    assert outcome.preemptions.tolist() == [0, 1]
    assert np.isfinite(outcome.e2e_seconds).all()


def test_a_request_that_cannot_fit_is_named_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="has a request of 500 tokens and the engine holds 112"):
        run([(0.0, 400, 100)], num_device_blocks=8)


def test_feedback_queues_serve_a_newcomer_at_once() -> None:
    rows: list[Row] = [(0.0, 10, 500), (0.0, 10, 500), (1.0, 10, 5)]
    assert run(rows, lambda trace: MlfqDriver(1 << 20)).ttft_seconds[2] < 0.3


def test_known_remaining_times_are_served_shortest_first() -> None:
    rows: list[Row] = [(0.0, 10, 500), (0.0, 10, 400), (1.0, 10, 50), (1.0, 10, 60)]
    outcome = run(rows, lambda trace: SrptDriver(1 << 20))
    assert np.argsort(outcome.e2e_seconds + trace_of(rows).arrival_seconds).tolist() == [2, 3, 1, 0]


class Watched(Replica):
    """Holds its promises in every step, or fails."""

    preempted_before = 0

    def _pass(self, seconds: float, steps: int, decoders: int) -> None:
        shape = self.model.shape
        assert seconds > 0
        assert len(self.running) <= shape.max_num_seqs
        assert self.host.used_bytes <= shape.host_limit_bytes
        assert self.host.used_bytes == sum(request.host_bytes for _, _, request in self.waiting)
        assert self._used_blocks(0) <= shape.num_device_blocks
        if self.waiting and len(self.running) < shape.max_num_seqs:
            # Only memory or the step's token budget may keep a slot empty.
            request = self.waiting[0][2]
            preempted = self.preemptions > self.preempted_before
            assert self._prefilling or preempted or self._ending_slots or not self._fits(request)
        self.preempted_before = self.preemptions
        super()._pass(seconds, steps, decoders)


def watched(trace: Trace, driver: PolicyDriver, **shape: Any) -> Watched:
    """A replica with the whole trace before it."""
    pod = Watched(make_model(**shape), driver)
    columns = (trace.arrival_seconds.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    pod.inbox.extend(Request(index, *values) for index, values in enumerate(zip(*columns, strict=True)))
    if trace.prefix_group is not None and trace.prefix_tokens is not None:
        for request, group, tokens in zip(pod.inbox, trace.prefix_group.tolist(), trace.prefix_tokens.tolist(), strict=True):
            request.prefix_group, request.prefix_tokens = group, tokens
    return pod


rows_of = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=30)
drivers: dict[str, Callable[[Trace], PolicyDriver]] = {
    "fcfs": lambda trace: FcfsDriver(),
    "priority": lambda trace: PriorityDriver(oracle(trace.output_tokens)),
    "mlfq": lambda trace: MlfqDriver(2048),
    "srpt": lambda trace: SrptDriver(2048),
    **{f"core {name}": lambda trace, name=name: core_driver(trace, make_model(host_limit_bytes=2048), Policy(name)) for name in POLICIES},  # type: ignore[misc]
}


@settings(max_examples=60)
@given(rows_of, st.sampled_from(sorted(drivers)), st.integers(1, 4), st.integers(30, 90), st.booleans(), st.integers(0, 3), st.data())
def test_all_ends_within_memory_and_slots_whatever_decides(
    rows: list[Row], driver: str, slots: int, blocks: int, ahead: bool, groups: int, data: st.DataObject
) -> None:
    shared = st.tuples(st.integers(0, groups - 1) if groups else st.just(-1), st.integers(0, 200))
    prefixes = data.draw(st.lists(shared, min_size=len(rows), max_size=len(rows)))
    trace = trace_of(rows, prefixes=prefixes)
    shape = {"max_num_seqs": slots, "num_device_blocks": blocks, "host_limit_bytes": 2048}
    pod = watched(trace, drivers[driver](trace), async_scheduling=ahead, **shape)
    pod.advance()
    assert len(pod.ended) == len(rows)
    assert all(request.arrived_at < request.first_token_at <= request.ended_at for request in pod.ended)
    assert pod.host.used_bytes == 0


@settings(max_examples=30)
@given(rows_of, st.sampled_from(sorted(drivers)))
def test_no_slot_is_idle_while_a_request_waits(rows: list[Row], driver: str) -> None:
    """With room for all KV the engine always runs as many as it may: as many tokens come out of a step."""
    trace = trace_of([(arrival, 1, output) for arrival, _, output in rows])
    pod = watched(trace, drivers[driver](trace), num_device_blocks=100_000, max_num_batched_tokens=10_000)
    sizes: list[tuple[int, int]] = []
    original = pod._pass

    def passed(seconds: float, steps: int, decoders: int) -> None:
        sizes.append((len(pod.running), len(pod.waiting)))
        original(seconds, steps, decoders)

    pod._pass = passed  # type: ignore[method-assign]
    pod.advance()
    assert all(running == SHAPE.max_num_seqs or not waiting for running, waiting in sizes)


@given(rows_of, st.sampled_from(["boost", "gittins", "alise"]))
@settings(max_examples=40)
def test_nothing_ping_pongs(rows: list[Row], name: str) -> None:
    """With lengths known and room for all KV, only an arrival makes anybody leave: who took a slot keeps it to its end."""
    trace = trace_of(rows)
    model = make_model(num_device_blocks=100_000, host_limit_bytes=1 << 30)
    outcome = simulate(trace, model, lambda: core_driver(trace, model, Policy(name)))
    assert outcome.preemptions.sum() < len(rows)


@given(rows_of, st.sampled_from(sorted(drivers)))
@settings(max_examples=20)
def test_the_same_trace_gives_the_same_outcome(rows: list[Row], driver: str) -> None:
    trace, model = trace_of(rows), make_model(host_limit_bytes=2048)
    one, two = (simulate(trace, model, lambda: drivers[driver](trace)) for _ in range(2))
    assert np.array_equal(one.e2e_seconds, two.e2e_seconds)


def test_preemption_can_be_off() -> None:
    trace = trace_of([(0.0, 10, 1000), (0.0, 10, 1000), (1.0, 10, 5)])
    policy = Policy(preemption=PreemptionRule(0, 0))
    assert simulate(trace, MODEL, lambda: core_driver(trace, policy=policy)).preemptions.sum() == 0
