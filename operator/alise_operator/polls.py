"""Combines the successive polls of one pod: failures in a row, requests of the last minute, whether the host store is full.

Pure: the time is an argument. poller.py keeps one `Poll` per pod and calls `answered()` or `failed()`. A single failed poll means little
(a long engine step, a busy node), counters are totals since the engine started, and a host store between two marks stays full or not full:
all three need the previous polls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alise_operator.kv_cache import Mark, marked
from alise_operator.observation import PodReport

# After this number of failed polls in a row, the status counts as unavailable. Until then the last report holds.
FAILED_POLLS: Final = 2
# The pod's own window of `recent_failed_open`.
RECENT_SECONDS: Final = 60.0
# The host store counts as full from the first share on until it falls below the second, so that the condition does not flap.
HOST_FULL_SHARE: Final = 0.95
HOST_RELIEVED_SHARE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Poll:
    """The last poll of a pod, and what the previous ones add to it."""

    at_seconds: float
    # The last report; None if there was none, or none in FAILED_POLLS polls.
    report: PodReport | None
    # Why there is no report.
    error: str | None = None
    failed: int = 0
    # Consecutive polls, including this one, in which the scheduler had no fresh plan.
    unranked: int = 0
    host_full: bool = False
    # (time, requests that failed open since the engine started, by reason) of the last minute's polls and the one before, oldest first.
    counts: tuple[tuple[float, Mapping[str, int]], ...] = ()
    # Marks of its KV cache in the last minutes.
    kv: tuple[Mark, ...] = ()

    @property
    def recent_failed_open(self) -> dict[str, int]:
        """Requests that failed open in about the last minute, by reason; empty without an earlier poll to compare with."""
        if not self.counts:
            return {}
        before, now = self.counts[0][1], self.counts[-1][1]
        grown = {reason: count - before.get(reason, 0) for reason, count in now.items()}
        return {reason: count for reason, count in sorted(grown.items()) if count > 0}


def answered(before: Poll | None, report: PodReport, at_seconds: float) -> Poll:
    """Returns the poll after the pod answered with this report."""
    last = before.report if before is not None else None
    counts = before.counts if before is not None else ()
    if before is not None and last is not None and last.boot_id != report.boot_id:
        # A new engine process, whose counters started at 0 after the last poll.
        counts = ((before.at_seconds, {}),)
    counts = (*counts, (at_seconds, dict(report.failed_open_by_reason)))
    # The last minute began at the youngest poll that is a minute old.
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
    """Returns the poll after the pod did not answer, or not with a report."""
    if before is None:
        return Poll(at_seconds, None, failed=1)
    count = before.failed + 1
    if count < FAILED_POLLS:
        return Poll(at_seconds, before.report, None, count, before.unranked, before.host_full, before.counts, before.kv)
    return Poll(at_seconds, None, error, count, 0, before.host_full, before.counts)
