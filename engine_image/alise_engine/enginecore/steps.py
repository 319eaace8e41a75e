"""Measures steps: rows for the execution-time model, and the time spent on recomputing.

Asynchronous scheduling schedules a step while the one before it runs, so a step is noted when it is scheduled and timed when its output is
there. No vLLM but for the attributes of its requests, no clock. `scheduler.py` calls it.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..wire.calls import StepRow
from .tracker import Tracked, Tracker

Request = Any


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """A step whose output is still to come."""

    start_seconds: float
    prefill_tokens: int
    decode_requests: int
    context_tokens: int
    # Requests in it that compute again what they had when they were preempted.
    recomputing: int
    tokens: int
    # A request had a slot and no KV blocks, or was preempted because another needed its blocks.
    kv_full: bool


class Steps:
    """Steps in flight, oldest first. `tally` gets `steps`, their tokens and times, and what is counted of resumed requests."""

    def __init__(self, tracker: Tracker, tally: Counter[str]) -> None:
        self._tracker, self._tally = tracker, tally
        self._in_flight: deque[_Scheduled] = deque()
        self._last_end_seconds = 0.0
        # By request: the tokens that it had and that are computed again.
        self._recomputing: dict[str, int] = {}
        # A moving average.
        self.step_seconds = 0.0

    def resumed(self, tracked: Tracked, restored_tokens: int, scheduled_tokens: int) -> int:
        """Counts the readmission of a preempted request: its tokens restored from the host, and those scheduled in this step.

        Returns the tokens that it had and that are computed again.
        """
        request = tracked.request
        had = min(tracked.preempted_tokens, request.num_tokens - 1)
        lost: int = had - (request.num_computed_tokens - scheduled_tokens)
        if lost > 0:
            self._recomputing[request.request_id] = had
        self._tally["restores"] += restored_tokens > 0
        self._tally["restored_tokens"] += restored_tokens
        self._tally["recomputes"] += lost > 0
        self._tally["recomputed_tokens"] += max(0, lost)
        self._tally["exact_resumes"] += scheduled_tokens == 1
        return max(0, lost)

    def stopped(self, request_id: str) -> None:
        """Forgets a request that was preempted or has finished."""
        self._recomputing.pop(request_id, None)

    def scheduled(
        self,
        tokens: Mapping[str, int],
        total_tokens: int,
        requests: Mapping[str, Request],
        context_tokens: int,
        now_seconds: float,
        *,
        kv_full: bool = False,
    ) -> None:
        """Notes a scheduled step by the tokens that each request computes; vLLM counts them as computed already."""
        # Requests in prefill: those with several tokens in this step, or with one and no output yet.
        prefilling = self._tracker.without_token(tokens.keys())
        if total_tokens > len(tokens):
            prefilling |= {request_id for request_id, count in tokens.items() if count > 1}
        prefill_tokens, decode_requests = 0, len(tokens)
        for request_id in prefilling:
            request, count = requests[request_id], tokens[request_id]
            if count > 1 or request.num_computed_tokens < request.num_prompt_tokens:
                prefill_tokens += count
                decode_requests -= 1
        recomputing = self._recomputing_in(tokens, requests) if self._recomputing else 0
        self._in_flight.append(_Scheduled(now_seconds, prefill_tokens, decode_requests, context_tokens, recomputing, total_tokens, kv_full))

    def over(self, tokens: Mapping[str, int], now_seconds: float) -> None:
        """Times the oldest step, whose output has arrived."""
        self._tracker.see_tokens(tokens.keys(), now_seconds)
        step = self._in_flight.popleft()
        if tokens:
            # A step that was scheduled while another ran started when that one ended.
            seconds = now_seconds - max(step.start_seconds, self._last_end_seconds)
            duration_us = max(0, round(seconds * 1e6))
            self._tracker.step(StepRow(duration_us, step.prefill_tokens, step.decode_requests, step.context_tokens))
            self._tally["steps"] += 1
            self._tally["recompute_us"] += duration_us * step.recomputing
            self._tally["computed_tokens"] += step.tokens
            self._tally["kv_full_us"] += duration_us * step.kv_full
            self.step_seconds += (seconds - self.step_seconds) / 8
        self._last_end_seconds = now_seconds

    def _recomputing_in(self, tokens: Mapping[str, int], requests: Mapping[str, Request]) -> int:
        found = [request_id for request_id in self._recomputing if request_id in tokens]
        for request_id in found:
            if requests[request_id].num_computed_tokens >= self._recomputing[request_id]:
                del self._recomputing[request_id]
        return len(found)
