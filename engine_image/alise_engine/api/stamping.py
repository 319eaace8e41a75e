"""Writes job id, priority, hint, cache salt and trace context into every engine request, where the API server hands it to the engine.

The middleware knows the HTTP request, and vLLM's handlers make engine requests of it. The stamp travels between the two in a context
variable, which tasks inherit. It is written in `AsyncLLM.add_request`, the only way into the engine, over whatever a client wrote into a
body, a header or an unusual route. A request that bypassed the middleware is neutral. `wire/stamp.py` signs the stamp and reads it.
`middleware.py` sets the context variable, and `engine_api.py` wraps the method.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from ..wire.stamp import NEUTRAL_PRIORITY, Stamp, stamped_args


@dataclass(slots=True)
class Ticket:
    """An HTTP request on its way through vLLM's handlers."""

    stamp: Stamp
    tenant: str = ""
    # Added to the prefix cache's salt; empty: the cache is shared.
    cache_salt: str = ""
    # The W3C trace context of its span; None: traces are off.
    trace_headers: Mapping[str, str] | None = None
    # Name of the LoRA adapter that serves it; empty: the model itself.
    adapter: str = ""
    # Engine requests that were made of it so far.
    engine_requests: int = 0


CURRENT: Final[ContextVar[Ticket | None]] = ContextVar("alise_ticket", default=None)


AddRequest = Callable[..., Coroutine[Any, Any, Any]]


def stamping(add_request: AddRequest, key: bytes, on_enter: Callable[[Ticket], None]) -> AddRequest:
    """Returns `AsyncLLM.add_request` with the current ticket's stamp written into each request; `on_enter` is called after each of them."""

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
        if ticket is not None and ticket.trace_headers is not None:
            # Over the client's own, so that vLLM's span is a child of ours, and its sampling is ours.
            more["trace_headers"] = ticket.trace_headers
        answer = await add_request(request_id, prompt, params, **more)
        if ticket is not None:
            if (lora := more.get("lora_request")) is not None:
                ticket.adapter = lora.lora_name
            ticket.engine_requests += getattr(params, "n", 1)
            on_enter(ticket)
        return answer

    return stamped
