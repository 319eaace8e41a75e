"""The user's flags as vLLM's own parser reads them: whatever the spelling, a conflict is seen."""

import os
from pathlib import Path
from typing import Any

import pytest

from alise_engine.serve.cli import given_flags, memory_bytes

pytestmark = pytest.mark.engine

SPELLINGS = [
    pytest.param([], {}, id="nothing is given"),
    pytest.param(["--max-model-len", "64"], {}, id="a flag that does not matter here"),
    pytest.param(["--scheduler_cls", "x.Y"], {"scheduler_cls": "x.Y"}, id="underscores"),
    pytest.param(["--scheduler-c=x.Y"], {"scheduler_cls": "x.Y"}, id="an abbreviation"),
    pytest.param(["-dp", "2", "-asc", "3"], {"data_parallel_size": 2, "api_server_count": 3}, id="short names"),
    pytest.param(["--speculative-config.method", "ngram"], {"speculative_config": {"method": "ngram"}}, id="a dotted name"),
    pytest.param(["--no-enforce-eager"], {"enforce_eager": False}, id="a negation"),
    pytest.param(["--block-size", "64"], {"block_size": 64}, id="a number"),
]


@pytest.mark.parametrize(("argv", "given"), SPELLINGS)
def test_a_flag_is_seen_in_every_spelling(argv: list[str], given: dict[str, Any]) -> None:
    assert given_flags(["tiny", *argv]) == given


def test_a_flag_in_a_configuration_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data-parallel-size: 2\nkv-cache-dtype: fp8\n")
    assert given_flags(["tiny", "--config", str(tmp_path / "config.yaml")]) == {"data_parallel_size": 2, "kv_cache_dtype": "fp8"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        pytest.param({"memory.max": "1073741824\n"}, 1 << 30, id="a container's limit"),
        pytest.param({"memory/memory.limit_in_bytes": "536870912\n"}, 1 << 29, id="one of the first version of cgroups"),
        pytest.param({"memory.max": "max\n"}, None, id="a container without a limit"),
        pytest.param({"memory.max": f"{2**62}\n"}, None, id="a limit above what the machine has"),
        pytest.param({}, None, id="no cgroups"),
    ],
)
def test_the_memory_of_the_container_is_its_limit_or_the_machines(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_bytes(tmp_path) == (limit or machine)
