"""Predicted waits of arriving requests: by their own rank, on their own tenant's slots, and what a refusal says of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.admissions import Admitted, ClassRule
from alise_scheduler.core.admission_queue import AdmissionQueue, ArrivingRequest
from alise_scheduler.core.admission_wait import INFLOW_SECONDS, LEAST_LEFT, Inflow, Wait, predicted_wait
from alise_scheduler.core.admit import AdmitLimits, Reason, Rejected, admit
from alise_scheduler.core.backlog import Backlog, Row, queue_for, with_rows
from alise_scheduler.core.estimate import Estimate
from alise_scheduler.core.rank import LatenessRule, Policy
from alise_scheduler.core.reports import EngineUpdate, Phase
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened

OVERDUE = LatenessRule().overdue_seconds


def backlog(
    jobs: int = 10,
    seconds_each: float = 4.0,
    slots: float = 2.0,
    level: int = 0,
    tenants: Sequence[int] | None = None,
    waited: float = 1e3,
) -> Backlog:
    tenant = np.zeros(jobs, dtype=np.int64) if tenants is None else np.array(tenants, dtype=np.int64)
    count = len(tenant)
    work, ones, waits = np.full(count, seconds_each), np.ones(count), np.full(count, waited)
    return Backlog(np.full(count, level), work, ones, ones, waits, tenant, tenant, slots)


def wait_of(
    level: int, of: Backlog, alone: float = 1e9, policy: Policy | None = None, inflow: float = 0.0, tenant: int = 0, weight: float = 1.0
) -> Wait:
    """The wait of an arriving request that is never late unless `alone` says so."""
    queue = queue_for(of, 1.0, weight, tenant, tenant)
    return predicted_wait(Estimate(level, alone, alone), queue, lambda at_most: inflow, policy or Policy())


# --- the queue --------------------------------------------------------------------------------------------------------------------


def test_an_arriving_request_waits_for_the_work_of_its_rank_but_not_for_the_last_jobs_that_fill_the_slots() -> None:
    # Ten jobs of 4 s on two slots: nine of them have to end before it has a slot.
    assert wait_of(0, backlog()).seconds == pytest.approx(9 * 4 / 2)
    assert wait_of(0, backlog()).ahead == 10


@pytest.mark.parametrize(
    ("level", "jobs"),
    [pytest.param(-1, 10, id="of a better rank"), pytest.param(0, 1, id="beside a free slot"), pytest.param(0, 0, id="on an idle engine")],
)
def test_no_wait(level: int, jobs: int) -> None:
    assert wait_of(level, backlog(jobs)).seconds == 0.0


def test_a_better_class_waits_for_less() -> None:
    of = backlog(10, level=-4)
    premium, plain = Estimate(-8, 1.0, 1e9), Estimate(0, 1.0, 1e9)
    waits = [predicted_wait(new, queue_for(of, 1.0, 4.0, 0, 0), lambda level: 0.0, Policy()).seconds for new in (premium, plain)]
    assert waits[0] == 0.0 < waits[1]


def test_work_that_keeps_arriving_at_better_ranks_makes_the_wait_longer() -> None:
    """Half of two slots is taken by what arrives, so the queue takes twice as long."""
    assert wait_of(0, backlog(), inflow=1.0).seconds == pytest.approx(2 * wait_of(0, backlog()).seconds)


def test_a_minute_of_more_work_than_can_be_done_does_not_make_the_wait_endless() -> None:
    assert wait_of(0, backlog(5), inflow=100.0).seconds == pytest.approx(wait_of(0, backlog(5)).seconds / LEAST_LEFT)


def test_a_wait_that_the_queue_does_not_explain_is_at_most_four_times_what_was_waited() -> None:
    seen = [wait_of(0, backlog(waited=waited), inflow=100.0).seconds for waited in (0.0, 10.0)]
    assert seen == [pytest.approx(18.0), pytest.approx(40.0)]


def test_one_that_is_late_before_its_turn_waits_for_those_that_are_in_time_as_well() -> None:
    of = with_rows(backlog(), [Row(8, 30.0, 1.0, 1.0, 0, 0)])
    patient, impatient = wait_of(0, of, alone=100.0), wait_of(0, of, alone=1.0)
    assert impatient.seconds > patient.seconds
    assert (patient.ahead, impatient.ahead) == (10, 11)


def test_no_wait_is_longer_than_until_it_is_overdue_while_the_older_work_is_little() -> None:
    assert wait_of(0, backlog(100, seconds_each=1.0), alone=1.0, inflow=100.0).seconds == OVERDUE


def test_with_much_older_work_an_overdue_job_waits_for_it_on_half_of_the_slots() -> None:
    of = backlog(1000, seconds_each=1.0)
    assert wait_of(0, of, alone=1.0, inflow=100.0).seconds == 1000.0


@given(jobs=st.integers(0, 200), each=st.floats(0.01, 100), inflow=st.floats(0, 10), alone=st.floats(0.01, 100), level=st.integers(-20, 20))
def test_a_worse_rank_never_waits_for_less(jobs: int, each: float, inflow: float, alone: float, level: int) -> None:
    of = with_rows(backlog(jobs, each), [Row(number, each, 1.0, 1.0, 0, 0) for number in range(-20, 21)])
    better, worse = (wait_of(one, of, alone, inflow=inflow) for one in (level, level + 1))
    assert 0.0 <= better.seconds <= worse.seconds + 1e-9
    assert math.isfinite(worse.seconds)


# --- what arrives -----------------------------------------------------------------------------------------------------------------


def test_inflow_is_the_work_of_the_last_minute_at_better_ranks() -> None:
    inflow = Inflow()
    for at in range(120):
        inflow.add(float(at), at % 2, 3.0, "a")
    assert inflow.per_second(120.0, 1) == pytest.approx(1.5, rel=0.05)
    assert inflow.per_second(120.0, 2) == pytest.approx(3.0, rel=0.05)
    assert inflow.per_second(120.0 + INFLOW_SECONDS, 2) == 0.0


def test_what_arrives_later_at_the_same_rank_is_no_inflow() -> None:
    """So first come, first served has none."""
    inflow = Inflow()
    inflow.add(0.0, 0, 60.0, "a")
    assert inflow.per_second(1.0, 0) == 0.0


def test_inflow_is_counted_by_tenant() -> None:
    inflow = Inflow()
    inflow.add(0.0, 0, 60.0, "flood")
    assert (inflow.per_second(1.0, 1, owner="quiet"), inflow.per_second(1.0, 1, owner="flood")) == (0.0, 1.0)


def test_inflow_of_more_jobs_than_are_remembered_is_that_of_the_newest() -> None:
    inflow = Inflow()
    for number in range(5000):
        inflow.add(number * 0.01, 0, 0.5, "a")
    assert inflow.per_second(50.0, 1) == pytest.approx(50.0, rel=0.01)


# --- tenants ----------------------------------------------------------------------------------------------------------------------


def test_one_tenants_backlog_is_not_another_tenants_wait() -> None:
    of = backlog(tenants=[0] * 50, slots=8.0)
    assert wait_of(0, of, tenant=0).seconds > 20
    assert wait_of(0, of, tenant=1).seconds == 0.0


def test_a_tenant_within_its_share_does_not_wait() -> None:
    of = backlog(tenants=[0] * 50 + [1] * 2, slots=8.0)
    assert wait_of(0, of, tenant=1).seconds == 0.0


def test_a_tenant_beyond_its_share_waits_for_its_own_jobs_on_its_own_slots() -> None:
    of = backlog(tenants=[0] * 50 + [1] * 10, slots=8.0)
    wait = wait_of(0, of, tenant=1)
    assert wait.seconds == pytest.approx((10 - 4 + 1) * 4 / 4)
    assert (wait.ahead, wait.shared) == (10, False)


def test_a_tenant_of_more_weight_has_more_of_the_slots() -> None:
    of = backlog(tenants=[0] * 50 + [1] * 50, slots=8.0)
    heavy = replace(of, weight=np.where(of.tenant == 1, 3.0, 1.0))
    assert wait_of(0, heavy, tenant=1, weight=3.0).seconds < wait_of(0, of, tenant=1).seconds / 1.3


def test_a_part_of_a_tenant_does_not_wait_for_the_flood_of_another_part() -> None:
    of = backlog(tenants=[0] * 50 + [1] * 20, slots=8.0)
    assert queue_for(of, 1.0, 1.0, 0, 2) is None
    assert queue_for(of, 1.0, 1.0, 0, 0) is not None


def test_a_part_of_a_tenant_does_not_wait_for_what_another_part_brings() -> None:
    """Two parts fill the tenant's share, and one of them brings more and more work of better ranks."""
    names = ["team/chat"] * 50 + ["team/batch"] * 50 + ["other"] * 50
    tenants, parts = np.array([0] * 100 + [1] * 50), np.array([0] * 50 + [1] * 50 + [2] * 50)
    of = replace(backlog(150, slots=8.0, waited=1e6), tenant=tenants, part=parts)

    def wait_of_chat(flood: str) -> float:
        queue = AdmissionQueue()
        queue.planned(lambda: of, lambda: names)
        for _ in range(10):
            queue.admitted(0.0, ArrivingRequest(Estimate(-1, 40.0, 40.0), 1, 1.0, flood))
        queue.planned(lambda: of, lambda: names)
        return queue.wait(30.0, ArrivingRequest(Estimate(0, 4.0, 1e9), 1, 1.0, "team/chat"), Policy()).seconds

    assert wait_of_chat("other") == wait_of_chat("team/batch") < wait_of_chat("team/chat")


