"""Every reason for which the scheduler refuses has its place on the whole way to the client: contract, outcome, metric and explanation."""

import pytest

from alise_contract.v1 import admission_pb2 as pb
from alise_engine.api.admission import REJECTIONS, RejectReason
from alise_engine.api.outcomes import ADMISSION_REFUSALS
from alise_scheduler.core import sentences
from alise_scheduler.core.admit import Reason, Rejected
from alise_scheduler.metrics import ADMIT_OUTCOMES
from alise_scheduler.rpc.convert import to_response

WHERE = "docs/contribute/architecture.md, Add an outcome, lists the places of a new reason"


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_of_the_scheduler_has_one_of_the_contract_a_metric_and_a_sentence(reason: Reason) -> None:
    message = to_response(Rejected(reason, "why", 1)).rejected
    assert message.reason != pb.Rejected.REASON_UNSPECIFIED, WHERE
    assert reason.value in ADMIT_OUTCOMES, WHERE
    assert reason.value in sentences.OUTCOMES, WHERE


@pytest.mark.parametrize("number", sorted(set(pb.Rejected.Reason.values()) - {pb.Rejected.REASON_UNSPECIFIED}))
def test_a_reason_of_the_contract_has_an_outcome_in_the_engine(number: int) -> None:
    assert number in REJECTIONS, WHERE


@pytest.mark.parametrize("reason", RejectReason)
def test_a_reason_of_the_engine_has_an_answer_to_the_client(reason: RejectReason) -> None:
    assert reason in ADMISSION_REFUSALS, WHERE
