"""The sidecar's state, fresh for every input, and what must hold of what it decides. `admissions.py` and `reports.py` call it."""

import math
from collections.abc import Mapping
from typing import Final

from alise_contract.names import MAX_HINT_BYTES, MAX_LEVEL, MIN_LEVEL, unpack_priority
from alise_contract.pod_key import derived
from alise_contract.v1 import engine_control_pb2
from alise_scheduler.admissions import Admitted, ClassRule
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.rank import Policy
from alise_scheduler.engine.convert import to_apply
from alise_scheduler.metrics import Metrics
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.state import State
from tests.fuzz.finding import expect

SALT: Final = b"salt of a pod"
HINT_KEY: Final = derived(b"p" * 32, "hint")
CLASSES: Final[Mapping[str, ClassRule]] = {"gold": ClassRule(weight=4.0), "batch": ClassRule(weight=0.25, slo_ttft_ms=60_000)}
# Created once: a registry takes longer than everything else here, and nothing is decided by it.
_METRICS: Final = Metrics(CLASSES)


def fresh_state() -> State:
    return State(Policy(), AdmitLimits(max_wait_seconds=60.0), CLASSES, LearnedPredictor(), _METRICS, SALT, HINT_KEY)


def check_decision(state: State, at: float) -> None:
    """Decides, and sends the plan as the dispatcher does."""
    decision = state.decide(at)
    expect(bool((decision.waits_seconds >= 0).all()) and math.isfinite(float(decision.waits_seconds.sum())), "a wait is no number")
    expect(math.isfinite(decision.load.backlog_seconds()), "the backlog is no number")
    expect(0 <= decision.host_memory.host_bytes <= decision.host_memory.host_budget_bytes, "more is kept on the host than it holds")
    for job, rank in decision.ranks.at(decision.ranks.known).items():
        expect(MIN_LEVEL <= rank.level <= MAX_LEVEL and rank.ewt_ms >= 0, f"rank of {job!r}: {rank}")
    message = to_apply("session", 1, decision.plan, None)
    expect(engine_control_pb2.ApplyRequest.FromString(message.SerializeToString()) == message, "the plan does not survive the wire")
    if state.session is not None:
        state.applied(state.session.session_id, decision.plan, ())


def check_admitted(answer: Admitted) -> None:
    level, _ = unpack_priority(answer.priority)
    expect(MIN_LEVEL <= level <= MAX_LEVEL and level == answer.level, f"priority {answer.priority} is level {level}, not {answer.level}")
    expect(len(answer.hint) <= MAX_HINT_BYTES, f"the hint takes {len(answer.hint)} bytes")
