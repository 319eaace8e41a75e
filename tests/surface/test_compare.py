"""What counts as the same answer."""

import json
from typing import Any

import pytest

from tests.surface.compare import Answer, Difference, Wanted, differences, events, fold, unwanted
from tests.surface.row import Request

ROW = Request("a row", "/v1/completions")


def answer(body: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {"content-type": content_type, **headers}, data)


def stream(*chunks: Any) -> Answer:
    return answer(b"".join(_event(chunk) for chunk in chunks) + b"data: [DONE]\n\n", content_type="text/event-stream; charset=utf-8")


def _event(chunk: Any) -> bytes:
    name = f"event: {chunk['type']}\n" if "type" in chunk else ""
    return f"{name}data: {json.dumps(chunk)}\n\n".encode()


def chunk(text: str, finish_reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "created": 5, "choices": [{"index": index, "text": text, "finish_reason": finish_reason}], **more}


COMPLETION = {"id": "cmpl-1", "created": 5, "choices": [{"text": "abc", "finish_reason": "length", "token_ids": [1, 2, 3]}]}

ALIKE = [
    pytest.param(COMPLETION, COMPLETION | {"id": "cmpl-2", "created": 9}, id="another id and another second"),
    pytest.param({"item_id": "msg_1", "request_id": "a"}, {"item_id": "msg_2", "request_id": "b"}, id="ids under other names"),
    pytest.param({"logprobs": [-1.00001]}, {"logprobs": [-1.00002]}, id="log probabilities in the last digits"),
    pytest.param({"system_fingerprint": "vllm-1"}, {"system_fingerprint": "vllm-2"}, id="the hash of the configuration"),
    pytest.param({"usage": {"cached_tokens": 0}}, {"usage": {"cached_tokens": 128}}, id="how much was in the prefix cache"),
    pytest.param(
        {"error": {"message": "no request 0123456789abcdef"}},
        {"error": {"message": "no request fedcba9876543210"}},
        id="an id in a message",
    ),
]


@pytest.mark.parametrize(("stock", "ours"), ALIKE)
def test_answers_are_alike_but_for(stock: Any, ours: Any) -> None:
    assert differences(answer(stock), answer(ours)) == ()


UNLIKE = [
    pytest.param({"choices": [{"text": "abc"}]}, {"choices": [{"text": "abd"}]}, "body.choices[0].text", id="a text"),
    pytest.param({"token_ids": [1, 2]}, {"token_ids": [1, 3]}, "body.token_ids[1]", id="a token id"),
    pytest.param({"token_ids": [1, 2]}, {"token_ids": [1]}, "body.token_ids", id="the number of tokens"),
    pytest.param({"finish_reason": "stop"}, {"finish_reason": "length"}, "body.finish_reason", id="a finish reason"),
    pytest.param({"error": {"message": "max 5"}}, {"error": {"message": "max 6"}}, "body.error.message", id="a number in a message"),
    pytest.param({"error": {"code": 400}}, {"error": {}}, "body.error.code", id="a key that ours lacks"),
    pytest.param({"error": {}}, {"error": {"param": None}}, "body.error.param", id="a key that only ours has"),
    pytest.param({"id": "a"}, {"id": None}, "body.id", id="an id that is none"),
    pytest.param({"n": 1}, {"n": 1.0}, "body.n", id="a float for a whole number"),
    pytest.param({"logprobs": [-1.0]}, {"logprobs": [-1.1]}, "body.logprobs[0]", id="a log probability"),
]


@pytest.mark.parametrize(("stock", "ours", "where"), UNLIKE)
def test_answers_are_unlike_in(stock: Any, ours: Any, where: str) -> None:
    assert [found.where for found in differences(answer(stock), answer(ours))] == [where]


def test_another_status_is_the_only_difference() -> None:
    (found,) = differences(answer({"text": "a"}), answer({"error": {}}, status=500))
    assert (found.where, found.ours[:3]) == ("status", "500")


