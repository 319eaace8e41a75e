"""What a span says about a request."""

from typing import Any

import pytest

from alise_contract.describe import Description, Endpoint
from alise_contract.names import pack_priority
from alise_engine.api.admission import Admitted, FailedOpen, FailOpenReason, Prediction
from alise_engine.api.traces.record import MAX_EVENTS, MAX_STORIES, Record, attributes, end_ns, events, is_error, span_name
from alise_engine.wire.calls import FinishedRow, Mark, TraceRow

SECRET = "the text of a prompt"
ADMITTED = Admitted(pack_priority(-3, 17), "", Prediction(211.4, 0.002, 0.0005))


def record(*stories: TraceRow, **changes: Any) -> Record:
    """A chat that was answered."""
    made = Record("job", "client-1", "/v1/chat/completions", "interactive", "team-a/ann", 1_000_000)
    made.asked_ns, made.decided_ns, made.decision = 2_000_000, 5_000_000, ADMITTED
    made.outcome, made.status, made.answered_ns = "admitted", 200, 90_000_000
    made.describe(Description(Endpoint.CHAT_COMPLETIONS, "tiny", SECRET, 20, max_tokens=50, temperature=0.5))
    made.entered, made.ended = len(stories), len(stories)
    for story in stories:
        made.tell(story)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def story(*marks: tuple[Any, ...], request_id: str = "r1", reason: str = "length", dropped: int = 0) -> TraceRow:
    """Marks are (what, milliseconds, …)."""
    ending = FinishedRow(request_id, "job", reason, 10, 40, 1, 80, 20, 3, 30)
    return TraceRow(ending, tuple(Mark(what, at_ms * 1000, *more) for what, at_ms, *more in marks), dropped)


PARKED = story(
    *(("running", 10), ("first_token", 12), ("offloaded", 20, 128, "rank"), ("restoring", 40), ("running", 50, 128), ("ended", 88)),
)
STORIES = [
    pytest.param(PARKED, ["started", "first token", "preempted", "parked", "restoring", "restored", "ended"], id="parked and restored"),
    pytest.param(
        story(("running", 10), ("preempted", 20, 128, "memory"), ("running", 30, 0, "lost"), ("ended", 40)),
        ["started", "preempted", "recomputed", "ended"],
        id="preempted without a copy",
    ),
    pytest.param(
        story(("running", 10), ("offloaded", 20, 128, "rank"), ("preempted", 25), ("running", 30, 0, "lost"), ("ended", 40)),
        ["started", "preempted", "parked", "copy lost", "recomputed", "ended"],
        id="the copy left the store",
    ),
    pytest.param(
        story(("running", 10), ("offloaded", 20, 9, "rank"), ("restoring", 25), ("offloaded", 30), ("running", 35, 9), ("ended", 40)),
        ["started", "preempted", "parked", "restoring", "parked", "restored", "ended"],
        id="the way back was cut short",
    ),
    pytest.param(
        story(("running", 10), ("offloaded", 20, 128, "rank"), ("running", 30), ("ended", 40)),
        ["started", "preempted", "parked", "resumed", "ended"],
        id="the device still had all of it",
    ),
    pytest.param(story(("ended", 40), reason="abort"), ["ended"], id="ended while it waited"),
]


@pytest.mark.parametrize(("told", "expected"), STORIES)
def test_the_events_tell_what_happened_in_order(told: TraceRow, expected: list[str]) -> None:
    found, dropped = events(record(told))
    assert [event.name for event in found] == ["queued", "admitted", *expected]
    assert [event.at_ns for event in found] == sorted(event.at_ns for event in found)
    assert dropped == 0


def test_events_say_when_why_and_how_much() -> None:
    found = {event.name: event for event in events(record(PARKED))[0]}
    assert (found["preempted"].at_ns, found["preempted"].attributes) == (20_000_000, {"alise.cause": "rank", "alise.tokens": 128})
    assert found["admitted"].attributes == {"alise.level": -3, "alise.predicted_tokens": 211}
    assert found["restored"].attributes == {"alise.tokens": 128}
    assert found["ended"].attributes == {"alise.reason": "length", "alise.tokens": 40}


def test_the_span_has_the_conventions_attributes_and_ours() -> None:
    assert attributes(record(PARKED), "tiny") == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "tiny",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 40,
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "alise.request_id": "client-1",
        "alise.job": "job",
        "alise.class": "interactive",
        "alise.tenant": "team-a",
        "alise.outcome": "admitted",
        "alise.level": -3,
        "alise.predicted_tokens": 211,
        "alise.preemptions": 1,
        "alise.ttft_seconds": 0.02,
        "alise.waited_seconds": 0.003,
        "alise.preempted_seconds": 0.03,
    }


