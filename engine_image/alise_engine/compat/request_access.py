"""What alise reads of one vLLM request, and how its blocks are kept out of the shared prefix cache.

`enginecore/scheduler.py`, `enginecore/prefetch.py` and `kv/connector.py` call it.
"""

import hashlib
import re
from typing import Any, Final

from ..wire.terms import FINISH_ABORT, FINISH_ERROR, FINISH_LENGTH, FINISH_STOP

Request = Any

# The flags of a W3C trace context, which are its last part.
_FLAGS: Final = re.compile(r"-([0-9a-f]{2})$")
_SAMPLED: Final = 1


def extra_args(request: Request) -> dict[str, Any]:
    """Returns the extra arguments of the request's sampling or pooling parameters."""
    if request.sampling_params is not None:
        return request.sampling_params.extra_args or {}
    return (request.pooling_params.extra_kwargs if request.pooling_params is not None else None) or {}


def is_traced(request: Request) -> bool:
    """Returns whether the request has a W3C trace context that is sampled. vLLM drops all contexts where traces are off."""
    flags = _FLAGS.search((request.trace_headers or {}).get("traceparent", ""))
    # The other bits do not matter: where the trace begins here, the second one is set, because its id is random.
    return flags is not None and bool(int(flags[1], 16) & _SAMPLED)


def may_be_saved(request: Request) -> bool:
    """Returns whether the KV of a request may be saved.

    It may not for pooling, for streaming sessions (their tokens are rewritten) and for prompt log-probabilities (vLLM recomputes those).
    """
    return request.sampling_params is not None and not request.resumable and not request.skip_reading_prefix_cache


def adapter(request: Request) -> int:
    """Returns the number of the request's LoRA adapter; 0 for none."""
    return int(request.lora_request.lora_int_id) if request.lora_request is not None else 0


def is_running(request: Request) -> bool:
    from vllm.v1.request import RequestStatus

    return bool(request.status == RequestStatus.RUNNING)


def can_be_admitted(request: Request) -> bool:
    """Returns whether the base class would admit this waiting request now, given a slot and blocks."""
    from vllm.v1.request import RequestStatus

    return request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED) and not request.num_stale_output_tokens


def finish_reason(request: Request) -> str:
    from vllm.v1.request import RequestStatus

    return {
        RequestStatus.FINISHED_STOPPED: FINISH_STOP,
        RequestStatus.FINISHED_ABORTED: FINISH_ABORT,
        RequestStatus.FINISHED_ERROR: FINISH_ERROR,
    }.get(request.status, FINISH_LENGTH)


def make_private(request: Request, first_token: int, hash_block_size: int) -> None:
    """Hides this request's blocks from that token on from other requests in the prefix cache.

    Block hashes are chained, so the hashes from there on, present and future, are salted with the request's id.
    """
    hasher = request._block_hasher
    if hasher is None:
        return
    first = first_token // hash_block_size
    if not isinstance(hasher, _PrivateHasher):
        hasher = request._block_hasher = _PrivateHasher(hasher, request.request_id.encode(), len(request.block_hashes))
    # What lies behind `first_private` is salted already.
    for index in range(first, hasher.first_private):
        request.block_hashes[index] = hasher.salted(request.block_hashes[index])
    hasher.first_private = min(first, hasher.first_private)


class _PrivateHasher:
    """Wraps the block hasher of one request; no other request has its hashes from `first_private` on."""

    def __init__(self, hasher: Any, salt: bytes, first_private: int) -> None:
        self.first_private = first_private
        self._hasher, self._salt = hasher, salt

    def __call__(self, request: Request) -> list[bytes]:
        return [self.salted(block_hash) for block_hash in self._hasher(request)]

    def salted(self, block_hash: bytes) -> bytes:
        return hashlib.sha256(self._salt + block_hash).digest()
