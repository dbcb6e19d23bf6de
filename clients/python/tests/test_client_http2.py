"""Parts of messages that go around h2's buffer arrive as h2 itself would have had them, however they come, whoever sends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_client.http2 import (
    LARGE_PART_BYTES,
    MAX_PART_BYTES,
    WINDOW_BYTES,
    LargeMessageChannel,
    PartReceiver,
    Parts,
)

REQUEST = [(":method", "POST"), (":path", "/a.B/C"), (":scheme", "http"), (":authority", "x")]
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
DATA, HEADERS, PING = 0, 1, 6


class Wire(asyncio.Transport):
    """What the client writes, and whether it has closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Handler:
    connection_lost = False

    def close(self) -> None:
        self.connection_lost = True


class Client:
    """A client with one open call, its receiver in front or not, and what its h2 has told so far."""

    def __init__(self, in_front: bool) -> None:
        self.wire = Wire()
        config = Configuration(
            http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES, _keepalive_time=None
        ).__for_client__()
        handler: Any = Handler()
        self.inner = H2Protocol(handler, config, H2Configuration(client_side=True, header_encoding="ascii"))
        self.receiver = PartReceiver(self.inner)
        self.in_front = in_front
        self.receiver.connection_made(self.wire)
        self.events: list[Any] = []
        self.inner.processor.process = self.events.append  # type: ignore[method-assign]
        if not in_front:
            self.inner.connection._connection.incoming_buffer = Parts()
        self.inner.connection._connection.send_headers(1, REQUEST, end_stream=True)
        self.inner.connection.flush()

    def feed(self, data: bytes, most: int = 2**30) -> None:
        """`data` comes, at most so many bytes at a time."""
        while data and not self.wire.closed:
            if self.in_front:
                space = self.receiver.get_buffer(-1)
                assert len(space) > 0
                taken = min(len(space), len(data), most)
                space[:taken] = data[:taken]
                self.receiver.buffer_updated(taken)
            else:
                taken = min(len(data), most)
                self.inner.data_received(data[:taken])
            data = data[taken:]

    def told(self) -> list[tuple[str, int | None, bytes, int, bool]]:
        """What the events are of: their kind, stream, data, what that takes of the window, and whether the stream ends."""
        return [
            (
                type(event).__name__,
                getattr(event, "stream_id", None),
                bytes(getattr(event, "data", None) or b""),
                getattr(event, "flow_controlled_length", 0),
                getattr(event, "stream_ended", None) is not None,
            )
            for event in self.events
        ]


def server_of(client: Client) -> H2Connection:
    """A server that has heard what the client wrote, and has begun to answer."""
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(bytes(client.wire.written))
    server.send_headers(1, [(":status", "200")])
    return server


def pattern(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


SIZES = st.sampled_from(
    [0, 1, 1000, LARGE_PART_BYTES - 1, LARGE_PART_BYTES, LARGE_PART_BYTES + 1, 200_000, MAX_PART_BYTES]
)


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.tuples(SIZES, st.sampled_from([None, 0, 7]), st.booleans()), min_size=1, max_size=3),
    most=st.sampled_from([777, 4096, 65_521, 2**30]),
)
def test_h2_tells_the_same_of_them(parts: list[tuple[int, int | None, bool]], most: int) -> None:
    clients = Client(in_front=True), Client(in_front=False)
    server = server_of(clients[0])
    opening = server.data_to_send()
    for number, (size, padding, ping) in enumerate(parts):
        size -= 0 if padding is None or size < 100 else padding + 1
        server.send_data(1, pattern(size), end_stream=number == len(parts) - 1, pad_length=padding)
        if ping:
            server.ping(b"12345678")
    data = server.data_to_send()
    clients[0].feed(opening + data, most)
    # h2 by itself refuses a long part that comes together with the other side's agreement to its length.
    clients[1].feed(opening)
    clients[1].feed(data, most)
    assert clients[0].told() == clients[1].told()
    assert not clients[0].wire.closed
    kinds = [type(event) for event in clients[0].events]
    assert kinds.count(DataReceived) == len(parts) and kinds[-1 - parts[-1][2]] is StreamEnded


def raw(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


LARGE = bytes(LARGE_PART_BYTES)


def test_a_part_needs_no_room_but_its_own() -> None:
    client = Client(in_front=True)
    client.feed(server_of(client).data_to_send())
    client.feed(raw(DATA, 0, 1, bytes(MAX_PART_BYTES))[:100_000])
    assert len(client.receiver.get_buffer(-1)) == MAX_PART_BYTES + 9 - 100_000
    assert len(client.receiver._parts._data) == 0


@pytest.mark.parametrize(
    "hostile",
    [
        raw(DATA, 0, 0, LARGE),
        raw(DATA, 0, 3, LARGE),
        raw(DATA, 0, 1, bytes(MAX_PART_BYTES + 1)),
        raw(DATA, 0, 1, bytes(MAX_PART_BYTES)) * 5,  # more than the window has
        raw(DATA, PADDED, 1, b"\xff" + bytes(200)),
        raw(HEADERS, 0, 1, b"\x88") + raw(DATA, 0, 1, LARGE),
        raw(DATA, END_STREAM, 1, LARGE) + raw(DATA, 0, 1, LARGE),
        raw(HEADERS, END_HEADERS, 1, b"\xff" * 40_000),
        raw(PING, 0, 0, LARGE),
    ],
    ids=["no stream", "idle stream", "too long", "window", "padding", "in headers", "after the end", "headers", "ping"],
)
@pytest.mark.parametrize("most", [5000, 2**30])
def test_what_h2_refuses_is_refused(hostile: bytes, most: int) -> None:
    clients = Client(in_front=True), Client(in_front=False)
    for client in clients:
        client.feed(server_of(client).data_to_send())
        client.feed(hostile, most)
    assert clients[0].wire.closed == clients[1].wire.closed
    assert clients[0].wire.closed or clients[0].told() == clients[1].told()


def test_nothing_is_read_once_it_has_closed() -> None:
    client = Client(in_front=True)
    client.feed(server_of(client).data_to_send())
    data = raw(DATA, 0, 0, b"1") + raw(DATA, 0, 1, LARGE) + raw(PING, 0, 0, bytes(8))
    space = client.receiver.get_buffer(-1)
    space[: len(data)] = data
    before = len(client.events)
    client.receiver.buffer_updated(len(data))
    assert client.wire.closed and len(client.events) == before


async def test_a_connection_that_is_closed_at_once_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = LargeMessageChannel("127.0.0.1", 1)

    async def closed_at_once() -> Any:
        client = Client(in_front=True)
        client.receiver.connection_lost(None)
        return client.receiver

    monkeypatch.setattr(channel, "_create_connection", closed_at_once)
    with pytest.raises(ConnectionResetError, match="as soon as it was made"):
        await channel.__connect__()
    assert not channel._connected, "and nothing is left to be closed"
    del channel
