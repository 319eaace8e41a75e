"""The layers that the ablation turns off exist in the predictor, and come back."""

import pytest

from alise_scheduler.predictor.features.conversation import Conversations
from tests.bench.ablation_layers import LAYERS, code_lines, turned_off


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_was_turned_off_is_back_afterwards(name: str) -> None:
    layer = LAYERS[name]
    before = [vars(holder)[attribute] for holder, attribute, _ in layer.patches]
    with turned_off(layer):
        inside = [vars(holder)[attribute] for holder, attribute, _ in layer.patches]
    assert all(one is not other for one, other in zip(before, inside, strict=True))
    assert before == [vars(holder)[attribute] for holder, attribute, _ in layer.patches]


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if layer.code])
def test_the_code_of_a_layer_is_found(name: str) -> None:
    assert code_lines(LAYERS[name]) > 0


def test_without_conversations_a_turn_is_a_first_one() -> None:
    held = Conversations()
    held.add(0, 1, 5.0)
    assert held.find(1) is not None
    with turned_off(LAYERS["conversation"]):
        assert held.find(1) is None
