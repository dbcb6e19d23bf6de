"""Strangers at the gateway's doors: whatever they send, it stays up and small, and a viewer's frames go on.

The gateway is a process of its own. All of it happens on loopback, and every flood has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import psutil
import pytest
from ase.build import molecule
from ase.io import write
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated
from hpack import Encoder
from spoilt_messages import VALID, spoilt_messages, spoilt_requests

from narupa_gateway.app import MAX_CALLS
from narupa_gateway.grpc_guests import MAX_STREAMS
from narupa_gateway.websocket_server import MAX_OPENING, OPENING_LIMIT_S
from narupa_shared.testing.faults import GARBAGE
from narupa_shared.testing.leaks import GRACE_S, Leaks
from narupa_shared.testing.waiting import until
from tests.e2e.sessions import RunningSession, session
from tests.integration.gateway_scene import Headset

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MIB: Final = 1024 * 1024
# What the gateway may have grown by after each of these tests, as allocators keep what was once needed.
MAY_GROW: Final = 128 * MIB
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, DATA = 1, 3, 4, 6, 8, 9, 0
END_STREAM, END_HEADERS = 1, 4
CALL: Final = ((":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"))
UPDATE_STATE: Final = "/narupa.protocol.state.State/UpdateState"
SUBSCRIBE: Final = "/narupa.protocol.state.State/SubscribeStateUpdates"


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    gc.collect()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not leaks.found(), GRACE_S)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    path = folder / "ethanol.xyz"
    write(path, molecule("CH3CH2OH"))
    with session(folder, f"{path}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01") as running:
        yield running


class Doors:
    """The gateway under attack, and a viewer of it that does nothing wrong."""

    def __init__(self, websocket: str, grpc_address: str, process: psutil.Process) -> None:
        self.websocket = websocket
        self.port = int(websocket.rpartition(":")[2])
        self.address = grpc_address
        self.grpc_port = int(grpc_address.rpartition(":")[2])
        self.process = process
        self.viewer = Headset(websocket)
        self._before = 0

    def weigh(self) -> None:
        """The memory that the gateway has now is what it had before."""
        self._before = self.process.memory_info().rss

    def grown(self) -> int:
        """Bytes by which its memory has grown."""
        return int(self.process.memory_info().rss - self._before)

    async def frames_go_on(self) -> None:
        """The viewer gets frames, and state that somebody new writes."""
        count = len(self.viewer.frames)
        await until(lambda: len(self.viewer.frames) > count + 5)
        async with Headset(self.websocket) as other:
            mark = random.randrange(10**9)
            await other.write({"mark": mark})
            await until(lambda: self.viewer.state.get("mark") == mark)
        assert self.viewer.ended is None and self.process.is_running()

    async def holds_no_connection_but(self, count: int) -> None:
        """Of those at its doors."""
        for _ in range(100):
            gc.collect()  # gRPC keeps a connection as long as anything refers to a call on it
            ports = (self.port, self.grpc_port)
            held = [
                each for each in self.process.net_connections(kind="tcp") if each.laddr.port in ports and each.raddr
            ]
            if len(held) <= count:
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"connections are left: {held}")

    async def connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)


@pytest.fixture
async def doors(running: RunningSession) -> AsyncIterator[Doors]:
    await running.whole()
    doors = Doors(await running.websocket(), await running.address("gateway"), running.process("narupa_gateway"))
    async with doors.viewer:
        await doors.frames_go_on()
        doors.weigh()
        yield doors
        await doors.frames_go_on()
        await doors.holds_no_connection_but(1)
        assert doors.grown() < MAY_GROW, f"the gateway has grown by {doors.grown() / MIB:.0f} MiB"
    assert "Traceback" not in running.written()


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, within_s: float = 30.0) -> bytes:
    """What still came until the other side closed."""
    async with asyncio.timeout(within_s):
        try:
            return await reader.read()
        except OSError:
            return b""
        finally:
            writer.transport.abort()


async def in_parallel(count: int, act: Callable[[int], Any], width: int = 16) -> list[Any]:
    """`act(0)` to `act(count - 1)`, so many at a time."""
    numbers = iter(range(count))
    results: list[Any] = []

    async def work() -> None:
        for number in numbers:
            results.append(await act(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(work())
    return results


# WebSockets.


async def test_spoilt_messages_end_their_connection_with_a_reason(doors: Doors) -> None:
    messages = spoilt_messages(2)
    outcomes: Counter[int] = Counter()

    async def act(number: int) -> None:
        async with Headset(doors.websocket, ping_interval=None) as headset:
            with contextlib.suppress(Exception):  # closed halfway through
                for message in itertools.islice(messages, 6):
                    await headset.connection.send(message)
                await headset.write({"taken": number})
            await until(lambda: headset.ended or headset.state.get("taken") == number)
            if headset.ended:
                code, reason = headset.ended
                assert code in (1007, 1008, 1013) and reason, headset.ended
                outcomes[code] += 1

    await in_parallel(300, act)
    assert outcomes[1007] > 200


async def test_one_client_sends_as_fast_as_it_can(doors: Doors) -> None:
    async with Headset(doors.websocket) as headset:
        with contextlib.suppress(Exception):
            for _ in range(20_000):
                await headset.say(**VALID[0])
                await asyncio.sleep(0)  # it reads what is said to it, too
        assert (await headset.until_ended())[0] == 1008
        assert "messages per second" in headset.ended[1]  # type: ignore[index]
    large = {"state": {"updates": {"x": "y" * (3 * MIB)}}}
    async with Headset(doors.websocket) as headset:
        with contextlib.suppress(Exception):
            for _ in range(30):
                await headset.say(**large)
                await asyncio.sleep(0)
        assert (await headset.until_ended())[0] == 1008
    async with Headset(doors.websocket) as headset:
        with contextlib.suppress(Exception):
            await headset.say(state={"updates": {"x": "y" * (5 * MIB)}})
        assert (await headset.until_ended())[0] == 1009


async def test_bombs_do_not_go_off(doors: Doors) -> None:
    bombs = (
        b"\x81\xa5state\x81\xa7updates\x81\xa1a"
        + b"\xdd"
        + struct.pack(">I", 4 * MIB - 100)
        + b"\xc0" * (4 * MIB - 100),
        b"\x81\xa5state\x81\xa7updates\x81\xa1a" + b"\xdc\xff\xff" + b"\x90" * 65535,
        b"\x81\xa5state" + b"\x91" * (4 * MIB - 100),
        b"\x81\xa5frame\x81\xb2particle.positions" + b"\xdd" + struct.pack(">I", 250_000) + b"\xcb" + b"\0" * 2_000_000,
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa7command" + b"\xdd" + struct.pack(">I", 290_000) + b"\x80" * 290_000,
    )

    async def act(number: int) -> None:
        async with Headset(doors.websocket) as headset:
            await headset.connection.send(bombs[number % len(bombs)])
            await headset.write({"after": 1})
            await until(lambda: headset.ended or "after" in headset.state)

    await in_parallel(6 * len(bombs), act, 4)


async def test_half_open_connections_end_and_keep_nobody_out(doors: Doors) -> None:
    beginnings = (
        b"",
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nX-A: ",
        *GARBAGE,
    )
    sockets = []
    for number in range(2 * MAX_OPENING):
        reader, writer = await doors.connected(doors.port)
        writer.write(beginnings[number % len(beginnings)])
        sockets.append((reader, writer))
        if number % 16 == 0:
            async with Headset(doors.websocket) as headset:  # comes in all the same
                await until(lambda headset=headset: headset.states)  # type: ignore[misc]

    async def drip(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.1)

    dripping = [asyncio.create_task(drip(writer)) for _, writer in sockets[-8:]]
    settled = PREFACE + frame(SETTINGS, 0, 0)
    for beginning in 20 * (b"", PREFACE[:7], PREFACE, settled, settled[:-4]):
        reader, writer = await doors.connected(doors.grpc_port)
        writer.write(beginning)
        sockets.append((reader, writer))
    async with grpc.aio.insecure_channel(doors.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        await channel.unary_unary(UPDATE_STATE)(b"", timeout=30)
    await asyncio.gather(*(closed(reader, writer, 6 * OPENING_LIMIT_S) for reader, writer in sockets))
    await asyncio.gather(*dripping)


async def test_headers_without_end_are_refused(doors: Doors) -> None:
    for request in (
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000,
    ):
        reader, writer = await doors.connected(doors.port)
        with contextlib.suppress(OSError):
            writer.write(request)
        await closed(reader, writer)


# gRPC.


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def call(encoder: Encoder, path: str, *more: tuple[str, str]) -> bytes:
    """The block of headers that begins a call."""
    return bytes(encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", path), *CALL, *more]))


async def test_ten_thousand_spoilt_requests_are_refused_with_a_status(doors: Doors) -> None:
    requests = spoilt_requests(3)
    statuses: Counter[str] = Counter()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(doors.address, options) for _ in range(4)]

    async def act(number: int) -> None:
        method, data = next(requests)
        family = ("narupa", "nanover")[number % 2]
        send = channels[number % len(channels)].unary_unary(f"/{family}.protocol.{method}")
        try:
            await send(data, timeout=60)
            statuses["OK"] += 1
        except grpc.aio.AioRpcError as error:
            assert error.details(), error
            statuses[error.code().name] += 1

    await in_parallel(10_000, act, 64)
    for channel in channels:
        await channel.close()
    assert statuses.total() == 10_000
    assert set(statuses) <= {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "OUT_OF_RANGE"}, (
        statuses
    )
    assert statuses["INVALID_ARGUMENT"] > 1000


async def test_garbage_at_the_grpc_port_ends_its_connection(doors: Doors) -> None:
    rng = random.Random(4)
    for garbage in (
        *GARBAGE,
        PREFACE[:10] + b"\0" * 100,
        PREFACE + frame(SETTINGS, 0, 0, b"\0" * 7),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, b"\xff" * 50),
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"x" * 100),
        PREFACE + frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
        *(PREFACE + frame(SETTINGS, 0, 0) + rng.randbytes(2000) for _ in range(20)),
    ):
        reader, writer = await doors.connected(doors.grpc_port)
        writer.write(garbage)
        with contextlib.suppress(OSError):
            writer.write_eof()
        await closed(reader, writer)


async def test_floods_of_http2_are_outlived(doors: Doors) -> None:
    async def flooded(*frames: bytes) -> None:
        """Another connection sends all of these, and goes."""
        reader, writer = await doors.connected(doors.grpc_port)
        reading = asyncio.create_task(reader.read())
        with contextlib.suppress(OSError):
            writer.write(PREFACE + frame(SETTINGS, 0, 0))
            for number, each in enumerate(frames):
                writer.write(each)
                if number % 256 == 0:
                    await writer.drain()
            await writer.drain()
        await doors.frames_go_on()
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await reading

    encoder = Encoder()
    begin = call(encoder, SUBSCRIBE)
    streams = range(1, 4001, 2)
    # Far more streams than are allowed, none of which says what it wants.
    await flooded(*(frame(HEADERS, END_HEADERS, stream, begin) for stream in streams))
    # Streams that ask for the state, without end.
    asked = frame(DATA, END_STREAM, 0, b"\0\0\0\0\0")
    await flooded(
        *(
            frame(HEADERS, END_HEADERS, stream, begin) + asked[:5] + struct.pack(">I", stream) + asked[9:]
            for stream in streams
        )
    )
    # Streams that are reset as soon as they are begun.
    cancel = struct.pack(">I", 8)
    await flooded(
        *(
            frame(HEADERS, END_HEADERS | END_STREAM, stream, begin) + frame(RST_STREAM, 0, stream, cancel)
            for stream in range(1, 20_001, 2)
        )
    )
    # Headers that are too large, in one and in thousands of pieces.
    large = call(Encoder(), SUBSCRIBE, *((f"x-{number}", "y" * 1000) for number in range(100)))
    pieces = [large[at : at + 16_000] for at in range(0, len(large), 16_000)]
    await flooded(
        frame(HEADERS, 0, 1, pieces[0]),
        *(frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:-1]),
        frame(CONTINUATION, END_HEADERS, 1, pieces[-1]),
    )
    await flooded(frame(HEADERS, 0, 1, begin), *(frame(CONTINUATION, 0, 1, b"") for _ in range(20_000)))
    # Messages that are too large, or promise to be.
    write = call(Encoder(), UPDATE_STATE)
    await flooded(frame(HEADERS, END_HEADERS, 1, write), frame(DATA, 0, 1, b"\0\xff\xff\xff\xff" + b"x" * 10_000))
    await flooded(
        frame(HEADERS, END_HEADERS, 1, write),
        frame(DATA, 0, 1, b"\0" + struct.pack(">I", 5 * MIB)),
        *(frame(DATA, 0, 1, b"x" * 16_000) for _ in range(400)),
    )
    # Frames that want an answer each.
    await flooded(*(frame(PING, 0, 0, b"12345678") for _ in range(20_000)))
    await flooded(*(frame(SETTINGS, 0, 0) for _ in range(20_000)))


async def test_messages_and_streams_beyond_the_limits_are_refused_with_a_status(doors: Doors) -> None:
    async with grpc.aio.insecure_channel(doors.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await channel.unary_unary(UPDATE_STATE)(b"\x12" + b"x" * (5 * MIB), timeout=30)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        subscribe = channel.unary_stream(SUBSCRIBE)
        calls = [subscribe(b"") for _ in range(MAX_STREAMS)]
        for each in calls:
            assert await each.read() is not grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await subscribe(b"").read()
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"{MAX_STREAMS} streams" in str(refusal.value.details())
        for each in calls:
            each.cancel()
            await each.code()
        del calls, each


async def test_messages_that_never_end_are_held_for_few_calls_only(doors: Doors) -> None:
    """Every call sends all of a message of 4 MiB but its last bytes, as far as the gateway lets it."""
    reader, writer = await doors.connected(doors.grpc_port)
    connection = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())

    async def heard() -> None:
        async with asyncio.timeout(20):
            for event in connection.receive_data(await reader.read(64 * 1024)):
                assert not isinstance(event, ConnectionTerminated)
        writer.write(connection.data_to_send())

    while connection.remote_settings.max_concurrent_streams > 10_000:
        await heard()
    allowed = connection.remote_settings.max_concurrent_streams
    assert allowed == MAX_CALLS
    left = dict.fromkeys(range(1, 2 * allowed, 2), 4 * MIB - 100)
    for stream in left:
        connection.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", UPDATE_STATE), *CALL])
        connection.send_data(stream, b"\0" + struct.pack(">I", 4 * MIB - 50))
    while any(left.values()):
        for stream, size in left.items():
            while size := min(left[stream], connection.local_flow_control_window(stream), 16_000):
                connection.send_data(stream, bytes(size))
                left[stream] -= size
        writer.write(connection.data_to_send())
        if any(left.values()):
            await heard()
    await writer.drain()
    await doors.frames_go_on()
    assert doors.grown() < MAX_CALLS * 4 * MIB + MAY_GROW
    writer.transport.abort()


async def test_connections_that_say_nothing_or_vanish_cost_nothing(doors: Doors) -> None:
    for _ in range(100):
        for port in (doors.port, doors.grpc_port):
            raw = socket.create_connection(("127.0.0.1", port))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
    await doors.frames_go_on()
