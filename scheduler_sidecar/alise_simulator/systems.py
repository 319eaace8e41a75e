"""Systems that can be simulated, by name: the policies of alise, and the baselines that they are compared with.

The command (`__main__.py`) and the benchmarks call it, and pass the drivers that it makes to `run.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.rank import POLICIES, AgeingRule, Policy, PreemptionRule

from .baselines import FcfsDriver, MlfqDriver, PriorityDriver, SrptDriver
from .driver import CoreDriver, PolicyDriver, at_admission
from .model import EngineModel
from .trace import Trace

BASELINES: Final = ("vllm-fcfs", "vllm-priority", "mlfq", "srpt")


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that a run needs besides the policy."""

    trace: Trace
    model: EngineModel
    lengths: Floats


def core_driver(
    setup: Setup, policy: Policy, kind: type[CoreDriver] = CoreDriver, admit_limits: AdmitLimits | None = None
) -> Callable[[], PolicyDriver]:
    """Returns a function that builds drivers, which decide as production does. `kind` is a subclass that replaces the levels."""
    trace, model = setup.trace, setup.model
    cost = model.known_cost(float((trace.input_tokens + trace.output_tokens / 2).mean()))
    # Built once, because there may be ten thousand drivers.
    caps, tenants = np.full(len(trace), float(model.shape.max_model_len)), trace.tenant.astype(np.float64)
    fresh = at_admission(policy, setup.lengths, trace.input_tokens.astype(np.float64), caps, model.shape, cost)
    return lambda: kind(policy, setup.lengths, caps, tenants, trace.weight, model.shape, cost, fresh, admit_limits)


def policy_named(name: str, ageing: bool = True) -> Policy:
    """The policy with the sidecar's default settings."""
    default = Policy(name=name)
    if name in ("sjf", "fcfs"):
        default = replace(default, preemption=PreemptionRule(0, default.preemption.min_quantum_steps))
    return default if ageing and name != "fcfs" else replace(default, ageing=None, lateness=None)


def driver_named(
    name: str, setup: Setup, ageing: AgeingRule | None = None, admit_limits: AdmitLimits | None = None
) -> Callable[[], PolicyDriver]:
    """Returns a function that builds drivers of a policy of alise, or of a baseline (which refuses no request). Raises ValueError."""
    host_bytes = setup.model.shape.host_limit_bytes
    if name in POLICIES:
        policy = policy_named(name)
        aged = replace(policy, ageing=ageing) if ageing is not None and policy.ageing is not None else policy
        return core_driver(setup, aged, admit_limits=admit_limits)
    match name:
        case "vllm-fcfs":
            return FcfsDriver
        case "vllm-priority":
            return lambda: PriorityDriver(setup.lengths)
        case "mlfq":
            return lambda: MlfqDriver(host_bytes)
        case "srpt":
            return lambda: SrptDriver(host_bytes)
    raise ValueError(f"unknown policy {name!r}; use one of {', '.join((*POLICIES, *BASELINES))}")
