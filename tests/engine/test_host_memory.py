"""Where the store's memory comes from."""

from pathlib import Path

import pytest
import torch

from alise_engine.kv import host_memory

pytestmark = pytest.mark.engine

CPU = torch.device("cpu")


def test_memory_is_zero_bytes_or_as_many_as_asked_for_and_can_be_written() -> None:
    memory = host_memory.allocate(3 << 20, CPU)
    memory[-1] = 7
    assert (memory.shape, int(memory[0]), int(memory[-1])) == ((3 << 20,), 0, 7)
    assert host_memory.allocate(0, CPU).numel() == 0


def test_memory_that_nobody_wrote_to_is_not_taken() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident_bytes()
    memory = host_memory.allocate(1 << 30, CPU)
    assert memory.numel() == 1 << 30
    assert resident_bytes() - before < 64 << 20


@pytest.mark.parametrize(
    ("said", "node"),
    [pytest.param("1\n", 1, id="a node"), pytest.param("-1\n", None, id="none"), pytest.param("?", None, id="nonsense")],
)
def test_the_node_of_a_device_is_what_the_system_says(tmp_path: Path, said: str, node: int | None) -> None:
    (tmp_path / "numa_node").write_text(said)
    assert host_memory._node_in(tmp_path / "numa_node") == node


def test_a_system_that_does_not_say_has_no_node(tmp_path: Path) -> None:
    assert host_memory._node_in(tmp_path / "numa_node") is None


def test_a_node_that_cannot_be_is_not_preferred_and_the_memory_still_works() -> None:
    memory = host_memory.allocate(1 << 20, CPU)
    assert not host_memory.prefer_node(memory, 64)
    assert not host_memory.prefer_node(memory, 63)
    host_memory.prefer_node(memory, 0)
    memory.fill_(5)
    assert int(memory.sum()) == 5 << 20