def test_nothing_of_the_prompt_is_in_a_trace() -> None:
    made = record(PARKED)
    assert SECRET not in repr((made, attributes(made, "tiny"), events(made)))


@pytest.mark.parametrize(
    ("tenant", "expected"),
    [
        pytest.param("key-0123456789abcdef", None, id="a hash of an API key"),
        pytest.param("team-a/ann@example.com", "team-a", id="a part, which may name a person"),
        pytest.param("", None, id="no tenant"),
    ],
)
def test_the_tenant_is_named_only_where_its_name_gives_nothing_away(tenant: str, expected: str | None) -> None:
    assert attributes(record(tenant=tenant), "tiny").get("alise.tenant") == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [pytest.param("tiny", "chat tiny", id="a model that is served"), pytest.param("x" * 300, "chat", id="a name of the client's own")],
)
def test_clients_cannot_invent_names_of_spans(model: str, expected: str) -> None:
    made = record()
    made.describe(Description(Endpoint.CHAT_COMPLETIONS, model))
    assert (span_name(made, frozenset({"tiny"})), len(made.model) <= 256) == (expected, True)


def test_a_request_for_a_lora_adapter_names_it() -> None:
    made = record(PARKED)
    made.describe(Description(Endpoint.CHAT_COMPLETIONS, "support"))
    made.adapter = "support"
    assert span_name(made, frozenset({"tiny"})) == "chat support"
    assert attributes(made, "tiny")["gen_ai.response.model"] == "support"


def test_a_request_that_failed_open_says_so() -> None:
    found, _ = events(record(story(("running", 10), ("ended", 20)), decision=FailedOpen(FailOpenReason.DEADLINE)))
    assert [(event.name, event.attributes) for event in found[:2]] == [("queued", {}), ("failed open", {"alise.reason": "deadline"})]


def test_a_refusal_is_an_event_and_no_failure() -> None:
    made = record(decision=None, asked_ns=0, decided_ns=0, outcome="overloaded", status=429)
    assert [(event.name, event.at_ns) for event in events(made)[0]] == [("rejected", 90_000_000)]
    assert (is_error(made), attributes(made, "tiny")["error.type"], made.is_complete) == (False, "429", True)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(record(status=500), True, id="an answer that says so"),
        pytest.param(record(story(("ended", 9), reason="error")), True, id="an engine that says so"),
        pytest.param(record(status=400), False, id="a request that vLLM refuses"),
        pytest.param(record(story(("ended", 9), reason="abort")), False, id="a client that has gone"),
    ],
)
def test_a_span_is_an_error_if_the_server_failed(made: Record, expected: bool) -> None:
    assert is_error(made) is expected


def test_samples_add_up_and_their_events_name_them() -> None:
    samples = [story(("running", 10 + index), ("ended", 30), request_id=f"r{index}") for index in range(2)]
    made = record(*samples, samples=2)
    found = attributes(made, "tiny")
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"], found["gen_ai.request.choice.count"]) == (10, 80, 2)
    assert [event.attributes for event in events(made)[0] if event.name == "started"] == [
        {"alise.engine_request": "r0"},
        {"alise.engine_request": "r1"},
    ]


def test_a_request_with_thousands_of_engine_requests_fits_into_a_span() -> None:
    made = record(*(story(("running", 10), ("ended", 20 + index), request_id=f"r{index}") for index in range(1000)))
    found, dropped = events(made)
    assert (len(found), len(found) + dropped) == (MAX_EVENTS, 2 + 2000)
    assert (found[-1].name, attributes(made, "tiny")["gen_ai.usage.output_tokens"]) == ("ended", 40_000)
    assert len(attributes(made, "tiny")["gen_ai.response.finish_reasons"]) == MAX_STORIES  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"answered_ns": 0}, False, id="the answer goes on"),
        pytest.param({"entered": 2}, False, id="the engine goes on"),
        pytest.param({"entered": 0, "ended": 0}, False, id="a background response that is not in the engine yet"),
        pytest.param({}, True, id="answer and engine have ended"),
    ],
)
def test_a_record_is_complete_once_all_have_ended(changes: dict[str, int], expected: bool) -> None:
    assert record(PARKED, **changes).is_complete is expected


def test_a_background_response_ends_with_the_engines_work() -> None:
    assert end_ns(record(PARKED, answered_ns=15_000_000)) == 88_000_000
