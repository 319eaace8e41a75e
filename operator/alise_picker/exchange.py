"""One request as Envoy sends it over external processing, and the messages that answer it. Mutable, without I/O and clocks.

`server.py` passes each message in. When a request is complete, or as much of it as is read, `receive()` returns the `Asked`; the decision
goes to `answer()`, and what it returns goes to Envoy. The body mode is Envoy's configuration:

    FULL_DUPLEX_STREAMED        Envoy keeps nothing: the body is collected here, and sent back in pieces behind the answer to the headers
    BUFFERED, BUFFERED_PARTIAL  Envoy keeps the body and sends a copy; the answer to the body carries the decision
    others                      the decision goes by the headers alone

The decision is in the header and in the metadata that the endpoint picker protocol of the Gateway API Inference Extension names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.struct_pb2 import Struct

from alise_contract.v1 import ext_proc_pb2 as pb
from alise_picker.choose import Chosen, Decision, NoEndpoint, Shed

DESTINATION_HEADER: Final = "x-gateway-destination-endpoint"
DESTINATION_NAMESPACE: Final = "envoy.lb"
# The rest of a longer body goes on unread.
MAX_COLLECTED_BYTES: Final = 256 * 1024
# All bodies that are kept at a time. The picker's memory is limited to 512 MiB, and a body is copied once when it is sent back.
MAX_ROOM_BYTES: Final = 64 * 1024 * 1024
# Envoy takes pieces of at most this size.
PIECE_BYTES: Final = 62_000
# When to come back to a resource without replicas: pods take about this long at best.
NO_ENDPOINT_RETRY_SECONDS: Final = 10
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key"})
_BUFFERED: Final = frozenset({pb.BUFFERED, pb.BUFFERED_PARTIAL})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that needs a decision."""

    method: str
    path: str
    body: bytes
    # It has a header that may hold an API key. The picker knows no keys.
    has_key: bool = False
    # Bodies of other requests take up all the room, so this one goes by its headers, and at once.
    crowded: bool = False


class Room:
    """The bytes of the bodies that all streams keep at a time."""

    def __init__(self, most: int = MAX_ROOM_BYTES) -> None:
        self._most = most
        self.taken = 0

    def full(self) -> bool:
        """Returns whether there is no room for another body."""
        return self.taken > self._most


