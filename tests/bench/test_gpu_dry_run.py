"""The script for a GPU without vLLM, run on a CPU from beginning to end, with vLLM and gRPC out of reach."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.harness import ROOT, Row
from tests.engine.triton_folder import triton_folder

pytestmark = pytest.mark.process

# A module that Python imports at the start of every process: whatever these packages are asked for, it is not there.
OUT_OF_REACH = """
import sys
class OutOfReach:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vllm", "grpc", "google"):
            raise ModuleNotFoundError(f"No module named {name!r}: it is out of reach in this test")
sys.meta_path.insert(0, OutOfReach())
"""


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    said: str
    folder: Path

    def rows(self) -> list[Row]:
        return [json.loads(line) for line in (self.folder / "rows.jsonl").read_text().splitlines()]


def ran(folder: Path, *arguments: str, paths: tuple[Path, ...] = ()) -> Ran:
    (folder / "sitecustomize.py").write_text(OUT_OF_REACH)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [folder, *paths]))}
    command = [sys.executable, str(ROOT / "tests/bench/gpu_standalone"), "--out", str(folder / "out"), *arguments]
    # Started from anywhere: the checkout is found by the script's own place.
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=400, check=False)
    return Ran(done.returncode, done.stdout, folder / "out")


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran(tmp_path_factory.mktemp("dry"), "--dry-run", paths=(triton_folder(),))


def test_all_parts_run_without_a_failure(dry_run: Ran) -> None:
    assert [row for row in dry_run.rows() if row["kind"] == "failure"] == []
    assert dry_run.status == 0


def test_every_figure_is_a_json_line(dry_run: Ran) -> None:
    found = [json.loads(line) for line in dry_run.said.splitlines() if line.startswith("{")]
    names = {line["figure"] for line in found if "figure" in line}
    for expected in ("gpu_kernel_levels_apart", "gpu_round_trip_int8_32_pcie_fraction", "gpu_plain_slowdown_raw_both_dry_pct"):
        assert expected in names


def test_nothing_of_vllm_and_grpc_is_imported(dry_run: Ran) -> None:
    loaded = [row for row in dry_run.rows() if row["kind"] == "loaded"]
    assert [(row["part"], row["modules"]) for row in loaded] == [("kernels", []), ("copies", []), ("decoding", [])]


def test_what_is_restored_is_what_was_saved(dry_run: Ran) -> None:
    restored = [row for row in dry_run.rows() if row["kind"] == "restored"]
    assert {(row["codec"], row["wrong"]) for row in restored} == {("raw", 0), ("int8", 0)}


def test_without_a_gpu_it_stops_at_the_first_part(tmp_path: Path) -> None:
    outcome = ran(tmp_path, paths=(triton_folder(),))
    assert outcome.status == 3
    assert outcome.said == ""
