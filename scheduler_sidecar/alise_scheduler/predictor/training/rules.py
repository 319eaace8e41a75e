"""How lengths may be learned, by the names that ALISE_PREDICTOR takes: each a way to train a head and to read one from bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..learned import ServingHead
from ..models import head, paper
from . import fit
from .samples import History


@dataclass(frozen=True, slots=True)
class Rule:
    """`read` raises ValueError for bytes of another rule's head; `prior`: it starts from what is known beforehand."""

    name: str
    train: Callable[[History, int], ServingHead]
    read: Callable[[bytes], ServingHead]
    prior: bool


LEARNED: Final = Rule("learned", fit.train, head.from_bytes, True)
PAPER: Final = Rule("paper", paper.train, paper.from_bytes, False)
RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.name: rule for rule in (LEARNED, PAPER)})
