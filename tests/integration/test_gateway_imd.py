"""The gateway's IMD listener on real sockets: readers that exist, a hand-written puller of version 2, and hostile strangers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imdclient.IMDClient import IMDClient

from narupa_gateway.imd_client import ImdLimits, Write
from narupa_gateway.imd_server import ImdServer
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import StartError
from narupa_shared.errors import NarupaError, PermissionDeniedError, UnavailableError
from narupa_shared.frames import Frame
from narupa_shared.imd_protocol import ClientSession, MessageType, forces_message, handshake, header
from narupa_shared.imd_protocol import Frame as ImdFrame
from narupa_shared.testing.waiting import until

LIMIT_S = 20.0
COUNT = 4
LIMITS = ImdLimits(go_s=0.5, first_frame_s=0.5, partial_s=0.3, silence_s=0.5, stall_s=LIMIT_S, writes_per_s=1000.0)


class Source:
    """The newest of the frames that the test publishes."""

    def __init__(self) -> None:
        self.newest: Frame | None = None
        self.watched = 0
        self.failure: NarupaError | None = None
        self._news = asyncio.Event()

    def publish(self, frame: Frame) -> None:
        self.newest = frame
        self._wake()

    def fail(self, error: NarupaError) -> None:
        self.failure = error
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def frames(self) -> AsyncGenerator[Frame, None]:
        self.watched += 1
        try:
            last = None
            while self.failure is None:
                if self.newest is not None and self.newest is not last:
                    last = self.newest
                    yield last
                else:
                    await self._news.wait()
            raise self.failure
        finally:
            self.watched -= 1


class Door:
    """Lets in whoever comes, or nobody, and keeps what they write."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.inside: list[Callable[[str], None]] = []
        self.refusal: NarupaError | None = None
        self.write_refusal: NarupaError | None = None
        self.writes = 0

    @contextlib.asynccontextmanager
    async def join(self, address: str, ended: Callable[[str], None]) -> AsyncIterator[Write]:
        if self.refusal is not None:
            raise self.refusal
        assert address == "127.0.0.1"
        owned: set[str] = set()

        async def write(updates: Mapping[str, Any], removals: Sequence[str]) -> None:
            await asyncio.sleep(0)
            if self.write_refusal is not None:
                raise self.write_refusal
            self.writes += 1
            self.state.update(updates)
            owned.update(updates)
            for key in removals:
                self.state.pop(key, None)

        self.inside.append(ended)
        try:
            yield write
        finally:
            self.inside.remove(ended)
            for key in owned:
                self.state.pop(key, None)

    @property
    def forces(self) -> list[tuple[list[int], list[list[float]]]]:
        return [(value["particles"], value["parameters"]["forces"]) for value in self.state.values()]


@dataclass
class Bench:
    source: Source
    door: Door
    server: ImdServer


@contextlib.asynccontextmanager
async def bench(version: Any = 3, limits: ImdLimits = LIMITS, publish: bool = True) -> AsyncIterator[Bench]:
    source, door = Source(), Door()
    if publish:
        source.publish(frame(1))
    names = itertools.count(1)
    server = ImdServer(
        source.frames,
        door.join,
        host="127.0.0.1",
        port=0,
        version=version,
        limits=limits,
        new_id=lambda: f"client{next(names)}",
    )
    async with server:
        yield Bench(source, door, server)
    assert not door.inside and not door.state and not source.watched


def frame(step: int, count: int = COUNT, **more: Any) -> Frame:
    positions = np.full((count, 3), 0.01 * step, np.float32)
    items = {
        keys.POSITIONS: positions,
        keys.VELOCITIES: positions * 2,
        keys.BOX: np.diag([2.0, 3.0, 4.0]).astype(np.float32),
        keys.TIME: 0.5 * step,
        keys.STEP: float(step),
        keys.POTENTIAL: -10.0 * step,
        keys.KINETIC: 1.0,
        keys.TEMPERATURE: 300.0,
        **more,
    }
    return Frame.of(step, items)


