"""How many may wait: the limit holds, and one tenant does not keep the others out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.pending import Pending, may_wait

MAY = [
    pytest.param({}, "a", 1, 2, True, id="the first"),
    pytest.param({"a": 1}, "a", 1, 2, True, id="the last under the limit"),
    pytest.param({"a": 2}, "a", 1, 2, False, id="one over the limit"),
    pytest.param({"a": 1000}, "a", 1, 0, True, id="no limit"),
    pytest.param({"a": 10}, "b", 1, 10, True, id="another tenant, when one has filled the queue"),
    pytest.param({"a": 10}, "b", 6, 10, False, id="more than an even share of the other tenant"),
    pytest.param({"a": 10, "b": 5}, "b", 1, 10, False, id="the other tenant beyond its share"),
    pytest.param({"a": 10, "b": 10}, "c", 1, 10, False, id="anybody at twice the limit"),
]


@pytest.mark.parametrize(("by_tenant", "tenant", "weight", "limit", "may"), MAY)
def test_who_may_wait(by_tenant: dict[str, int], tenant: str, weight: int, limit: int, may: bool) -> None:
    assert may_wait(by_tenant, tenant, weight, limit) is may


def test_a_job_counts_until_it_leaves_and_leaves_once() -> None:
    pending = Pending(limit=1)
    assert pending.enter("one", "", 1)
    assert not pending.enter("two", "", 1)
    pending.leave("one")
    pending.leave("one")
    assert pending.count == 0
    assert pending.enter("two", "", 1)


def test_a_job_larger_than_the_limit_comes_in_alone() -> None:
    pending = Pending(limit=4)
    assert pending.enter("batch", "", 100)
    assert (pending.count, pending.enter("one", "", 1)) == (4, False)


def test_a_background_job_counts_again_when_it_reaches_the_engine_late() -> None:
    pending = Pending(limit=1)
    pending.enter_late("job", "")
    pending.enter_late("job", "")
    assert pending.count == 1


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.sampled_from("abcdefgh"), st.sampled_from("xy"), st.integers(0, 9)))


@given(st.integers(1, 6), STEPS)
def test_the_count_is_that_of_the_jobs_inside_and_never_over_twice_the_limit(limit: int, steps: list[tuple[str, str, str, int]]) -> None:
    pending = Pending(limit)
    inside: dict[str, int] = {}
    for what, job, tenant, weight in steps:
        if what == "leave":
            pending.leave(job)
            inside.pop(job, None)
        elif pending.enter(job, tenant, weight) and job not in inside:
            inside[job] = max(1, min(weight, limit))
        assert pending.count == sum(inside.values()) <= 2 * limit
        assert all(pending.by_tenant.values())
