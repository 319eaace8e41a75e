"""What the state asks of its predictor: forecasts of requests that are not admitted, what is remembered, and what is learned from."""

from typing import Any

import pytest

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.core.reports import EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.metrics import BATCH
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


def answer(state: State, job: str, tokens: int, reason: FinishReason = FinishReason.STOP, **fields: Any) -> None:
    """Admits a request, and ends it with this length."""
    state.admit(make_ask(job, **fields), 0.0)
    state.update(EngineUpdate((make_request(job, Phase.RUNNING),)), 0.1)
    state.update(EngineUpdate(finished=(Finished(f"r-{job}", job, reason, tokens),)), 0.2)


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
    question: dict[str, Any] = {"prompt": "the merger with Acme", "tenant": "team-a"}
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
        pytest.param({"min_tokens": 2**32 - 1, "prompt_chars": 400}, {3996.0}, id="until the context is full"),
        pytest.param({"max_tokens": 9000, "min_tokens": 9000, "prompt_chars": 400}, {3996.0}, id="more than the context holds"),
    ],
)
def test_an_answer_that_cannot_end_earlier_is_predicted_exactly(limits: dict[str, int], lengths: set[float]) -> None:
    state = opened(make_state(), max_model_len=4096)
    admitted = state.admit(make_ask("a", **limits), 0.0)
    assert isinstance(admitted, Admitted)
    assert set(state.book.jobs["a"].lengths.tokens) == lengths == {admitted.predicted_tokens}


def test_without_an_engine_an_answer_without_an_end_counts_as_a_long_one() -> None:
    assert make_state().forecast(make_ask("", min_tokens=2**32 - 1), 0.0)[0].median > 100_000


def test_an_answer_is_never_expected_to_be_shorter_than_the_client_allows() -> None:
    state, _ = make()
    plain, longer = (state.forecast(make_ask("", min_tokens=tokens), 0.0)[0].tokens for tokens in (0, 200))
    assert longer == tuple(max(value, 200.0) for value in plain)
    assert longer[0] < longer[-1]


@pytest.mark.parametrize(
    ("reason", "tokens", "learned"),
    [
        pytest.param(FinishReason.LENGTH, 900, False, id="at its limit"),
        pytest.param(FinishReason.ABORT, 300, False, id="by the client before"),
        pytest.param(FinishReason.STOP, 901, False, id="with the first token that may end it"),
        pytest.param(FinishReason.STOP, 1000, True, id="later by itself"),
        pytest.param(FinishReason.STOP, 10, True, id="before, because the engine ignores the minimum"),
    ],
)
def test_an_answer_with_a_minimum_length_is_learned_from_unless_the_minimum_kept_it_going(
    reason: FinishReason, tokens: int, learned: bool
) -> None:
    state, predictor = make()
    for number in range(BATCH):
        answer(state, f"j{number}", tokens, reason, min_tokens=900, prompt=f"question {number}")
    assert predictor.learned == [tokens] * BATCH * learned
    assert predictor.remembered == 0
    assert state.metrics.registry.get_sample_value("alise_scheduler_length_ratio_count") == BATCH * learned


def test_a_request_of_several_samples_is_learned_from_once_by_the_sample_that_ends_last() -> None:
    state, predictor = make()
    state.admit(make_ask("a", samples=3), 0.0)
    ids = [f"{number}_r" for number in range(3)]
    state.update(EngineUpdate(tuple(make_request("a", Phase.RUNNING, request_id=one) for one in ids)), 0.1)
    for one, tokens in zip(ids, (10, 20, 40), strict=True):
        state.update(EngineUpdate(finished=(Finished(one, "a", FinishReason.STOP, tokens),)), 1.0)
    assert (predictor.learned, predictor.remembered) == ([40], 0)
