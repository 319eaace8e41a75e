"""What can become of a request before the engine, and how a refusal is answered; pure.

An outcome's name is the value of the response header `x-alise-outcome` and of the label `outcome` of a metric. `middleware.py` answers with
it, and `metrics.py` counts by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .admission import RejectReason

# The rest of the body is not read, so the connection cannot be used again.
_CLOSE: Final = (b"connection", b"close")
# Status codes of WebSockets (RFC 6455 and its registry).
_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Refusal(Outcome):
    """An outcome that is answered with an HTTP error as OpenAI's API has them, or with the end of a WebSocket."""

    status: int
    error_type: str
    # In addition to those of the content and to Retry-After where the wait is predicted.
    headers: tuple[tuple[bytes, bytes], ...] = ()
    # Status code of a WebSocket's close frame; 0: WebSockets have no body that could be refused.
    close_code: int = 0


ADMITTED: Final = Outcome("admitted", "The scheduler ranked the request by its predicted length.")
FAILED_OPEN: Final = Outcome("failed_open", "The scheduler gave no answer in time, so the request has the neutral rank.")
NEUTRAL: Final = Outcome("neutral", "The request has the neutral rank because its length cannot be predicted, for example an embedding.")
UNAUTHORIZED: Final = Refusal(
    "unauthorized",
    "The engine has API keys, and the request carries none of them.",
    401,
    "AuthenticationError",
    ((b"www-authenticate", b"Bearer"), _CLOSE),
    _POLICY_VIOLATION,
)
DISCONNECTED: Final = Outcome("disconnected", "The client closed the connection before its body had arrived.")
BODY_TOO_SLOW: Final = Refusal(
    "body_too_slow",
    "The body did not arrive within `spec.admission.bodySeconds`.",
    408,
    "BadRequestError",
    (_CLOSE,),
)
BODY_TOO_LARGE: Final = Refusal(
    "body_too_large",
    "The body exceeds `spec.admission.maxBodySize` or a limit on JSON; the message says which one.",
    413,
    "BadRequestError",
    (_CLOSE,),
)
TOO_MANY_BODIES: Final = Refusal(
    "too_many_bodies",
    "Too many large bodies or texts of this tenant are being processed at the same time.",
    429,
    "BadRequestError",
    (_CLOSE, (b"retry-after", b"1")),
)
OVERLOADED: Final = Refusal(
    "overloaded",
    "The queue is full (`spec.admission.maxPending`), or too many large bodies are being parsed.",
    429,
    "RateLimitError",
    close_code=_TRY_AGAIN_LATER,
)
WAIT_TOO_LONG: Final = Refusal(
    "wait_too_long",
    "The predicted wait exceeds `spec.admission.maxWaitSeconds` or the time to first token that the request or its class asks for.",
    429,
    "RateLimitError",
    close_code=_TRY_AGAIN_LATER,
)
DRAINING: Final = Refusal(
    "draining",
    "The pod is about to stop and accepts no new requests. Another pod, if there is one, answers at once.",
    503,
    "ServiceUnavailableError",
    close_code=_TRY_AGAIN_LATER,
)
OUTCOMES: Final[tuple[Outcome, ...]] = (
    *(ADMITTED, FAILED_OPEN, NEUTRAL, UNAUTHORIZED, DISCONNECTED),
    *(BODY_TOO_SLOW, BODY_TOO_LARGE, TOO_MANY_BODIES),
    *(OVERLOADED, WAIT_TOO_LONG, DRAINING),
)
# The refusals of bodies, by their HTTP status.
BODY_REFUSALS: Final[Mapping[int, Refusal]] = {408: BODY_TOO_SLOW, 413: BODY_TOO_LARGE, 429: TOO_MANY_BODIES}
ADMISSION_REFUSALS: Final[Mapping[RejectReason, Refusal]] = {
    RejectReason.OVERLOADED: OVERLOADED,
    RejectReason.WAIT_TOO_LONG: WAIT_TOO_LONG,
    RejectReason.DRAINING: DRAINING,
}
