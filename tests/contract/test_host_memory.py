"""The simulator's engines have as much host memory as the operator gives them by default."""

import pytest

from alise_operator.memory_rules import most_host_memory_bytes
from alise_operator.spec import Spec
from alise_simulator.hardware import HARDWARE


@pytest.mark.parametrize("name", HARDWARE)
def test_a_profile_has_the_resources_default_of_host_memory(name: str) -> None:
    profile = HARDWARE[name]
    engine = {"device": "cuda", "tensorParallelSize": profile.devices}
    spec = Spec.model_validate({"model": {"uri": "some/model", "servedName": "model"}, "engine": engine})
    cache = profile.kv16.room_tokens * profile.kv16.token_bytes
    assert profile.host_memory_bytes == min(cache, most_host_memory_bytes(spec))
