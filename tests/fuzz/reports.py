"""Bytes in place of WatchResponse messages: the sidecar takes them in, and what it plans is sound. `targets.py` lists it."""

from typing import Final

from google.protobuf.message import DecodeError

from alise_contract.names import pack_priority
from alise_contract.v1 import engine_control_pb2 as pb
from alise_scheduler.core.lengths import PRIOR
from alise_scheduler.core.reports import EngineSnapshot, EngineUpdate
from alise_scheduler.engine.convert import from_response
from alise_scheduler.predictor.hint import Hint, encode
from alise_scheduler.state import State
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader, block
from tests.fuzz.scheduling import CLASSES, HINT_KEY, check_decision, fresh_state

MAX_MESSAGES: Final = 6
_SECONDS: Final = (0.0, 0.05, 1.0, 3600.0)


def target(data: bytes) -> None:
    """Several messages, each with its length before it; the first byte says how much time passes between them."""
    reader = Reader(data)
    step_seconds = _SECONDS[reader.byte() % len(_SECONDS)]
    state = fresh_state()
    for number, part in enumerate(reader.blocks(MAX_MESSAGES)):
        try:
            event = from_response(pb.WatchResponse.FromString(part))
        except DecodeError:
            continue
        at = 100.0 + number * step_seconds
        match event:
            case EngineSnapshot():
                state.snapshot(event, at)
            case EngineUpdate():
                state.update(event, at)
        state.expire(at)
        _check_weights(state)
        check_decision(state, at)


def _check_weights(state: State) -> None:
    most = max(rule.weight for rule in CLASSES.values())
    for job in state.book.in_order():
        expect(0 < job.weight <= most, f"job {job.id!r} has weight {job.weight}, above every class's")


def seeds() -> list[bytes]:
    hint = encode(Hint(PRIOR, 64.0, "gold", "team-a"), HINT_KEY, "job-1")
    shape = pb.EngineShape(
        max_num_seqs=2, max_model_len=2048, block_size=32, num_device_blocks=64, block_bytes=4096, host_limit_bytes=1 << 20
    )
    waiting = pb.EngineRequest(request_id="r1", job_id="job-1", phase=pb.PHASE_WAITING, prompt_tokens=9, max_tokens=16, hint=hint)
    running = pb.EngineRequest(
        request_id="r1",
        job_id="job-1",
        phase=pb.PHASE_RUNNING,
        prompt_tokens=9,
        generated_tokens=4,
        device_tokens=12,
        age_ms=40,
        phase_ms=9,
    )
    parked = pb.EngineRequest(request_id="r2", phase=pb.PHASE_OFFLOADED, host_tokens=64, host_bytes=8192, priority=pack_priority(-128, 0))
    ended = pb.Finished(
        request_id="r1", job_id="job-1", reason=pb.FINISH_REASON_STOP, prompt_tokens=9, generated_tokens=7, age_ms=90, ttft_ms=8
    )
    step = pb.Step(duration_us=9000, prefill_tokens=9, decode_requests=1, context_tokens=21)
    opening = pb.WatchResponse(sequence=1, snapshot=pb.Snapshot(boot_id="b", session_id="s", engine=shape, requests=[waiting, parked]))
    again = pb.WatchResponse(sequence=1, snapshot=pb.Snapshot(boot_id="b2", session_id="s2", engine=shape, draining=True))
    update = pb.WatchResponse(
        sequence=2, update=pb.Update(requests=[running], steps=[step] * 3, counters=pb.Counters(free_device_blocks=9))
    )
    end = pb.WatchResponse(sequence=3, update=pb.Update(finished=[ended]))
    absurd = pb.EngineRequest(
        request_id="x" * 300, job_id="y" * 99, phase=pb.PHASE_RUNNING, prompt_tokens=2**32 - 1, generated_tokens=2**32 - 1,
        device_tokens=2**32 - 1, host_tokens=2**32 - 1, host_bytes=2**64 - 1, max_tokens=2**32 - 1, preemptions=2**32 - 1,
        priority=-(2**63), age_ms=2**64 - 1, phase_ms=2**64 - 1, hint=b"h" * 4000,
    )  # fmt: skip
    no_shape = pb.WatchResponse(sequence=1, snapshot=pb.Snapshot(boot_id="b", requests=[absurd, absurd]))
    back = pb.WatchResponse(sequence=4, update=pb.Update(requests=[waiting]))

    def messages(*parts: pb.WatchResponse, pace: int = 1) -> bytes:
        return bytes([pace]) + b"".join(block(part.SerializeToString()) for part in parts)

    return [
        messages(opening, update, end),
        messages(opening, update, again, update, pace=2),
        messages(opening, update, back),
        messages(no_shape, end, pace=3),
        messages(update, end, pace=0),
    ]
