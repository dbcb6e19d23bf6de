"""The lobby as a process of its own: killed, restarted, misused, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import stat
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import redis
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from narupa_shared.auth import TokenVerifier
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import Bound
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc
from narupa_shared.registration import LobbyRegistration
from narupa_shared.sdk.narupa.lobby.v1 import (
    CreateSessionRequest,
    Endpoint,
    GetSessionRequest,
    JoinRequest,
    ListServicesRequest,
    LobbyServiceStub,
    RegisterServiceRequest,
    RenewLeaseRequest,
    Service,
    SessionSpec,
    WatchSessionRequest,
)
from narupa_shared.testing.redis_server import RedisServer

LIMIT_S = 20.0


class LobbyProcess:
    """A lobby in a process of its own, and the events it logged."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log: list[dict[str, object]] = []
        self.port = 0

    async def logged(self, event: str) -> dict[str, object]:
        """The next log entry of this event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            while line := await self.process.stderr.readline():
                with contextlib.suppress(json.JSONDecodeError):
                    self.log.append(json.loads(line))
                    if self.log[-1]["event"] == event:
                        return self.log[-1]
        raise AssertionError(f"the lobby ended without {event}: {self.log}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after this signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(LIMIT_S):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def lobby_process(*flags: str) -> AsyncIterator[LobbyProcess]:
    """A lobby with these flags; it keeps nothing unless they say where."""
    store = () if "--state-dir" in flags else ("--store", "memory")
    command = [sys.executable, "-m", "narupa_lobby", "--log-format", "json", "--drain-grace-s", "0.5", *store, *flags]
    lobby = LobbyProcess(await asyncio.create_subprocess_exec(*command, stderr=PIPE))
    try:
        ready = await lobby.logged("service_ready")
        lobby.port = int(str(ready["address"]).rpartition(":")[2])
        yield lobby
    finally:
        if lobby.process.returncode is None:
            await lobby.end(signal.SIGKILL)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[LobbyServiceStub]:
    async with Channel("127.0.0.1", port) as channel:
        yield LobbyServiceStub(channel)


async def kinds(port: int) -> list[str]:
    async with connected(port) as stub:
        return [service.kind for service in (await stub.list_services(ListServicesRequest(), timeout=LIMIT_S)).services]


async def until(condition: Callable[[], bool], seconds: float = LIMIT_S) -> float:
    """Waits for `condition`; returns how long it took, s."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # what is waited for happens in another process
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_services_come_back_by_themselves_after_kill_9(free_port: Callable[[], int]) -> None:
    port = free_port()
    config = ServiceConfig(lobby=f"127.0.0.1:{port}")
    imd = LobbyRegistration(config, "imd", Bound("127.0.0.1", 1), TokenVerifier("default"))
    trajectory = LobbyRegistration(config, "trajectory", Bound("127.0.0.1", 2), TokenVerifier("default"))
    async with imd, trajectory:  # before there is a lobby: any start order works
        async with lobby_process("--port", str(port)) as lobby:
            assert (await asyncio.wait_for(imd.wait_for("trajectory"), LIMIT_S)).id == trajectory.service_id
            assert (await asyncio.wait_for(trajectory.wait_for("imd"), LIMIT_S)).id == imd.service_id
            await lobby.end(signal.SIGKILL)
            await until(lambda: not imd.registered and not trajectory.registered)
        assert [service.id for service in imd.find("trajectory")] == [trajectory.service_id]
        async with lobby_process("--port", str(port)):
            assert await until(lambda: imd.registered and trajectory.registered) < 4
            assert await kinds(port) == ["imd", "trajectory"]
            async with connected(port) as stub:
                listed = (await stub.list_services(ListServicesRequest(), timeout=LIMIT_S)).services
            assert [service.id for service in listed] == [imd.service_id, trajectory.service_id]


