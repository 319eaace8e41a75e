"""Any JSON as the body of a request: it is described, and the description fits into a message to the sidecar. `targets.py` lists it."""

import json
from typing import Final

from alise_contract.describe import MAX_SAMPLES, Description, Endpoint, describe
from alise_contract.names import MAX_PROMPT_BYTES
from alise_contract.v1 import admission_pb2
from alise_engine.api.admission import Ask, request_message
from alise_engine.api.parsing import parse
from tests.fuzz.bodies import BODIES
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader, encoded

_ENDPOINTS: Final = tuple(Endpoint)
# The first byte: an endpoint, and whether the rest is JSON's text or a value in the fuzzer's own form.
_AS_TEXT: Final = 128


def target(data: bytes) -> None:
    reader = Reader(data)
    first = reader.byte()
    endpoint = _ENDPOINTS[first % len(_ENDPOINTS)]
    description = parse(endpoint, reader.rest()).description if first & _AS_TEXT else describe(endpoint, reader.value())
    if description is not None:
        _check(endpoint, description)


def _check(endpoint: Endpoint, description: Description) -> None:
    expect(description.endpoint in (endpoint, Endpoint.OTHER), f"described as a request to another endpoint: {description.endpoint}")
    expect(1 <= description.n <= MAX_SAMPLES, f"n is {description.n}")
    expect(description.endpoint is not Endpoint.OTHER or not description.prompt, "a body that was not understood has a prompt")
    expect(len(description.prompt.encode()) <= MAX_PROMPT_BYTES, "the prompt is longer than its limit")
    message = request_message(Ask("job", description))
    expect(admission_pb2.AdmitRequest.FromString(message.SerializeToString()) == message, "the message does not survive the wire")


def seeds() -> list[bytes]:
    found = []
    for path, body in BODIES:
        number = next((at for at, endpoint in enumerate(_ENDPOINTS) if endpoint.value == path), _ENDPOINTS.index(Endpoint.OTHER))
        found += [bytes([number]) + encoded(body), bytes([_number_of_text(number)]) + json.dumps(body).encode()]
    return found


def _number_of_text(number: int) -> int:
    return next(first for first in range(_AS_TEXT, 256) if first % len(_ENDPOINTS) == number)
