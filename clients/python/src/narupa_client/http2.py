"""Connections that large messages come over at little cost: grpclib's HTTP/2, as frames of many atoms need it.

What a large part of a message holds is read from the socket into where it stays, and given to h2 as what h2 would have made of
it. Everything else h2 reads itself.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from ssl import SSLContext
from typing import Any, Final, cast

import numpy as np
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame

import narupa_shared.closed_streams  # noqa: F401 - bounds them

# Every part of a message costs the same, however large it is; HTTP/2's own limit is 16 KiB.
MAX_PART_BYTES: Final = 4 * 1024 * 1024
# What may be on its way: with half of it read the other side is told, which costs as much as reading a part.
WINDOW_BYTES: Final = 4 * MAX_PART_BYTES
# From this size on a part goes around h2's buffer.
LARGE_PART_BYTES: Final = 16 * 1024
_SPACE_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 9
_END_STREAM: Final = 0x1
_PADDED: Final = 0x8


def _size(part: DataFrame) -> str:
    return f"{len(part.data)} bytes"


# h2 describes each part that it receives, for a log that is off: in hexadecimal, all of it, unless it is told otherwise.
setattr(DataFrame, "_body_repr", _size)  # noqa: B010 - mypy would not have it assigned


class LargeMessageChannel(Channel):
    """A channel over which the other side may send messages in parts of up to `MAX_PART_BYTES`."""

    def __init__(
        self, host: str, port: int, *, config: Configuration | None = None, ssl: SSLContext | None = None
    ) -> None:
        """As grpclib's; with windows of `WINDOW_BYTES`."""
        config = replace(
            config or Configuration(), http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES
        )
        super().__init__(host, port, config=config, ssl=ssl)

    async def __connect__(self) -> H2Protocol:
        """Raises: OSError when there is no connection, or it is closed at once, as proxies do with nobody behind them."""
        protocol = await super().__connect__()
        if protocol.connection.is_closing():
            self.close()  # the next call makes another
            raise ConnectionResetError("the connection was closed as soon as it was made")
        return protocol

    def _protocol_factory(self) -> H2Protocol:
        return cast("H2Protocol", PartReceiver(super()._protocol_factory()))


class Parts(FrameBuffer):
    """What h2 takes HTTP/2 frames from: the bytes that it was given, and between them a part that is read already."""

    part: DataFrame | None = None

    def __next__(self) -> Frame:
        part, self.part = self.part, None
        # A part within a block of headers is refused as h2 would refuse it.
        return super().__next__() if part is None else cast("Frame", self._update_header_buffer(part))


class Space(threading.local):
    """Where a thread's connections read what h2 reads: they do so one after the other, and keep nothing there."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_SPACE_BYTES))


_space: Final = Space()


class PartReceiver(asyncio.BufferedProtocol):
    """Reads from the socket for grpclib's protocol, for which it stands where grpclib's channel holds that."""

    def __init__(self, inner: H2Protocol) -> None:
        self._inner = inner
        self.handler = inner.handler
        self._parts = Parts()
        self._held = b""  # the beginning of a head of which the rest is to come
        self._passing = 0  # bytes to come of a frame that h2 reads itself
        self._part: DataFrame | None = None  # the one that is being read
        self._memory = memoryview(b"")  # what is still to be read of it

    @property
    def connection(self) -> Any:
        return self._inner.connection

    @property
    def processor(self) -> Any:
        return self._inner.processor

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)
        h2 = self.connection._connection
        h2.incoming_buffer = self._parts
        h2.update_settings({SettingCodes.MAX_FRAME_SIZE: MAX_PART_BYTES})
        self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _space.memory[len(self._held) :] if self._part is None else self._memory

    def buffer_updated(self, nbytes: int) -> None:
        if self._part is not None:
            self._memory = self._memory[nbytes:]
            self._hand_over()
            return
        space, held = _space.memory, len(self._held)
        space[:held], end = self._held, held + nbytes
        start, place = 0, min(self._passing, end)  # what lies between them is h2's
        self._passing -= place
        while end - place >= _HEAD_BYTES:
            length = int.from_bytes(space[place : place + 3])
            part = None
            if length >= LARGE_PART_BYTES:
                # By what came before, the other side may have agreed to such a length.
                self._pass_on(space[start:place])
                start = place
                part = self._large_part(length, space[place + 3 : place + _HEAD_BYTES])
            if part is None:
                taken = min(_HEAD_BYTES + length, end - place)
                self._passing = _HEAD_BYTES + length - taken
                place += taken
                continue
            taken = min(length, end - place - _HEAD_BYTES)
            start = place = place + _HEAD_BYTES + taken
            part.data = np.empty(length, np.uint8).data  # type: ignore[assignment]  # as good as bytes
            part.data[:taken] = space[place - taken : place]  # type: ignore[index]
            self._part, self._memory = part, part.data[taken:]  # type: ignore[assignment]
            self._hand_over()
        self._pass_on(space[start:place])
        self._held = bytes(space[place:end])

    def _large_part(self, length: int, head: memoryview) -> DataFrame | None:
        """The part of a message that begins with this length and head, if it is one to be read here, still empty."""
        kind, flags, stream = head[0], head[1], int.from_bytes(head[2:]) & 0x7FFFFFFF
        # What is longer than agreed on, h2 refuses.
        agreed = length <= self.connection._connection.max_inbound_frame_size
        if kind != DataFrame.type or flags & _PADDED or not stream or not agreed:
            return None
        part = DataFrame(stream, flags=["END_STREAM"] if flags & _END_STREAM else [])
        part.body_len = length
        return part

    def _hand_over(self) -> None:
        """The part that is being read is h2's, once it is whole."""
        if not len(self._memory):
            self._parts.part, self._part = self._part, None
            self._feed(b"")

    def _pass_on(self, data: memoryview) -> None:
        if len(data):
            self._feed(data)

    def _feed(self, data: bytes | memoryview) -> None:
        if not self.connection.is_closing():
            self._inner.data_received(cast("bytes", data))
