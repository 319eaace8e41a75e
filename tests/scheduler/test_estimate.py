"""The level of one job that has not started: the same as that of a column of one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.estimate import estimate
from alise_scheduler.core.exec_time import Coefficients, CostModel
from alise_scheduler.core.job import columns
from alise_scheduler.core.lengths import QUANTILES, sane
from alise_scheduler.core.rank import POLICIES, AgeingRule, Policy, base_levels, levels, promote_seconds, view_of
from alise_scheduler.core.reports import Phase
from tests.scheduler.builders import SHAPE, make_job

seconds = st.floats(1e-4, 1e3)
costs = st.builds(
    lambda step, prefill, decode, context: CostModel(Coefficients(step, prefill, decode, context)),
    st.floats(1e-4, 1.0), st.floats(0, 1e-2), st.floats(0, 1e-2), st.floats(0, 1e-5),
)  # fmt: skip


@pytest.mark.parametrize("name", list(POLICIES))
@given(
    tokens=st.lists(st.floats(1, 8000), min_size=QUANTILES, max_size=QUANTILES), cap=st.integers(0, 5000), prompt=st.integers(1, 5000),
    weight=st.floats(0.1, 10), cost=costs, neutral=seconds, backlog=seconds, ages=st.booleans(),
)  # fmt: skip
def test_an_arriving_request_is_ranked_as_all_others_are(
    name: str, tokens: list[float], cap: int, prompt: int, weight: float, cost: CostModel, neutral: float, backlog: float, ages: bool
) -> None:
    policy = Policy(name, ageing=AgeingRule() if ages else None)
    job = make_job(phase=Phase.ADMITTED, lengths=sane(tokens), max_tokens=cap, prompt_tokens=prompt, weight=weight)
    view = view_of(columns((job,), 0.0, SHAPE, cost, neutral, {}))
    new = estimate(job, policy, SHAPE, cost, neutral, backlog)
    assert new.work_seconds == pytest.approx(float(view.remaining_seconds[0]))
    ends_at = promote_seconds(AgeingRule(), backlog, neutral) if name == "boost" and ages else math.inf
    unrounded = float(base_levels(POLICIES[name](view), view.snapshot.weight, neutral, ends_at)[0])
    if name == "fcfs" or abs(unrounded % 1 - 0.5) > 1e-6:
        assert new.level == int(levels(view, policy, backlog, slots=2.0, is_late=np.zeros(1, dtype=np.bool_))[0])


def test_costs_that_are_no_numbers_make_an_average_request() -> None:
    broken = CostModel(Coefficients(math.nan, math.nan, math.nan, math.nan))
    assert estimate(make_job(phase=Phase.ADMITTED), Policy(), SHAPE, broken, 1.0, 0.0).level == 0
