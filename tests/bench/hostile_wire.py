"""HTTP/1.1 written by hand: requests that no client library would send, and no cost in the client but the socket's.

`hostile_beside.py`, `hostile_client.py` and `hostile_forging.py` send with it.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

READ_BYTES: Final = 1 << 16
_KEPT_BYTES: Final = 1 << 16


class Framing(Enum):
    """How the server learns where the body ends."""

    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    # Both, which proxies and servers may read differently.
    BOTH = "Content-Length and chunked"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Status 0: the connection ended, or the time was over, before there was one."""

    status: int
    headers: Mapping[str, str]
    # The beginning of the body.
    body: bytes
    # From the first byte sent to the first of the body, and to the end.
    first_seconds: float
    seconds: float


NOTHING: Final = Answer(0, {}, b"", 0.0, 0.0)


def message(
    method: str, path: str, headers: Mapping[str, str], body: bytes, framing: Framing = Framing.LENGTH, declared_bytes: int | None = None
) -> bytes:
    """A request whose connection ends with its answer. `declared_bytes` instead of the body's own length."""
    length = len(body) if declared_bytes is None else declared_bytes
    fields = {"host": "127.0.0.1", "connection": "close", **headers}
    if framing in (Framing.LENGTH, Framing.BOTH):
        fields["content-length"] = str(length)
    if framing in (Framing.CHUNKED, Framing.BOTH):
        fields["transfer-encoding"] = "chunked"
        half = len(body) // 2
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part) + b"0\r\n\r\n"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


async def exchange(port: int, data: bytes, timeout_seconds: float) -> Answer:
    """Send bytes to a server on this machine and read its answer to the end. Never raises but when cancelled."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _exchange(port, data, began)
    except (TimeoutError, OSError):
        return Answer(0, {}, b"", time.monotonic() - began, time.monotonic() - began)


async def _exchange(port: int, data: bytes, began: float) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sending = asyncio.create_task(_send(writer, data))
    try:
        head = await _head(reader)
        status, headers = parse_head(head)
        kept, first = b"", 0.0
        while part := await _read(reader):
            first = first or time.monotonic() - began
            kept += part if len(kept) < _KEPT_BYTES else b""
        ended = time.monotonic() - began
        return Answer(status, headers, kept, first or ended, ended)
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    # A server that refuses a body early closes the connection: its answer may be there all the same.
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return b""


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(READ_BYTES)
    except OSError:
        return b""


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer; 0 when there is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pairs = (line.partition(":") for line in lines if ":" in line)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
