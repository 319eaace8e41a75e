"""How long work takes on this engine, fitted online from the engine's own steps.

One step takes `step + prefill·(prefill tokens) + decode·(decoding requests) + context·(KV tokens attended to)` seconds. The published forms
follow from it: `T_pre(s) = s·T0` and `T_dec(s, n) = n·(α·s + β)`, with α = context and β = step + decode·batch + context·(the batch's other
context). The fit is recursive least squares with forgetting on relative errors. It starts from cold-start defaults and is pulled towards
them until there is evidence. Huber weights keep single slow steps from bending it, and its coefficients are never negative.

The relative cost of steps changes slowly, so a step's weight halves after 350 others. The machine's speed changes within seconds, as
neighbours come and go, and stretches all steps equally. Therefore a separate number, the pace, follows quickly: a geometric mean of the
measured over the fitted times.

`state.py` feeds it the engine's steps; ranks, waits and the simulator read it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Final

import numpy as np

from .lengths import Floats, Number
from .reports import Step

# Features are scaled to about 1 so that one ridge strength fits all: one step, 1000 prefill tokens, 10 requests, 10 000 context tokens.
_SCALE: Final = (1.0, 1e3, 1e1, 1e4)
_RIDGE: Final = 0.02
_FORGET: Final = 0.998
# Residuals above this share of the usual one count linearly, not squared: a busy machine stretches a tenth of the steps, and the fit should
# describe the typical step.
_HUBER: Final = 0.5
# The pace moves by this share of a step's log ratio, which is clipped to ±_PACE_CLIP. Measured on 3,049 steps of a shared machine, each
# predicted before it was learned: a median error of 12%; without a pace 21%, with absolute instead of relative errors 23%.
_PACE_RATE: Final = 0.05
_PACE_CLIP: Final = 0.5
_PACE_AFTER_STEPS: Final = 64
_MAX_STEP_SECONDS: Final = 60.0
# The engine reports whole microseconds; a time below this one is an error, and a ratio to it could not be computed.
_SHORTEST_STEP_SECONDS: Final = 1e-9
# No engine attends to more tokens in one step. A larger number is an error and would outweigh all other steps.
_MAX_STEP_TOKENS: Final = 1e9
_LEAST_STEP_SECONDS: Final = 1e-5
# A lower bound for the unit of work, in case the reported steps seem to cost nothing.
_LEAST_DECODE_SECONDS: Final = 1e-6
# The least remaining work of a job, so that every job has a level.
LEAST_WORK_SECONDS: Final = 1e-6
# Relative errors are weighted as if steps took this long.
_TYPICAL_STEP_SECONDS: Final = 0.01
# No step counts as an outlier before this number of steps.
_FIRST_STEPS: Final = 32
_SWEEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per step, per prefill token, per decoding request and per context token; defaults are for a cold start."""

    step_seconds: float = 0.010
    prefill_seconds: float = 0.00005
    decode_seconds: float = 0.0002
    context_seconds: float = 0.0000001

    def times(self, factor: float) -> "Coefficients":
        """The coefficients of a machine that is slower by this factor."""
        return Coefficients(
            self.step_seconds * factor, self.prefill_seconds * factor, self.decode_seconds * factor, self.context_seconds * factor
        )

    def alone_seconds(self, prefill_tokens: Number, tokens: Number, context_tokens: Number) -> Number:
        """Seconds of prefill and then one step per token on an otherwise idle engine, for one job or for columns of jobs."""
        token = self.step_seconds + self.decode_seconds + self.context_seconds * context_tokens
        return tokens * token + self.prefill_seconds * prefill_tokens

    def step(self, prefill_tokens: float, decode_requests: float, context_tokens: float) -> float:
        """Predicted seconds of one step."""
        return (
            self.step_seconds
            + self.prefill_seconds * prefill_tokens
            + self.decode_seconds * decode_requests
            + self.context_seconds * context_tokens
        )


def _matrix() -> Floats:
    return np.zeros((4, 4))


def _vector() -> Floats:
    return np.zeros(4)


@dataclass(frozen=True, slots=True)
class CostModel:
    """The fit so far. A value: `observe()` returns the next one."""

    # At the present pace of the machine.
    coefficients: Coefficients = field(default_factory=Coefficients)
    # The time of a step now over its average time.
    pace: float = 1.0
    # Smoothed relative error |predicted - measured| / measured of the steps, each predicted before it was learned.
    error: float = 0.0
    samples: int = 0
    # Smoothed number of requests and of context tokens in a step that decodes.
    batch: float = 1.0
    batch_context: float = 0.0
    normal: Floats = field(default_factory=_matrix)
    moment: Floats = field(default_factory=_vector)
    # Smoothed relative residual at the present pace.
    scale: float = 0.0

    def decode_step_seconds(self) -> float:
        """β: seconds of a typical decoding step, which is what a running job pays for one more token."""
        return max(self.coefficients.step(0, self.batch, self.batch_context), _LEAST_DECODE_SECONDS)

    def seconds_left(self, prefill_tokens: Floats, tokens_left: Floats, context_tokens: Floats) -> Floats:
        """Seconds each job still needs on the engine, positive. Shape [J]."""
        return np.maximum(self.work_seconds(prefill_tokens, tokens_left, context_tokens), LEAST_WORK_SECONDS)

    def work_seconds(self, prefill_tokens: Number, tokens_left: Number, context_tokens: Number) -> Number:
        """Seconds of prefill and then one usual step per token, for one job or for columns of jobs."""
        c = self.coefficients
        own = c.context_seconds * (context_tokens + tokens_left / 2)
        return c.prefill_seconds * prefill_tokens + tokens_left * (self.decode_step_seconds() + own)


