"""The benchmark that needs a GPU, where there is none."""

import pytest
import torch

from tests.bench import gpu, gpu_vllm
from tests.bench.harness import Row, Settings

QUICK = Settings(quick=True, seeds=1, dataset=None)


def exactness(runner: str, diverged: int = 0) -> Row:
    return {
        "part": "exactness", "runner": runner, "kind": "measured", "diverged": diverged, "stuck": 0, "leaked": 0,
        "preemptions": 100, "exact": 97,
    }  # fmt: skip


def decoding(runner: str) -> list[Row]:
    return [
        {
            "part": "decoding", "runner": runner, "kind": "measured", "model": "8B", "codec": codec, "swapping": swaps,
            "seconds": 0.020 + 0.0004 * swaps, "issue_seconds": 0.0003,
        }
        for codec in gpu_vllm.CODECS for swaps in (False, True)
    ]  # fmt: skip


def test_without_a_gpu_it_refuses_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"bench-gpu needs an NVIDIA GPU, and torch .* sees none on this machine"):
        next(gpu.measure(QUICK))


def test_a_runner_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER", "3")
    with pytest.raises(SystemExit, match="RUNNER=3 is no model runner of vLLM; use one of 1, 2, or none for both"):
        next(gpu.measure(QUICK))


@pytest.mark.parametrize(
    ("free_gib", "name"),
    [pytest.param(80, "8B", id="a large GPU takes the shape that people serve"), pytest.param(16, "25M", id="a small one what fits")],
)
def test_the_model_that_decodes_is_the_largest_that_fits(free_gib: int, name: str) -> None:
    assert gpu_vllm.decoder(free_gib * gpu_vllm.GIB).name == name


def test_figures_are_shares_of_what_was_measured_beside_them() -> None:
    values = {figure.name: figure.value for figure in gpu.figures([exactness("1"), *decoding("1")], QUICK)}
    assert values["gpu_decode_slowdown_raw_pct"] == pytest.approx(2.0)
    assert values["gpu_copy_issue_raw_ms"] == pytest.approx(0.3)
    assert values["gpu_exact_resume_share"] == pytest.approx(0.97)


def test_each_model_runner_has_figures_of_its_own() -> None:
    values = {figure.name: figure.value for figure in gpu.figures([exactness("1"), exactness("2", diverged=3)], QUICK)}
    assert (values["gpu_divergences"], values["gpu_divergences_v2"]) == (0, 3)


def test_a_runner_that_ended_leaves_the_others_figures_and_is_named() -> None:
    ended: Row = {"part": "vllm", "runner": "2", "kind": "failure", "what": "model runner V2", "error": "the process ended with status 1"}
    rows = [exactness("1"), *decoding("1"), ended]
    assert "gpu_decode_step_ms" in {figure.name for figure in gpu.figures(rows, QUICK)}
    assert gpu.failures(rows, QUICK) == ["vllm, model runner V2: the process ended with status 1"]


def test_an_answer_that_changed_is_a_failure() -> None:
    assert gpu.failures([exactness("1", diverged=1)], QUICK) == ["gpu_divergences is 1, and it must be at most 0"]
