"""The hint: what this process knows of a job, stamped into the request and echoed by the engine, so that a restarted one knows it again.

Layout, little endian: magic `AL`, version byte, QUANTILES × float32 tokens, float32 weight, seven feature bytes, three 64-bit hashes, two
length-prefixed strings (class, tenant; each at most 63 bytes), CRC32 of all before. About 110 bytes. Anything else reads as no hint: a hint
comes back through a client-visible request body and is never trusted further than "ignored or used".
"""

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from ..core.lengths import QUANTILES, Lengths
from .features import Features

_MAGIC: Final = b"AL"
_VERSION: Final = 1
_FIXED: Final = struct.Struct(f"<2sB{QUANTILES}ff7B3Q")
_CRC: Final = struct.Struct("<I")
_MAX_TEXT: Final = 63


@dataclass(frozen=True, slots=True)
class Hint:
    lengths: Lengths
    weight: float
    features: Features
    klass: str = ""
    tenant: str = ""


def encode(hint: Hint) -> bytes:
    """The hint as bytes, at most 250."""
    f = hint.features
    fixed = _FIXED.pack(
        _MAGIC, _VERSION, *hint.lengths.tokens, hint.weight,
        f.endpoint, f.structured, f.turns, f.prompt, f.keyword, f.asked, f.cap,
        f.text, f.conversation, f.tenant,
    )  # fmt: skip
    body = fixed + _text(hint.klass) + _text(hint.tenant)
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Hint | None:
    """The hint in these bytes; None when they are empty, foreign, cut, damaged or say something impossible."""
    if len(data) < _FIXED.size + 2 + _CRC.size:
        return None
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    if _CRC.unpack(crc)[0] != zlib.crc32(body):
        return None
    magic, version, *values = _FIXED.unpack_from(body)
    if magic != _MAGIC or version != _VERSION:
        return None
    texts = _read_texts(body[_FIXED.size :])
    weight = values[QUANTILES]
    if texts is None or not (math.isfinite(weight) and 1 / 64 <= weight <= 64):
        return None
    try:
        return Hint(Lengths(tuple(values[:QUANTILES])), weight, Features(*values[QUANTILES + 1 :]), *texts)
    except ValueError:
        return None


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")[:_MAX_TEXT]
    return bytes([len(data)]) + data


def _read_texts(data: bytes) -> tuple[str, str] | None:
    texts: list[str] = []
    for _ in range(2):
        if not data or len(data) < 1 + data[0]:
            return None
        texts.append(data[1 : 1 + data[0]].decode("utf-8", "replace"))
        data = data[1 + data[0] :]
    return (texts[0], texts[1]) if not data else None
