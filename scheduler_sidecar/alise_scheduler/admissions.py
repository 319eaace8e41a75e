"""What an admission asks and what it is answered, as frozen data. `rpc/convert.py` makes questions of messages, and `state.py` decides."""

from collections.abc import Mapping
from dataclasses import dataclass

from alise_contract.names import DEFAULT_CLASS

from .core.account import Facts
from .core.job import Job
from .predictor.features.request import Question


@dataclass(frozen=True, slots=True)
class ClassRule:
    """The settings of a request class."""

    weight: float = 1.0
    slo_ttft_ms: int = 0


def rule_of(klass: str, classes: Mapping[str, ClassRule]) -> ClassRule:
    """Returns the settings of a class. Those of the class `default` count for requests without a class, and with an unknown one."""
    return classes.get(klass) or classes.get(DEFAULT_CLASS) or ClassRule()


@dataclass(frozen=True, slots=True)
class Ask:
    """One admission request."""

    job_id: str
    question: Question
    samples: int = 1
    objective: str = ""
    slo_ttft_ms: int = 0
    # True for a route whose text is unknown. It counts for limits and shares, gets the neutral level, and teaches the predictor nothing.
    neutral: bool = False
    # The id that the client gave the request; empty: none.
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    priority: int
    hint: bytes
    level: int
    predicted_tokens: float


def facts_of(ask: Ask, job: Job) -> Facts:
    """What is known of a request that asks for admission."""
    question = ask.question
    return Facts(
        job=ask.job_id,
        request_id=ask.request_id or ask.job_id,
        model=question.model,
        klass=ask.objective,
        tenant=question.tenant,
        weight=job.weight,
        predicted_tokens=job.lengths.median,
        described=not ask.neutral,
    )
