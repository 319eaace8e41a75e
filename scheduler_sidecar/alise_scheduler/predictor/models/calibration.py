"""Corrects predictions while they are used: for each model and class of requests, the median and the width of the error.

Every finished answer moves both a little: the median towards the point where half of the answers are longer, and the width to where 80% of
the answers fall between the 10% and the 90% quantile. So a served model that changes is followed within a few hundred answers, long before
the next training.

Each tenant moves its own corrections only. A tenant with too few answers for that uses the median of the other tenants' corrections, with
"no correction" among them, so that a single tenant cannot decide the predictions of the others.

Pure and in memory; `learned.py` calls it for each prediction and each answer.
"""

import math
import statistics
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

COVERAGE: Final = 0.80
MAX_GROUPS: Final = 1000
MAX_TENANTS: Final = 64
# Number of a tenant's own answers that weigh as much as the other tenants' corrections.
_OWN_PULL: Final = 10.0
_SLOWEST: Final = 0.02
_HEAD_START: Final = 15.0
_MAX_ERROR: Final = 0.6
_MAX_WIDTH: Final = 1.5

Row = NDArray[np.float32]
Group = tuple[int, ...]


@dataclass(slots=True)
class _State:
    count: int = 0
    shift: float = 0.0
    log_width: float = 0.0


def interval(log_quantiles: Row) -> tuple[float, float]:
    """Returns the 10% and 90% quantiles: half way between the outer two points of each side."""
    return float(log_quantiles[0] + log_quantiles[1]) / 2, float(log_quantiles[-2] + log_quantiles[-1]) / 2


def middle(log_quantiles: Row) -> float:
    """Returns the median."""
    half = len(log_quantiles) // 2
    return float(log_quantiles[half - 1] + log_quantiles[half]) / 2


class Calibration:
    """The corrections of at most MAX_GROUPS groups, and of MAX_TENANTS tenants in each; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Group, OrderedDict[int, _State]] = OrderedDict()

    def apply(self, log_quantiles: Row, groups: tuple[Group, ...], tenant: int = 0) -> Row:
        """Returns corrected quantiles of ln(tokens). The corrections of `groups`, from coarse to fine, add up."""
        shift, log_width = 0.0, 0.0
        for group in groups:
            states = self._groups.get(group)
            if states is not None:
                moved, widened = _correction(states, tenant)
                shift, log_width = shift + moved, log_width + widened
        centre = middle(log_quantiles)
        result: Row = np.maximum(centre + shift + (log_quantiles - centre) * np.float32(math.exp(log_width)), 0.0)
        return result

    def learn(self, log_quantiles: Row, groups: tuple[Group, ...], log_tokens: float, ended: bool, tenant: int = 0) -> None:
        """Learns from an answer that ended, or was cut at `log_tokens`. `log_quantiles` are the head's own, before `apply`."""
        for depth, group in enumerate(groups, start=1):
            corrected = self.apply(log_quantiles, groups[:depth], tenant)
            low, high = interval(corrected)
            error = log_tokens - middle(corrected)
            if not ended and error <= 0.0:
                continue
            states = self._groups.setdefault(group, OrderedDict())
            self._groups.move_to_end(group)
            state = states.setdefault(tenant, _State())
            states.move_to_end(tenant)
            if len(states) > MAX_TENANTS:
                states.popitem(last=False)
            state.count += 1
            rate = max(_SLOWEST, 1.0 / (state.count + _HEAD_START))
            state.shift += rate * min(max(error, -_MAX_ERROR), _MAX_ERROR)
            if ended or log_tokens > high:
                outside = not low <= log_tokens <= high
                state.log_width = min(max(state.log_width + rate * (outside - (1.0 - COVERAGE)), -_MAX_WIDTH), _MAX_WIDTH)
        while len(self._groups) > MAX_GROUPS:
            self._groups.popitem(last=False)


def _correction(states: OrderedDict[int, _State], tenant: int) -> tuple[float, float]:
    """Returns the shift and the log of the width for a tenant."""
    own = states.get(tenant)
    if own is not None and len(states) == 1:
        return own.shift, own.log_width
    others = [state for name, state in states.items() if name != tenant]
    shift = statistics.median([0.0, *(state.shift for state in others)])
    log_width = statistics.median([0.0, *(state.log_width for state in others)])
    if own is None:
        return shift, log_width
    trust = own.count / (own.count + _OWN_PULL)
    return trust * own.shift + (1.0 - trust) * shift, trust * own.log_width + (1.0 - trust) * log_width