@contextlib.asynccontextmanager
async def streaming(source: Source, interval_s: float = 0.002) -> AsyncIterator[None]:
    """Within, step after step is published."""

    async def run() -> None:
        for step in itertools.count(2):
            source.publish(frame(step))
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Client:
    """A client on a plain socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, particles: int) -> None:
        self.reader, self.writer = reader, writer
        self.session = ClientSession(particles)
        self._frames: list[ImdFrame] = []

    async def frame(self) -> ImdFrame:
        """The next one. Raises: UnavailableError when the server has said goodbye, EOFError when it is gone."""
        async with asyncio.timeout(LIMIT_S):
            while not self._frames:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._frames += self.session.feed(data)
        return self._frames.pop(0)

    async def greeted(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.session.info is None:
                data = await self.reader.read(65536)
                assert data
                self._frames += self.session.feed(data)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def push(self, indices: Sequence[int], forces: Any) -> None:
        self.send(forces_message(indices, forces, self.session.byte_order))

    async def rest(self) -> bytes:
        """All that still comes, until the server hangs up."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def connected(bench: Bench, particles: int = COUNT, go: bool = True) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
    client = Client(reader, writer, particles)
    try:
        if go:
            await client.greeted()
            client.send(header(MessageType.GO))
        yield client
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# Readers that exist.


@pytest.mark.parametrize("version", [2, 3])
async def test_the_imdclient_package_reads_a_session(version: int) -> None:
    def read(port: int) -> list[tuple[Any, ...]]:
        client = IMDClient("127.0.0.1", port, COUNT, multithreaded=False)
        try:
            info = client.get_imdsessioninfo()
            found: list[tuple[Any, ...]] = [(info.version, info.time, info.box, info.velocities, info.forces)]
            for _ in range(5):
                got = client.get_imdframe()
                row: tuple[Any, ...] = (float(got.positions[0, 0]), dict(got.energies))
                if version == 3:
                    row += (got.time, got.step, got.box.copy(), float(got.velocities[1, 1]))
                found.append(row)
            return found
        finally:
            client.stop()

    async with bench(version) as made, streaming(made.source):
        with ThreadPoolExecutor(1) as thread:
            info, *rows = await asyncio.get_running_loop().run_in_executor(thread, read, made.server.port)
        assert info == (version, *((True, True, True, False) if version == 3 else (False, False, False, False)))
        unit = 4.184 if version == 2 else 1.0
        for place, energies, *more in rows:
            step = round(place / 0.1)
            assert energies["step"] == step
            assert energies["potential_energy"] == pytest.approx(-10.0 * step / unit)
            assert energies["total_energy"] == pytest.approx((1.0 - 10.0 * step) / unit)
            if version == 3:
                time, exact, box, velocity = more
                assert (time, exact) == (pytest.approx(0.5 * step), step)
                np.testing.assert_allclose(box, np.diag([20, 30, 40]))
                assert velocity == pytest.approx(0.2 * step)
        await until(lambda: not made.server.clients)


MDANALYSIS = """
import sys
import MDAnalysis, numpy
universe = MDAnalysis.Universe.empty(int(sys.argv[2]), trajectory=False)
universe.load_new(f"imd://127.0.0.1:{sys.argv[1]}", n_atoms=int(sys.argv[2]), buffer_size=4096)
count = 0
for ts in universe.trajectory:
    step = ts.data["step"]
    assert numpy.allclose(ts.positions, 0.1 * step, rtol=1e-5), (ts.positions, step)
    assert numpy.allclose(ts.velocities, 0.2 * step, rtol=1e-5)
    assert numpy.allclose(ts.dimensions, [20, 30, 40, 90, 90, 90])
    assert abs(ts.time - 0.5 * step) < 1e-6
    count += 1
    if count == 200:
        break
universe.trajectory.close()
print("read", count)
"""


async def test_mdanalysis_reads_a_session(tmp_path: Path) -> None:
    """With a buffer so small that its client pauses and resumes all the time."""
    script = tmp_path / "read.py"
    script.write_text(MDANALYSIS)
    async with bench() as made, streaming(made.source):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            str(script),
            str(made.server.port),
            str(COUNT),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(3 * LIMIT_S):
            out, errors = await process.communicate()
        assert out.split() == [b"read", b"200"], errors.decode()
        await until(lambda: not made.server.clients)


# The protocol's own ways.


