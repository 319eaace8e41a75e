"""The KV cache in tokens."""

import pytest

from alise_engine.api.kv_room import KvRoom, kv_room
from alise_engine.wire.calls import Counters, EngineShape


@pytest.mark.parametrize(
    ("blocks", "free", "room"),
    [
        pytest.param(65, 64, KvRoom(2048, 0, 8), id="an empty cache, of which one block is vLLM's own"),
        pytest.param(65, 4, KvRoom(2048, 1920, 8), id="a cache with four free blocks"),
        pytest.param(0, 0, KvRoom(0, 0, 8), id="a model without a KV cache"),
        pytest.param(65, 70, KvRoom(2048, 0, 8), id="blocks that are counted as free twice while a step is in flight"),
    ],
)
def test_the_room_in_tokens(blocks: int, free: int, room: KvRoom) -> None:
    shape = EngineShape(2, 2048, 1024, 32, blocks, 131072, 0, "tiny", 8)
    assert kv_room(shape, Counters(free_device_blocks=free)) == room
