"""How long each step of an emulated device lasts, and when its result is ready. Pure: no clock, no vLLM.

The device has two queues, as a GPU has two streams: one computes steps, one moves KV over the link to host memory.

    step begins        when it was submitted, the step before it has ended, and the copies beside that one have ended
    copies it needs    come first: blocks that other requests get in this step, and KV that it computes with
    copies beside it   run on the link while it computes, and the next step waits for them

So a step that is submitted while the one before it runs starts the moment that one ends, and the host's work overlaps with the device's.
`executor.py` and `worker.py` call it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

# What a launcher puts into the engine's environment: the device; files for its tally, and for a line per request with its extra arguments.
DEVICE_ENV: Final = "ALISE_EMULATED_DEVICE"
TALLY_ENV: Final = "ALISE_EMULATED_TALLY"
LOG_ENV: Final = "ALISE_EMULATED_LOG"
# A step is late when the device stood idle for more than this share of the step's own time while it had requests to decode.
LATE_SHARE: Final = 0.05


class DeviceError(Exception):
    """The device cannot be emulated; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Device:
    """What is emulated, in the device's own seconds; `time_scale` wall seconds pass for each of them."""

    name: str
    step_seconds: float
    prefill_seconds: float
    decode_seconds: float
    context_seconds: float
    # The sum over all layers and workers, in as many bits as the KV cache has.
    kv_token_bytes: int
    room_tokens: int
    to_host_bytes_per_second: float
    from_host_bytes_per_second: float
    kv_bits: int = 16
    time_scale: float = 1.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def device_from(environ: Mapping[str, str]) -> Device:
    """Reads the device that a launcher put into the environment. Raises DeviceError."""
    text = environ.get(DEVICE_ENV, "")
    try:
        return Device(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise DeviceError(f"{DEVICE_ENV} is {text!r}, which is no device ({error}): start with tests.emulated.launch") from error


@dataclass(frozen=True, slots=True)
class Work:
    """What one step does."""

    prefill_tokens: int = 0
    decode_requests: int = 0
    # Tokens that its requests have computed when it ends.
    context_tokens: int = 0
    # The device's seconds of copies over the link, before the step and beside it.
    copies_before: float = 0.0
    copies_beside: float = 0.0

    @property
    def computes(self) -> bool:
        return self.prefill_tokens > 0 or self.decode_requests > 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """Wall seconds at which the device has computed, and the link has moved, all that was submitted."""

    computed_at: float = 0.0
    moved_at: float = 0.0

    @property
    def idle_from(self) -> float:
        return max(self.computed_at, self.moved_at)


def step_seconds(device: Device, work: Work) -> float:
    """Returns the wall seconds that the device computes for a step."""
    if not work.computes:
        return 0.0
    seconds = (
        device.step_seconds
        + device.prefill_seconds * work.prefill_tokens
        + device.decode_seconds * work.decode_requests
        + device.context_seconds * work.context_tokens
    )
    return seconds * device.time_scale


def submitted(timeline: Timeline, device: Device, work: Work, now: float) -> Timeline:
    """Returns the timeline with one more step; the step's result is ready at its `computed_at`."""
    begins = max(now, timeline.idle_from) + work.copies_before * device.time_scale
    return Timeline(begins + step_seconds(device, work), begins + work.copies_beside * device.time_scale)


@dataclass(frozen=True, slots=True)
class Tally:
    """How well the host kept the device busy, in wall seconds."""

    steps: int = 0
    busy_seconds: float = 0.0
    late_steps: int = 0
    # The device stood idle although requests were decoding.
    late_seconds: float = 0.0

    def step(self, seconds: float, idle_seconds: float) -> "Tally":
        """Counts a step that took `seconds` and before which the device stood idle."""
        late = idle_seconds > LATE_SHARE * seconds
        return replace(
            self,
            steps=self.steps + 1,
            busy_seconds=self.busy_seconds + seconds,
            late_steps=self.late_steps + late,
            late_seconds=self.late_seconds + (idle_seconds if late else 0.0),
        )

    def since(self, before: "Tally") -> "Tally":
        """Returns what was counted after `before`."""
        return Tally(
            self.steps - before.steps,
            self.busy_seconds - before.busy_seconds,
            self.late_steps - before.late_steps,
            self.late_seconds - before.late_seconds,
        )


def tally_in(path: Path) -> Tally:
    """Returns what the device wrote last; nothing counted before it wrote anything."""
    return Tally(**json.loads(path.read_text())) if path.exists() else Tally()
