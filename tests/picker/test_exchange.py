"""One request over external processing: what is read, and the messages that answer it."""

import json

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.v1 import ext_proc_pb2 as pb
from alise_picker.choose import Chosen, Decision, NoEndpoint, Reason, Shed
from alise_picker.exchange import MAX_COLLECTED_BYTES, Asked, Exchange, Room

TO_A = Chosen("10.0.0.1:8000", Reason.LEAST_WAIT)


def headers(mode: pb.BodySendMode = pb.FULL_DUPLEX_STREAMED, ends: bool = False) -> pb.ProcessingRequest:
    values = [pb.HeaderValue(key=":method", raw_value=b"POST"), pb.HeaderValue(key=":path", raw_value=b"/v1/completions")]
    return pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(headers=pb.HeaderMap(headers=values), end_of_stream=ends),
        protocol_config=pb.ProtocolConfiguration(request_body_mode=mode),
    )


def body(data: bytes, ends: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=ends))


def destination(answer: pb.ProcessingResponse) -> tuple[str, str]:
    """The endpoint in the header and in the metadata."""
    common = answer.request_headers.response if answer.HasField("request_headers") else answer.request_body.response
    header = common.header_mutation.set_headers[0].header
    named = MessageToDict(answer.dynamic_metadata)["envoy.lb"]
    assert header.key == "x-gateway-destination-endpoint"
    return header.raw_value.decode(), str(named["x-gateway-destination-endpoint"])


def streamed(answers: list[pb.ProcessingResponse]) -> tuple[bytes, list[bool]]:
    """The body that Envoy is sent, and which pieces say that it ends."""
    pieces = [one.request_body.response.body_mutation.streamed_response for one in answers if one.HasField("request_body")]
    return b"".join(piece.body for piece in pieces), [piece.end_of_stream for piece in pieces]


@given(st.lists(st.binary(max_size=90_000), min_size=1, max_size=6))
def test_a_body_in_pieces_comes_back_whole_behind_the_decision(pieces: list[bytes]) -> None:
    exchange, answers, asked = Exchange(), [], []
    for message in [headers(), *(body(piece, ends=number == len(pieces)) for number, piece in enumerate(pieces, 1))]:
        now, question = exchange.receive(message)
        answers += now
        if question is not None:
            asked.append(question)
            answers += exchange.answer(TO_A)
    assert len(asked) == 1
    assert destination(answers[0]) == (TO_A.address, TO_A.address)
    whole, ends = streamed(answers[1:])
    assert whole == b"".join(pieces)
    assert ends == [False] * (len(ends) - 1) + [True]


def test_a_body_that_is_longer_than_what_is_read_is_decided_before_its_end() -> None:
    exchange = Exchange()
    exchange.receive(headers())
    _, asked = exchange.receive(body(b"x" * (MAX_COLLECTED_BYTES + 1)))
    assert asked == Asked("POST", "/v1/completions", b"x" * (MAX_COLLECTED_BYTES + 1))
    exchange.answer(TO_A)
    assert streamed(exchange.receive(body(b"rest", ends=True))[0]) == (b"rest", [True])


@pytest.mark.parametrize("mode", [pytest.param(pb.BUFFERED, id="buffered"), pytest.param(pb.BUFFERED_PARTIAL, id="in part")])
def test_with_a_buffered_body_the_answer_to_the_body_decides_and_leaves_it_alone(mode: pb.BodySendMode) -> None:
    exchange = Exchange()
    first, asked = exchange.receive(headers(mode))
    assert [one.WhichOneof("response") for one in first] == ["request_headers"]
    assert asked is None
    _, asked = exchange.receive(body(b"{}", ends=True))
    assert asked == Asked("POST", "/v1/completions", b"{}")
    (answer,) = exchange.answer(TO_A)
    assert destination(answer) == (TO_A.address, TO_A.address)
    assert not answer.request_body.response.HasField("body_mutation")


@pytest.mark.parametrize("decision", [pytest.param(TO_A, id="sent"), pytest.param(NoEndpoint(), id="refused")])
@pytest.mark.parametrize("mode", [pytest.param(pb.FULL_DUPLEX_STREAMED, id="full duplex"), pytest.param(pb.BUFFERED, id="buffered")])
def test_a_body_is_kept_until_the_decision_and_no_longer(mode: pb.BodySendMode, decision: Decision) -> None:
    room = Room()
    exchange = Exchange(room)
    exchange.receive(headers(mode))
    exchange.receive(body(b"{}", ends=True))
    assert room.taken == 2
    exchange.answer(decision)
    assert room.taken == 0


