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
    """All nodes of all trees in one row each. `roots` [T]: each tree's first node; `depth`: of the deepest.

    A node's two children are beside each other: `child` names the one for values up to the threshold, the one for those above it follows.
    A leaf names itself and no value is above its threshold.
    """

    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    # As numpy wants places, which saves it a conversion of these at each step.
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


def from_arrays(prefix: str, held: Mapping[str, NDArray[Any]]) -> Forest:
    """The forest that `arrays` gave. Raises KeyError when one is not there and ValueError when they do not fit together."""
    feature, threshold, child, value, roots = (held[prefix + n] for n in ("feature", "threshold", "child", "value", "roots"))
    nodes = len(feature)
    if not len(threshold) == len(value) == len(child) == nodes:
        raise ValueError(f"a forest of {nodes} nodes with {len(threshold)} thresholds, {len(child)} children, {len(value)} values")
    inner = child != np.arange(nodes)
    if nodes and not (child.min() >= 0 and (child + inner).max() < nodes and roots.min() >= 0 and roots.max() < nodes):
        raise ValueError("a forest whose nodes point outside of it")
    if not np.isposinf(threshold[~inner]).all():
        raise ValueError("a forest with leaves that go on")
    return Forest(feature, threshold, child.astype(np.intp), value, roots.astype(np.intp), int(held[prefix + "depth"]))


def from_dumps(dumps: Sequence[Mapping[str, Any]]) -> Forest:
    """The mean of the forests in LightGBM's `dump_model()`s."""
    feature: list[int] = []
    threshold: list[float] = []
    child: list[int] = []
    value: list[float] = []
    roots: list[int] = []
    deepest = 0

    def place() -> int:
        """Room for one more node, a leaf until more is said."""
        number = len(feature)
        feature.append(0)
        threshold.append(np.inf)
        child.append(number)
        value.append(0.0)
        return number

    for tree in (tree for dump in dumps for tree in dump["tree_info"]):
        roots.append(place())
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
                child[number] = place()
                below += [(child[number], node["left_child"]), (place(), node["right_child"])]
            level, depth = below, depth + 1
    return Forest(
        np.array(feature, np.int16), np.array(threshold, np.float32), np.array(child, np.intp), np.array(value, np.float32),
        np.array(roots, np.intp), deepest,
    )  # fmt: skip


def _below(threshold: float) -> float:
    """The largest float32 that is not above a float64 threshold, so that both split float32 values alike."""
    near = np.float32(threshold)
    return float(near) if near <= threshold else float(np.nextafter(near, np.float32(-np.inf)))
