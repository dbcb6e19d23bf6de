"""Viewers that cost next to nothing: they take messages apart just as far as counting needs, and read when each frame was made.

With ordinary clients, a machine on which server and viewers run measures the clients.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Final, cast

import msgpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from narupa_shared import frame_keys
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as trajectory
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as native

LATEST: Final = "/narupa.protocol.trajectory.TrajectoryService/SubscribeLatestFrames"
NATIVE: Final = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"
INTERVAL_S: Final = 1 / 30
PRECISION_NM: Final = 0.001
# Messages start with their first key: a map of one or more items, and a text of five letters.
_FRAME: Final = msgpack.packb("frame")
_STAMP: Final = frame_keys.TIMESTAMP.encode()
# In MessagePack the number stands behind a byte that says so; in a protobuf map behind two tags and a length.
_MSGPACK_NUMBER: Final = struct.Struct("!xd")
_PROTOBUF_NUMBER: Final = struct.Struct("<xxxd")
_WINDOW: Final = 2**31 - 1
_DATA, _SETTINGS, _PING, _ACK = 0, 4, 6, 1

# Told of each frame, with how old it is, s; None where it does not say when it was made.
Had = Callable[[float | None], None]


class Client(asyncio.Protocol):
    """A connection that is asked for frames once, and then only read."""

    def __init__(self, had: Had) -> None:
        self._had = had
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self.request())

    def stall(self, stalled: bool) -> None:
        """It reads no more, or reads again."""
        assert self._transport is not None
        if stalled:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while taken := self.take(self._received):
            del self._received[:taken]

    def request(self) -> bytes:
        """What is sent first."""
        return b""

    def take(self, received: bytearray) -> int:
        """How many of these bytes are a whole part, which is dealt with; 0: none is whole yet."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


class PlainClient(Client):
    """Frames are so many bytes each."""

    def __init__(self, had: Had, size: int) -> None:
        super().__init__(had)
        self._size = size

    def take(self, received: bytearray) -> int:
        if len(received) < self._size:
            return 0
        self._had(None)
        return self._size


class WebSocketClient(Client):
    """NanoVer's messages, without compression."""

    _open = False

    def request(self) -> bytes:
        key = b64encode(os.urandom(16)).decode()
        lines = (
            "GET / HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def take(self, received: bytearray) -> int:
        if not self._open:
            end = received.find(b"\r\n\r\n") + 4
            self._open = end > 3
            return max(end, 0) if self._open else 0
        if len(received) < 2:
            return 0
        kind, size = received[0] & 0x0F, received[1]
        start = 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(received) < start:
                return 0
            size = int.from_bytes(received[2:start], "big")
        end = start + size
        if len(received) < end:
            return 0
        if kind == 9:  # a ping; what servers are answered is masked, with nothing here
            self.send(bytes((0x8A, 0x80 | size)) + bytes(4) + received[start:end])
        elif kind == 2 and received[start + 1 : start + 7] == _FRAME:
            self._had(age(received, start, end, _MSGPACK_NUMBER))
        return end


class WritingClient(WebSocketClient):
    """One that shows an avatar as well, written once."""

    def request(self) -> bytes:
        avatar = {
            "playerid": "",
            "components": [{"name": "headset", "position": [0.0, 1.6, 0.0], "rotation": [0.0] * 4}],
        }
        updates = {f"avatar.{os.urandom(8).hex()}": avatar}
        message = msgpack.packb({"state": {"updates": updates, "removals": []}})
        # Written before the answer to the handshake, as it would be after it. What clients send is masked, with nothing here.
        return super().request() + b"\x82\xfe" + len(message).to_bytes(2, "big") + bytes(4) + message


class GrpcClient(Client):
    """One call for frames over HTTP/2, with windows that are never full."""

    def __init__(self, had: Had, kind: str) -> None:
        """
        Args:
            kind: `grpc`; `native`, of the trajectory service's own protocol; or `packed`, which takes positions to a precision.
        """
        super().__init__(had)
        self._kind = kind
        self._messages = bytearray()

    def request(self) -> bytes:
        connection = H2Connection(H2Configuration(client_side=True))
        connection.initiate_connection()
        connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, SettingCodes.MAX_FRAME_SIZE: 2**24 - 1})
        connection.increment_flow_control_window(_WINDOW - 65_535)
        view = native.View(precision_nm=PRECISION_NM if self._kind == "packed" else 0.0)
        path, message = (
            (LATEST, trajectory.GetFrameRequest(frame_interval=INTERVAL_S).SerializeToString())
            if self._kind == "grpc"
            else (NATIVE, native.SubscribeFramesRequest(frame_interval_s=INTERVAL_S, view=view).SerializeToString())
        )
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "127.0.0.1",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        connection.send_headers(1, list(headers.items()))
        connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        return connection.data_to_send()

    def take(self, received: bytearray) -> int:
        if len(received) < 9:
            return 0
        end = 9 + int.from_bytes(received[:3], "big")
        if len(received) < end:
            return 0
        kind, flags = received[3], received[4]
        if kind == _DATA:
            self._messages += received[9:end]
            self._count()
        elif kind == _SETTINGS and not flags & _ACK:
            self.send(b"\0\0\0" + bytes((_SETTINGS, _ACK)) + bytes(4))
        elif kind == _PING and not flags & _ACK:
            self.send(b"\0\0\x08" + bytes((_PING, _ACK)) + bytes(4) + received[9:end])
        return end

    def _count(self) -> None:
        messages = self._messages
        while len(messages) >= 5 and len(messages) >= (end := 5 + int.from_bytes(messages[1:5], "big")):
            self._had(age(messages, 5, end, _PROTOBUF_NUMBER))
            del messages[:end]


def age(data: bytearray, start: int, end: int, number: struct.Struct) -> float | None:
    """How long ago the frame in these bytes was made by a service on this machine, s."""
    found = data.find(_STAMP, start, end)
    if found < 0:
        return None
    made: float = number.unpack_from(data, found + len(_STAMP))[0]
    return time.monotonic() - made
