"""The load of this replica by level, for an endpoint picker: what a request of some level would find ahead of it.

`state.py` makes it, `rpc/lengths.py` sends it. Tenants are left out: which tenant may take a slot is decided here, at admission.
"""

from dataclasses import dataclass

import numpy as np

from alise_contract.names import MIN_LEVEL

from .admit import LEVELS
from .backlog import Backlog


@dataclass(frozen=True, slots=True)
class LevelLoad:
    """The active sequences of one level, running and waiting, and the seconds of one slot that they still need."""

    level: int
    samples: float
    work_seconds: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Active requests by level, in ascending order, without empty levels."""

    levels: tuple[LevelLoad, ...]
    slots: float
    draining: bool
    connected: bool
    # 0: no limit.
    max_wait_seconds: float
    # Requests that asked for admission since the process started.
    arrivals: int = 0


def load_report(backlog: Backlog, draining: bool, connected: bool, max_wait_seconds: float, arrivals: int = 0) -> LoadReport:
    """Returns the report of a backlog. Jobs that were withdrawn since the last decision cancel their own rows out."""
    at = backlog.level - MIN_LEVEL
    samples = np.bincount(at, weights=backlog.samples, minlength=LEVELS)
    work = np.bincount(at, weights=backlog.work_seconds, minlength=LEVELS)
    rows = tuple(LevelLoad(int(row) + MIN_LEVEL, float(samples[row]), max(0.0, float(work[row]))) for row in np.flatnonzero(samples > 0.0))
    return LoadReport(rows, float(backlog.slots), draining, connected, max_wait_seconds, arrivals)
