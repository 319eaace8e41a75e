"""How long steps of an emulated device last, and when they begin."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.emulated.pacing import (
    DEVICE_ENV,
    Device,
    DeviceError,
    Tally,
    Timeline,
    Work,
    device_from,
    step_seconds,
    submitted,
    tally_in,
)

DEVICE = Device(
    "test",
    0.020,
    0.001,
    0.002,
    0.00001,
    kv_token_bytes=1000,
    room_tokens=3200,
    to_host_bytes_per_second=1e6,
    from_host_bytes_per_second=2e6,
)
DECODING = Work(decode_requests=5, context_tokens=1000)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        pytest.param(DECODING, 0.020 + 5 * 0.002 + 1000 * 0.00001, id="decoding requests and their context"),
        pytest.param(Work(prefill_tokens=100, context_tokens=100), 0.020 + 100 * 0.001 + 100 * 0.00001, id="a prompt"),
        pytest.param(Work(copies_before=5.0), 0.0, id="a step without tokens computes nothing"),
    ],
)
def test_a_step_lasts_as_long_as_its_work(work: Work, seconds: float) -> None:
    assert step_seconds(DEVICE, work) == pytest.approx(seconds)


def test_a_scale_stretches_steps_and_copies() -> None:
    slow = replace(DEVICE, time_scale=3.0)
    work = replace(DECODING, copies_before=1.0, copies_beside=2.0)
    quick, stretched = submitted(Timeline(), DEVICE, work, 0.0), submitted(Timeline(), slow, work, 0.0)
    assert (stretched.computed_at, stretched.moved_at) == pytest.approx((3 * quick.computed_at, 3 * quick.moved_at))


def test_a_step_that_is_submitted_while_another_runs_begins_when_that_one_ends() -> None:
    first = submitted(Timeline(), DEVICE, DECODING, 10.0)
    second = submitted(first, DEVICE, DECODING, 10.001)
    assert second.computed_at == pytest.approx(first.computed_at + step_seconds(DEVICE, DECODING))


def test_a_step_that_is_submitted_to_an_idle_device_begins_at_once() -> None:
    first = submitted(Timeline(), DEVICE, DECODING, 10.0)
    assert submitted(first, DEVICE, DECODING, 20.0).computed_at == pytest.approx(20.0 + step_seconds(DEVICE, DECODING))


def test_a_step_waits_for_the_copies_that_it_needs() -> None:
    assert submitted(Timeline(), DEVICE, replace(DECODING, copies_before=1.0), 0.0).computed_at == pytest.approx(
        1.0 + step_seconds(DEVICE, DECODING)
    )


def test_copies_beside_a_step_delay_the_next_one_alone() -> None:
    first = submitted(Timeline(), DEVICE, replace(DECODING, copies_beside=1.0), 0.0)
    assert first.computed_at == pytest.approx(step_seconds(DEVICE, DECODING))
    assert submitted(first, DEVICE, DECODING, 0.0).computed_at == pytest.approx(1.0 + step_seconds(DEVICE, DECODING))


def test_a_step_is_late_when_the_device_stood_idle_for_more_than_a_twentieth_of_it() -> None:
    tally = Tally().step(0.1, 0.004).step(0.1, 0.02)
    assert (tally.steps, tally.late_steps) == (2, 1)
    assert (tally.busy_seconds, tally.late_seconds) == pytest.approx((0.2, 0.02))


def test_what_was_counted_before_a_load_is_left_out() -> None:
    before = Tally().step(0.1, 0.0)
    since = before.step(0.25, 0.125).since(before)
    assert (since.steps, since.late_steps, since.late_seconds) == (1, 1, 0.125)
    assert since.busy_seconds == pytest.approx(0.25)


def test_the_device_goes_through_the_environment_whole() -> None:
    assert device_from({DEVICE_ENV: DEVICE.to_json()}) == DEVICE


@pytest.mark.parametrize("text", ["", "h100", "{}"], ids=repr)
def test_an_engine_that_was_not_launched_for_a_device_says_how(text: str) -> None:
    with pytest.raises(DeviceError, match=r"ALISE_EMULATED_DEVICE is .* start with tests.emulated.launch"):
        device_from({DEVICE_ENV: text})


def test_a_device_that_wrote_nothing_yet_has_counted_nothing(tmp_path: Path) -> None:
    assert tally_in(tmp_path / "tally.json") == Tally()
