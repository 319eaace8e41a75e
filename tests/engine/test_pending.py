"""How many may wait: the limit holds, and one tenant does not keep the others out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.api.pending import Pending, may_wait

MAY = [
    pytest.param({}, "a", 2, True, id="the first"),
    pytest.param({"a": 1}, "a", 2, True, id="the last under the limit"),
    pytest.param({"a": 2}, "a", 2, False, id="one over the limit"),
    pytest.param({"a": 1000}, "a", 0, True, id="no limit"),
    pytest.param({"a": 10}, "b", 10, True, id="another tenant, when one has filled the queue"),
    pytest.param({"a": 10, "b": 5}, "b", 10, False, id="the other tenant beyond its share"),
    pytest.param({"a": 10, "b": 10}, "c", 10, False, id="anybody at twice the limit"),
]


@pytest.mark.parametrize(("by_tenant", "tenant", "limit", "may"), MAY)
def test_who_may_wait(by_tenant: dict[str, int], tenant: str, limit: int, may: bool) -> None:
    assert may_wait(by_tenant, tenant, limit) is may


def test_a_job_counts_until_it_leaves_and_leaves_once() -> None:
    pending = Pending(limit=1)
    assert pending.enter("one", "")
    assert not pending.enter("two", "")
    assert [pending.leave("one"), pending.leave("one")] == [True, False]
    assert pending.count == 0
    assert pending.enter("two", "")


def test_a_job_counts_as_the_engine_requests_that_it_became_at_most_as_the_limit() -> None:
    """Before vLLM has accepted it, it counts as one: what vLLM refuses takes no room from others (L2)."""
    pending = Pending(limit=4)
    assert pending.enter("batch", "")
    assert pending.enter("one", "")
    pending.accepted("batch", "", 100)
    assert (pending.count, pending.enter("another", "")) == (5, False)


def test_a_background_job_counts_again_when_it_reaches_the_engine_late() -> None:
    pending = Pending(limit=1)
    pending.enter("job", "")
    pending.leave("job")
    pending.accepted("job", "", 1)
    assert pending.count == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "accepted", "leave"]), st.sampled_from("abcdefgh"), st.sampled_from("xy"), st.integers(1, 9))
)


@given(st.integers(1, 6), STEPS)
def test_the_count_is_that_of_the_jobs_inside(limit: int, steps: list[tuple[str, str, str, int]]) -> None:
    pending = Pending(limit)
    inside: dict[str, int] = {}
    for what, job, tenant, weight in steps:
        match what:
            case "leave":
                assert pending.leave(job) is (inside.pop(job, 0) > 0)
            case "accepted":
                pending.accepted(job, tenant, weight)
                inside[job] = max(inside.get(job, 0), min(weight, limit))
            case "enter":
                before = sum(inside.values())
                if pending.enter(job, tenant) and job not in inside:
                    inside[job] = 1
                    assert before < 2 * limit
        assert pending.count == sum(inside.values())