def test_no_request_waits_for_a_withdrawn_job() -> None:
    queue = AdmissionQueue()
    jobs = [ArrivingRequest(Estimate(0, 10.0, 10.0), 1, 1.0, "a") for _ in range(3)]
    for job in jobs:
        queue.admitted(0.0, job)
    before = queue.wait(1000.0, jobs[0], Policy()).seconds
    queue.withdrawn(jobs[0])
    assert queue.wait(1000.0, jobs[0], Policy()).seconds < before


# --- when to come again, and what it says ------------------------------------------------------------------------------------------


@given(st.floats(1.0, 900.0), st.integers(1, 80), st.floats(1.0, 30.0), st.floats(0.1, 100.0))
def test_the_time_to_try_again_is_when_the_wait_will_be_within_the_limit(limit: float, jobs: int, each: float, alone: float) -> None:
    """Without further arrivals the engine has by then done the work that was too much."""
    before = wait_of(0, backlog(jobs, each), alone)
    if before.seconds <= limit:
        return
    until = before.seconds_until(limit)
    # Two slots do two seconds of work in a second, here of all jobs by equal parts.
    later = wait_of(0, backlog(jobs, max(0.0, each - until * 2 / (jobs - 1))), alone)
    assert later.seconds <= limit + 1e-6


