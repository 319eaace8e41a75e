"""What the fuzz targets check holds for real messages, for variations of them, and for 20 s of inputs that a fuzzer finds."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.run import Outcome, fuzz
from tests.fuzz.targets import TARGETS, load

SECONDS = 20
# On two cores each has half of one; all of them take about a minute.
AT_ONCE = 4


@pytest.mark.parametrize("name", TARGETS)
def test_real_messages_and_hostile_ones_are_taken_as_they_should_be(name: str) -> None:
    target = load(TARGETS[name])
    for seed in target.seeds():
        target.target(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_so_are_variations_of_them(name: str) -> None:
    target = load(TARGETS[name])
    seeds = st.sampled_from(target.seeds())

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(seeds, seeds, st.floats(0, 1), st.floats(0, 1), st.binary(max_size=8))
    def varied(first: bytes, second: bytes, cut: float, joined: float, between: bytes) -> None:
        target.target(first[: int(cut * len(first))] + between + second[int(joined * len(second)) :])

    varied()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    found = fuzz(TARGETS, SECONDS, AT_ONCE, tmp_path_factory.mktemp("findings"))
    return {outcome.target: outcome for outcome in found}


@pytest.mark.engine
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_finds_nothing(outcomes: Mapping[str, Outcome], name: str) -> None:
    assert outcomes[name].findings == ()


@pytest.mark.engine
def test_a_fuzzer_that_a_large_process_starts_has_memory_of_its_own(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.fuzz.run import fuzz; held = b'x' * 2_500_000_000;"
        f"print([*fuzz({{'callers': 'tests.fuzz.callers'}}, 2, 1, Path({str(tmp_path)!r}))][0].findings)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["()"], done.stderr


@pytest.mark.engine
def test_a_fuzzer_finds_a_planted_mistake_and_keeps_its_input(tmp_path: Path) -> None:
    [outcome] = fuzz({"planted": "tests.fuzz.planted"}, 3, 1, tmp_path)
    [found] = outcome.findings
    assert (bytes.fromhex(found.input)[:3], Path(found.file).read_bytes()) == (b"ali", bytes.fromhex(found.input))
