"""What is remembered of a pod between two polls of its status; pure: the time is an argument.

One poll that fails says little (a long step of the engine's, a node under load), counters count since boot, and a store between two marks
is full or not according to what it was: all three need the polls before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alise_operator.kv_cache import Mark, marked
from alise_operator.observation import PodReport

# Polls in a row without an answer, from which on a pod's status counts as not available. Until then its last report holds.
FAILED_POLLS: Final = 2
# The pod's own window of `recent_failed_open`.
RECENT_SECONDS: Final = 60.0
# The host store counts as full from here, and not any more below the second mark, so that the condition does not flap.
HOST_FULL_SHARE: Final = 0.95
HOST_RELIEVED_SHARE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Poll:
    """The last poll of a pod and what those before it add."""

    at_seconds: float
    # The last report; None when there never was one, or not for FAILED_POLLS polls.
    report: PodReport | None
    # Why there is none.
    error: str | None = None
    failed: int = 0
    # Polls in a row, this one included, in which the scheduler had no fresh plan.
    unranked: int = 0
    host_full: bool = False
    # (when, requests that failed open since boot by reason) of the polls of the last minute and the one before them, oldest first.
    counts: tuple[tuple[float, Mapping[str, int]], ...] = ()
    # Of its KV cache, in the last minutes.
    kv: tuple[Mark, ...] = ()

    @property
    def recent_failed_open(self) -> dict[str, int]:
        """Requests that failed open in about the last minute, by reason; empty while there is no earlier poll to tell by."""
        if not self.counts:
            return {}
        before, now = self.counts[0][1], self.counts[-1][1]
        grown = {reason: count - before.get(reason, 0) for reason, count in now.items()}
        return {reason: count for reason, count in sorted(grown.items()) if count > 0}


def answered(before: Poll | None, report: PodReport, at_seconds: float) -> Poll:
    """The pod said this of itself."""
    last = before.report if before is not None else None
    counts = before.counts if before is not None else ()
    if before is not None and last is not None and last.boot_id != report.boot_id:
        # Another engine process: it has counted from 0, since after the last poll.
        counts = ((before.at_seconds, {}),)
    counts = (*counts, (at_seconds, dict(report.failed_open_by_reason)))
    # The youngest that is a minute old is where the last minute began.
    while len(counts) > 2 and at_seconds - counts[1][0] >= RECENT_SECONDS:
        counts = counts[1:]
    mark = HOST_RELIEVED_SHARE if before is not None and before.host_full else HOST_FULL_SHARE
    return Poll(
        at_seconds,
        report,
        unranked=0 if report.is_ranked else 1 + (before.unranked if before is not None else 0),
        host_full=report.host_limit_bytes > 0 and report.host_used_bytes >= mark * report.host_limit_bytes,
        counts=counts,
        kv=marked(before.kv if before is not None else (), report.boot_id, report.kv, at_seconds),
    )


def failed(before: Poll | None, error: str, at_seconds: float) -> Poll:
    """The pod did not answer, or not with a report."""
    if before is None:
        return Poll(at_seconds, None, failed=1)
    count = before.failed + 1
    if count < FAILED_POLLS:
        return Poll(at_seconds, before.report, None, count, before.unranked, before.host_full, before.counts, before.kv)
    return Poll(at_seconds, None, error, count, 0, before.host_full, before.counts)
