"""What a finished request teaches: a stop teaches the length, a length cap or an abort that it was at least that long, an error nothing.

`state.py` calls it for every request that ends.
"""

from ...core.reports import Finished, FinishReason
from ..models.buckets import Observation


def observation(finished: Finished) -> Observation | None:
    """Returns the observation in an end; None if nothing can be learned from it."""
    if finished.generated_tokens <= 0:
        return None
    match finished.reason:
        case FinishReason.STOP:
            return Observation(finished.generated_tokens, True)
        case FinishReason.LENGTH | FinishReason.ABORT:
            return Observation(finished.generated_tokens, False)
        case FinishReason.ERROR:
            return None
