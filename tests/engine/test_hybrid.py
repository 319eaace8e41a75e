"""A model that mixes full and sliding-window attention, as gpt-oss and Gemma do: served without a host store, refused with one (A23)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire.calls import LimitsRow, RankRow
from tests.engine.harness import BLOCK_SIZE, Engine, EngineOptions

pytestmark = pytest.mark.engine

WINDOW = 64
LAYER_TYPES = ["sliding_attention", "full_attention"] * (tiny_model.LAYERS // 2)
HYBRID = {"sliding_window": WINDOW, "layer_types": LAYER_TYPES}
STORY = list(b"Once upon a time there was a scheduler that let the short ones pass, and no request waited for long. " * 3)
TOKENS = 200


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = tiny_model.write_model(tmp_path_factory.mktemp("models") / "tiny")
    engine = Engine(model, EngineOptions(host_bytes=0, hf_overrides=HYBRID, prefix_caching=True, blocks=161))
    yield engine
    engine.close()


def test_there_are_two_kinds_of_kv_cache(engine: Engine) -> None:
    config = engine.scheduler.kv_cache_config
    assert sorted(type(group.kv_cache_spec).__name__ for group in config.kv_cache_groups) == ["FullAttentionSpec", "SlidingWindowSpec"]
    shape = engine.snapshot().shape
    assert (shape.num_device_blocks, shape.host_limit_bytes) == (config.num_blocks // 2, 0)
    assert engine.counters().free_device_blocks <= shape.num_device_blocks


def test_a_preempted_answer_is_recomputed_and_is_the_same(engine: Engine) -> None:
    undisturbed = engine.ask(STORY, TOKENS, job="first")
    engine.finish(undisturbed)
    engine.llm.reset_prefix_cache()
    name = engine.ask(STORY, TOKENS, job="story")
    engine.run_until(engine.grown(name, 3 * WINDOW // 2))
    engine.crowd.displace("story")
    engine.step()
    assert "story" not in engine.running_jobs()
    engine.crowd.readmit("story")
    engine.finish(name)
    assert engine.tokens(name) == engine.tokens(undisturbed)
    counters = engine.counters()
    assert (counters.recomputes, counters.saves) == (1, 0)


def test_the_better_ranked_take_the_place_of_the_others(engine: Engine) -> None:
    """Slots are short, and blocks of both kinds are counted."""
    engine.fresh()
    long = [engine.ask(STORY, TOKENS, job=f"long-{index}") for index in range(2)]
    engine.run_until(engine.grown(long[1], BLOCK_SIZE))
    short = engine.ask(STORY[:50], 5, job="short")
    worse = [RankRow(f"long-{index}", 100, 0, 0) for index in range(2)]
    engine.apply(RankRow("short", 0, 0, 0), *worse, limits=LimitsRow(preempt_levels=8))
    engine.step(2)
    assert "short" in engine.running_jobs()
    engine.finish(short, *long)
    assert engine.counters().preemptions_rank == 1
    assert engine.tokens(long[0]) == engine.tokens(long[1])


def test_with_a_host_store_it_is_refused_in_words_before_the_weights_are_loaded(tmp_path: Path) -> None:
    model = tiny_model.write_model(tmp_path / "tiny")
    (model / "model.safetensors").unlink()
    overrides = f'--hf-overrides={{"sliding_window": {WINDOW}, "layer_types": {LAYER_TYPES}}}'.replace("'", '"')
    command = [sys.executable, "-m", "alise_engine.serve.cli", "serve", str(model), overrides, "--max-model-len", "1024"]
    environ = {**os.environ, "ALISE_SOCKET_DIR": str(tmp_path / "run")}
    done = subprocess.run([*command, "--port", "0"], env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "alise-engine: this model has sliding-window attention, and only KV caches of full attention can be kept on the host: "
        "set spec.kvOffload.hostMemory to 0 (--alise-host-memory 0); requests that are preempted are then recomputed"
    )
