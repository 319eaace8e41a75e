"""What the benchmark `gpu_standalone`, of a GPU without vLLM, makes of the rows that it measured, and of a part that fails. No GPU."""

import sys
from collections.abc import Iterator

import pytest
import torch

from alise_engine.kv.int8 import INT8, KeyLayout, LayerShape
from tests.bench.gpu_standalone.__main__ import report
from tests.bench.gpu_standalone.copies import wrong_blocks
from tests.bench.gpu_standalone.decoder import shape_for
from tests.bench.gpu_standalone.figures import figures
from tests.bench.gpu_standalone.kernels import numbers
from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import attempt, of_process
from tests.bench.gpu_standalone.store import Store
from tests.bench.harness import Row

GIB = 1 << 30
GPU = Device(dry=False)
SHAPE = LayerShape(2, 8, 16, torch.float32, KeyLayout.PER_TOKEN)


def case(**other: float) -> Row:
    right = {"bytes": 1, "of_bytes": 1000, "levels": 0.0, "units": 0.0, "spilled": 0}
    return {"part": "kernels", "kind": "case", "case": "bf16", **right, **other}


def copies(way: str, seconds: float) -> list[Row]:
    plain: Row = {"part": "copies", "kind": "plain", "way": way, "bytes": 1000, "seconds": 0.010}
    copy: Row = {"part": "copies", "kind": "copy", "way": way, "codec": "int8", "tokens": 4096, "beside": True, "bytes": 1000}
    return [plain, copy | {"seconds": seconds}]


def steps(mode: str, seconds: float) -> list[Row]:
    made: Row = {"part": "decoding", "kind": "decoder", "model": "8B", "graph": True}
    step: Row = {"part": "decoding", "kind": "step", "mode": mode, "codec": "raw", "raw_bytes": 32 << 20, "issue_seconds": 0.0002}
    return [made, step | {"seconds": seconds}]


def values(rows: list[Row]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures(rows)}


def test_a_copy_is_a_share_of_what_a_plain_one_carries_that_way() -> None:
    found = values([*copies("save", 0.020), *copies("restore", 0.0125)])
    assert found["gpu_save_int8_4096_pcie_fraction"] == pytest.approx(0.5)
    assert found["gpu_restore_int8_4096_pcie_fraction"] == pytest.approx(0.8)
    assert found["gpu_round_trip_int8_4096_pcie_fraction"] == pytest.approx(0.020 / 0.0325)


def test_a_step_with_copies_beside_it_is_compared_with_one_alone() -> None:
    found = values([*steps("alone", 0.005), *steps("saves", 0.0051), *steps("both", 0.006)])
    assert found["gpu_plain_slowdown_raw_saves_32mib_pct"] == pytest.approx(2.0)
    assert found["gpu_plain_slowdown_raw_both_32mib_p99_pct"] == pytest.approx(20.0)
    assert found["gpu_plain_issue_raw_both_32mib_ms"] == pytest.approx(0.2)


def test_a_part_without_rows_has_no_figures_and_takes_none_of_the_others() -> None:
    found = values([case(), *steps("alone", 0.005)])
    assert "gpu_plain_step_ms" in found
    assert not [name for name in found if "pcie" in name]


def failing() -> Iterator[Row]:
    yield case()
    raise RuntimeError("an illegal memory access was encountered")


def test_a_measurement_that_fails_is_printed_and_leaves_what_it_had_measured() -> None:
    rows = [{"part": "kernels"} | row for row in attempt("bf16", failing)]
    lines, text, status = report(rows, GPU)
    assert status == 1
    assert "FAILED kernels, bf16: RuntimeError: an illegal memory access was encountered" in text
    assert '"figure": "gpu_kernel_bytes_apart_pct"' in lines


def test_a_process_that_dies_leaves_the_rows_before_and_half_a_line_is_none() -> None:
    dies = 'import sys; open(sys.argv[2], \'w\').write(\'{"kind": "case"}\\n{"ki\'); sys.exit(9)'
    written, ended = of_process("kernels", [sys.executable, "-c", dies], {}, limit_seconds=60)
    assert written == {"kind": "case"}
    assert (ended["kind"], ended["error"]) == ("failure", "the process ended with status 9; its last words are above")


@pytest.mark.parametrize(
    ("row", "status"),
    [
        pytest.param(case(), 0, id="the reference's numbers"),
        pytest.param(case(levels=1.0), 0, id="a number between two levels may be either"),
        pytest.param(case(levels=2.0), 1, id="two levels apart is wrong"),
        pytest.param(case(spilled=1), 1, id="another request's block was written"),
        pytest.param({"part": "copies", "kind": "restored", "codec": "raw", "blocks": 9, "wrong": 1}, 1, id="a changed block"),
    ],
)
def test_what_is_wrong_is_a_failure_however_quick_it_is(row: Row, status: int) -> None:
    assert report([row], GPU)[2] == status


def test_a_dry_run_says_that_its_numbers_are_none() -> None:
    assert report([case()], Device(dry=True))[1].startswith("A dry run on a CPU: these numbers say nothing of any GPU.")


def test_rows_are_read_by_their_layout_alone() -> None:
    layer = torch.randn(3, 2, 8, 32, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(3, INT8.row_bytes(SHAPE), dtype=torch.uint8)
    index = torch.arange(3)
    INT8.encode(layer, index, SHAPE, 24, rows)
    found, step = numbers(rows, SHAPE)
    keys, values = layer[..., :16].transpose(2, 3).reshape(3, 2, -1), layer[..., 16:].reshape(3, 2, -1)
    assert ((found - torch.stack([keys, values], 2)).abs() <= 0.51 * step).all()


def test_a_block_that_was_not_filled_is_wrong() -> None:
    cache = {"l0": torch.randn(4, 2, 8, 32)}
    cache["l0"][2:] = cache["l0"][:2]
    cache["l0"][3, 1, 2, 5] = float("nan")
    store = Store(None, cache, SHAPE, {"raw": 1}, ())
    assert wrong_blocks(store, (0, 1), (2, 3), "raw") == 1
    assert wrong_blocks(store, (0, 1), (3, 2), "int8") == 2


@pytest.mark.parametrize(
    ("free_gib", "dry", "name"),
    [
        pytest.param(139, False, "8B", id="the shape that people serve"),
        pytest.param(12, False, "1B", id="a smaller one where that does not fit"),
        pytest.param(139, True, "tiny", id="a tiny one in a dry run"),
    ],
)
def test_the_decoder_is_the_largest_that_fits(free_gib: int, dry: bool, name: str) -> None:
    assert shape_for(free_gib * GIB, dry).name == name
