"""Kubernetes quantities such as `512Mi`, `1.5` and `300m`: one grammar for the resource, for flags and for settings.

Pure. The operator, the engine and the scheduler use it. kubernetes.utils.quantity is only in the operator's image, and it also accepts
negative numbers, `NaN` and `1_000`, which the API server refuses.
"""

import re
from decimal import Decimal
from typing import Final

PATTERN: Final = r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
# Kubernetes itself writes at most 22 characters.
MAX_LENGTH: Final = 64
# Kubernetes treats larger quantities as this one.
MAX_BYTES: Final = 2**63 - 1
_PARTS: Final = re.compile(r"[+]?(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?")
_BINARY: Final = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)}
_BELOW_ONE: Final = {"n": "a billionth", "u": "a millionth", "m": "a thousandth"}
_NO_SIZE: Final = "is not a quantity of bytes such as 4Gi, 500M or 1024"
_DECIMAL: Final = {letter: Decimal(1000) ** power for power, letter in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)}


def parse_quantity(text: str) -> Decimal:
    """Returns the number that a quantity stands for. Raises ValueError if the text is not a quantity, or is negative."""
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi")
    number, suffix = Decimal(parts["number"]), parts["suffix"]
    if not suffix:
        return number
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number * _DECIMAL[suffix]
    return number * Decimal(10) ** int(suffix[1:])


def quantity_bytes(text: str) -> int:
    """Returns a quantity of memory in bytes, rounded up and at most MAX_BYTES. Raises ValueError like `parse_quantity`."""
    return int(min(parse_quantity(text), Decimal(MAX_BYTES)).to_integral_value(rounding="ROUND_CEILING"))


def memory_bytes(text: str) -> int:
    """Returns a size that a user writes, in bytes. Raises ValueError if the text is no quantity, or is a part of a byte.

    Kubernetes accepts `500m` for memory. It is half a byte, and the user wanted 500M or 500Mi. The suffixes below one (n, u, m) are always
    refused, as is any other quantity between zero and one.
    """
    below = _BELOW_ONE.get(text[-1:])
    if below is not None:
        raise ValueError(f"{text!r} {_NO_SIZE}; {text[-1]} stands for {below} of a byte")
    if _PARTS.fullmatch(text) is None:
        raise ValueError(f"{text!r} {_NO_SIZE}")
    if 0 < parse_quantity(text) < 1:
        raise ValueError(f"{text!r} {_NO_SIZE}; it is less than one byte")
    return quantity_bytes(text)


def format_bytes(count: int) -> str:
    """Returns the shortest exact binary quantity: 1610612736 -> 1536Mi."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        unit = int(_BINARY[suffix])
        if count and count % unit == 0:
            return f"{count // unit}{suffix}"
    return str(count)
