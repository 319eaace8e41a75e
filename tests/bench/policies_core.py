"""Decisions with the core alone: imports nothing that the core does not, so that its memory can be read off the process.

`policies.py` runs it in a process of its own.
"""

from alise_scheduler.core.decide import decide
from alise_scheduler.core.exec_time import CostModel
from alise_scheduler.core.job import Job, columns
from alise_scheduler.core.lengths import sane
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineShape


def decide_often(jobs: int, times: int) -> None:
    """Decides `times` times for `jobs` waiting jobs."""
    made = tuple(Job(id=f"job-{n}", order=n, lengths=sane([10 + n % 700] * 10), prompt_tokens=100) for n in range(jobs))
    for at in range(times):
        decide(columns(made, float(at), EngineShape(max_num_seqs=256), CostModel(), 1.0, {}), Policy())
