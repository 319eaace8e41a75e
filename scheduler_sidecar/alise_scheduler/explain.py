"""Answers a person's questions about requests: which ones there are, by rank, and why one of them waits or has waited.

`dispatcher.py` calls it between two events, and it changes nothing. Its answers are JSON values for `rpc/requests.py`.
"""

import re
from typing import Any, Final

from .core.account import EndedRequest, Facts, LiveRequest, ended_json, live_json, live_requests
from .core.reports import Phase
from .core.sentences import of_ended, of_live
from .state import State

MOST_LISTED: Final = 1000
# Requests that may have one id.
_MOST_MATCHES: Final = 10


def list_requests(state: State, at: float, limit: int) -> dict[str, Any]:
    """The first `limit` active requests in the order of their ranks, and how many there are."""
    jobs, snapshot, decision = state.look(at)
    rows = decision.rows[: max(0, min(limit, MOST_LISTED))].tolist()
    facts = [state.journal.facts(job) for job in jobs]
    live = live_requests(jobs, facts, snapshot, state.policy, decision, rows, at)
    counts = state.book.counts()
    return {
        "model": state.shape.model,
        "policy": state.policy.name,
        "connected": state.session is not None,
        "slots": state.shape.max_num_seqs,
        "by_phase": {phase.name.lower(): counts[phase] for phase in Phase},
        "backlog_seconds": round(decision.pod_seconds, 3),
        "requests": [live_json(request) for request in live],
    }


def explain(state: State, request_id: str, at: float) -> dict[str, Any]:
    """The accounts of the requests with this id, active ones first, then the newest; each with sentences. Empty if there is none.

    The id is that of the answer's header, the one in the answer (`chatcmpl-…`), or the `job` of the log.
    """
    jobs, snapshot, decision = state.look(at)
    facts = [state.journal.facts(job) for job in jobs]
    rows = [row for row, job in enumerate(jobs) if _is_named(request_id, facts[row], tuple(job.requests))][:_MOST_MATCHES]
    live = live_requests(jobs, facts, snapshot, state.policy, decision, rows, at)
    ended = [one for one in state.journal.newest_first() if _is_named(request_id, one.facts, one.engine_requests)]
    return {
        "matches": [
            *(_with_sentences_live(state, request) for request in live),
            *(_with_sentences_ended(state, request, at) for request in ended[: _MOST_MATCHES - len(live)]),
        ]
    }


def _with_sentences_live(state: State, request: LiveRequest) -> dict[str, Any]:
    return {**live_json(request), "sentences": of_live(request, state.policy, state.session is not None)}


def _with_sentences_ended(state: State, request: EndedRequest, at: float) -> dict[str, Any]:
    ago = max(0.0, at - request.ended_at)
    return {**ended_json(request), "ended_seconds_ago": round(ago, 3), "sentences": of_ended(request, state.policy, ago)}


def _is_named(name: str, facts: Facts, engine_requests: tuple[str, ...]) -> bool:
    if name in (facts.request_id, facts.job) or not name:
        return bool(name)
    # vLLM's id is `cmpl-ID` in the answer and `0_cmpl-ID-0-1a2b3c4d` in the engine.
    whole = re.compile(rf"(?:^|[-_]){re.escape(name)}(?:-\d+)?(?:-[0-9a-f]{{8}})?$")
    return any(whole.search(one) for one in engine_requests)