async def test_a_service_that_leaves_in_order_is_gone_at_once_and_a_killed_one_soon() -> None:
    async with lobby_process("--port", "0", "--service-lease-s", "0.5") as lobby:
        config = ServiceConfig(lobby=f"127.0.0.1:{lobby.port}")
        async with LobbyRegistration(config, "imd", Bound("127.0.0.1", 1)):
            await lobby.logged("service_registered")
        assert await kinds(lobby.port) == []
        await lobby.logged("service_deregistered")
        killed = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import asyncio\n"
            "from narupa_shared.config import ServiceConfig\n"
            "from narupa_shared.daemon import Bound\n"
            "from narupa_shared.registration import LobbyRegistration\n"
            "async def main():\n"
            f"    async with LobbyRegistration(ServiceConfig(lobby='127.0.0.1:{lobby.port}'), 'imd', Bound('::1', 1)):\n"
            "        await asyncio.sleep(60)\n"
            "asyncio.run(main())\n",
            stderr=PIPE,
        )
        await lobby.logged("service_registered")
        killed.kill()
        await killed.communicate()
        await lobby.logged("service_lapsed")
        assert await kinds(lobby.port) == []


async def test_all_that_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    flags = ("--port", "0", "--state-dir", str(tmp_path / "state"), "--user-lease-s", "60", "--service-lease-s", "60")
    service = Service(id="imd-1", kind="imd", endpoints=[Endpoint(protocol="grpc", host="::1", port=1)])
    async with lobby_process(*flags) as lobby, connected(lobby.port) as stub:
        ada = await stub.join(JoinRequest(user_name="Ada", request_id="1"), timeout=LIMIT_S)
        lease = await stub.register_service(RegisterServiceRequest(service=service), timeout=LIMIT_S)
        watching = stub.watch_session(WatchSessionRequest())
        before = await anext(watching)
        await watching.aclose()  # type: ignore[attr-defined]
        made = await stub.create_session(CreateSessionRequest(spec=SessionSpec(name="Course")), timeout=LIMIT_S)
        grace = await stub.join(JoinRequest(user_name="Grace", join_code=made.join_code), timeout=LIMIT_S)
        await stub.join(JoinRequest(user_name="Alan"), timeout=LIMIT_S)
        await lobby.end(signal.SIGKILL)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    async with lobby_process(*flags) as lobby, connected(lobby.port) as stub:
        again = await stub.join(JoinRequest(user_name="Ada", request_id="1"), timeout=LIMIT_S)
        assert again.user == ada.user
        authorized = {"authorization": f"Bearer {grace.token}"}
        assert (await stub.list_services(ListServicesRequest(), metadata=authorized, timeout=LIMIT_S)).services == []
        got = await stub.get_session(GetSessionRequest(made.session.id), timeout=LIMIT_S)  # type: ignore[union-attr]
        assert ([user.name for user in got.users], got.join_code) == (["Grace"], made.join_code)
        await stub.renew_lease(RenewLeaseRequest(lease_id=lease.lease_id), timeout=LIMIT_S)
        resumed = stub.watch_session(WatchSessionRequest(epoch=before.epoch, after_revision=before.revision))
        missed = await anext(resumed)
        assert (missed.user_joined.name, missed.revision) == ("Alan", before.revision + 1)  # type: ignore[union-attr]
        await resumed.aclose()  # type: ignore[attr-defined]


async def test_a_second_lobby_cannot_have_the_same_state(tmp_path: Path) -> None:
    flags = ("--port", "0", "--state-dir", str(tmp_path / "state"))
    async with lobby_process(*flags):
        second = await asyncio.create_subprocess_exec(sys.executable, "-m", "narupa_lobby", *flags, stderr=PIPE)
        _, complaint = await asyncio.wait_for(second.communicate(), LIMIT_S)
        assert second.returncode == 1
        assert "Traceback" not in complaint.decode()


async def test_tokens_of_a_lobby_that_keeps_nothing_end_with_it() -> None:
    async with lobby_process("--port", "0") as lobby, connected(lobby.port) as stub:
        token = (await stub.join(JoinRequest(user_name="Ada"), timeout=LIMIT_S)).token
    async with lobby_process("--port", "0") as lobby, connected(lobby.port) as stub:
        with pytest.raises(GRPCError) as refusal:
            await stub.list_services(
                ListServicesRequest(), metadata={"authorization": f"Bearer {token}"}, timeout=LIMIT_S
            )
        assert refusal.value.status is Status.UNAUTHENTICATED


