"""Puts the account of a request into sentences: how long each phase took, and why. `explain.py` calls it when a person asks.

For example: "14 requests rank before it (8 of them run now), and about 8 can run at once: 3 overdue, 11 with less work left."
"""

from collections.abc import Iterator, Mapping
from typing import Final

from .account import PREEMPTED_PHASES, EndedRequest, Facts, LiveRequest
from .rank import LatenessRule, Policy
from .reports import Phase
from .standing import Rule, Standing

# How a request ended, by the outcome.
OUTCOMES: Final[Mapping[str, str]] = {
    "stop": "The model ended the answer.",
    "length": "The answer reached its maximum number of tokens.",
    "abort": "Its client went away, or cancelled it.",
    "error": "The engine failed on it.",
    "withdrawn": "It did not reach the engine: vLLM refused it, or its client went away.",
    "lost": "It is not known how it ended: the engine restarted, or the connection to it broke.",
    "wait_too_long": "It was refused for its predicted wait.",
    "objective": "It was refused, because its first token would have come later than it asked for.",
    "draining": "It was refused, because the pod was about to stop.",
}
_KV: Final[Mapping[Phase, str]] = {
    Phase.OFFLOADED: "Its KV cache is in host memory, so it continues where it stopped.",
    Phase.PREEMPTED: "Its KV cache is not in host memory, so it is computed again when its turn comes.",
    Phase.RESTORING: "Its KV cache is being copied back to the device.",
}


def of_live(request: LiveRequest, policy: Policy, connected: bool) -> tuple[str, ...]:
    """Says what a request that has not ended does, and why it does not run. `connected`: the scheduler reaches the engine."""
    return tuple(_live(request, policy, connected))


def of_ended(request: EndedRequest, policy: Policy, ago_seconds: float) -> tuple[str, ...]:
    """Says how a request ended, how long each of its phases took, and why it waited."""
    return tuple(_ended(request, policy, ago_seconds))


def _live(request: LiveRequest, policy: Policy, connected: bool) -> Iterator[str]:
    waited, phase = _seconds(request.waited_seconds), request.phase
    times = _times(request.preemptions)
    if phase is Phase.ADMITTED:
        yield f"It was admitted {waited} ago, and the engine has not reported it yet: its prompt is being read, or its client went away."
    elif phase is Phase.WAITING:
        yield f"It has waited {waited} for its first step."
    elif phase is Phase.RUNNING:
        more = round(request.left_tokens)
        yield f"It runs: {_count(request.generated_tokens, 'token')} so far, and about {more} more are expected."
        yield f"It waited {waited} before its first step."
        if request.preemptions:
            yield f"It was preempted {times}, and did not run for {_seconds(request.preempted_seconds)}."
    else:
        yield f"It was preempted {_seconds(request.phase_seconds)} ago, {times} in all, after {_count(request.generated_tokens, 'token')}."
        yield _KV[phase]
        yield f"It waited {waited} before its first step, and {_seconds(request.preempted_seconds)} in preemptions so far."
    if phase in (Phase.WAITING, *PREEMPTED_PHASES) and connected:
        yield from _why(request.standing, policy, now=True)
        if request.standing.turn_seconds > 0:
            yield f"Its turn is expected in about {_seconds(request.standing.turn_seconds)}."
    yield from _prediction(request.facts)
    if not connected:
        yield "The scheduler is not connected to the engine. Until it is, requests run in the order of arrival."


def _ended(request: EndedRequest, policy: Policy, ago_seconds: float) -> Iterator[str]:
    yield f"It ended {_seconds(ago_seconds)} ago. {OUTCOMES.get(request.outcome, request.outcome)}"
    if request.message:
        yield f"The client got this message: {request.message}."
        return
    if not request.engine_requests:
        return
    yield f"It waited {_seconds(request.waited_seconds)} before its first step."
    if request.queued is not None and request.queued.rule is not Rule.NONE:
        yield from _why(request.queued, policy, now=False)
        if request.queued.turn_seconds > 0:
            yield f"Its turn was then expected in about {_seconds(request.queued.turn_seconds)}."
    if request.preemptions:
        yield f"It was preempted {_times(request.preemptions)}, and did not run for {_seconds(request.preempted_seconds)}."
        if request.preempted is not None and request.preempted.ahead.total:
            who = _count(request.preempted.ahead.total, "request")
            yield f"After the last preemption, {who} ranked before it: {_by_rule(request.preempted)}."
    yield f"It ran for {_seconds(request.ran_seconds)} and generated {_count(request.generated_tokens, 'token')}."
    yield from _prediction(request.facts)


