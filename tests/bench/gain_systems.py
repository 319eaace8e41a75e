"""The systems that are compared: stock vLLM, alise, alise without one of its parts, and other rules for who goes first.

Every rule is the production core with other settings, or a driver of its own beside it. `DESCRIPTIONS` describes what is compared.
`gain.py` runs them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.job import Ints, Snapshot
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.level import LEVELS_PER_DOUBLING
from alise_scheduler.core.rank import AgeingRule, LatenessRule, Policy, base_levels, gittins_seconds, view_of
from alise_simulator import predictions
from alise_simulator.driver import CoreDriver, PolicyDriver
from alise_simulator.model import EngineModel
from alise_simulator.systems import Setup, core_driver, driver_named, policy_named
from alise_simulator.trace import Trace

FCFS: Final = "stock-fcfs"
PRIORITY: Final = "stock-priority"
ALISE: Final = "alise"
MAIN: Final = (FCFS, PRIORITY, ALISE)
# The rule with the same index as alise's and no bound on the wait: what the bound costs.
UNBOUNDED: Final = "alise:gittins"
ABLATIONS: Final = (
    "stock-priority-true", "alise-true", "alise-no-prediction", "alise-no-history", "alise-no-preemption", "alise-no-host-store",
    "alise-no-int8", "alise-full-host", "alise-always-preempts",
)  # fmt: skip
RULES: Final = (
    "alise:before", "alise:boost", "alise:refusing", "alise:alise", "alise:gittins", "alise:gittins-ageing", "alise:sjf",
    "alise:oldest-12", "alise:oldest-25", "alise:size-ageing", "alise:deadline", "mlfq", "srpt",
)  # fmt: skip
# What the rate with nine of ten in time is compared with where a run takes long.
BESIDE_RATE: Final = ("stock-priority-true", "alise-true", "alise-no-prediction", "alise-no-host-store", UNBOUNDED)
DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType({
    FCFS: "stock vLLM, first come, first served",
    PRIORITY: "stock vLLM with --scheduling-policy priority, fed with our predictions",
    ALISE: "alise's default",
    "stock-priority-true": "stock priority with true lengths",
    "alise-true": "alise with true lengths",
    "alise-no-prediction": "alise that expects the same of every request",
    "alise-no-history": "alise with the predictor it is shipped with, which never learns",
    "alise-no-preemption": "alise that does not preempt by rank",
    "alise-no-host-store": "alise that recomputes what it preempted",
    "alise-no-int8": "alise whose host store keeps 16 bits",
    "alise-always-preempts": "alise that preempts by rank also where a slot comes free soon",
    "alise-full-host": "alise with as much host memory as the devices have for KV, without the default's limit of 8 GiB for each",
    "alise:before": "boost with ageing that is capped at 60 s, without lateness: the default before ADR 55",
    "alise:boost": "boost with ageing that follows the backlog, without lateness: γ-Boost",
    "alise:refusing": "alise that refuses requests whose predicted wait is longer than a minute",
    "alise:alise": "the paper's rule: shortest expected remaining work, ageing",
    "alise:gittins": "Gittins index without ageing or lateness",
    "alise:gittins-ageing": "Gittins index with ageing and lateness",
    "alise:sjf": "shortest expected job, blind to progress",
    "alise:oldest-12": "Gittins index, an eighth of the slots for the oldest requests",
    "alise:oldest-25": "Gittins index, a quarter of the slots for the oldest requests",
    "alise:size-ageing": "Gittins index, ageing in proportion to a request's own size",
    "alise:deadline": "boost with deadlines and without a bound on the wait",
    "mlfq": "a skip-join feedback queue, no predictions",
    "srpt": "shortest remaining first with true lengths, no ageing",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the sidecar says of each request's length, [N, QUANTILES]: after learning online, and as it is shipped."""

    learned: Floats
    shipped: Floats

    def rows(self, rows: Ints) -> "Predicted":
        return Predicted(self.learned[rows], self.shipped[rows])


