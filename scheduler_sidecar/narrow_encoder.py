"""Leaves out inner neurons of an encoder's layers that its result can do without: fewer weights to go through for each prompt.

Layer by layer, from the first: what a layer should give is known from the whole encoder; of its inner neurons those are kept, and their
weights into the next layer fitted anew, that come nearest to it on prompts of our own, given what the narrowed layers before make of them.
Which go is by the surgeon's rule (Hassibi and Stork, 1993: the loss of leaving one out, with all others fitted anew, is its squared weight
over the diagonal of the inverse second moments), some at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Of each layer's inner neurons, what is kept: few where few will do, and all of the last layer's.
KEPT: Final = (0.25, 0.67, 0.42, 1.0)
# Kept are multiples of it: what the kernels that multiply them work on at once.
_TOGETHER: Final = 64
_ROUNDS: Final = 10
# Of the mean second moment, added to each: neurons that hardly ever say anything.
_DAMPING: Final = 1e-3

Weights = Mapping[str, NDArray[np.float32]]
Rows = NDArray[np.float32]
# Of an encoder of these weights, what these tensors are on the prompts: [T, ...] each, a row per token of all prompts.
Look = Callable[[Weights, Sequence[str]], list[Rows]]


def narrow(weights: Weights, look: Look, kept: Sequence[float] = KEPT) -> dict[str, NDArray[np.float32]]:
    """The weights with so many inner neurons in each of the first layers. Raises KeyError when a tensor of a BERT is not there."""
    made = dict(weights)
    goals = look(weights, [f"encoder.layer.{layer}.output.sum" for layer in range(len(kept))])
    for layer, (share, goal) in enumerate(zip(kept, goals, strict=True)):
        at = f"encoder.layer.{layer}."
        before, inner = look(made, [f"{at}attention.output.norm", f"{at}gelu"])
        chosen, matrix, bias = refit(inner, goal - before, kept_count(share, inner.shape[1]))
        for kind in ("weight", "bias"):
            made[f"{at}intermediate.dense.{kind}"] = np.ascontiguousarray(weights[f"{at}intermediate.dense.{kind}"][chosen])
        made[f"{at}output.dense.weight"], made[f"{at}output.dense.bias"] = np.ascontiguousarray(matrix.T), bias
    return made


def refit(inner: Rows, goal: Rows, count: int) -> tuple[NDArray[np.intp], Rows, Rows]:
    """Which `count` columns of `inner` [T, I] give `goal` [T, H] best, ascending, with a matrix [count, H] and a bias [H]."""
    points = np.column_stack([inner, np.ones(len(inner), np.float32)])
    moments = (points.T @ points).astype(np.float64) / len(points)
    moments[np.diag_indices(len(moments) - 1)] += _DAMPING * np.trace(moments[:-1, :-1]) / (len(moments) - 1)
    side = (points.T @ goal).astype(np.float64) / len(points)
    # The last is the bias, which stays.
    left = np.arange(len(moments))
    for goes_to in np.geomspace(len(moments) - 1, count, _ROUNDS + 1)[1:].round().astype(int):
        if goes_to < len(left) - 1:
            inverse = np.linalg.inv(moments[np.ix_(left, left)])
            loss = ((inverse @ side[left]) ** 2).sum(axis=1) / np.diag(inverse)
            loss[-1] = np.inf
            left = np.sort(left[np.argsort(-loss, kind="stable")[: goes_to + 1]])
    fitted = np.linalg.solve(moments[np.ix_(left, left)], side[left]).astype(np.float32)
    return left[:-1], fitted[:-1], fitted[-1]


def kept_count(share: float, size: int) -> int:
    """How many of `size` neurons are kept."""
    return size if share >= 1.0 else max(_TOGETHER, round(share * size / _TOGETHER) * _TOGETHER)
