"""A real engine on an emulated device: with alise a preempted answer goes on as stock vLLM gives it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from alise_engine.wire.calls import LimitsRow, RankRow
from tests.emulated import lengths, model
from tests.emulated.pacing import DEVICE_ENV, Device
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

# 64 KiB of KV a token: 16 layers of 8 heads.
TOKEN_BYTES = 16 * 4096
DEVICE = Device(
    "quick", 1e-4, 1e-6, 1e-6, 0.0, TOKEN_BYTES, room_tokens=64 * 32, to_host_bytes_per_second=10e9, from_host_bytes_per_second=10e9
)
PROMPTS = {"story": list(range(1000, 1040)), "poem": list(range(2000, 2025))}
TOKENS = 120
# A prompt whose answer's length is in the file of lengths.
LETTER, LETTER_TOKENS = list(range(3000, 3030)), 17


def options(stock: bool, blocks: int) -> EngineOptions:
    return EngineOptions(
        dtype="float16", executor="tests.emulated.executor.EmulatedExecutor", stock=stock, blocks=blocks, max_num_seqs=4, max_model_len=256
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    patch = pytest.MonkeyPatch()
    patch.setenv(DEVICE_ENV, DEVICE.to_json())
    known = tmp_path_factory.mktemp("emulated") / "lengths.json"
    known.write_text(json.dumps({lengths.key(LETTER): LETTER_TOKENS}))
    patch.setenv(lengths.LENGTHS_ENV, str(known))
    yield model.folder()
    patch.undo()


@pytest.fixture(scope="module")
def stock(folder: Path) -> Iterator[dict[str, list[int]]]:
    """Answers of vLLM as it is."""
    engine = Engine(folder, options(stock=True, blocks=64))
    names = {job: engine.ask(prompt, TOKENS) for job, prompt in PROMPTS.items()}
    engine.finish(*names.values())
    yield {job: list(engine.tokens(name)) for job, name in names.items()}
    engine.close()


@pytest.fixture(scope="module")
def alise(folder: Path) -> Iterator[Engine]:
    # Fewer than both answers need at their end.
    engine = Engine(folder, options(stock=False, blocks=9))
    yield engine
    engine.close()


def test_it_schedules_while_the_device_computes(alise: Engine) -> None:
    assert alise.core.batch_queue_size == 2


def test_an_answer_ends_where_the_data_sets_answer_did(alise: Engine) -> None:
    engine = alise.fresh()
    name = engine.ask(LETTER, TOKENS, ignore_eos=False)
    engine.finish(name)
    assert len(engine.tokens(name)) == LETTER_TOKENS


def test_an_answer_that_was_preempted_goes_on_as_stock_gives_it(alise: Engine, stock: dict[str, list[int]]) -> None:
    engine = alise.fresh()
    name = engine.ask(PROMPTS["story"], TOKENS, job="story")
    for tokens in (1, 20, 70):
        engine.run_until(engine.grown(name, tokens))
        engine.crowd.displace("story")
        engine.step(4)
        engine.crowd.readmit("story")
    engine.finish(name)
    counters = engine.counters()
    assert engine.tokens(name) == stock["story"]
    assert (counters.preemptions_rank, counters.exact_resumes, counters.recomputes) == (3, 3, 0)


def test_answers_that_take_turns_go_on_as_stock_gives_them(alise: Engine, stock: dict[str, list[int]]) -> None:
    engine = alise.fresh()
    names = {job: engine.ask(prompt, TOKENS, job=job) for job, prompt in PROMPTS.items()}
    with engine.slots(1):
        for turn in range(12):
            engine.step(7)
            engine.apply(RankRow("story", 1 - turn % 2, 0, 0), RankRow("poem", turn % 2, 0, 0), limits=LimitsRow(1, 2))
    engine.finish(*names.values())
    assert {job: engine.tokens(name) for job, name in names.items()} == stock


def test_answers_for_which_memory_is_short_go_on_as_stock_gives_them(alise: Engine, stock: dict[str, list[int]]) -> None:
    engine = alise.fresh()
    names = {job: engine.ask(prompt, TOKENS, job=job) for job, prompt in PROMPTS.items()}
    engine.finish(*names.values())
    counters = engine.counters()
    assert {job: engine.tokens(name) for job, name in names.items()} == stock
    assert counters.preemptions_memory > 0
    assert counters.recomputes == 0


def test_a_copy_takes_the_links_time_for_the_devices_bytes(alise: Engine) -> None:
    engine = alise.fresh()
    before = engine.counters()
    name = engine.ask(PROMPTS["story"], TOKENS, job="story")
    engine.run_until(engine.grown(name, 5))
    engine.crowd.displace("story")
    engine.step(4)
    engine.crowd.readmit("story")
    engine.finish(name)
    after = engine.counters()
    # 45 tokens and a few: two blocks.
    assert after.saved_bytes - before.saved_bytes == 2 * 32 * TOKEN_BYTES
    assert after.save_us - before.save_us == pytest.approx(1e6 * 2 * 32 * TOKEN_BYTES / 10e9, abs=2)