async def test_nothing_is_fetched_and_nobody_joins_before_somebody_wants_to_begin() -> None:
    async with bench() as made:
        assert not made.source.watched
        async with connected(made, go=False) as client:
            await client.greeted()
            assert not made.door.inside
            await until(lambda: made.source.watched == 1)
            client.send(header(MessageType.GO))
            await client.frame()
            assert len(made.door.inside) == 1
        await until(lambda: not made.server.clients)
        await until(lambda: not made.source.watched)


async def test_who_does_not_say_go_in_time_is_turned_away() -> None:
    async with bench() as made, connected(made, go=False) as client:
        assert await client.rest() == handshake(3, client.session.byte_order, None) + (await _info(made)) + header(
            MessageType.DISCONNECT
        )
        assert not made.door.inside


async def _info(made: Bench) -> bytes:
    return header(MessageType.SESSION_INFO, 7) + bytes([1, 1, 1, 1, 0, 1, 0])


async def test_without_a_frame_there_is_no_session() -> None:
    async with bench(publish=False) as made, connected(made, go=False) as client:
        assert await client.rest() == b""


async def test_the_first_frame_may_come_a_moment_later() -> None:
    patient = replace(LIMITS, first_frame_s=LIMIT_S)
    async with bench(limits=patient, publish=False) as made, connected(made, go=False) as client:
        await until(lambda: made.source.watched)
        made.source.publish(frame(3))
        await client.greeted()
        client.send(header(MessageType.GO))
        assert (await client.frame()).time.step == 3  # type: ignore[union-attr]


async def test_every_client_has_its_own_rate_and_pause_and_frames_are_encoded_once() -> None:
    async with bench() as made, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(made)) for _ in range(3)]
        for client in clients:
            assert (await client.frame()).energies is not None
        clients[1].send(header(MessageType.TRANSMISSION_RATE, 3))
        clients[2].send(header(MessageType.PAUSE))
        for client in clients[1:]:  # their wishes are known once a force of theirs is
            client.push([0], [[1, 0, 0]])
        await until(lambda: len(made.door.state) == 2)
        seen = []
        for step in range(2, 8):
            made.source.publish(frame(step))
            assert (await clients[0].frame()).time.step == step  # type: ignore[union-attr]
            if step in (4, 7):
                seen.append((await clients[1].frame()).time.step)  # type: ignore[union-attr]
        assert seen == [4, 7]
        clients[2].send(header(MessageType.RESUME))
        assert (await clients[2].frame()).time.step == 7  # type: ignore[union-attr]
        frames = made.server._frames
        assert frames is not None and frames.encodings == 7


async def test_a_slow_client_skips_frames_and_holds_nobody_up() -> None:
    count = 40_000
    async with bench() as made:
        made.source.publish(frame(1, count))
        async with connected(made, count) as slow, connected(made, count) as quick:
            await quick.frame()
            for step in range(2, 60):
                made.source.publish(frame(step, count))
                assert (await quick.frame()).time.step == step  # type: ignore[union-attr]
            steps: list[int] = []
            while not steps or steps[-1] != 59:
                time = (await slow.frame()).time
                assert time is not None
                steps.append(time.step)
            assert steps == sorted(set(steps)) and len(steps) < 59


@pytest.mark.parametrize("type", [MessageType.KILL, MessageType.DISCONNECT])
async def test_a_client_that_kills_ends_only_itself(type: MessageType) -> None:
    async with bench() as made, connected(made) as one, connected(made) as other:
        await one.frame()
        await other.frame()
        one.send(header(type))
        await one.rest()
        made.source.publish(frame(9))
        assert (await other.frame()).time.step == 9  # type: ignore[union-attr]
        assert made.server.clients == 1


@pytest.mark.parametrize(
    "changed",
    [
        frame(2, COUNT + 1),
        Frame.of(2, {**frame(2).values, **frame(2).arrays, keys.SIMULATION_NAME: "another"}),
        Frame.of(2, {keys.POSITIONS: np.zeros((COUNT, 3), np.float32)}),
        Frame.of(2, {}),
    ],
    ids=["more particles", "another name", "less in it", "nothing in it"],
)
@pytest.mark.parametrize("paused", [False, True])
async def test_another_system_ends_the_session(changed: Frame, paused: bool) -> None:
    async with bench() as made, connected(made) as client:
        await client.frame()
        if paused:
            client.send(header(MessageType.PAUSE))
            client.push([0], [[1, 0, 0]])
            await until(lambda: made.door.state)
        made.source.publish(changed)
        with pytest.raises(UnavailableError, match="DISCONNECT"):
            await client.frame()
        assert await client.rest() == b""


