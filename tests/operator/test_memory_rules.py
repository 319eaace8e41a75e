"""Memory limits that are too small for a container; the engine's are in test_rules.py and test_devices.py."""

import pytest

from alise_operator.errors import InvalidSpec
from alise_operator.memory_rules import scheduler_memory_problems
from alise_operator.rules import check
from tests.operator.builders import make_spec


@pytest.mark.parametrize(("limit", "is_refused"), [("64Mi", True), ("191Mi", True), ("192Mi", False), ("1Gi", False), ("nonsense", False)])
def test_a_scheduler_that_could_not_start_within_its_memory_limit_is_refused(limit: str, is_refused: bool) -> None:
    problems = list(scheduler_memory_problems("spec.scheduling.resources.limits.memory", limit))
    assert bool(problems) is is_refused
    assert all("is below 192Mi, which the scheduler needs to start" in one.text for one in problems)


def test_the_schedulers_memory_limit_is_checked_in_its_field() -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.scheduling\.resources\.limits\.memory: '64Mi' is below 192Mi"):
        check(make_spec(scheduling={"resources": {"limits": {"memory": "64Mi"}}}), "tiny")
