"""The leak checks and faults that all other tests rely on."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import AsyncIterator

import pytest

from narupa_shared.testing.clock import FakeClock, FakeIds
from narupa_shared.testing.faults import FaultyLink, SlowSubscriber
from narupa_shared.testing.leaks import Leaks, leftover_tasks


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def test_a_clock_moves_only_when_told(clock: FakeClock) -> None:
    before = clock()
    assert clock.advance(2.5) == clock() == before + 2.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_ids_are_predictable(ids: FakeIds) -> None:
    assert [ids(), ids()] == ["id-1", "id-2"]


def test_a_leftover_thread_is_found() -> None:
    leaks, gate = Leaks(), threading.Event()
    thread = threading.Thread(target=gate.wait, name="left-behind")
    thread.start()
    try:
        assert leaks.wait(0.05) == ["thread 'left-behind'"]
    finally:
        gate.set()
        thread.join()
    assert leaks.wait() == []


def test_a_leftover_process_is_found() -> None:
    leaks = Leaks()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdin and child.stdout
        child.stdin.write(b"there?")
        assert child.stdout.read(6) == b"there?"  # it is cat by now, no longer a copy of this process
        assert leaks.wait(0.05) == [f"child process {child.pid}: cat"]
        child.communicate()
    assert leaks.wait() == []


def test_a_leftover_listener_is_found() -> None:
    leaks = Leaks()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert leaks.wait(0.05) == [f"TCP socket listening, local port {port}, remote port 0"]
    assert leaks.wait() == []


async def test_a_leftover_task_is_found() -> None:
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.Event().wait(), name="left-behind")
    found = await leftover_tasks(before, grace_s=0.02)
    task.cancel()
    assert len(found) == 1 and "left-behind" in found[0]
    assert await leftover_tasks(before) == []


async def test_a_slow_subscriber_reads_only_what_it_is_told_to() -> None:
    made = 0

    async def stream() -> AsyncIterator[int]:
        nonlocal made
        for made in range(1, 4):
            yield made

    subscriber = SlowSubscriber(stream())
    assert await subscriber.read(2) == [1, 2]
    assert made == 2
    assert await subscriber.read_all() == [1, 2, 3]


async def test_a_stalled_link_holds_bytes_back_and_then_delivers_them() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultyLink(server.sockets[0].getsockname()[1]) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        link.stall()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.readexactly(3)
        link.resume()
        assert await reader.readexactly(3) == b"two"
        writer.close()
        await writer.wait_closed()


async def test_a_cut_link_resets_its_connections_and_takes_new_ones() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultyLink(server.sockets[0].getsockname()[1]) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        await link.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(3)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        writer.close()
        await writer.wait_closed()
