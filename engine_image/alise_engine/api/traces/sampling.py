"""Decides which requests are traced; pure.

Sampling is parent-based with a bound. A client that sends a trace context asks with its sampled flag: without the flag its request is not
traced, and with it the request is traced, but only ASKED_PER_SECOND times beyond the ratio that the resource sets. A client could
otherwise have every request traced. `tracer.py` draws the number and reads the clock.
"""

from dataclasses import dataclass
from typing import Final

# Traces per second that clients may ask for beyond the ratio, of one engine.
ASKED_PER_SECOND: Final = 10.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many traces clients may ask for now. It refills by ASKED_PER_SECOND, which is also the most that it holds."""

    tokens: float = ASKED_PER_SECOND
    at_seconds: float = 0.0


def sampled(asked: bool | None, ratio: float, draw: float, bucket: Bucket, now_seconds: float) -> tuple[bool, Bucket]:
    """Returns whether to trace a request, and the bucket after it.

    `asked` is the sampled flag of the client's trace context, or None if it sent none; `draw` is uniform in [0, 1).
    """
    if asked is False:
        return False, bucket
    if draw < ratio:
        return True, bucket
    if asked is None:
        return False, bucket
    refilled = bucket.tokens + max(0.0, now_seconds - bucket.at_seconds) * ASKED_PER_SECOND
    tokens = min(ASKED_PER_SECOND, refilled)
    if tokens < 1:
        return False, Bucket(tokens, now_seconds)
    return True, Bucket(tokens - 1, now_seconds)