async def test_who_is_not_let_in_is_told_goodbye_and_others_go_on() -> None:
    async with bench() as made, connected(made) as inside:
        await inside.frame()
        made.door.refusal = PermissionDeniedError("no guests")
        async with connected(made) as client:
            with pytest.raises(UnavailableError, match="DISCONNECT"):
                await client.frame()
        made.source.publish(frame(5))
        assert (await inside.frame()).time.step == 5  # type: ignore[union-attr]
        made.door.inside[0]("removed by a host")
        with pytest.raises(UnavailableError, match="DISCONNECT"):
            await inside.frame()


async def test_the_end_of_the_frames_ends_the_session_and_the_next_client_asks_anew() -> None:
    async with bench() as made:
        async with connected(made) as client:
            await client.frame()
            made.source.fail(UnavailableError("the gateway is stopping"))
            with pytest.raises(UnavailableError, match="DISCONNECT"):
                await client.frame()
        made.source.failure = None
        async with connected(made) as client:
            await client.frame()


async def test_stopping_tells_everybody() -> None:
    source, door = Source(), Door()
    source.publish(frame(1))
    server = ImdServer(source.frames, door.join, host="127.0.0.1", port=0, limits=LIMITS)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        made = Bench(source, door, server)
        client = await stack.enter_async_context(connected(made))
        await client.frame()
        with pytest.raises(StartError, match=f"{server.port}.*imd-port"):
            async with ImdServer(source.frames, door.join, host="127.0.0.1", port=server.port):
                pass
        await server.__aexit__(None, None, None)
        with pytest.raises(UnavailableError, match="DISCONNECT"):
            await client.frame()
        assert await client.rest() == b""


# Pulling.


class TestVersion2Pulls:
    """As VMD does: every byte is made here."""

    async def _open(self, made: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.server.port)
        async with asyncio.timeout(LIMIT_S):
            type, version = struct.unpack(">i", await reader.readexactly(4)), await reader.readexactly(4)
            assert type == (4,) and struct.unpack("=i", version) == (2,)
            writer.write(struct.pack(">ii", 3, 0))
            writer.write(struct.pack(">ii", 8, 1))
            assert struct.unpack(">ii", await reader.readexactly(8)) == (1, 1)
            step, *energies = struct.unpack("=i9f", await reader.readexactly(40))
            assert step == 1 and energies[2] == pytest.approx(-10 / 4.184)
            assert struct.unpack(">ii", await reader.readexactly(8)) == (2, COUNT)
            places = struct.unpack(f"={3 * COUNT}f", await reader.readexactly(12 * COUNT))
            assert places == pytest.approx([0.1] * 3 * COUNT)
        return reader, writer

    async def test_forces_become_one_interaction_and_end(self) -> None:
        async with bench(2, replace(LIMITS, silence_s=LIMIT_S)) as made:
            _, writer = await self._open(made)
            writer.write(struct.pack(">ii", 6, 2) + struct.pack("=2i6f", 3, 1, 1, 0, 0, 0, 2, 0))
            await until(lambda: made.door.state)
            assert list(made.door.state) == ["interaction.imd-client1"]
            ((particles, forces),) = made.door.forces
            assert particles == [1, 3]
            np.testing.assert_allclose(forces, np.array([[0, 2, 0], [1, 0, 0]]) * 41.84, rtol=1e-6)
            writer.write(struct.pack(">ii", 6, 1) + struct.pack("=i3f", 0, 0, 0, -1))
            await until(lambda: made.door.forces[0][0] == [0])
            writer.write(struct.pack(">ii", 6, 1) + struct.pack("=i3f", 0, 0, 0, 0))
            await until(lambda: not made.door.state)
            writer.write(struct.pack(">ii", 6, 1) + struct.pack("=i3f", 0, 1, 0, 0))
            await until(lambda: made.door.state)
            writer.write(struct.pack(">ii", 6, 0))
            await until(lambda: not made.door.state)
            writer.write(struct.pack(">ii", 6, 1) + struct.pack("=i3f", 0, 1, 0, 0))
            await until(lambda: made.door.state)
            writer.close()
            await writer.wait_closed()
            await until(lambda: not made.door.state and not made.server.clients)

    async def test_forces_end_with_silence(self) -> None:
        async with bench(2) as made:
            _, writer = await self._open(made)
            for _ in range(2):
                writer.write(struct.pack(">ii", 6, 1) + struct.pack("=i3f", 0, 1, 0, 0))
                await until(lambda: made.door.state)
                await until(lambda: not made.door.state)
            writer.close()
            await writer.wait_closed()


