"""Neurons that are left out of an encoder: those that say nothing new go first, and what is left says nearly the same."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOM = Path(__file__).resolve().parents[2] / "scheduler_sidecar"
SPEC = importlib.util.spec_from_file_location("narrow_encoder", ROOM / "narrow_encoder.py")
assert SPEC is not None
assert SPEC.loader is not None
narrow_encoder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(narrow_encoder)

Rows = NDArray[np.float32]


def random(*shape: int, seed: int = 1) -> Rows:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def error(inner: Rows, goal: Rows, count: int) -> float:
    """The share of the goal's variance that is missed."""
    kept, matrix, bias = narrow_encoder.refit(inner, goal, count)
    return float(((inner[:, kept] @ matrix + bias - goal) ** 2).sum() / ((goal - goal.mean(axis=0)) ** 2).sum())


def test_neurons_that_say_what_others_say_can_all_go() -> None:
    own = random(2000, 16)
    copies = np.concatenate([own, own @ random(16, 48, seed=2)], axis=1)
    assert error(copies, own @ random(16, 8, seed=3), 16) < 0.01


def test_neurons_that_nobody_listens_to_go_first() -> None:
    inner, matrix = random(2000, 32), random(32, 8, seed=2)
    matrix[::2] = 0.0
    kept, _, _ = narrow_encoder.refit(inner, inner @ matrix, 16)
    assert kept.tolist() == list(range(1, 32, 2))


def test_the_more_are_kept_the_less_is_lost() -> None:
    inner, goal = np.maximum(random(3000, 48), 0.0), random(48, 8, seed=2)
    errors = [error(inner, inner @ goal, count) for count in (12, 24, 36, 48)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_a_bias_makes_up_for_what_is_always_there() -> None:
    inner = random(2000, 8) + 3.0
    assert error(inner, inner[:, :4] + 5.0, 4) < 0.01


class Layers:
    """Two layers of a network that is only inner neurons: hidden + relu(hidden · W1) · W2, on a number of tokens."""

    tokens = random(3000, 8)

    def weights(self, size: int = 128) -> dict[str, Rows]:
        made = {}
        for layer in range(2):
            at = f"encoder.layer.{layer}."
            made[f"{at}intermediate.dense.weight"] = random(size, 8, seed=10 + layer)
            made[f"{at}intermediate.dense.bias"] = random(size, seed=20 + layer)
            made[f"{at}output.dense.weight"] = random(8, size, seed=30 + layer) / np.float32(size)
            made[f"{at}output.dense.bias"] = random(8, seed=40 + layer)
        return made

    def look(self, weights: dict[str, Rows], names: Sequence[str]) -> list[Rows]:
        seen, hidden = {}, self.tokens
        for layer in range(2):
            at = f"encoder.layer.{layer}."
            inner = np.maximum(hidden @ weights[f"{at}intermediate.dense.weight"].T + weights[f"{at}intermediate.dense.bias"], 0.0)
            seen[f"{at}attention.output.norm"], seen[f"{at}gelu"] = hidden, inner
            hidden = hidden + inner @ weights[f"{at}output.dense.weight"].T + weights[f"{at}output.dense.bias"]
            seen[f"{at}output.sum"] = hidden
        return [seen[name] for name in names]


def test_a_narrowed_encoder_says_nearly_what_the_whole_one_says() -> None:
    layers = Layers()
    whole, end = layers.weights(), ["encoder.layer.1.output.sum"]
    made = narrow_encoder.narrow(whole, layers.look, (0.5, 1.0))
    (before,), (after,) = layers.look(whole, end), layers.look(made, end)
    assert made["encoder.layer.0.intermediate.dense.weight"].shape == (64, 8)
    assert made["encoder.layer.0.output.dense.weight"].shape == (8, 64)
    assert ((after - before) ** 2).mean() < 0.01 * before.var()


@pytest.mark.parametrize(
    ("share", "size", "expected"),
    [
        pytest.param(0.25, 1536, 384, id="a share"),
        pytest.param(0.42, 1536, 640, id="the nearest multiple"),
        pytest.param(0.01, 1536, 64, id="at least one block"),
        pytest.param(1.0, 100, 100, id="all of them"),
    ],
)
def test_so_many_neurons_are_kept(share: float, size: int, expected: int) -> None:
    assert narrow_encoder.kept_count(share, size) == expected
