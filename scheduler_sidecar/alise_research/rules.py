"""The rules by which benchmarks let lengths be learned: the product's own, and the paper's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from alise_scheduler.predictor.training import fit
from alise_scheduler.predictor.training.samples import History

from . import paper


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to train a head. With `prior`, predictions start from the prior."""

    name: str
    train: Callable[[History, int], Any]
    prior: bool


LEARNED: Final = Rule("learned", fit.train, True)
PAPER: Final = Rule("paper", paper.train, False)
