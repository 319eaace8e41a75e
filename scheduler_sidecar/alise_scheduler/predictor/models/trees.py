"""Boosted trees as arrays, evaluated with numpy, so that a scheduler that serves loads no training library.

`training/fit.py` converts what LightGBM trained, and `head.py` evaluates it. Missing values are replaced by MISSING first, in training as
in serving, so a split is a plain comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays, checked, finite

# More than any forest that is trained here: 800 trees of 31 leaves, 9 deep.
MAX_NODES: Final = 200_000
MAX_TREES: Final = 2_000
MAX_DEPTH: Final = 32
MISSING: Final = -1000.0

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forest:
    """All nodes of all trees in one row each. `roots` [T]: each tree's first node; `depth`: of the deepest.

    A node's two children are beside each other: `child` names the one for values up to the threshold, the one for those above it follows.
    A leaf names itself and no value is above its threshold.
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    # In the type that numpy uses for indices, which saves a conversion at each step.
    child: NDArray[np.intp]
    value: NDArray[np.float32]
    roots: NDArray[np.intp]
    depth: int

    def leaves(self, rows: Rows) -> Rows:
        """What each tree says. rows [N, F] without NaN -> [N, T]."""
        if len(rows) == 1:
            return self._one(rows[0])[None]
        nodes = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        at = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            nodes = self.child[nodes] + (rows[at, self.feature[nodes]] > self.threshold[nodes])
        return self.value[nodes]

    def predict(self, rows: Rows) -> Rows:
        """Sum of the trees' leaves. rows [N, F] without NaN -> [N]."""
        total: Rows = self.leaves(rows).sum(axis=1)
        return total

    def _one(self, row: Rows) -> Rows:
        """`leaves` of a single row, in half the time."""
        nodes = self.roots
        for _ in range(self.depth):
            above = row.take(self.feature.take(nodes)) > self.threshold.take(nodes)
            nodes = self.child.take(nodes) + above
        return self.value.take(nodes)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """For a file, each name with the prefix."""
        held = {name: getattr(self, name) for name in ("feature", "threshold", "child", "value", "roots")}
        return {prefix + name: value for name, value in held.items()} | {prefix + "depth": np.array(self.depth)}


def join(first: Forest, second: Forest) -> Forest:
    """The trees of both, the first ones' before the second's: walked through at once, which takes little longer than one of them."""
    shift = len(first.feature)
    return Forest(
        np.concatenate([first.feature, second.feature]), np.concatenate([first.threshold, second.threshold]),
        np.concatenate([first.child, second.child + shift]), np.concatenate([first.value, second.value]),
        np.concatenate([first.roots, second.roots + shift]), max(first.depth, second.depth),
    )  # fmt: skip


def from_arrays(prefix: str, held: Arrays, columns: int) -> Forest:
    """The forest that `arrays` gave, of rows of this many columns. Raises ValueError when something is missing, too large or does not fit.

    Every prediction walks down `depth` times, so it is bounded and never taken on trust.
    """
    threshold, value = checked(held, prefix + "threshold", "f", None), checked(held, prefix + "value", "f", None)
    feature, child, roots = (checked(held, prefix + name, "i", None) for name in ("feature", "child", "roots"))
    depth = int(checked(held, prefix + "depth", "i"))
    nodes = len(feature)
    if not len(threshold) == len(value) == len(child) == nodes:
        raise ValueError(f"a forest of {nodes} nodes with {len(threshold)} thresholds, {len(child)} children, {len(value)} values")
    if nodes > MAX_NODES or len(roots) > MAX_TREES or not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"a forest of {len(roots)} trees of {nodes} nodes, {depth} deep: too large")
    inner = child != np.arange(nodes)
    if nodes and not (child.min() >= 0 and (child.astype(np.int64) + inner).max() < nodes):
        raise ValueError("a forest whose nodes point outside of it")
    if len(roots) and not (roots.min() >= 0 and roots.max() < nodes):
        raise ValueError("a forest whose nodes point outside of it")
    if nodes and not (feature.min() >= 0 and feature.max() < columns):
        raise ValueError(f"a forest of other columns than {columns}")
    if not np.isposinf(threshold[~inner]).all():
        raise ValueError("a forest with leaves that go on")
    finite(threshold[inner], prefix + "threshold")
    return Forest(
        feature.astype(np.int16), threshold.astype(np.float32), child.astype(np.intp), finite(value, prefix + "value").astype(np.float32),
        roots.astype(np.intp), depth,
    )  # fmt: skip


def from_dumps(dumps: Sequence[Mapping[str, Any]]) -> Forest:
    """The mean of the forests in LightGBM's `dump_model()`s."""
    feature: list[int] = []
    threshold: list[float] = []
    child: list[int] = []
    value: list[float] = []
    roots: list[int] = []
    deepest = 0

    def add_node() -> int:
        """Adds a node, which is a leaf until its split is set."""
        number = len(feature)
        feature.append(0)
        threshold.append(np.inf)
        child.append(number)
        value.append(0.0)
        return number

    for tree in (tree for dump in dumps for tree in dump["tree_info"]):
        roots.append(add_node())
        level = [(roots[-1], tree["tree_structure"])]
        depth = 0
        while level:
            deepest = max(deepest, depth)
            below = []
            for number, node in level:
                if "leaf_value" in node:
                    value[number] = float(node["leaf_value"]) / len(dumps)
                    continue
                feature[number], threshold[number] = int(node["split_feature"]), _below(float(node["threshold"]))
                child[number] = add_node()
                below += [(child[number], node["left_child"]), (add_node(), node["right_child"])]
            level, depth = below, depth + 1
    return Forest(
        np.array(feature, np.int16), np.array(threshold, np.float32), np.array(child, np.intp), np.array(value, np.float32),
        np.array(roots, np.intp), deepest,
    )  # fmt: skip


def _below(threshold: float) -> float:
    """The largest float32 that is not above a float64 threshold, so that both split float32 values in the same way."""
    near = np.float32(threshold)
    return float(near) if near <= threshold else float(np.nextafter(near, np.float32(-np.inf)))