async def test_version_3_pulls_in_its_own_units_and_a_flood_is_passed_over() -> None:
    limits = replace(LIMITS, writes_per_s=20.0, silence_s=LIMIT_S, messages_per_s=1e6, messages_burst=10**6)
    async with bench(3, limits) as made, connected(made) as client:
        await client.frame()
        for number in range(1, 2001):
            client.push([2], [[number, 0, 0]])
        await until(lambda: made.door.state and made.door.forces[0][1][0][0] == 20000)
        assert made.door.writes < 100


async def test_forces_that_are_refused_do_not_act_and_do_not_end_the_session() -> None:
    async with bench(3, replace(LIMITS, silence_s=LIMIT_S)) as made, connected(made) as client:
        await client.frame()
        made.door.write_refusal = PermissionDeniedError("you only watch")
        client.push([2], [[1, 0, 0]])
        made.source.publish(frame(2))
        await client.frame()
        made.door.write_refusal = None
        client.push([2], [[2, 0, 0]])
        await until(lambda: made.door.state)
        assert made.door.forces == [([2], [[20.0, 0.0, 0.0]])]


# Strangers.


async def test_there_are_only_so_many_connections() -> None:
    limits = replace(LIMITS, connections=3, opening=2, go_s=LIMIT_S)
    async with bench(3, limits) as made, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(connected(made))
            await client.frame()
        silent = await stack.enter_async_context(connected(made, go=False))
        await silent.greeted()
        refused = await stack.enter_async_context(connected(made, go=False))
        assert await refused.rest() == b""
        assert made.server.refused == 1
        silent.send(header(MessageType.KILL))
        await silent.rest()
        await until(lambda: made.server.clients == 2)
        again = await stack.enter_async_context(connected(made))
        await again.frame()


async def test_who_reads_nothing_for_long_is_turned_away() -> None:
    count = 40_000
    async with bench(3, replace(LIMITS, stall_s=0.3)) as made:
        made.source.publish(frame(1, count))
        async with connected(made, count) as client:
            await client.frame()
            async with asyncio.timeout(LIMIT_S):
                for step in itertools.count(2):
                    if not made.server.clients:
                        break
                    made.source.publish(frame(step, count))
                    await asyncio.sleep(0.01)


async def test_half_a_message_does_not_wait_for_ever() -> None:
    async with bench() as made, connected(made) as client:
        await client.frame()
        client.send(forces_message([0], [[1, 0, 0]], client.session.byte_order)[:-3])
        with pytest.raises(UnavailableError, match="DISCONNECT"):
            await client.frame()


async def test_who_sends_too_many_messages_is_turned_away() -> None:
    limits = replace(LIMITS, messages_per_s=1.0, messages_burst=50)
    async with bench(3, limits) as made, connected(made) as client:
        await client.frame()
        client.send(header(MessageType.TRANSMISSION_RATE, 1) * 100)
        with pytest.raises((UnavailableError, EOFError, ConnectionError)):
            while True:
                await client.frame()


async def test_hostile_bytes_leave_others_alone() -> None:
    chance = random.Random(42)
    limits = replace(LIMITS, connections=64, opening=64)
    async with bench(3, limits) as made, connected(made) as other:
        await other.frame()
        for number in range(120):
            async with connected(made, go=number % 2 == 0) as stranger:
                head = header(chance.choice(list(MessageType)), chance.choice((0, 1, COUNT, -1, 2**31 - 1)))
                stranger.send(chance.choice((b"", head)) + chance.randbytes(chance.randrange(0, 400)))
                with contextlib.suppress(OSError):
                    await stranger.writer.drain()
        made.source.publish(frame(77))
        assert (await other.frame()).time.step == 77  # type: ignore[union-attr]
        await until(lambda: made.server.clients == 1)
        assert not made.door.state
