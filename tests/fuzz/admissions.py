"""Bytes in place of AdmitRequest messages: each is refused in words, or answered within the contract. `targets.py` lists it."""

from typing import Final

from google.protobuf.message import DecodeError

from alise_contract.describe import Endpoint, describe
from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_engine.api.admission import Ask, request_message
from alise_engine.api.identity import Caller
from alise_scheduler.admissions import Admitted
from alise_scheduler.errors import ContractError, InvalidRequestError
from alise_scheduler.rpc.convert import check, to_ask, to_response
from tests.fuzz.bodies import BODIES
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader, block
from tests.fuzz.scheduling import check_admitted, check_decision, fresh_state

MAX_MESSAGES: Final = 8


def target(data: bytes) -> None:
    """Several messages, each with its length before it."""
    state, admitted = fresh_state(), set[str]()
    for at, part in enumerate(Reader(data).blocks(MAX_MESSAGES)):
        try:
            message = pb.AdmitRequest.FromString(part)
            check(message)
        except (DecodeError, ContractError, InvalidRequestError):
            continue
        if message.withdrawn:
            expect(state.withdraw(message.job_id) == (message.job_id in admitted), "a job was withdrawn that was not there")
            admitted.discard(message.job_id)
            continue
        answer = state.admit(to_ask(message), float(at))
        if isinstance(answer, Admitted):
            admitted.add(message.job_id)
            check_admitted(answer)
        response = to_response(answer)
        expect(pb.AdmitResponse.FromString(response.SerializeToString()) == response, "the answer does not survive the wire")
        check_decision(state, at + 0.5)


def seeds() -> list[bytes]:
    asked = []
    for number, (path, body) in enumerate(BODIES):
        endpoint = next((endpoint for endpoint in Endpoint if endpoint.value == path), Endpoint.OTHER)
        asked.append(request_message(Ask(f"job-{number}", describe(endpoint, body), Caller("team-a", "gold"), slo_ttft_ms=number)))
    found = [block(message.SerializeToString()) for message in asked]
    gone = pb.AdmitRequest(contract_version=CONTRACT_VERSION, job_id="job-0", withdrawn=True)
    absurd = pb.AdmitRequest(
        contract_version=CONTRACT_VERSION,
        job_id="x" * 64,
        endpoint=pb.ENDPOINT_OTHER,
        prompt_chars=2**64 - 1,
        turns=2**32 - 1,
        max_tokens=2**32 - 1,
        n=2**32 - 1,
        tenant="t" * 300,
        objective="ö" * 200,
        temperature=float("inf"),
    )
    found += [
        block(asked[0].SerializeToString()) + block(gone.SerializeToString()) + block(asked[0].SerializeToString()),
        block(absurd.SerializeToString()),
        block(pb.AdmitRequest(contract_version=CONTRACT_VERSION + 1, job_id="job").SerializeToString()),
        block(pb.AdmitRequest(contract_version=CONTRACT_VERSION).SerializeToString()),
    ]
    return found
