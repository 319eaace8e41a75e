"""The benchmark that needs a GPU, where there is none."""

import pytest
import torch

from tests.bench import gpu
from tests.bench.harness import Row, Settings

QUICK = Settings(quick=True, seeds=1, dataset=None)


def test_without_a_gpu_it_refuses_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"bench-gpu needs an NVIDIA GPU, and torch .* sees none on this machine"):
        next(gpu.measure(QUICK))


def test_a_runner_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER", "3")
    with pytest.raises(SystemExit, match="RUNNER=3 is no model runner of vLLM; use one of 1, 2"):
        next(gpu.measure(QUICK))


@pytest.mark.parametrize(
    ("free_gib", "name"),
    [pytest.param(80, "8B", id="a large GPU takes the shape that people serve"), pytest.param(16, "25M", id="a small one what fits")],
)
def test_the_model_that_decodes_is_the_largest_that_fits(free_gib: int, name: str) -> None:
    assert gpu.decoder(free_gib * gpu.GIB).name == name


def test_figures_are_shares_of_what_was_measured_beside_them() -> None:
    rows: list[Row] = [{"part": "kernels", "apart": 0.001}]
    rows += [{"part": "exactness", "diverged": 0, "stuck": 0, "leaked": 0, "preemptions": 100, "exact": 97}]
    for codec in ("raw", "int8"):
        rows.append({"part": "copies", "codec": codec, "seconds": 0.010, "pcie_seconds": 0.009})
        rows += [
            {
                "part": "decoding",
                "model": "8B",
                "codec": codec,
                "swapping": swaps,
                "seconds": 0.020 + 0.0004 * swaps,
                "issue_seconds": 0.0003,
            }
            for swaps in (False, True)
        ]
    values = {figure.name: figure.value for figure in gpu.figures(rows, QUICK)}
    assert values["gpu_round_trip_int8_pcie_fraction"] == pytest.approx(0.9)
    assert values["gpu_decode_slowdown_raw_pct"] == pytest.approx(2.0)
    assert values["gpu_copy_issue_raw_ms"] == pytest.approx(0.3)
    assert values["gpu_exact_resume_share"] == pytest.approx(0.97)
