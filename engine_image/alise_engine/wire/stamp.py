"""The stamp that the API server writes into an engine request, and that the scheduler in EngineCore reads: job, priority and hint.

It is signed with a key that is derived from the pod's key. The scheduler trusts only stamps with a valid signature, so neither a value that
a client sent under these names nor a request that bypassed the middleware counts. `api/stamping.py` signs with it, and
`enginecore/scheduler.py` reads with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import (
    HINT_XARG,
    JOB_XARG,
    MAX_HINT_BYTES,
    MAX_JOB_ID_CHARS,
    MAX_LEVEL,
    MIN_LEVEL,
    NEUTRAL_LEVEL,
    STAMP_XARG,
    XARG_PREFIX,
    pack_priority,
    unpack_priority,
)
from alise_contract.pod_key import derived, is_mac, mac

NEUTRAL_PRIORITY: Final = pack_priority(NEUTRAL_LEVEL, 0)
# Base64 takes four characters for three bytes.
_MAX_HINT_CHARS: Final = (MAX_HINT_BYTES + 2) // 3 * 4


@dataclass(frozen=True, slots=True)
class Stamp:
    """What admission decided about a job."""

    job_id: str
    priority: int
    # Base64; empty: none.
    hint: str = ""


def stamp_key(pod_key: bytes) -> bytes:
    """Returns the key that signs stamps."""
    return derived(pod_key, "stamp")


def stamped_args(extra_args: Mapping[str, Any] | None, stamp: Stamp | None, key: bytes) -> dict[str, Any]:
    """Returns an engine request's extra arguments with the stamp; what a client sent under its keys is gone."""
    foreign = {name: value for name, value in (extra_args or {}).items() if not str(name).startswith(XARG_PREFIX)}
    if stamp is None:
        return foreign
    hint = {HINT_XARG: stamp.hint} if stamp.hint else {}
    return {**foreign, JOB_XARG: stamp.job_id, **hint, STAMP_XARG: f"{stamp.priority}.{_signature(stamp, key).hex()}"}


def read_stamp(extra_args: Mapping[str, Any] | None, key: bytes) -> Stamp | None:
    """Returns the stamp of an engine request; None when there is none that this pod signed. Never raises, whatever is in there."""
    args = extra_args or {}
    job_id, hint, signed = args.get(JOB_XARG), args.get(HINT_XARG, ""), args.get(STAMP_XARG)
    if not (isinstance(job_id, str) and isinstance(hint, str) and isinstance(signed, str)):
        return None
    if not 0 < len(job_id) <= MAX_JOB_ID_CHARS or len(hint) > _MAX_HINT_CHARS or len(signed) > 64:
        return None
    number, _, signature = signed.partition(".")
    try:
        stamp, given = Stamp(job_id, int(number), hint), bytes.fromhex(signature)
    except ValueError:
        return None
    if not is_mac(key, given, *_parts(stamp)):
        return None
    level, _ = unpack_priority(stamp.priority)
    return stamp if MIN_LEVEL <= level <= MAX_LEVEL else Stamp(job_id, NEUTRAL_PRIORITY, hint)


def _signature(stamp: Stamp, key: bytes) -> bytes:
    return mac(key, *_parts(stamp))


def _parts(stamp: Stamp) -> tuple[bytes, ...]:
    return (stamp.job_id.encode("utf-8", "surrogatepass"), b"%d" % stamp.priority, stamp.hint.encode("utf-8", "surrogatepass"))