def _why(standing: Standing, policy: Policy, now: bool) -> Iterator[str]:
    ahead = standing.ahead
    if ahead.total:
        subject = f"{_count(ahead.total, 'request')} {_verb(ahead.total, now, 'rank')} before it"
        runs = f"{ahead.running} of them {_verb(ahead.running, now, 'run')}" + (" now" if now else "")
        if behind := standing.running_behind:
            runs += f"; {_count(behind, 'running one')} {_verb(behind, now, 'rank')} behind it"
        begun, can = (subject, "can") if now else (f"When it began to wait, {subject}", "could")
        yield f"{begun} ({runs}), and about {standing.slots:.0f} {can} run at once: {_by_rule(standing)}."
    yield _rule(standing, policy)


def _by_rule(standing: Standing) -> str:
    ahead = standing.ahead
    parts = (
        (ahead.share, "of tenants within their share"),
        (ahead.overdue, "overdue"),
        # A late request counts as eight times as long, so some of these have more work left than it has.
        (ahead.length, "not late or with less work left" if standing.rule is Rule.LATE else "with less work left"),
        (ahead.arrival, "of the same level that arrived earlier"),
    )
    return ", ".join(f"{count} {text}" for count, text in parts if count)


def _rule(standing: Standing, policy: Policy) -> str:
    lateness = policy.lateness or LatenessRule()
    match standing.rule:
        case Rule.SHARE:
            return "Its tenant has more requests than its share of the slots, so tenants within their share go first."
        case Rule.LATE:
            return (
                f"It can no longer end within {lateness.slowdown:g} times its time on an idle engine (scheduling.slowdownTarget), "
                "so most requests that still can go first."
            )
        case Rule.OVERDUE:
            return f"Requests older than {lateness.overdue_seconds:g} s (scheduling.overdueSeconds) go first, the oldest of them first."
        case Rule.LENGTH:
            return "Requests with less work left, for their class and age, go first."
        case Rule.ARRIVAL if policy.name == "fcfs":
            return "Requests run in the order of arrival (scheduling.policy: fcfs)."
        case Rule.ARRIVAL:
            return "Requests of the same level run in the order of arrival."
        case Rule.SLOTS if not standing.ahead.total and not standing.running_behind:
            return "It has more samples than can run at once, so they take turns. No other request keeps it from running."
        case Rule.SLOTS if not policy.preemption.levels:
            return "All slots are taken, and running requests are not preempted by rank (scheduling.preemption, scheduling.policy)."
        case Rule.SLOTS:
            return (
                f"All slots are taken. The {standing.running_behind} running that rank behind it give way only to a request that is "
                f"{policy.preemption.levels} levels better (ALISE_PREEMPT_LEVELS), and only after "
                f"{policy.preemption.min_quantum_steps} steps (ALISE_MIN_QUANTUM_STEPS); none does while slots come free soon anyway."
            )
        case Rule.KV_MEMORY:
            return "A slot is free, but there is not enough KV memory for it: see the condition KVCacheShort."
        case Rule.NONE:
            return "No other request keeps it from running: it runs with one of the next steps."


def _prediction(facts: Facts) -> Iterator[str]:
    if facts.described:
        yield f"Its answer was predicted to have about {_count(round(facts.predicted_tokens), 'token')}."
    else:
        yield "The scheduler knew nothing of its text, so it counts as a typical request: see x-alise-outcome."


def _seconds(value: float) -> str:
    """For example 0.25 s, 3.4 s, 41 s or 12 min."""
    if value < 1:
        return f"{value:.2f} s"
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _verb(number: int, now: bool, verb: str) -> str:
    past = {"rank": "ranked", "run": "ran"}
    return past[verb] if not now else f"{verb}s" if number == 1 else verb