def refusal(wait: Wait, limit: float = 60.0, slo_ms: int = 0) -> Rejected:
    answer = admit(slo_ms, False, AdmitLimits(limit), lambda: wait)
    assert answer is not None
    return answer


def test_a_refusal_names_the_wait_the_limit_the_requests_ahead_and_what_to_do() -> None:
    answer = refusal(Wait(210.0, 95.0, 41, late_seconds=210.0))
    assert answer.message == (
        "this request would wait about 210 s and this server refuses those that would wait longer than 60 s, because 41 requests are "
        "ahead of it; send it again in 35 s, or now with a smaller max_tokens, which gets a turn sooner"
    )
    assert answer.retry_after_seconds == 35


def test_a_first_token_that_comes_too_late_to_be_in_time_comes_when_the_late_ones_have_their_turn() -> None:
    answer = refusal(Wait(100.0, 8.0, 41, patience_seconds=5.0, late_seconds=100.0), limit=0.0, slo_ms=10_000)
    assert "the first token would come after about 100.0 s and this request asks for it within 10 s" in answer.message


def test_a_refusal_names_no_length_where_length_does_not_count() -> None:
    assert refusal(Wait(95.0, 95.0, 41, by_length=False)).message.endswith("because 41 requests are ahead of it; send it again in 35 s")