def system(name: str, trace: Trace, predicted: Predicted, model: EngineModel) -> tuple[EngineModel, Callable[[], PolicyDriver]]:
    """The engine as the system has it, and its driver. Raises ValueError for an unknown name."""
    if name == "alise-no-host-store":
        model = replace(model, shape=replace(model.shape, host_limit_bytes=0))
    if name == "alise-full-host":
        model = replace(model, shape=replace(model.shape, host_limit_bytes=model.shape.num_device_blocks * model.shape.block_bytes))
    if name == "alise-no-int8":
        model = replace(model, int8_share=1.0)
    lengths = predicted.learned
    if name in ("stock-priority-true", "alise-true", "srpt"):
        lengths = predictions.oracle(trace.output_tokens)
    if name == "alise-no-prediction":
        lengths = predictions.blind(trace.output_tokens)
    if name == "alise-no-history":
        lengths = predicted.shipped
    setup = Setup(trace, model, lengths)
    if name in _STOCK:
        return model, driver_named(_STOCK[name], setup)
    if name == "alise:size-ageing":
        return model, _sized(setup)
    limits = AdmitLimits(_REFUSED_SECONDS) if name == "alise:refusing" else None
    return model, core_driver(setup, policy_of(name), admit_limits=limits)


# `admission.maxWaitSeconds` of the rule that refuses.
_REFUSED_SECONDS: Final = 60.0
_STOCK: Final = {
    FCFS: "vllm-fcfs", PRIORITY: "vllm-priority", "stock-priority-true": "vllm-priority", "mlfq": "mlfq", "srpt": "srpt"
}  # fmt: skip


def policy_of(name: str) -> Policy:
    """The core's settings for a system of ours. Raises ValueError for another name."""
    default, gittins = Policy(), policy_named("gittins")
    lateness = LatenessRule()
    match name:
        case "alise" | "alise:refusing":
            return default
        case "alise-true" | "alise-no-prediction" | "alise-no-history" | "alise-no-host-store" | "alise-no-int8" | "alise-full-host":
            return default
        case "alise-always-preempts":
            return replace(default, preemption=replace(default.preemption, turn_share=0.0))
        case "alise-no-preemption":
            return replace(default, preemption=replace(default.preemption, levels=0))
        case "alise:before":
            return replace(default, ageing=AgeingRule(max_seconds=60.0), lateness=None)
        case "alise:boost":
            return replace(default, lateness=None)
        case "alise:alise" | "alise:sjf":
            return policy_named(name.partition(":")[2])
        case "alise:gittins":
            return replace(gittins, ageing=None, lateness=None)
        case "alise:gittins-ageing":
            return gittins
        case "alise:oldest-12" | "alise:oldest-25":
            # No request is ever late, and the oldest ones are overdue from the beginning.
            share = 0.12 if name.endswith("12") else 0.25
            rule = replace(lateness, slowdown=math.inf, overdue_seconds=0.0, overdue_share=share)
            return replace(gittins, ageing=None, lateness=rule)
        case "alise:deadline":
            return replace(default, lateness=replace(lateness, overdue_seconds=math.inf))
    raise ValueError(f"no system {name!r}; there are {', '.join(DESCRIPTIONS)}")


class _SizedDriver(CoreDriver):
    """The core's driver, whose levels are replaced: four levels better for each doubling of age against the request's own size."""

    def levels(self, snapshot: Snapshot, level: Ints) -> Ints:
        view = view_of(snapshot)
        coefficients = snapshot.cost.coefficients
        total = (snapshot.generated_tokens + view.left_tokens) * (coefficients.step_seconds + coefficients.decode_seconds)
        base = base_levels(gittins_seconds(view), snapshot.weight, snapshot.neutral_seconds)
        aged: Ints = np.rint(base - LEVELS_PER_DOUBLING * np.log2(1 + snapshot.age_seconds / np.maximum(total, 1e-6))).astype(np.int64)
        return aged


def _sized(setup: Setup) -> Callable[[], PolicyDriver]:
    return core_driver(setup, replace(policy_named("gittins"), ageing=None, lateness=None), _SizedDriver)
