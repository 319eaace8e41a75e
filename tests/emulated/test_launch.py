"""Which device is served, and the engine's settings for it."""

import re

import pytest

from tests.emulated.launch import emulation_from
from tests.emulated.pacing import DeviceError, device_from


def flag(flags: list[str], name: str) -> str:
    return flags[flags.index(name) + 1]


def test_a_device_is_known_by_its_profiles_name() -> None:
    emulation = emulation_from("h100-qwen3-32b")
    assert (emulation.device.name, emulation.device.kv_token_bytes, emulation.device.time_scale) == ("h100-qwen3-32b", 262_144, 1.0)


def test_kv_in_eight_bits_has_about_twice_the_room() -> None:
    sixteen, eight = emulation_from("h100-qwen3-32b"), emulation_from("h100-qwen3-32b:8bit")
    assert (sixteen.device.kv_bits, eight.device.kv_bits) == (16, 8)
    assert eight.device.room_tokens > 1.8 * sixteen.device.room_tokens


def test_the_longest_request_fits_beside_the_block_that_vllm_keeps() -> None:
    emulation = emulation_from("h100-qwen3-32b")
    assert int(flag(emulation.flags(), "--max-model-len")) <= emulation.device.room_tokens - 32


def test_the_engine_reads_the_device_that_was_asked_for() -> None:
    emulation = emulation_from("a100-qwen3-8b", "2.5")
    environ = emulation.environ({"PYTHONPATH": "/mine", "ALISE_LOG": "debug"})
    assert device_from(environ) == emulation.device
    assert environ["PYTHONPATH"].endswith(":/mine")
    assert (environ["ALISE_ADMIT_DEADLINE_MS"], environ["ALISE_LOG"]) == ("125", "debug")


@pytest.mark.parametrize("name", ["h100", "8bit", ":8bit", "h100-qwen3-32b:4bit"])
def test_a_device_that_there_is_not_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(DeviceError, match=f"DEVICE={re.escape(name)}: .*there are slots32, h100-qwen3-32b"):
        emulation_from(name)


@pytest.mark.parametrize("scale", ["0", "-1", "twice", "nan", "1e9"])
def test_a_scale_that_is_none_is_refused(scale: str) -> None:
    with pytest.raises(DeviceError, match=f"TIME_SCALE={scale}: expected a number"):
        emulation_from("h100-qwen3-32b", scale)
