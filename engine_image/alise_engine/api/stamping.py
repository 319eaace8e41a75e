"""Puts job id, priority and hint on every engine request, where the API server hands it to the engine; EngineCore reads them back.

The middleware knows the HTTP request, vLLM's handlers make engine requests of it, in whatever way and format the route has. The stamp
travels between the two in a context variable, which tasks started meanwhile inherit, and is written in `AsyncLLM.add_request`, the one way
into the engine. So nothing that a client writes into a body, a header or an unusual route gets past it, and a request that came around the
middleware is neutral. The stamp is signed with the pod's key; the scheduler in EngineCore believes no other.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import (
    HINT_XARG,
    JOB_XARG,
    MAX_HINT_BYTES,
    MAX_JOB_ID_CHARS,
    MAX_LEVEL,
    MIN_LEVEL,
    NEUTRAL_LEVEL,
    STAMP_XARG,
    XARG_PREFIX,
    pack_priority,
    unpack_priority,
)
from alise_contract.stamp import derived, is_mac, mac

NEUTRAL_PRIORITY: Final = pack_priority(NEUTRAL_LEVEL, 0)
# Base64 takes four characters for three bytes.
_MAX_HINT_CHARS: Final = (MAX_HINT_BYTES + 2) // 3 * 4


@dataclass(frozen=True, slots=True)
class Stamp:
    """What admission decided about a job."""

    job_id: str
    priority: int
    # Base64; empty: none.
    hint: str = ""


@dataclass(slots=True)
class Ticket:
    """An HTTP request on its way through vLLM's handlers."""

    stamp: Stamp
    tenant: str = ""
    # Added to the prefix cache's salt; empty: the cache is shared.
    cache_salt: str = ""
    # Engine requests that were made of it so far.
    engine_requests: int = 0


CURRENT: Final[ContextVar[Ticket | None]] = ContextVar("alise_ticket", default=None)


def stamp_key(pod_key: bytes) -> bytes:
    """Returns the key that signs stamps."""
    return derived(pod_key, "stamp")


def stamped_args(extra_args: Mapping[str, Any] | None, stamp: Stamp | None, key: bytes) -> dict[str, Any]:
    """Returns an engine request's extra arguments with the stamp; what a client sent under its keys is gone."""
    foreign = {name: value for name, value in (extra_args or {}).items() if not str(name).startswith(XARG_PREFIX)}
    if stamp is None:
        return foreign
    hint = {HINT_XARG: stamp.hint} if stamp.hint else {}
    return {**foreign, JOB_XARG: stamp.job_id, **hint, STAMP_XARG: f"{stamp.priority}.{_signature(stamp, key).hex()}"}


def read_stamp(extra_args: Mapping[str, Any] | None, key: bytes) -> Stamp | None:
    """Returns the stamp of an engine request; None when there is none that this pod signed. Never raises, whatever is in there."""
    args = extra_args or {}
    job_id, hint, signed = args.get(JOB_XARG), args.get(HINT_XARG, ""), args.get(STAMP_XARG)
    if not (isinstance(job_id, str) and isinstance(hint, str) and isinstance(signed, str)):
        return None
    if not 0 < len(job_id) <= MAX_JOB_ID_CHARS or len(hint) > _MAX_HINT_CHARS or len(signed) > 64:
        return None
    number, _, signature = signed.partition(".")
    try:
        stamp, given = Stamp(job_id, int(number), hint), bytes.fromhex(signature)
    except ValueError:
        return None
    if not is_mac(key, given, *_parts(stamp)):
        return None
    level, _ = unpack_priority(stamp.priority)
    return stamp if MIN_LEVEL <= level <= MAX_LEVEL else Stamp(job_id, NEUTRAL_PRIORITY, hint)


AddRequest = Callable[..., Coroutine[Any, Any, Any]]


def stamping(add_request: AddRequest, key: bytes, on_enter: Callable[[Ticket], None]) -> AddRequest:
    """Returns `AsyncLLM.add_request` with the current ticket's stamp written into each request; `on_enter` hears of each that got in."""

    async def stamped(request_id: str, prompt: Any, params: Any, *rest: Any, **more: Any) -> Any:
        if rest:
            # vLLM gives all of these by name; by position a priority could pass unseen.
            raise TypeError("add_request takes request_id, prompt and params by position, everything else by name")
        ticket = CURRENT.get()
        stamp = ticket.stamp if ticket is not None else None
        # Parameters of generation and of pooling have different names for what is passed on as it is.
        field = "extra_args" if hasattr(params, "extra_args") else "extra_kwargs"
        setattr(params, field, stamped_args(getattr(params, field), stamp, key) or None)
        more["priority"] = stamp.priority if stamp is not None else NEUTRAL_PRIORITY
        if ticket is not None and ticket.cache_salt and isinstance(prompt, dict):
            # Beside the client's own salt, not instead of it. A copy: the caller may use its prompt again.
            prompt = {**prompt, "cache_salt": f"{ticket.cache_salt}{prompt.get('cache_salt') or ''}"}
        answer = await add_request(request_id, prompt, params, **more)
        if ticket is not None:
            ticket.engine_requests += getattr(params, "n", 1)
            on_enter(ticket)
        return answer

    return stamped


def _signature(stamp: Stamp, key: bytes) -> bytes:
    return mac(key, *_parts(stamp))


def _parts(stamp: Stamp) -> tuple[bytes, ...]:
    return (stamp.job_id.encode("utf-8", "surrogatepass"), b"%d" % stamp.priority, stamp.hint.encode("utf-8", "surrogatepass"))