async def test_a_user_whose_connection_breaks_leaves_soon() -> None:
    async with lobby_process("--port", "0", "--rejoin-grace-s", "0.2") as lobby:
        async with connected(lobby.port) as stub:
            joined = await stub.join(JoinRequest(user_name="Ada"), timeout=LIMIT_S)
            watching = stub.watch_session(WatchSessionRequest(), metadata={"authorization": f"Bearer {joined.token}"})
            assert (await anext(watching)).snapshot is not None
        with contextlib.suppress(Exception):
            await anext(watching)
        assert (await lobby.logged("user_left"))["user"] == joined.user.id  # type: ignore[union-attr]


async def test_stopping_tells_watchers_and_is_quick() -> None:
    async with lobby_process("--port", "0") as lobby, grpc.aio.insecure_channel(f"127.0.0.1:{lobby.port}") as channel:
        stub: Any = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
        watching = stub.WatchSession(lobby_pb2.WatchSessionRequest())
        await watching.read()
        started = time.monotonic()
        assert await lobby.end(signal.SIGINT) == 0
        assert time.monotonic() - started < 3
        with pytest.raises(grpc.aio.AioRpcError) as reason:
            await watching.read()
        assert reason.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in str(reason.value.details())


async def test_a_port_in_use_is_said(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with lobby_process("--port", str(port)):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "narupa_lobby", "--port", str(port), "--store", "memory", stderr=PIPE
        )
        _, complaint = await asyncio.wait_for(second.communicate(), LIMIT_S)
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in complaint.decode()
        assert await kinds(port) == []


async def test_a_file_in_place_of_the_state_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "narupa_lobby", "--port", "0", "--state-dir", str(tmp_path / "state"), stderr=PIPE
    )
    _, complaint = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 2
    assert "state_dir is" in complaint.decode()


async def test_garbage_and_oversized_messages_disturb_nobody(garbage: tuple[bytes, ...]) -> None:
    async with lobby_process("--port", "0", "--max-message-bytes", "65536") as lobby:
        async with connected(lobby.port) as stub:
            watching = stub.watch_session(WatchSessionRequest())
            await anext(watching)
            for noise in garbage:
                _, writer = await asyncio.open_connection("127.0.0.1", lobby.port)
                writer.write(noise)
                await writer.drain()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{lobby.port}") as channel:
                raw = channel.unary_unary("/narupa.lobby.v1.LobbyService/Join")
                with pytest.raises(grpc.aio.AioRpcError):
                    await raw(b"\xff" * 100, timeout=LIMIT_S)
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await raw(b"\x12" + b"\x80\x80\x08" + b"x" * 131072, timeout=LIMIT_S)
                assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                other: Any = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
                await other.Join(lobby_pb2.JoinRequest(user_name="Ada"), timeout=LIMIT_S)
            async with asyncio.timeout(LIMIT_S):
                assert (await anext(watching)).user_joined.name == "Ada"  # type: ignore[union-attr]
            await watching.aclose()  # type: ignore[attr-defined]
        assert lobby.process.returncode is None


@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_a_lobby_whose_store_was_replaced_ends_in_order_to_be_started_anew(tmp_path: Path, store: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path)) if store == "redis" else None
        url = server.url if server else f"sqlite:{tmp_path / 'lobby.sqlite'}"
        async with (
            lobby_process("--port", "0", "--state-dir", str(tmp_path), "--store", url) as lobby,
            connected(lobby.port) as stub,
        ):
            await stub.join(JoinRequest(user_name="Ada"), timeout=LIMIT_S)
            watch = stub.watch_session(WatchSessionRequest())
            await anext(watch)
            if server:
                with redis.Redis.from_url(server.url) as database:
                    database.flushall()
            else:
                (tmp_path / "lobby.sqlite").rename(tmp_path / "backup.sqlite")
                with pytest.raises(GRPCError) as refused:  # nothing is asked of a file unless something changes
                    await stub.join(JoinRequest(user_name="Grace"), timeout=LIMIT_S)
                assert refused.value.status is Status.UNAVAILABLE
            with pytest.raises(GRPCError) as ended:
                async with asyncio.timeout(LIMIT_S):
                    await anext(watch)
            assert ended.value.status is Status.UNAVAILABLE
            async with asyncio.timeout(LIMIT_S):
                _, written = await lobby.process.communicate()
            assert lobby.process.returncode == 1
            text = written.decode()
            assert "Traceback" not in text
            assert text.count('"lobby_lost"') == 1 and "restart the service" in text
