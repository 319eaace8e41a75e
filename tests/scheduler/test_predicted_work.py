"""What autoscalers read: the predicted work of a pod and of what arrives, in the time of a pod that is fully busy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.decide import decide
from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.plan import PredictedWork
from alise_scheduler.core.predicted_work import pod_seconds
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineShape, EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.engine.convert import to_apply
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_job, make_request, make_snapshot, make_state, opened
from tests.scheduler.running_dispatcher import running

# The fixed part of a step is 10 ms, a prefill token takes 1 ms.
COST = Coefficients(step_seconds=0.010, prefill_seconds=0.001, decode_seconds=0.0, context_seconds=0.0)
ROOMY = EngineShape(max_num_seqs=10, block_size=16, num_device_blocks=1_000_000)


def backlog(*tokens: float, slots: int = 2) -> float:
    snapshot = make_snapshot([make_job(f"j{n}", tokens=count) for n, count in enumerate(tokens)], EngineShape(max_num_seqs=slots))
    return decide(snapshot, Policy()).pod_seconds


def test_the_fixed_part_of_a_step_is_shared_by_all_slots() -> None:
    assert pod_seconds(COST, ROOMY, 0, 100, 0) == pytest.approx(100 * 0.010 / 10)


def test_a_prefill_has_the_pod_for_itself() -> None:
    assert pod_seconds(COST, ROOMY, 500, 0, 500) == pytest.approx(0.5)


def test_an_answer_that_fills_the_kv_memory_shares_no_step() -> None:
    shape = EngineShape(max_num_seqs=10, block_size=1, num_device_blocks=1000)
    assert pod_seconds(COST, shape, 0, 100, 450) == pytest.approx(100 * 0.010 / 2)
    assert pod_seconds(COST, shape, 0, 100, 5000) == pytest.approx(100 * 0.010)


def test_answers_that_fill_the_slots_together_take_as_long_as_their_steps() -> None:
    cost = Coefficients(step_seconds=0.010, prefill_seconds=0.001, decode_seconds=0.002, context_seconds=0.0)
    assert 10 * pod_seconds(cost, ROOMY, 0, 100, 0) == pytest.approx(100 * cost.step(0, 10, 0))


def test_an_idle_pod_has_no_backlog() -> None:
    assert backlog() == 0


def test_twice_the_requests_are_twice_the_backlog() -> None:
    assert backlog(100, 100) == pytest.approx(2 * backlog(100))


def test_a_request_that_has_generated_counts_with_what_is_left() -> None:
    begun = make_snapshot([make_job("a", tokens=100, phase=Phase.RUNNING, generated=50)], EngineShape(max_num_seqs=2))
    assert decide(begun, Policy()).pod_seconds < backlog(100)


@given(st.floats(0, 1e6), st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_the_time_is_finite_and_never_negative(prefill: float, left: float, context: float, slots: int, blocks: int) -> None:
    shape = EngineShape(max_num_seqs=slots, num_device_blocks=blocks)
    assert 0 <= pod_seconds(Coefficients(), shape, prefill, left, context) < math.inf


def admitted(state: State, job: str, at: float) -> None:
    state.admit(make_ask(job), at)
    state.update(EngineUpdate(requests=(make_request(job, Phase.RUNNING),)), at)


def sent(state: State, at: float) -> PredictedWork:
    work = state.decide(at).plan.work
    assert work is not None
    return work


def test_the_backlog_ends_with_its_requests_and_the_offered_load_a_minute_after_they_came() -> None:
    state = opened(make_state())
    for number in range(8):
        admitted(state, f"j{number}", 1.0)
    busy = sent(state, 2.0)
    ended = tuple(Finished(f"r-j{number}", f"j{number}", FinishReason.STOP, generated_tokens=5) for number in range(8))
    state.update(EngineUpdate(finished=ended), 3.0)
    idle, later = sent(state, 4.0), sent(state, 62.0)
    assert busy.backlog_seconds > 0 == idle.backlog_seconds
    assert 0 < idle.offered_load == pytest.approx(busy.offered_load)
    assert later.offered_load == 0


def test_the_work_that_arrives_in_a_minute_is_the_backlog_of_as_many_requests() -> None:
    state = opened(make_state())
    sent(state, 1.0)
    for number in range(8):
        state.admit(make_ask(f"j{number}"), 61.0)
    work = sent(state, 62.0)
    assert work.offered_load * 60 == pytest.approx(work.backlog_seconds, rel=0.01)


@pytest.mark.parametrize("after", [pytest.param(10.0, id="after ten seconds"), pytest.param(40.0, id="after forty seconds")])
def test_in_the_first_minute_of_a_scheduler_the_offered_load_is_that_of_the_time_since_its_start(after: float) -> None:
    young, old = opened(make_state()), opened(make_state())
    for state, began in ((young, 100.0), (old, 0.0)):
        sent(state, began)
        for number in range(60):
            at = 41.0 + number if state is old else 100.0 + number
            if at < 100.0 + after:
                state.admit(make_ask(f"j{number}"), at)
    assert sent(young, 100.0 + after).offered_load == pytest.approx(sent(old, 100.0).offered_load, rel=0.05)


def test_what_arrives_together_right_after_a_start_is_the_work_of_ten_seconds() -> None:
    state = opened(make_state())
    sent(state, 1.0)
    state.admit(make_ask("a"), 1.0)
    work = sent(state, 1.1)
    assert work.offered_load * 10 == pytest.approx(work.backlog_seconds, rel=0.01)


def test_a_withdrawn_request_is_no_offered_load() -> None:
    state = opened(make_state())
    state.admit(make_ask("a"), 1.0)
    state.withdraw("a")
    assert sent(state, 2.0) == PredictedWork(0.0, 0.0)


async def test_every_plan_takes_the_work_to_the_engine_and_to_the_metrics() -> None:
    async with running(make_state()) as bench:
        bench.engine.boot()
        await bench.enter("a")
        await bench.clock.advance(1.0)
        work = bench.plans()[-1].work
        assert work is not None
        assert work.backlog_seconds > 0
        assert bench.metric("alise_scheduler_backlog_seconds") == pytest.approx(work.backlog_seconds)
        assert bench.metric("alise_scheduler_offered_load_ratio") == pytest.approx(work.offered_load)
        message = to_apply("s", 1, bench.plans()[-1]).work
        assert (message.backlog_seconds, message.offered_load) == (work.backlog_seconds, work.offered_load)
