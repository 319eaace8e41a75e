"""Where a job stands in a decision: how many rank before it, by which rule, and what keeps it from running."""

from typing import Any

import pytest

from alise_scheduler.core.decide import decide
from alise_scheduler.core.job import Job, Snapshot
from alise_scheduler.core.rank import LatenessRule, Policy, PreemptionRule
from alise_scheduler.core.reports import EngineShape, Phase
from alise_scheduler.core.standing import Ahead, Rule, Standing, standings
from tests.scheduler.builders import make_job, make_request, make_snapshot

PLAIN = Policy(name="alise", ageing=None, lateness=None)
TWO_SLOTS = EngineShape(max_num_seqs=2, max_model_len=4096, num_device_blocks=10_000)


def standing_of(job_id: str, jobs: list[Job], policy: Policy = PLAIN, shape: EngineShape = TWO_SLOTS) -> Standing:
    snapshot: Snapshot = make_snapshot(jobs, shape)
    (standing,) = standings(snapshot, policy, decide(snapshot, policy), [snapshot.jobs.index(job_id)])
    return standing


def running(name: str, tokens: float = 100, **fields: Any) -> Job:
    return make_job(name, tokens, Phase.RUNNING, **fields)


def test_shorter_requests_go_first() -> None:
    jobs = [running("a", 50), running("b", 50), make_job("c", 60), make_job("long", 4000)]
    standing = standing_of("long", jobs)
    assert (standing.rule, standing.ahead) == (Rule.LENGTH, Ahead(length=3, running=2))


def test_of_equal_requests_the_older_ones_go_first() -> None:
    standing = standing_of("c", [running("a"), running("b"), make_job("c")])
    assert (standing.rule, standing.ahead) == (Rule.ARRIVAL, Ahead(arrival=2, running=2))


def test_overdue_requests_go_first() -> None:
    policy = Policy(name="alise", ageing=None, lateness=LatenessRule(slowdown=1e6, overdue_seconds=100.0, overdue_share=1.0))
    old = [make_job(name, 1000, Phase.PREEMPTED, waited=200.0) for name in "ab"]
    standing = standing_of("new", [*old, make_job("new", 10)], policy)
    assert (standing.rule, standing.ahead) == (Rule.OVERDUE, Ahead(overdue=2))


def test_a_late_request_waits_behind_those_that_can_be_in_time() -> None:
    policy = Policy(name="alise", ageing=None, lateness=LatenessRule(slowdown=2.0, busy_slowdown=0.0, overdue_seconds=1e6))
    jobs = [running("a", 100), running("b", 100), make_job("late", 90, waited=1000.0)]
    standing = standing_of("late", jobs, policy)
    assert (standing.rule, standing.ahead.length) == (Rule.LATE, 2)


def test_a_tenant_over_its_share_waits_behind_the_others() -> None:
    of_a = [running("a0", 1, tenant="a"), running("a1", 1000, tenant="a"), make_job("a2", 2000, tenant="a")]
    of_b = [running("b0", 10, tenant="b"), make_job("b1", 1000, tenant="b")]
    shape = EngineShape(max_num_seqs=3, max_model_len=4096, num_device_blocks=10_000)
    standing = standing_of("a2", [*of_a, *of_b], shape=shape)
    # One request of each tenant is within its share, and two others over theirs are shorter.
    assert (standing.rule, standing.ahead) == (Rule.SHARE, Ahead(share=2, length=2, running=3))


def test_a_request_that_is_next_waits_while_running_ones_are_not_worse_enough() -> None:
    standing = standing_of("b", [running("a", 110), running("c", 110), make_job("b", 100)])
    assert (standing.rule, standing.ahead.total, standing.running_behind) == (Rule.SLOTS, 0, 2)


@pytest.mark.parametrize("waited", [pytest.param(0.1, id="in time"), pytest.param(1000.0, id="late")])
def test_a_request_with_more_samples_than_slots_waits_for_slots_and_for_no_other_request(waited: float) -> None:
    policy = Policy(name="alise", ageing=None, lateness=LatenessRule(slowdown=2.0, busy_slowdown=0.0, overdue_seconds=1e6))
    requests = {name: make_request("wide", request_id=name) for name in ("r0", "r1", "r2", "r3")}
    standing = standing_of("wide", [make_job("wide", 100, samples=4, waited=waited, requests=requests)], policy)
    assert (standing.rule, standing.ahead.total) == (Rule.SLOTS, 0)


def test_a_request_that_waits_beside_a_free_slot_waits_for_kv_memory() -> None:
    standing = standing_of("b", [running("a"), make_job("b", 100, waited=5.0)])
    assert standing.rule is Rule.KV_MEMORY


def test_a_request_that_has_just_come_and_finds_a_slot_waits_for_no_other() -> None:
    assert standing_of("b", [running("a"), make_job("b", 100, waited=0.1)]).rule is Rule.NONE


def test_first_come_first_served_is_the_order_of_arrival() -> None:
    policy = Policy(name="fcfs", ageing=None, preemption=PreemptionRule(levels=0))
    jobs = [running("a", 4000), running("b", 4000), make_job("c", 4000), make_job("d", 1)]
    standing = standing_of("d", jobs, policy)
    assert (standing.rule, standing.ahead) == (Rule.ARRIVAL, Ahead(arrival=3, running=2))


@pytest.mark.parametrize("policy", [PLAIN, Policy(), Policy(name="fcfs", ageing=None)], ids=["alise", "boost", "fcfs"])
def test_as_many_are_ahead_as_the_order_says(policy: Policy) -> None:
    jobs = [make_job(f"j{number}", 37.0 * (number % 5 + 1), waited=float(number * 40), tenant=f"t{number % 3}") for number in range(12)]
    snapshot = make_snapshot(jobs, TWO_SLOTS)
    decision = decide(snapshot, policy)
    found = standings(snapshot, policy, decision, decision.rows.tolist())
    assert [standing.ahead.total for standing in found] == list(range(len(jobs)))


def test_nothing_is_asked_of_an_empty_engine() -> None:
    snapshot = make_snapshot([])
    assert standings(snapshot, PLAIN, decide(snapshot, PLAIN), []) == ()
