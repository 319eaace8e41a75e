"""The hint: what the sidecar knows of a job, stamped into the request and echoed by the engine, so that a restarted sidecar knows it again.

Layout, little endian: magic `AL`, version byte, QUANTILES × float32 tokens, float32 weight, a byte that is 1 if the text was described, two
length-prefixed strings (class, tenant; each at most 255 bytes), then a MAC over the job id and everything before it. The key is derived
from the pod's key, so a hint is valid for one job of one pod. Everything else reads as no hint, because clients can write hints too.
`state.py` writes and reads hints with it.
"""

import math
import struct
from dataclasses import dataclass
from typing import Final

from alise_contract.names import MAX_HINT_BYTES
from alise_contract.pod_key import MAC_BYTES, is_mac, mac

from ..core.lengths import QUANTILES, Lengths

_MAGIC: Final = b"AL"
_VERSION: Final = 3
_FIXED: Final = struct.Struct(f"<2sB{QUANTILES}ff?")
MAX_TEXT_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Hint:
    lengths: Lengths
    weight: float
    klass: str = ""
    tenant: str = ""
    # Whether the route's text is known, so that the length is a prediction.
    described: bool = True


def encode(hint: Hint, key: bytes, job_id: str) -> bytes:
    """Returns the hint of this job as bytes, at most 650; empty without a key, because an unsigned hint is ignored."""
    if not key:
        return b""
    fixed = _FIXED.pack(_MAGIC, _VERSION, *hint.lengths.tokens, hint.weight, hint.described)
    body = fixed + _text(hint.klass) + _text(hint.tenant)
    return body + mac(key, _name(job_id), body)


def decode(data: bytes, key: bytes, job_id: str) -> Hint | None:
    """Returns the hint that `encode` wrote for this job with this key; None for any other bytes."""
    if not key or not _FIXED.size + 2 + MAC_BYTES <= len(data) <= MAX_HINT_BYTES:
        return None
    body, signature = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if not is_mac(key, signature, _name(job_id), body):
        return None
    magic, version, *values = _FIXED.unpack_from(body)
    if magic != _MAGIC or version != _VERSION:
        return None
    texts = _read_texts(body[_FIXED.size :])
    weight = values[QUANTILES]
    if texts is None or not (math.isfinite(weight) and 1 / 64 <= weight <= 64):
        return None
    try:
        return Hint(Lengths(tuple(values[:QUANTILES])), weight, *texts, described=values[-1])
    except ValueError:
        return None


def _name(job_id: str) -> bytes:
    return job_id.encode("utf-8", "surrogatepass")


def _text(value: str) -> bytes:
    """Returns the text with its length; one that is too long ends after a whole character."""
    data = value.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore").encode()
    return bytes([len(data)]) + data


def _read_texts(data: bytes) -> tuple[str, str] | None:
    texts: list[str] = []
    for _ in range(2):
        if not data or len(data) < 1 + data[0]:
            return None
        try:
            texts.append(data[1 : 1 + data[0]].decode())
        except UnicodeDecodeError:
            return None
        data = data[1 + data[0] :]
    return (texts[0], texts[1]) if not data else None