def test_a_buffered_body_that_is_too_long_to_be_read_is_not_kept() -> None:
    room = Room()
    exchange = Exchange(room)
    exchange.receive(headers(pb.BUFFERED))
    _, asked = exchange.receive(body(b"x" * (MAX_COLLECTED_BYTES + 1), ends=True))
    assert (asked, room.taken) == (Asked("POST", "/v1/completions", b""), 0)
    assert destination(exchange.answer(TO_A)[0]) == (TO_A.address, TO_A.address)


def full_room() -> Room:
    """A room that another stream's body fills."""
    room = Room(most=10)
    other = Exchange(room)
    other.receive(headers())
    other.receive(body(b"x" * 11))
    return room


def test_a_body_without_room_goes_on_at_once_by_its_headers() -> None:
    room = full_room()
    exchange = Exchange(room)
    exchange.receive(headers())
    _, asked = exchange.receive(body(b"some"))
    assert asked == Asked("POST", "/v1/completions", b"", crowded=True)
    assert streamed(exchange.answer(TO_A)) == (b"some", [False])
    assert streamed(exchange.receive(body(b" more", ends=True))[0]) == (b" more", [True])
    assert room.taken == 11


def test_a_buffered_body_without_room_is_not_kept() -> None:
    room = full_room()
    exchange = Exchange(room)
    exchange.receive(headers(pb.BUFFERED))
    _, asked = exchange.receive(body(b"{}", ends=True))
    assert (asked, room.taken) == (Asked("POST", "/v1/completions", b"", crowded=True), 11)


def test_the_body_of_a_stream_that_ends_early_is_forgotten() -> None:
    room = Room()
    exchange = Exchange(room)
    exchange.receive(headers())
    exchange.receive(body(b"begun"))
    exchange.forget()
    assert room.taken == 0


@pytest.mark.parametrize("mode", [pytest.param(mode, id=name) for name, mode in pb.BodySendMode.items()])
def test_a_request_without_a_body_is_decided_by_its_headers(mode: pb.BodySendMode) -> None:
    exchange = Exchange()
    now, asked = exchange.receive(headers(mode, ends=True))
    assert (now, asked) == ([], Asked("POST", "/v1/completions", b""))
    assert [one.WhichOneof("response") for one in exchange.answer(TO_A)] == ["request_headers"]


@pytest.mark.parametrize(
    ("name", "has_key"),
    [
        pytest.param("authorization", True, id="OpenAI's"),
        pytest.param("x-api-key", True, id="Anthropic's"),
        pytest.param("x-a", False, id="no"),
    ],
)
def test_a_request_says_whether_it_brings_a_key(name: str, has_key: bool) -> None:
    message = headers(ends=True)
    message.request_headers.headers.headers.append(pb.HeaderValue(key=name, raw_value=b"Bearer x"))
    _, asked = Exchange().receive(message)
    assert asked is not None
    assert asked.has_key is has_key


def test_trailers_end_a_body() -> None:
    exchange = Exchange()
    exchange.receive(headers())
    exchange.receive(body(b"{}"))
    _, asked = exchange.receive(pb.ProcessingRequest(request_trailers=pb.HttpTrailers()))
    assert asked is not None
    answers = exchange.answer(TO_A)
    assert [one.WhichOneof("response") for one in answers] == ["request_headers", "request_body", "request_trailers"]
    assert streamed(answers) == (b"{}", [False])


@pytest.mark.parametrize(
    ("decision", "status", "again"),
    [pytest.param(Shed(12.0, 7), 429, "7", id="all refuse"), pytest.param(NoEndpoint(), 503, "10", id="no replica")],
)
def test_a_refusal_says_when_to_come_back(decision: Shed | NoEndpoint, status: int, again: str) -> None:
    exchange = Exchange()
    exchange.receive(headers(ends=True))
    (answer,) = exchange.answer(decision)
    refused = answer.immediate_response
    assert refused.status.code == status
    assert {one.header.key: one.header.raw_value.decode() for one in refused.headers.set_headers}["retry-after"] == again
    assert json.loads(refused.body)["error"]["code"] == status
