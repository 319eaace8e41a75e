"""Profiles of hardware: what is in the committed file, and how it is derived."""

import json
from dataclasses import asdict

import pytest

from alise_scheduler.core.exec_time import Coefficients
from alise_simulator.hardware import DEFAULT_HARDWARE, HARDWARE, engine_model
from alise_simulator.model import EngineModel
from tests.tools import hardware as tool

MEASURED = [name for name, hardware in HARDWARE.items() if hardware.kv16.fit_error]
DERIVED = {**tool.TABLES, "v100-opt-13b": tool._V100}


def test_the_profiles_that_others_name_are_there() -> None:
    assert {
        "slots32", "h100-qwen3-32b", "a100-qwen3-8b", "h200-qwen3-8b", "h100x4-llama-70b", "rtx4090-llama-8b", "l40s-llama-8b",
        "v100-opt-13b",
    } == set(HARDWARE)  # fmt: skip
    assert DEFAULT_HARDWARE in HARDWARE


def test_the_profile_slots32_is_the_engine_without_a_device() -> None:
    mine, default = engine_model("slots32"), EngineModel()
    assert asdict(mine) | {"shape": asdict(mine.shape) | {"model": ""}} == asdict(default)


@pytest.mark.parametrize("name", MEASURED)
def test_the_step_model_is_within_5_percent_of_its_source(name: str) -> None:
    hardware = HARDWARE[name]
    assert 0 < hardware.kv16.fit_error < 0.05
    assert 0 < hardware.kv8.fit_error < 0.05


@pytest.mark.parametrize("name", [name for name in HARDWARE if name not in MEASURED])
def test_a_profile_that_was_not_measured_says_so(name: str) -> None:
    assert any(word in HARDWARE[name].source for word in ("derived", "chosen by hand"))


@pytest.mark.parametrize("name", HARDWARE)
def test_every_profile_can_serve_its_longest_request(name: str) -> None:
    for bits in (16, 8):
        shape = engine_model(name, bits).shape
        assert shape.max_model_len <= shape.num_device_blocks * shape.block_size - shape.block_size
        assert shape.block_bytes * shape.num_device_blocks > 0


@pytest.mark.parametrize("name", HARDWARE)
def test_8_bits_hold_twice_the_tokens_in_the_same_memory(name: str) -> None:
    hardware = HARDWARE[name]
    assert hardware.kv8.room_tokens == 2 * hardware.kv16.room_tokens
    assert hardware.kv8.token_bytes * 2 == hardware.kv16.token_bytes


@pytest.mark.parametrize("name", DERIVED)
def test_rooms_and_vllms_defaults_are_derived_from_the_device(name: str) -> None:
    hardware, wanted = HARDWARE[name], DERIVED[name]
    assert (hardware.slots, hardware.max_num_batched_tokens) == tool.defaults(wanted.device)
    assert (hardware.kv16.room_tokens, hardware.room) == tool.room_of(wanted)


def test_the_derivation_gives_the_room_that_a_real_engine_had() -> None:
    published = HARDWARE["rtx4090-llama-8b"].kv16.room_tokens
    assert tool.room_of(tool._RTX_4090)[0] == pytest.approx(published, rel=0.01)


def test_the_fit_finds_a_linear_engine_again() -> None:
    step = Coefficients(0.02, 5e-5, 3e-5, 1e-7)
    steps = tool.points(tool.TABLES["l40s-llama-8b"], 100_000)
    took = [1000 * step.step(chunk, n, n * (context + 1) + min(chunk, context)) for chunk, n, context in steps]
    found, error, _ = tool.fit(steps, took)
    assert json.loads(json.dumps(asdict(found))) == pytest.approx(asdict(step), rel=0.01)
    assert error < 0.001


@pytest.mark.parametrize(
    ("name", "bits", "says"),
    [
        pytest.param("abacus", 16, "no hardware 'abacus'; there are slots32, h100-qwen3-32b", id="unknown hardware"),
        pytest.param("slots32", 4, "KV of 4 bits is not modelled; there are 16 and 8", id="unknown precision"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(name: str, bits: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        engine_model(name, bits)
