"""Answer admission requests within their deadlines, and count the outcomes.

`connection.py` (the middleware's requests) and the gRPC server of `server.py` call it. The dispatcher decides; nothing is decided here.
"""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from alise_contract.names import CONTRACT_VERSION, MAX_JOB_ID_CHARS
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionServicer

from ..admissions import Admitted, Ask
from ..core.admit import Rejected
from ..errors import ContractError, InboxFullError, InvalidRequestError
from ..metrics import Metrics
from .convert import CODES, check, prompt_of, to_ask, to_failure, to_prediction, to_response

log = logging.getLogger(__name__)

Admit = Callable[[Ask], Awaitable[Admitted | Rejected]]
Withdraw = Callable[[str], None]
Encode = Callable[[str], Awaitable[NDArray[np.float32] | None]]

_FAILED: Final = "the sidecar failed on this request; see its log for the reason"


async def no_encoder(text: str) -> NDArray[np.float32] | None:
    """Stands in for an encoder: no prompt has an embedding."""
    return None


class AdmissionService(AdmissionServicer):
    """Passes admission requests to the dispatcher and returns its answers."""

    def __init__(self, admit: Admit, metrics: Metrics, encode: Encode = no_encoder, withdraw: Withdraw = lambda job_id: None) -> None:
        self._admit = admit
        self._withdraw = withdraw
        self._encode = encode
        self._metrics = metrics
        # The kinds of unexpected errors that have been logged. There are at most as many as lines that can raise.
        self._logged: set[tuple[object, ...]] = set()

    async def Admit(self, request: pb.AdmitRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.AdmitResponse:
        began = time.perf_counter()
        try:
            return await self._answer(request)
        except (ContractError, InvalidRequestError, InboxFullError) as error:
            await self._abort(context, CODES[type(error)], str(error))
        except Exception:
            await self._abort(context, grpc.StatusCode.INTERNAL, _FAILED)
        finally:
            self._metrics.admit_seconds.observe(time.perf_counter() - began)

    def withdraw(self, request: pb.AdmitRequest) -> bool:
        """Stops counting a job that will not reach the engine. Returns False if the message does not name a job."""
        if request.contract_version != CONTRACT_VERSION or not 0 < len(request.job_id) <= MAX_JOB_ID_CHARS:
            return False
        self._withdraw(request.job_id)
        return True

    async def answer_in_time(self, request: pb.AdmitRequest) -> pb.AdmitAnswer | None:
        """The answer, or why there is none. Returns None once the caller's deadline has passed."""
        began = time.perf_counter()
        deadline = request.deadline_monotonic_ms / 1000 or math.inf
        if deadline <= time.monotonic():
            self._metrics.count_admit("gave_up", request.objective)
            return None
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                return pb.AdmitAnswer(job_id=request.job_id, response=await self._answer(request))
        except TimeoutError:
            return None
        except (ContractError, InvalidRequestError, InboxFullError) as error:
            return to_failure(request.job_id, CODES[type(error)], str(error))
        except Exception:
            return to_failure(request.job_id, grpc.StatusCode.INTERNAL, _FAILED)
        finally:
            self._metrics.admit_seconds.observe(time.perf_counter() - began)

    async def _answer(self, request: pb.AdmitRequest) -> pb.AdmitResponse:
        outcome = "error"
        try:
            check(request)
            began = time.perf_counter()
            embedding = await self._encode(prompt_of(request))
            encoded = time.perf_counter()
            ask = to_ask(request, embedding)
            answer = await self._admit(ask)
            response = to_response(answer)
            if request.traced and isinstance(answer, Admitted):
                response.admitted.prediction.CopyFrom(to_prediction(answer, encoded - began, time.perf_counter() - encoded))
            outcome = "admitted" if isinstance(answer, Admitted) else answer.reason.value
        except ContractError:
            outcome = "version"
            raise
        except InvalidRequestError:
            outcome = "invalid"
            raise
        except asyncio.CancelledError:
            outcome = "gave_up"
            raise
        except InboxFullError:
            outcome = "inbox_full"
            raise
        except Exception as error:
            self._log_once(error, request.job_id)
            raise
        finally:
            self._metrics.count_admit(outcome, request.objective)
        if isinstance(answer, Admitted):
            fields = {"job": request.job_id, "job_level": answer.level, "predicted_tokens": round(answer.predicted_tokens)}
            log.debug("job admitted", extra=fields)
        else:
            log.info(
                "job rejected",
                extra={
                    "request_id": ask.request_id or ask.job_id, "job": ask.job_id, "reason": answer.reason.value,
                    "retry_after_seconds": answer.retry_after_seconds,
                },
            )  # fmt: skip
        return response

    def _log_once(self, error: Exception, job_id: str) -> None:
        """Logs an unexpected error with its traceback, unless one of the same kind has been logged.

        A client can repeat the request that caused the error, so each kind is logged once: an error's type and where it was raised.
        """
        last = traceback.extract_tb(error.__traceback__, limit=-1)
        kind = (type(error).__qualname__, *((frame.filename, frame.lineno) for frame in last))
        if kind not in self._logged:
            self._logged.add(kind)
            log.error("admission failed", exc_info=error, extra={"job": job_id})

    async def _abort(self, context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, message: str) -> NoReturn:
        await context.abort(code, message)