def _usable(step: Step) -> bool:
    counts = (step.prefill_tokens, step.decode_requests, step.context_tokens)
    return (
        _SHORTEST_STEP_SECONDS <= step.duration_seconds <= _MAX_STEP_SECONDS
        and all(0 <= count <= _MAX_STEP_TOKENS for count in counts)
        and sum(counts[:2]) > 0
    )


def observe(model: CostModel, steps: Sequence[Step]) -> CostModel:
    """The model after these steps. Impossible steps (no work, no time, more than a minute or a billion tokens) are ignored."""
    usable = [step for step in steps if _usable(step)]
    if not usable:
        return model
    # Plain numbers, because arrays take ten times as long at a size of four by four.
    normal, moment = model.normal.tolist(), model.moment.tolist()
    error, scale, batch, context = model.error, model.scale, model.batch, model.batch_context
    pace, average = model.pace, model.coefficients.times(1 / model.pace)
    for seen, step in enumerate(usable, start=model.samples):
        usual = max(average.step(step.prefill_tokens, step.decode_requests, step.context_tokens), _LEAST_STEP_SECONDS)
        ratio = step.duration_seconds / (pace * usual)
        rate = max(0.02, 1 / (seen + 1))
        error += rate * (min(abs(1 - 1 / ratio), 10.0) - error)
        # An outlier gets less weight once the usual error is known, so that one stall does not bend the fit.
        residual = abs(ratio - 1)
        weight = 1.0 if seen < _FIRST_STEPS or residual <= _HUBER * scale else _HUBER * scale / residual
        scale += rate * (min(residual, 3 * scale if seen >= _FIRST_STEPS else residual) - scale)
        scale = max(scale, 0.05)
        x = (1.0, step.prefill_tokens / _SCALE[1], step.decode_requests / _SCALE[2], step.context_tokens / _SCALE[3])
        # Errors are relative to the usual time of a step once that is known, not to a first guess that may be far too high.
        about = min(usual, step.duration_seconds / pace) if seen >= _FIRST_STEPS else step.duration_seconds
        weight *= (_TYPICAL_STEP_SECONDS / max(about, _LEAST_STEP_SECONDS)) ** 2
        normal = [[_FORGET * old + weight * (a * b) for old, b in zip(row, x, strict=True)] for row, a in zip(normal, x, strict=True)]
        moment = [_FORGET * old + weight * step.duration_seconds * a for old, a in zip(moment, x, strict=True)]
        # Before the fit has settled, a ratio shows the fit's error and not the machine's pace.
        if seen >= _PACE_AFTER_STEPS:
            pace *= math.exp(_PACE_RATE * min(max(math.log(ratio), -_PACE_CLIP), _PACE_CLIP))
        if step.decode_requests:
            batch += rate * (step.decode_requests - batch)
            context += rate * (step.context_tokens - context)
    now = _solve(normal, moment, min(1.0, _TYPICAL_STEP_SECONDS / max(average.step(0, batch, context), _LEAST_STEP_SECONDS)) ** 2)
    return replace(
        model,
        coefficients=now.times(pace),
        pace=pace,
        error=error,
        samples=model.samples + len(usable),
        batch=batch,
        batch_context=context,
        normal=np.array(normal),
        moment=np.array(moment),
        scale=scale,
    )


def _solve(normal: list[list[float]], moment: list[float], weight: float) -> Coefficients:
    """The non-negative ridge solution around the cold-start defaults, by coordinate descent over the four unknowns.

    `weight` is the weight of a usual step, at most 1. On a slow machine steps weigh little, and the pull is weakened to match.
    """
    ridge = _RIDGE * weight
    default = Coefficients()
    start = [value * scale for value, scale in zip(_values(default), _SCALE, strict=True)]
    a = [[value + ridge * (i == j) for j, value in enumerate(row)] for i, row in enumerate(normal)]
    b = [value + ridge * first for value, first in zip(moment, start, strict=True)]
    try:
        free = np.linalg.solve(a, b).tolist()
    except np.linalg.LinAlgError:
        return default
    theta = [max(value, 0.0) for value in free]
    if theta != free:
        for _ in range(_SWEEPS):
            before = theta.copy()
            for i, row in enumerate(a):
                theta[i] = max(0.0, (b[i] - sum(map(mul, row, theta)) + row[i] * theta[i]) / row[i])
            if theta == before:
                break
    values = [value / scale for value, scale in zip(theta, _SCALE, strict=True)]
    return Coefficients(*values) if all(map(math.isfinite, values)) else default


def _values(of: Coefficients) -> tuple[float, float, float, float]:
    return of.step_seconds, of.prefill_seconds, of.decode_seconds, of.context_seconds
