"""Which changes of the conditions are worth an event."""

from alise_operator.conditions import Condition
from alise_operator.errors import InvalidSpec, Problem
from alise_operator.observation import Observation, Trouble
from alise_operator.status import changes, fold, is_warning
from tests.operator.builders import OWNER, make_pod, make_spec
from tests.operator.statuses import BAD, GOOD, LATER, NOON, seen, status_of, troubled


def test_a_new_engine_is_announced_once_per_reason() -> None:
    announced = changes({}, status_of(seen(ready=0), {}))
    assert [one.reason for one in announced] == ["Starting"]


def test_an_unchanged_status_is_not_announced() -> None:
    status = status_of(GOOD, {})
    assert changes(status, status_of(GOOD, status, now=LATER)) == []


def test_a_bad_spec_is_announced_as_one_warning_and_again_when_it_is_bad_in_another_way() -> None:
    good = status_of(GOOD, {})
    bad = status_of(GOOD, good, error=BAD, spec=None)
    worse = status_of(GOOD, bad, error=InvalidSpec([Problem("spec.drainSeconds", "x")]), spec=None)
    (first,) = changes(good, bad)
    (second,) = changes(bad, worse)
    assert (first.reason, is_warning(first), "spec.replicas" in first.message) == ("InvalidSpec", True, True)
    assert "spec.drainSeconds" in second.message
    assert changes(bad, status_of(GOOD, bad, error=BAD, spec=None)) == []


def test_a_condition_that_degraded_explains_has_no_event_of_its_own() -> None:
    first = fold(spec=make_spec(), owner=OWNER, generation=1, error=None, observation=troubled("Unschedulable"), previous={}, now=NOON)
    applying = {
        **first,
        "conditions": [one | {"reason": "Applying"} if one["type"] == "Progressing" else one for one in first["conditions"]],
    }
    assert changes(applying, first) == []


def test_a_pods_changing_words_are_no_news() -> None:
    def crash(words: str) -> Observation:
        return seen(make_pod(ready=False, report=None, troubles=(Trouble("PodsCrashing", words),)), ready=0)

    first = status_of(crash("12:00 boom"), {})
    assert changes(first, status_of(crash("12:01 boom"), first)) == []


def test_recovery_is_announced() -> None:
    bad = status_of(GOOD, {}, error=BAD, spec=None)
    assert {one.reason for one in changes(bad, status_of(GOOD, bad))} == {"Serving", "Complete", "AsExpected"}


def test_only_degraded_is_a_warning() -> None:
    assert is_warning(Condition("Degraded", "True", "SidecarDown", ""))
    assert not is_warning(Condition("Degraded", "False", "AsExpected", ""))
    assert not is_warning(Condition("Ready", "False", "Starting", ""))
