"""Boosted trees as arrays: what the trainer's library made, evaluated with numpy, so that a sidecar that serves loads no training library.

Missing values are MISSING before they come here, in training as in serving; a split is a plain comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = -1000.0

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forest:
    """All nodes of all trees in one row each; a leaf points at itself. `roots` [T]: each tree's first node; `depth`: of the deepest."""

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    # [nodes, 2]: where to go when the value is above the threshold, and when it is not.
    children: NDArray[np.int32]
    value: NDArray[np.float32]
    roots: NDArray[np.int32]
    depth: int

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """Sum of the trees' leaves. rows [N, F] without NaN -> [N]."""
        if len(rows) == 1:
            return np.array([self._one(rows[0])], np.float32)
        nodes = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        at = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            left = rows[at, self.feature[nodes]] <= self.threshold[nodes]
            nodes = self.children[nodes, left.astype(np.int8)]
        total: NDArray[np.float32] = self.value[nodes].sum(axis=1)
        return total

    def _one(self, row: Rows) -> np.float32:
        """The same for a single row, in half the time."""
        nodes = self.roots
        flat = self.children.reshape(-1)
        for _ in range(self.depth):
            left = row.take(self.feature.take(nodes)) <= self.threshold.take(nodes)
            nodes = flat.take(2 * nodes + left)
        return np.float32(self.value.take(nodes).sum())

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """For a file, each name with the prefix."""
        held = {name: getattr(self, name) for name in ("feature", "threshold", "children", "value", "roots")}
        return {prefix + name: value for name, value in held.items()} | {prefix + "depth": np.array(self.depth)}


def from_arrays(prefix: str, held: Mapping[str, NDArray[Any]]) -> Forest:
    """The forest that `arrays` gave. Raises KeyError when one is not there and ValueError when they do not fit together."""
    feature, threshold, children, value, roots = (held[prefix + n] for n in ("feature", "threshold", "children", "value", "roots"))
    nodes = len(feature)
    if not (len(threshold) == len(value) == nodes and children.shape == (nodes, 2)):
        raise ValueError(f"a forest of {nodes} nodes with {len(threshold)} thresholds, {children.shape} children, {len(value)} values")
    if nodes and not (children.min() >= 0 and children.max() < nodes and roots.min() >= 0 and roots.max() < nodes):
        raise ValueError("a forest whose nodes point outside of it")
    return Forest(feature, threshold, children, value, roots, int(held[prefix + "depth"]))


def from_dumps(dumps: Sequence[Mapping[str, Any]]) -> Forest:
    """The mean of the forests in LightGBM's `dump_model()`s."""
    feature: list[int] = []
    threshold: list[float] = []
    children: list[tuple[int, int]] = []
    value: list[float] = []
    roots: list[int] = []
    deepest = 0

    def add(node: Mapping[str, Any], depth: int) -> int:
        nonlocal deepest
        deepest = max(deepest, depth)
        number = len(feature)
        leaf = "leaf_value" in node
        feature.append(0 if leaf else int(node["split_feature"]))
        threshold.append(np.inf if leaf else _below(float(node["threshold"])))
        value.append(float(node["leaf_value"]) / len(dumps) if leaf else 0.0)
        children.append((number, number))
        if not leaf:
            left = add(node["left_child"], depth + 1)
            children[number] = (add(node["right_child"], depth + 1), left)
        return number

    for tree in (tree for dump in dumps for tree in dump["tree_info"]):
        roots.append(add(tree["tree_structure"], 0))
    return Forest(
        np.array(feature, np.int32), np.array(threshold, np.float32), np.array(children, np.int32).reshape(-1, 2),
        np.array(value, np.float32), np.array(roots, np.int32), deepest,
    )  # fmt: skip


def _below(threshold: float) -> float:
    """The largest float32 that is not above a float64 threshold, so that both split float32 values alike."""
    near = np.float32(threshold)
    return float(near) if near <= threshold else float(np.nextafter(near, np.float32(-np.inf)))
