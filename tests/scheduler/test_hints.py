"""Hints that come back through the engine: only those signed for the same job are used."""

from typing import Any

import pytest

from alise_scheduler.admissions import Admitted, ClassRule
from alise_scheduler.core.lengths import PRIOR, Lengths
from alise_scheduler.predictor.hint import Hint, encode
from alise_scheduler.state import State
from tests.scheduler.builders import HINT_KEY, make_ask, make_request, make_state, opened


def hinted(state: State, hint: bytes, job_id: str = "x") -> Any:
    opened(state, make_request(job_id, hint=hint))
    return state.book.jobs[job_id]


HEAVY = Hint(Lengths((1.0,) * 10), 16.0, "gold", "victim")


def test_r2_an_unsigned_hint_with_a_heavy_weight_and_another_tenant_is_ignored() -> None:
    job = hinted(make_state(classes={"gold": ClassRule(16.0)}), encode(HEAVY, b"a key of the client's", "x"))
    assert (job.weight, job.tenant) == (1.0, "")
    assert job.lengths.median == pytest.approx(PRIOR.median)


def test_r2_a_hint_of_another_job_is_ignored() -> None:
    job = hinted(make_state(classes={"gold": ClassRule(16.0)}), encode(HEAVY, HINT_KEY, "y"))
    assert (job.weight, job.tenant) == (1.0, "")


@pytest.mark.parametrize(
    ("classes", "weight"),
    [
        pytest.param({"gold": ClassRule(16.0)}, 16.0, id="as its class still says"),
        pytest.param({"gold": ClassRule(2.0)}, 2.0, id="capped to what its class says now"),
        pytest.param({}, 1.0, id="capped to the default when its class is gone"),
    ],
)
def test_a_signed_hint_is_worth_no_more_than_its_class_is_now(classes: dict[str, ClassRule], weight: float) -> None:
    job = hinted(make_state(classes=classes), encode(HEAVY, HINT_KEY, "x"))
    assert (job.weight, job.tenant) == (weight, "victim")


def test_a_light_hint_stays_light_when_its_class_became_heavy() -> None:
    light = Hint(PRIOR, 0.25, "batch", "")
    assert hinted(make_state(classes={"batch": ClassRule(8.0)}), encode(light, HINT_KEY, "x")).weight == 0.25


def test_a_hint_comes_back_to_a_restarted_sidecar() -> None:
    answer = opened(make_state(classes={"gold": ClassRule(4.0)})).admit(make_ask("x", objective="gold", tenant="me"), 1.0)
    assert isinstance(answer, Admitted)
    job = hinted(make_state(classes={"gold": ClassRule(4.0)}), answer.hint)
    assert (job.weight, job.tenant) == (4.0, "me")


def test_without_a_key_hints_are_empty_and_requests_are_served() -> None:
    state = opened(make_state(hint_key=b""))
    answer = state.admit(make_ask("x"), 1.0)
    assert isinstance(answer, Admitted)
    assert answer.hint == b""
