"""Bytes in place of a hint: never believed unless signed for this job, and never an error even if they are. `targets.py` lists it."""

import math
from typing import Final

from alise_contract.names import MAX_HINT_BYTES
from alise_contract.pod_key import MAC_BYTES, derived, mac
from alise_scheduler.core.lengths import PRIOR
from alise_scheduler.predictor.hint import Hint, decode, encode
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader

_KEY: Final = derived(b"p" * 32, "hint")
_JOB: Final = "0" * 32
_HONEST: Final = encode(Hint(PRIOR, 4.0, "gold", "team-a"), _KEY, _JOB)
_MAX_WEIGHT: Final = 64


def target(data: bytes) -> None:
    reader = Reader(data)
    mode, job_id = reader.byte() % 3, reader.text()
    given = reader.rest()
    match mode:
        case 0:
            # As a client writes one.
            hint = decode(given, _KEY, job_id)
            expect(hint is None or (given == _HONEST and job_id == _JOB), "an unsigned hint was believed")
        case 1:
            # Another job's hint, with some bytes exchanged.
            place = reader_place(given)
            changed = _HONEST[:place] + given[2:] + _HONEST[place + len(given[2:]) :]
            hint = decode(changed, _KEY, job_id or _JOB)
            expect(hint is None or (changed == _HONEST and (job_id or _JOB) == _JOB), "an honest hint could be changed")
        case _:
            # What the parser does with it once it is signed.
            name = job_id.encode("utf-8", "surrogatepass")
            hint = decode(given + mac(_KEY, name, given), _KEY, job_id)
            _check(hint, job_id)


def reader_place(given: bytes) -> int:
    """Returns where the bytes go: the first two say it."""
    return int.from_bytes(given[:2], "little") % (len(_HONEST) + 1)


def _check(hint: Hint | None, job_id: str) -> None:
    if hint is None:
        return
    expect(all(math.isfinite(tokens) and tokens > 0 for tokens in hint.lengths.tokens), f"lengths that no answer has: {hint.lengths}")
    expect(0 < hint.weight <= _MAX_WEIGHT, f"a weight of {hint.weight}")
    again = encode(hint, _KEY, job_id)
    expect(len(again) <= MAX_HINT_BYTES, f"{len(again)} bytes")
    once_more = decode(again, _KEY, job_id)
    expect(once_more is not None and once_more == hint, "a hint does not survive being written again")


def seeds() -> list[bytes]:
    job = len(_JOB).to_bytes(2, "little") + _JOB.encode()
    body = _HONEST[:-MAC_BYTES]
    return [
        bytes([0]) + job + _HONEST,
        bytes([0]) + job + _HONEST[:-1],
        bytes([0]) + job,
        bytes([0]) + bytes([1, 0]) + b"x" + _HONEST,
        bytes([0]) + job + b"x" * 2000,
        bytes([1]) + job + bytes([44, 0]) + b"\x00\x00\x80\x42",
        bytes([2]) + job + body,
        bytes([2]) + job + body[:-1],
        bytes([2]) + job + body.replace(b"gold", b"\xff\xfe\xfd\xfc"),
        bytes([2]) + job + encode(Hint(PRIOR, 1.0, "gold", "€" * 300), _KEY, _JOB)[:-MAC_BYTES],
    ]
