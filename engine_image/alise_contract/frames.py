"""Messages on a unix socket between two processes of a pod: four bytes of length, little endian, and then the message.

A question and its answer on an open stream of gRPC's Python library cost each side more CPU than everything that is done about them. The
engine's `admission_stream.py` is one end, the sidecar's `rpc/connection.py` the other.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

# A question has a prompt of at most 16 KiB.
MAX_FRAME_BYTES: Final = 1 << 20
_LENGTH_BYTES: Final = 4


class Frames(asyncio.Protocol):
    """One end of a connection. Neither callback may raise.

    A message that claims to be longer than MAX_FRAME_BYTES ends the connection.
    """

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_end` is called once, when the connection has ended; `on_room` when the other end reads or has begun to read again."""
        self._on_message = on_message
        self._on_end = on_end
        self._on_room = on_room
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._paused = False
        # Messages can be sent without piling up.
        self.has_room = False

    def send(self, message: bytes) -> None:
        """Never waits. What cannot be sent is kept until the connection ends: see `has_room`."""
        if self._transport is not None:
            self._transport.write(len(message).to_bytes(_LENGTH_BYTES, "little") + message)

    def pause(self) -> None:
        """Reads nothing more until `resume`."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
            self._deliver()

    def close(self) -> None:
        """Sends what was given to `send`, then ends the connection."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not tested with isinstance: uvloop's transports, which vLLM's server has, are of no class of asyncio.
        self._transport = cast(asyncio.Transport, transport)
        if self._paused:
            self._transport.pause_reading()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.has_room = None, False
        self._on_end()

    def pause_writing(self) -> None:
        self.has_room = False

    def resume_writing(self) -> None:
        self.has_room = True
        self._on_room()

    def _deliver(self) -> None:
        while not self._paused and len(self._unread) >= _LENGTH_BYTES and self._transport is not None:
            end = _LENGTH_BYTES + int.from_bytes(self._unread[:_LENGTH_BYTES], "little")
            if end - _LENGTH_BYTES > MAX_FRAME_BYTES:
                self._unread.clear()
                self._transport.abort()
                return
            if len(self._unread) < end:
                return
            message = bytes(self._unread[_LENGTH_BYTES:end])
            del self._unread[:end]
            self._on_message(message)
