"""The loader on a real folder, with a table of adapters in place of vLLM's (test_served_adapters.py has the real one), and real files."""

import asyncio
import json
import math
import os
from pathlib import Path

import pytest

from alise_contract.adapters import FILE, MAX_MESSAGE_CHARS, Adapter, dump
from alise_engine.api import adapter_files
from alise_engine.api.adapter_loader import AdapterLoader
from alise_engine.api.adapters import FIRST_PAUSE_SECONDS, Row, State
from alise_engine.errors import AdapterError
from tests.engine.api_fakes import eventually

MAX_RANK = 16


class Table:
    """What clients can ask for. `refused`: the names that the engine cannot load; `broken`: those whose loading meets a bug."""

    def __init__(self) -> None:
        self.max_rank = MAX_RANK
        self.served: dict[str, Path] = {}
        self.refused: set[str] = set()
        self.broken: set[str] = set()

    async def serve(self, name: str, folder: Path) -> None:
        if name in self.broken:
            raise RuntimeError("a bug")
        if name in self.refused:
            raise AdapterError(f"the weights of {name}\nhave another shape " + "x" * 1000)
        self.served[name] = folder

    async def drop(self, name: str) -> None:
        del self.served[name]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def write_files(folder: Path, config: object = None) -> Path:
    """The files of an adapter, whose weights are looked at by vLLM alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / adapter_files.CONFIG_FILE).write_text(json.dumps({"r": 8} if config is None else config))
    (folder / adapter_files.WEIGHTS_FILE).touch()
    return folder


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The mounted ConfigMap."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / FILE).write_text(dump([]))
    return folder


@pytest.fixture
def loader(listed: Path, table: Table, clock: Clock) -> AdapterLoader:
    return AdapterLoader(listed, table, adapter_files.find, clock)


def write(listed: Path, *adapters: Adapter) -> None:
    (listed / "next").write_text(dump(adapters))
    os.replace(listed / "next", listed / FILE)


async def test_adapters_come_and_go_with_the_list(loader: AdapterLoader, listed: Path, table: Table, tmp_path: Path) -> None:
    support, legal = (Adapter(name, str(write_files(tmp_path / name))) for name in ("support", "legal"))
    write(listed, support, legal)
    await loader.first()
    assert table.served == {"support": tmp_path / "support", "legal": tmp_path / "legal"}
    write(listed, legal)
    await loader.turn()
    assert table.served == {"legal": tmp_path / "legal"}
    assert loader.rows() == [Row(legal, State.LOADED)]


async def test_one_that_cannot_be_loaded_is_reported_in_one_short_line_and_tried_again(
    loader: AdapterLoader, listed: Path, table: Table, clock: Clock, tmp_path: Path
) -> None:
    support = Adapter("support", str(write_files(tmp_path / "support")))
    table.refused = {"support"}
    write(listed, support)
    await loader.turn()
    (row,) = loader.rows()
    assert row.state is State.FAILED
    assert row.message.startswith("the weights of support have another shape")
    assert len(row.message) == MAX_MESSAGE_CHARS
    table.refused = set()
    await loader.turn()
    assert not table.served
    clock.seconds = FIRST_PAUSE_SECONDS
    await loader.turn()
    assert table.served.keys() == {"support"}


async def test_a_bug_with_one_adapter_keeps_neither_the_server_nor_the_other_adapters_from_starting(
    loader: AdapterLoader, listed: Path, table: Table, tmp_path: Path
) -> None:
    support, legal = (Adapter(name, str(write_files(tmp_path / name))) for name in ("support", "legal"))
    table.broken = {"support"}
    write(listed, support, legal)
    await loader.first()
    assert table.served.keys() == {"legal"}
    assert loader.rows() == [Row(legal, State.LOADED), Row(support, State.FAILED, "unexpected RuntimeError: a bug")]


async def test_a_download_that_hangs_keeps_no_adapter_served_that_is_taken_off_the_list(listed: Path, table: Table, tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def find(adapter: Adapter, max_rank: int) -> Path:
        if adapter.name == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return await adapter_files.find(adapter, max_rank)

    support, legal = (Adapter(name, str(write_files(tmp_path / name))) for name in ("support", "legal"))
    loader = AdapterLoader(listed, table, find, check_seconds=0.001)
    write(listed, support, Adapter("slow", "org/slow"))
    turning = asyncio.create_task(loader.turn())
    await eventually(lambda: "support" in table.served, "the first one is loaded")
    write(listed, Adapter("slow", "org/slow"))
    await eventually(lambda: "support" not in table.served, "it is dropped while the other one is downloaded")
    assert not turning.done()
    write(listed, legal)
    await turning
    assert (set(table.served), ended.is_set()) == ({"legal"}, True)


@pytest.mark.parametrize("text", ["", "no JSON", '[{"name": "x"}]'])
async def test_a_list_that_cannot_be_read_changes_nothing(
    loader: AdapterLoader, listed: Path, table: Table, tmp_path: Path, text: str
) -> None:
    write(listed, Adapter("support", str(write_files(tmp_path / "support"))))
    await loader.turn()
    (listed / FILE).write_text(text)
    await loader.turn()
    assert table.served.keys() == {"support"}


async def test_a_list_that_is_missing_serves_the_model_alone(loader: AdapterLoader, listed: Path, table: Table) -> None:
    (listed / FILE).unlink()
    await loader.first()
    assert (table.served, loader.rows()) == ({}, [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"r": 64}, "its rank is 64 and spec.model.lora.maxRank is 16; raise maxRank", id="a rank that is too high"),
        pytest.param({"r": 8, "rank_pattern": {"q_proj": 32}}, "its rank is 32", id="a rank of one matrix that is too high"),
        pytest.param({}, "adapter_config.json cannot be read", id="no rank"),
        pytest.param([], "adapter_config.json cannot be read", id="another shape"),
        pytest.param({"r": "many"}, "adapter_config.json cannot be read", id="a rank that is no number"),
        pytest.param({"r": math.inf}, "adapter_config.json cannot be read", id="a rank without bound"),
    ],
)
def test_a_configuration_that_cannot_be_served_is_named(tmp_path: Path, config: object, message: str) -> None:
    folder = write_files(tmp_path / "adapter", config)
    with pytest.raises(AdapterError, match=message):
        adapter_files.check(folder, MAX_RANK)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="nowhere does not exist in the engine's container"):
        adapter_files.check(tmp_path / "nowhere", MAX_RANK)


def test_weights_in_a_format_that_may_carry_code_are_not_loaded(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "adapter")
    (folder / adapter_files.WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"there is no adapter_model\.safetensors"):
        adapter_files.check(folder, MAX_RANK)


@pytest.mark.process
async def test_a_download_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(AdapterError, match="org/adapter cannot be downloaded: LocalEntryNotFoundError"):
        await adapter_files.find(Adapter("support", "org/adapter"), MAX_RANK)


@pytest.mark.process
async def test_a_download_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(AdapterError, match="org/adapter was not downloaded within 0 s"):
        await asyncio.wait_for(adapter_files.find(Adapter("support", "org/adapter"), MAX_RANK, download_seconds=0.0), 30)
