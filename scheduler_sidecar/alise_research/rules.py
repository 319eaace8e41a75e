"""How benchmarks train a predictor of lengths: as the product does, and as the paper does. `tests/bench/predictor.py` reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.served_head import ServedHead, serve_head
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.samples import History

from . import paper


@dataclass(frozen=True, slots=True)
class Rule:
    """A predictor, and how a head for it is trained: `serve` returns one of a version, ready to be used. With `prior`, predictions start
    from the prior."""

    name: str
    predictor: Callable[[], LearnedPredictor]
    serve: Callable[[History, int], Any]
    prior: bool


def _learned(history: History, version: int) -> ServedHead:
    return serve_head(train(history, version), history)


LEARNED: Final = Rule("learned", LearnedPredictor, _learned, True)
PAPER: Final = Rule("paper", paper.PaperPredictor, paper.serve, False)
