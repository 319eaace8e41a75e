"""Removes inner neurons of an encoder's layers that its result does not need, so that each prompt takes less time.

`export_encoder.py` calls it when the image is built. It goes through the layers from the first one. The whole encoder gives the output
that a layer should have on prompts of our own. Some of the layer's inner neurons are removed, and the weights of the others into the next
layer are fitted anew, so that the output stays as near as possible, given the output of the narrowed layers before. Optimal Brain Surgeon
(Hassibi and Stork, 1993) chooses the neurons to remove, a few at a time: the loss of removing one, with all others fitted anew, is its
squared weight over the diagonal of the inverse second moments. It needs numpy only, and knows nothing of files.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# The share of each layer's inner neurons that is kept: few where few will do, and all of the last layer's.
KEPT: Final = (0.25, 0.67, 0.42, 1.0)
# The number of kept neurons is a multiple of it: the width of the kernels that multiply them.
_TOGETHER: Final = 64
_ROUNDS: Final = 10
# The share of the mean second moment that is added to each, because of neurons that are hardly ever active.
_DAMPING: Final = 1e-3

Weights = Mapping[str, NDArray[np.float32]]
Rows = NDArray[np.float32]
# The values of these tensors on the prompts in an encoder of these weights: [T, ...] each, a row per token of all prompts.
Look = Callable[[Weights, Sequence[str]], list[Rows]]


def narrow(weights: Weights, look: Look, kept: Sequence[float] = KEPT) -> dict[str, NDArray[np.float32]]:
    """The weights with that share of inner neurons in each of the first layers. Raises KeyError when a tensor of a BERT is not there."""
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