def test_no_answer_says_why() -> None:
    (found,) = differences(answer({}), Answer(0, {}, b"", "ReadError: gone"))
    assert found.ours.startswith("0 ReadError: gone")


def test_a_header_that_only_ours_has_is_a_difference() -> None:
    (found,) = differences(answer({}, date="1"), Answer(200, {"content-type": "application/json", "date": "2", "retry-after": "1"}, b"{}"))
    assert (found.where, found.ours) == ("header retry-after", "1")


def test_plain_text_is_compared_as_it_is() -> None:
    theirs, ours = answer(b"Not Found", content_type="text/plain"), answer(b"Not there", content_type="text/plain")
    assert differences(theirs, ours) == (Difference("body", "Not Found", "Not there"),)


# --- streams --------------------------------------------------------------------------------------------------------------------------


def test_events_have_names_and_data() -> None:
    body = b'event: ping\ndata: {"a": 1}\n\n: a comment\n\ndata: [DONE]\r\n\r\n'
    assert events(body) == [("ping", {"a": 1}), ("", "[DONE]")]


def test_how_a_text_falls_into_chunks_does_not_matter() -> None:
    assert differences(stream(chunk("a"), chunk("b"), chunk("c", "stop")), stream(chunk("ab"), chunk("c", "stop"))) == ()


def test_the_text_of_a_stream_matters() -> None:
    (found,) = differences(stream(chunk("a"), chunk("b", "stop")), stream(chunk("a"), chunk("c", "stop")))
    assert (found.stock, found.ours) == ("ab", "ac")


def test_choices_that_alternate_otherwise_are_the_same_stream() -> None:
    first = stream(chunk("a", index=0), chunk("x", index=1), chunk("b", "stop", index=0), chunk("y", "stop", index=1))
    second = stream(chunk("x", index=1), chunk("y", "stop", index=1), chunk("ab", "stop", index=0))
    assert differences(first, second) == ()


def test_a_stream_without_its_last_usage_is_another() -> None:
    usage = {"id": "cmpl-1", "created": 5, "choices": [], "usage": {"total_tokens": 3}}
    assert differences(stream(chunk("a", "stop"), usage), stream(chunk("a", "stop")))


def test_a_stream_that_does_not_say_it_is_done_is_another() -> None:
    cut = answer(_event(chunk("a", "stop")), content_type="text/event-stream")
    assert "stream.order" in [found.where for found in differences(stream(chunk("a", "stop")), cut)]


def test_a_finish_reason_in_a_stream_matters() -> None:
    found = differences(stream(chunk("a", "stop")), stream(chunk("a", "length")))
    assert [one.where for one in found] == ["stream.sums.choices.choices[0].finish_reason[0]"]


def test_named_events_keep_their_order() -> None:
    delta = {"type": "content_block_delta", "delta": {"text": "a"}}
    start, end = {"type": "message_start"}, {"type": "message_stop"}
    assert fold(events(stream(start, delta, delta, end).body))["order"] == [
        "message_start",
        "content_block_delta",
        "message_stop",
        "[DONE]",
    ]


def test_the_arguments_of_a_tool_call_add_up() -> None:
    def call(arguments: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}}]}

    assert differences(stream(call('{"a"'), call(": 1}")), stream(call('{"a": 1}'))) == ()


# --- what is on purpose ---------------------------------------------------------------------------------------------------------------

LARGER = Wanted("the limit", where="status", rows="a row", ours="413 .*")


@pytest.mark.parametrize(
    ("row", "found", "counted"),
    [
        pytest.param("a row", Difference("status", "200 ", "413 too\nlarge"), False, id="is not counted"),
        pytest.param("another row", Difference("status", "200 ", "413 too large"), True, id="counts in another row"),
        pytest.param("a row", Difference("status", "200 ", "500 "), True, id="counts with another answer"),
        pytest.param("a row", Difference("body.text", "a", "413 "), True, id="counts elsewhere in the answer"),
    ],
)
def test_a_difference_on_purpose(row: str, found: Difference, counted: bool) -> None:
    assert bool(unwanted(Request(row, "/"), [found], [LARGER])) is counted
