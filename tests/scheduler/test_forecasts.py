"""What the state asks of its predictor: forecasts of requests that are not admitted, what is remembered, and what is learned from."""

from typing import Any

import pytest

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.core.reports import EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.predictor.features.row import ModelInput
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened


class Counting(LearnedPredictor):
    """Counts the requests that it remembers, and notes what it was asked and what it learned."""

    def __init__(self) -> None:
        super().__init__()
        self.learned: list[int] = []
        self.asked: list[ModelInput] = []

    @property
    def remembered(self) -> int:
        return len(self._admitted)

    def predict(self, request: ModelInput | None, max_tokens: int, remember: bool = True) -> Lengths:
        if request is not None:
            self.asked.append(request)
        return super().predict(request, max_tokens, remember)

    def learn(self, request: ModelInput, observation: Observation) -> None:
        self.learned.append(observation.tokens)
        super().learn(request, observation)


def make() -> tuple[State, Counting]:
    predictor = Counting()
    return opened(make_state(predictor=predictor), max_num_seqs=1), predictor


def answer(state: State, job: str, tokens: int, **fields: Any) -> None:
    """Admits a request, and ends it with this length."""
    state.admit(make_ask(job, **fields), 0.0)
    state.update(EngineUpdate((make_request(job, Phase.RUNNING),)), 0.1)
    state.update(EngineUpdate(finished=(Finished(f"r-{job}", job, FinishReason.STOP, tokens),)), 0.2)


def test_a_forecast_takes_no_place_of_an_admitted_request() -> None:
    state, predictor = make()
    state.admit(make_ask("a"), 0.0)
    for number in range(10):
        state.forecast(make_ask("", prompt=f"question {number}"), 0.0)
    assert predictor.remembered == 1


def test_a_refused_request_is_not_remembered() -> None:
    state, predictor = make()
    for job in "ab":
        state.admit(make_ask(job), 0.0)
    state.update(EngineUpdate((make_request("a", Phase.RUNNING), make_request("b"))), 0.1)
    state.admit_limits = AdmitLimits(max_wait_seconds=0.001)
    state.admit(make_ask("c"), 1.0)
    assert predictor.remembered == 2


def test_a_withdrawn_request_is_not_remembered() -> None:
    state, predictor = make()
    state.admit(make_ask("a"), 0.0)
    state.withdraw("a")
    assert predictor.remembered == 0


def test_a_request_that_is_admitted_again_is_remembered_once() -> None:
    state, predictor = make()
    for _ in range(3):
        state.admit(make_ask("a"), 0.0)
    assert predictor.remembered == 1


def test_a_forecast_does_not_say_whether_a_tenant_has_sent_exactly_this_text() -> None:
    question = {"prompt": "the merger with Acme", "tenant": "team-a"}
    without, _ = make()
    state, _ = make()
    for number in range(6):
        answer(without, f"j{number}", 900, **question | {"prompt": "the weather in Rome"})
        answer(state, f"j{number}", 900, **question)
    sent, not_sent = (one.forecast(make_ask("", **question), 1.0)[0] for one in (state, without))
    admitted = state.admit(make_ask("again", **question), 1.0)
    assert isinstance(admitted, Admitted)
    assert (sent, admitted.predicted_tokens > sent.median) == (not_sent, True)


def test_a_forecast_does_not_say_how_the_answers_of_a_conversation_were() -> None:
    turn = {"tenant": "team-a", "turns": 3, "prompt": "and then?", "conversation_previous": "one", "conversation_now": "two"}
    state, predictor = make()
    state.admit(make_ask("a", **turn), 0.0)
    state.forecast(make_ask("", **turn), 0.0)
    admitted, forecast = ((one.previous != 0, one.text != 0, one.tenant != 0) for one in predictor.asked)
    assert (admitted, forecast) == ((True, True, True), (False, False, False))


@pytest.mark.parametrize(
    ("limits", "lengths"),
    [
        pytest.param({"max_tokens": 700, "min_tokens": 700}, {700.0}, id="as long as the client allows"),
        pytest.param({"min_tokens": 2**32 - 1}, {4096.0}, id="as long as the context is"),
    ],
)
def test_an_answer_that_cannot_end_earlier_is_predicted_exactly(limits: dict[str, int], lengths: set[float]) -> None:
    state = opened(make_state(), max_model_len=4096)
    assert set(state.forecast(make_ask("", **limits), 0.0)[0].tokens) == lengths


def test_an_answer_is_never_expected_to_be_shorter_than_the_client_allows() -> None:
    state, _ = make()
    plain, longer = (state.forecast(make_ask("", min_tokens=tokens), 0.0)[0].tokens for tokens in (0, 200))
    assert longer == tuple(max(value, 200.0) for value in plain)
    assert longer[0] < longer[-1]


def test_nothing_is_learned_from_an_answer_that_the_client_made_that_long() -> None:
    taught, predictor = make()
    for number in range(20):
        answer(taught, f"j{number}", 900, min_tokens=900, prompt=f"question {number}")
    assert predictor.remembered == 0
    assert taught.forecast(make_ask(""), 1.0)[0] == make()[0].forecast(make_ask(""), 1.0)[0]


def test_an_answer_that_went_on_after_the_clients_minimum_is_learned_from() -> None:
    taught, _ = make()
    for number in range(20):
        answer(taught, f"j{number}", 900, min_tokens=2, prompt=f"question {number}")
    assert taught.forecast(make_ask(""), 1.0)[0].median > make()[0].forecast(make_ask(""), 1.0)[0].median


def test_a_request_of_several_samples_is_learned_from_once_by_the_sample_that_ends_last() -> None:
    state, predictor = make()
    state.admit(make_ask("a", samples=3), 0.0)
    ids = [f"{number}_r" for number in range(3)]
    state.update(EngineUpdate(tuple(make_request("a", Phase.RUNNING, request_id=one) for one in ids)), 0.1)
    for one, tokens in zip(ids, (10, 20, 40), strict=True):
        state.update(EngineUpdate(finished=(Finished(one, "a", FinishReason.STOP, tokens),)), 1.0)
    assert (predictor.learned, predictor.remembered) == ([40], 0)
