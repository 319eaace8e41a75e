"""Real starts that end in one sentence: what alise does not work with, found out only once the model is there."""

import json
from pathlib import Path

import pytest

from alise_engine.serve import tiny_model
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

FULL, WINDOW = "full_attention", "sliding_attention"
WAY_OUT = "set spec.kvOffload.hostMemory to 0"


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        pytest.param([FULL, WINDOW] * 2, r"2 KV cache groups \(hybrid attention\)", id="hybrid attention"),
        pytest.param([WINDOW] * 4, "a KV cache of type SlidingWindowSpec", id="a window in every layer"),
    ],
)
def test_a_model_whose_attention_has_windows_is_refused(tmp_path: Path, layers: list[str], sentence: str) -> None:
    from alise_engine.errors import ConfigError

    model = tiny_model.write_model(tmp_path)
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_types": layers, "sliding_window": 64}))
    with pytest.raises(ConfigError, match=f"{sentence}.* {WAY_OUT}"):
        Engine(model, EngineOptions(blocks=257))
