"""What keeps an engine with alise from starting, and its workers' part, without starting one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alise_engine.errors import ConfigError

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("host_bytes", [-1, 1.5, "1Gi", True], ids=repr)
def test_a_host_store_needs_a_number_of_bytes(host_bytes: Any) -> None:
    from alise_engine.kv.connector import host_bytes_of

    with pytest.raises(ConfigError, match=r"host_bytes is .*: give the bytes of the host store, 0 or more"):
        host_bytes_of({"host_bytes": host_bytes}, 1000)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        pytest.param({"host_bytes": 0}, 0, id="none"),
        pytest.param({"host_bytes": 1 << 30}, 1 << 30, id="a number of bytes, whatever the device has"),
        pytest.param({}, 1000, id="as many as the KV cache on the device"),
        pytest.param({"host_bytes_at_most": 400}, 400, id="no more than the bound"),
        pytest.param({"host_bytes_at_most": 4000}, 1000, id="a bound above what the device has"),
    ],
)
def test_the_size_of_a_host_store(extra: dict[str, Any], expected: int) -> None:
    from alise_engine.kv.connector import host_bytes_of

    assert host_bytes_of(extra, 1000) == expected


@pytest.mark.parametrize(
    ("additional", "codec"), [({}, "auto"), ({"alise": {"codec": "none"}}, "raw"), ({"alise": {"codec": "int8"}}, "int8")]
)
def test_the_codec_is_configured_by_the_resources_word_for_it(additional: dict[str, Any], codec: str) -> None:
    from alise_engine.enginecore.settings import configured_codec

    assert configured_codec(additional) == codec


@pytest.mark.parametrize("codec", ["raw", "fp8", 8], ids=repr)
def test_another_codec_is_refused_with_those_there_are(codec: Any) -> None:
    from alise_engine.enginecore.settings import configured_codec

    with pytest.raises(ConfigError, match=r"alise.codec is .*: use one of auto, int8, none"):
        configured_codec({"alise": {"codec": codec}})


def test_a_layer_that_is_not_as_counted_is_refused() -> None:
    from alise_engine.kv.int8 import RAW, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.worker import WorkerSide

    side = WorkerSide(LayerShape(4, 32, 32, torch.float32, None), 999, Geometry.of(0, {"raw": 999}), {"raw": RAW})
    with pytest.raises(ConfigError, match=r"layer l0: a KV block of shape \(4, 32, 64\) has 32768 bytes, not 999"):
        side.register({"l0": torch.zeros(3, 4, 32, 64)}, num_blocks=3)


@pytest.mark.parametrize(("codec", "tolerance"), [pytest.param("raw", 0.0, id="raw"), pytest.param("int8", 9 / 255, id="int8")])
def test_smaller_kernel_blocks_are_saved_and_restored_as_one(codec: str, tolerance: float) -> None:
    from alise_engine.kv.int8 import INT8, RAW, KeyLayout, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.work import Load, Save
    from alise_engine.kv.worker import WorkerSide

    # Blocks of 32 tokens, which the kernel cuts in two of 16.
    layer = torch.randn(2 * 6, 4, 16, 64)
    original = layer.clone()
    shape = LayerShape(4, 32, 32, torch.float32, KeyLayout.PER_TOKEN)
    geometry = Geometry.of(1 << 20, {"raw": RAW.row_bytes(shape), "int8": INT8.row_bytes(shape)})
    side = WorkerSide(shape, RAW.row_bytes(shape), geometry, {"raw": RAW, "int8": INT8})
    side.register({"l0": layer}, num_blocks=6)
    side.write(Save("r", (4, 1), 0, 64, codec))
    layer.zero_()
    side.load(Load("r", (0, 5), 0))
    assert (layer[[0, 1, 10, 11]] - original[[8, 9, 2, 3]]).abs().max() <= tolerance
    assert side.take_errors() == set()


def test_blocks_that_the_store_does_not_have_are_reported() -> None:
    from alise_engine.kv.int8 import RAW, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.work import Load, Save
    from alise_engine.kv.worker import WorkerSide

    layer = torch.randn(6, 4, 32, 64)
    shape = LayerShape(4, 32, 32, torch.float32, None)
    side = WorkerSide(shape, RAW.row_bytes(shape), Geometry.of(1 << 20, {"raw": RAW.row_bytes(shape)}), {"raw": RAW})
    side.register({"l0": layer}, num_blocks=6)
    side.write(Save("r", (4, 1), 0, 64, "raw"))
    side.load(Load("r", (0, 5, 2), 0))
    assert side.take_errors() == {2}
    assert side.take_errors() == set()


@pytest.mark.parametrize("value", [1, "yes", 0.0], ids=repr)
def test_whether_there_is_a_copy_thread_is_true_or_false(value: Any) -> None:
    from alise_engine.kv.connector import copies_maker

    with pytest.raises(ConfigError, match=r"copy_thread is .*: give true or false, or leave it out"):
        copies_maker({"copy_thread": value})


def test_another_connector_is_refused() -> None:
    from alise_engine.enginecore.settings import check_connector

    with pytest.raises(ConfigError, match="the KV connector is SimpleNamespace: use AliseKVConnector, or none"):
        check_connector(SimpleNamespace())