def test_a_refusal_does_not_suggest_a_shorter_answer_if_the_rank_does_not_depend_on_it() -> None:
    queue, policy = AdmissionQueue(), Policy()
    jobs = [ArrivingRequest(Estimate(0, 10.0, 10.0), 1, 1.0, "a", by_length=by_length) for by_length in (True, False)]
    queue.planned(backlog, lambda: ["a"] * 10)
    assert [queue.wait(0.0, job, policy).by_length for job in jobs] == [True, False]


def test_a_refusal_counts_no_requests_of_other_tenants() -> None:
    assert "41 requests of the same client are ahead of it" in refusal(Wait(95.0, 95.0, 41, shared=False)).message


def test_a_refusal_for_the_first_token_names_its_predicted_time() -> None:
    answer = refusal(Wait(20.0, 12.0, 7), limit=0.0, slo_ms=2000)
    assert answer.reason is Reason.OBJECTIVE
    assert answer.message.startswith("the first token would come after about 12.0 s and this request asks for it within 2 s, because 7 ")
    assert answer.retry_after_seconds == 10


# --- the state --------------------------------------------------------------------------------------------------------------------


def overloaded(jobs: int = 40, tenant: str = "flood", **fields: object) -> State:
    """An engine of four slots that one tenant has filled, with a limit of 10 s."""
    state = opened(make_state(limits=AdmitLimits(max_wait_seconds=10.0), **fields))  # type: ignore[arg-type]
    state.admit_limits = AdmitLimits()
    for number in range(jobs):
        state.admit(make_ask(f"j{number}", tenant=tenant, max_tokens=400), 1.0)
    state.update(EngineUpdate(requests=tuple(make_request(f"j{n}", Phase.RUNNING if n < 4 else Phase.WAITING) for n in range(jobs))), 1.0)
    state.decide(1.0)
    state.admit_limits = AdmitLimits(max_wait_seconds=10.0)
    return state


def test_in_overload_the_long_request_is_refused_and_the_short_one_is_served() -> None:
    state = overloaded()
    long, short = (state.admit(make_ask(f"tokens{most}", tenant="flood", max_tokens=most), 1.1) for most in (4000, 1))
    assert isinstance(long, Rejected)
    assert isinstance(short, Admitted)


def test_in_one_tenants_overload_another_tenants_request_is_served() -> None:
    assert isinstance(overloaded().admit(make_ask("quiet", tenant="quiet", max_tokens=4000), 1.1), Admitted)


def test_in_overload_a_premium_class_is_served_where_the_default_class_is_refused() -> None:
    state = overloaded(classes={"premium": ClassRule(weight=16.0)})
    plain, premium = (state.admit(make_ask(name, tenant="flood", objective=name, max_tokens=400), 1.1) for name in ("plain", "premium"))
    assert isinstance(plain, Rejected)
    assert isinstance(premium, Admitted)


def test_a_request_that_is_refused_adds_nothing_to_the_load() -> None:
    state = overloaded()
    before = (state.load.live, state.load.backlog_seconds(), len(state.book))
    for number in range(50):
        assert isinstance(state.admit(make_ask(f"again{number}", tenant="flood", max_tokens=4000), 1.1), Rejected)
    assert (state.load.live, state.load.backlog_seconds(), len(state.book)) == pytest.approx(before)


def test_without_a_limit_no_request_is_refused() -> None:
    state = overloaded(400)
    state.admit_limits = AdmitLimits()
    assert isinstance(state.admit(make_ask("long", tenant="flood", max_tokens=4000), 1.1), Admitted)