class Exchange:
    """The state of one stream. Mutable; one request and its answer."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room()
        self._mode: pb.BodySendMode = pb.NONE
        self._response_mode: pb.BodySendMode = pb.NONE
        self._method = self._path = ""
        self._has_key = False
        self._collected: list[bytes] = []
        self._bytes = 0
        self._has_body = False
        self._ended = False
        self._trailers = False
        self._decided = False

    def receive(self, message: pb.ProcessingRequest) -> tuple[list[pb.ProcessingResponse], Asked | None]:
        """Returns what to send now, and the request once it needs a decision."""
        match message.WhichOneof("request"):
            case "request_headers":
                return self._headers(message)
            case "request_body":
                return self._body(message.request_body)
            case "request_trailers":
                if self._decided:
                    return [pb.ProcessingResponse(request_trailers=pb.TrailersResponse())], None
                self._trailers = self._ended = True
                return [], self._asked()
            case "response_headers":
                return [pb.ProcessingResponse(response_headers=pb.HeadersResponse())], None
            case "response_body":
                return [self._echo(message.response_body)], None
            case "response_trailers":
                return [pb.ProcessingResponse(response_trailers=pb.TrailersResponse())], None
        return [], None

    def answer(self, decision: Decision) -> list[pb.ProcessingResponse]:
        """Returns the messages that carry a decision out. The body is not kept any longer."""
        answers = self._answers(decision)
        self.forget()
        return answers

    def forget(self) -> None:
        """Drops the body: it was sent, or the stream has ended."""
        self._collected.clear()
        self._room.taken -= self._bytes
        self._bytes = 0

    def _answers(self, decision: Decision) -> list[pb.ProcessingResponse]:
        match decision:
            case Chosen(address):
                return self._send_to(address)
            case Shed(wait, again):
                text = f"this request would wait about {wait:.0f} s on every replica, longer than they allow; send it again in {again} s"
                return [_refusal(429, text, again)]
            case NoEndpoint():
                text = f"no replica is ready; send it again in {NO_ENDPOINT_RETRY_SECONDS} s"
                return [_refusal(503, text, NO_ENDPOINT_RETRY_SECONDS)]

    def _headers(self, message: pb.ProcessingRequest) -> tuple[list[pb.ProcessingResponse], Asked | None]:
        self._mode = message.protocol_config.request_body_mode
        self._response_mode = message.protocol_config.response_body_mode
        found = {one.key: one.raw_value or one.value.encode() for one in message.request_headers.headers.headers}
        self._method = found.get(":method", b"").decode("latin-1")
        self._path = found.get(":path", b"").decode("latin-1")
        self._has_key = not _KEY_HEADERS.isdisjoint(found)
        self._ended = message.request_headers.end_of_stream
        if self._ended or self._mode in (pb.NONE, pb.STREAMED):
            return [], self._asked()
        # Envoy sends a buffered body only after an answer to the headers, and a streamed one without.
        return ([pb.ProcessingResponse(request_headers=pb.HeadersResponse())] if self._mode in _BUFFERED else []), None

    def _body(self, body: pb.HttpBody) -> tuple[list[pb.ProcessingResponse], Asked | None]:
        if self._decided:
            return ([pb.ProcessingResponse(request_body=pb.BodyResponse())] if self._mode != pb.FULL_DUPLEX_STREAMED else
                    _pieces([body.body], body.end_of_stream)), None  # fmt: skip
        self._has_body = True
        self._ended = body.end_of_stream
        buffered = self._mode in _BUFFERED
        # Envoy has a buffered body, and nothing is read of a longer one.
        if not buffered or (len(body.body) <= MAX_COLLECTED_BYTES and not self._room.full()):
            self._collected.append(body.body)
            self._bytes += len(body.body)
            self._room.taken += len(body.body)
        if self._ended or buffered or self._bytes > MAX_COLLECTED_BYTES or self._room.full():
            return [], self._asked()
        return [], None

    def _asked(self) -> Asked:
        if self._room.full():
            return Asked(self._method, self._path, b"", self._has_key, crowded=self._has_body)
        # One copy, not two: it is sent back from here.
        self._collected = [b"".join(self._collected)]
        return Asked(self._method, self._path, self._collected[0], self._has_key)

    def _send_to(self, address: str) -> list[pb.ProcessingResponse]:
        self._decided = True
        header = pb.HeaderValueOption(
            header=pb.HeaderValue(key=DESTINATION_HEADER, raw_value=address.encode()),
            append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        common = pb.CommonResponse(header_mutation=pb.HeaderMutation(set_headers=[header]))
        metadata = Struct()
        metadata.update({DESTINATION_NAMESPACE: {DESTINATION_HEADER: address}})
        if self._mode in _BUFFERED and self._has_body:
            return [pb.ProcessingResponse(request_body=pb.BodyResponse(response=common), dynamic_metadata=metadata)]
        answers = [pb.ProcessingResponse(request_headers=pb.HeadersResponse(response=common), dynamic_metadata=metadata)]
        if self._mode == pb.FULL_DUPLEX_STREAMED and self._has_body:
            answers += _pieces(self._collected, self._ended and not self._trailers)
        if self._trailers:
            answers.append(pb.ProcessingResponse(request_trailers=pb.TrailersResponse()))
        return answers

    def _echo(self, body: pb.HttpBody) -> pb.ProcessingResponse:
        if self._response_mode != pb.FULL_DUPLEX_STREAMED:
            return pb.ProcessingResponse(response_body=pb.BodyResponse())
        streamed = pb.StreamedBodyResponse(body=body.body, end_of_stream=body.end_of_stream)
        common = pb.CommonResponse(body_mutation=pb.BodyMutation(streamed_response=streamed))
        return pb.ProcessingResponse(response_body=pb.BodyResponse(response=common))


def wait_longer(seconds: float) -> pb.ProcessingResponse:
    """Returns the message by which Envoy waits longer for the decision."""
    answer = pb.ProcessingResponse()
    answer.override_message_timeout.FromMilliseconds(round(seconds * 1000))
    return answer


def _pieces(bodies: Iterable[bytes], ends: bool) -> list[pb.ProcessingResponse]:
    whole = b"".join(bodies)
    cuts = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)] or [b""]
    answers = []
    for number, cut in enumerate(cuts, 1):
        streamed = pb.StreamedBodyResponse(body=cut, end_of_stream=ends and number == len(cuts))
        common = pb.CommonResponse(body_mutation=pb.BodyMutation(streamed_response=streamed))
        answers.append(pb.ProcessingResponse(request_body=pb.BodyResponse(response=common)))
    return answers


def _refusal(status: int, message: str, retry_after_seconds: int) -> pb.ProcessingResponse:
    """Returns an answer to the client in the form of OpenAI's errors."""
    kind, code = ("rate_limit_exceeded", status) if status == 429 else ("service_unavailable", status)
    body = f'{{"error": {{"message": "{message}", "type": "{kind}", "param": null, "code": {code}}}}}'
    headers = [("content-type", "application/json"), ("retry-after", str(retry_after_seconds))]
    options = [
        pb.HeaderValueOption(
            header=pb.HeaderValue(key=key, raw_value=value.encode()), append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        )
        for key, value in headers
    ]
    return pb.ProcessingResponse(
        immediate_response=pb.ImmediateResponse(
            status=pb.HttpStatus(code=status), headers=pb.HeaderMutation(set_headers=options), body=body.encode(), details=kind
        )
    )
