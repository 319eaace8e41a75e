"""Reads arrays from an npz file that may come from elsewhere. It executes nothing in the file and allocates no more than agreed.

`numpy.load` allocates what a header claims before it reads the data, and unpacks what a zip entry claims. Here both are bounded first.
`head.py` reads heads with it, which come from a file or from a database that other replicas write.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_FILE_BYTES: Final = 8 << 20
MAX_UNPACKED_BYTES: Final = 32 << 20
_MAX_ARRAYS: Final = 64
_KINDS: Final = "biuf"

Arrays = Mapping[str, NDArray[Any]]


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in an npz file, by name. Raises ValueError when it is none, too large, or holds anything else."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{len(data)} bytes are too many for a head; the limit is {MAX_FILE_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if len(entries) > _MAX_ARRAYS or unpacked > MAX_UNPACKED_BYTES:
                raise ValueError(
                    f"{len(entries)} arrays of {unpacked} bytes are too many; {_MAX_ARRAYS} and {MAX_UNPACKED_BYTES} are allowed"
                )
            return {entry.filename.removesuffix(".npy"): _array(file.open(entry).read(entry.file_size)) for entry in entries}
    except ValueError:
        raise
    except Exception as error:
        # zipfile, zlib, struct and tokenize all have errors of their own for bytes that are not what they seem.
        raise ValueError(f"these {len(data)} bytes hold no head: {type(error).__name__}") from error


def _array(data: bytes) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
    if version != (1, 0):
        raise ValueError(f"an array in version {version} of its format; 1.0 is expected")
    shape, by_columns, dtype = npy.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
    body = data[stream.tell() :]
    if dtype.kind not in _KINDS or dtype.hasobject or len(shape) > 2:
        raise ValueError(f"an array of {dtype} in {len(shape)} dimensions; numbers in at most two are expected")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"an array of shape {shape} in {len(body)} bytes")
    result = np.frombuffer(body, dtype).copy()
    return result.reshape(shape, order="F" if by_columns else "C")


def checked(held: Arrays, name: str, kind: str, *shape: int | None) -> NDArray[Any]:
    """The array of this name. `kind`: f for floats, i for integers; in `shape` None is any size. Raises ValueError when it is another."""
    array = held.get(name)
    if array is None:
        raise ValueError(f"a head without {name}")
    fits = len(array.shape) == len(shape) and all(want is None or want == size for want, size in zip(shape, array.shape, strict=True))
    if not fits or (array.dtype.kind in "iub") != (kind == "i"):
        raise ValueError(f"a head whose {name} is {array.dtype} of shape {array.shape}")
    return array


def finite(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array itself. Raises ValueError when a number in it is NaN or infinite."""
    if not np.isfinite(array).all():
        raise ValueError(f"a head whose {name} holds numbers that are none")
    return array
