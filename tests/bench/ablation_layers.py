"""The layers of the predictor, each with what turns it off and the code that only it needs.

Nothing of the product has a switch for this: a layer is turned off by replacing functions of the predictor's modules for one run.
`ablation.py` calls it.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from alise_scheduler.predictor import learned, served_head
from alise_scheduler.predictor.features import conversation, conversation_effect, row
from alise_scheduler.predictor.models import kernel, quantization
from alise_scheduler.predictor.models.calibration import Calibration
from alise_scheduler.predictor.repeats import Repeats
from alise_scheduler.predictor.training import fit, trial
from tests.bench.harness import ROOT

PREDICTOR: Final = ROOT / "scheduler_sidecar" / "alise_scheduler" / "predictor"

# (module or class, name, replacement)
Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """`patches` turn it off; `code` names files or `file:function` that only it needs; `encoder` and `prior` say what a run without it
    starts from."""

    title: str
    patches: tuple[Patch, ...] = ()
    code: tuple[str, ...] = ()
    encoder: bool = True
    prior: bool = True


def _no_effect(vectors: Any, residuals: Any, *arguments: Any) -> Any:
    return np.zeros(len(residuals), np.float32)


def _first_topic(observed: Any, embedding: Any) -> Any:
    return np.zeros(row.EMBEDDING, np.float32) if embedding is None else embedding


def _without(columns: slice) -> Callable[..., Any]:
    """`complete` that leaves these columns of the row unknown."""

    def complete(*arguments: Any) -> Any:
        numbers = _COMPLETE(*arguments)
        numbers[columns] = np.nan
        return numbers

    return complete


def _one_spread(points: Any, errors: Any, folds: Any, seed: int) -> Any:
    fitted, held = _SPREAD(points, errors, folds, seed)
    return replace(fitted, weights=np.zeros_like(fitted.weights), slope=0.0), np.full_like(held, fitted.bias)


def _exact(points: Any, step: float) -> Any:
    return np.clip(points * np.float32(1.0 / step), -quantization.REACH, quantization.REACH)


def _exact_products(quantized: Any, others: Any) -> Any:
    return quantized.astype(np.float32) @ others.astype(np.float32).T


_COMPLETE: Final = conversation.complete
_SPREAD: Final = fit.spread_of

_EFFECT: Final[tuple[Patch, ...]] = (
    (conversation_effect, "carry_over", _no_effect),
    (served_head, "carried_over", lambda observed, embedding: 0.0),
)
_TOPIC: Final[tuple[Patch, ...]] = (
    (conversation_effect, "contexts", lambda vectors, roots, answered: vectors),
    (served_head, "context", _first_topic),
)
_TEXT_PER_TOKEN: Final = row.REQUEST.index("chars_per_token")

LAYERS: Final[Mapping[str, Layer]] = MappingProxyType({
    "all": Layer("everything, as it is shipped"),
    "spread": Layer("how far off an estimate is: the same for all", ((fit, "spread_of", _one_spread),)),
    "conversation": Layer(
        "a conversation's earlier answers, in all ways",
        ((conversation.Conversations, "find", lambda held, previous, tenant=0: None),),
        ("features/conversation_effect.py", "features/conversation.py:Conversations", "features/conversation.py:carried_over",
         "features/conversation.py:context", "features/conversation.py:expected_here"),
    ),
    "effect": Layer(
        "the conversation's random effect", _EFFECT, ("features/conversation_effect.py", "features/conversation.py:carried_over"),
    ),
    "topic": Layer(
        "what the conversation is about", _TOPIC,
        ("features/conversation_effect.py:contexts", "features/conversation_effect.py:context", "features/conversation.py:context"),
    ),
    "text per token": Layer(
        "how much text a token of the conversation is", ((learned, "complete", _without(slice(_TEXT_PER_TOKEN, _TEXT_PER_TOKEN + 1))),),
    ),
    "text": Layer(
        "hand-made features of the text, in the head (the prior keeps them)", ((learned, "complete", _without(row.TEXT)),),
        ("features/text.py", "features/lexicon.py"),
    ),
    "encoder": Layer(
        "the sentence encoder, with all that needs embeddings", code=("models/encoder.py", "models/wordpiece.py", "encode_queue.py"),
        encoder=False,
    ),
    "prior": Layer("the prior", code=("models/prior.py", "training/prior_fit.py", "training/prior_lines.py"), prior=False),
    "calibration": Layer(
        "calibration",
        ((Calibration, "apply", lambda held, quantiles, groups, tenant=0: np.maximum(quantiles, 0.0)),
         (Calibration, "learn", lambda *arguments: None)),
        ("models/calibration.py",),
    ),
    "same text": Layer(
        "earlier answers to the same text", ((Repeats, "apply", lambda held, log_quantiles, text, tenant: log_quantiles),), ("repeats.py",),
    ),
    "trial": Layer("the trial of a new head", ((trial, "TRIAL", 0),)),
    "quantization": Layer(
        "INT8 for landmarks: float32", ((kernel, "quantize", _exact), (kernel, "products", _exact_products)),
        ("models/quantization.py",),
    ),
})  # fmt: skip


@contextmanager
def turned_off(layer: Layer) -> Iterator[None]:
    """Runs the body without this layer."""
    before = [(holder, name, vars(holder)[name]) for holder, name, _ in layer.patches]
    try:
        for holder, name, replacement in layer.patches:
            setattr(holder, name, replacement)
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)


def code_lines(layer: Layer) -> int:
    """Returns the lines of the files and functions that only this layer needs; 0 where it is a few lines of shared functions."""
    return sum(_lines(*name.partition(":")[::2]) for name in layer.code)


def _lines(file: str, name: str) -> int:
    text = (PREDICTOR / file).read_text(encoding="utf-8")
    if not name:
        return len(text.splitlines())
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    first: int = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last: int = node.end_lineno
    return last - first + 1
