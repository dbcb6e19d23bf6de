"""Who is let in by the gateway, as what, and how those hear of it who are not; web pages and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidMessage, InvalidStatus

from narupa_gateway.pages import packaged_files
from narupa_shared.certificates import Authority
from narupa_shared.testing.leaks import GRACE_S, Leaks
from narupa_shared.testing.waiting import until
from tests.compat.grpc_peer import GrpcPeer, Protocol
from tests.integration.gateway_scene import CODE, OPERATOR, Headset, Scene, refused

NOW = datetime.datetime.now(datetime.UTC)
REFUSED, TRY_LATER = 1008, 1013


@pytest.fixture(autouse=True)
async def connections_closed() -> AsyncIterator[None]:
    """gRPC closes a connection once the loop has seen the end of each call on it, and nothing refers to one any more."""
    leaks = Leaks()
    yield
    await asyncio.get_running_loop().shutdown_default_executor()  # of name look-ups
    gc.collect()
    with contextlib.suppress(TimeoutError):
        await until(lambda: not leaks.found(), GRACE_S)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    return Protocol("narupa", tmp_path_factory.mktemp("compiled"))


@pytest.fixture
async def scene(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Scene]:
    """A session into which nobody gets who is not let in."""
    scene = Scene(free_port, tmp_path, "", open_access=False)
    await scene.start("lobby", "imd", "gateway")
    try:
        yield scene
    finally:
        await scene.stop()


def peer_of(scene: Scene, protocol: Protocol) -> GrpcPeer:
    return GrpcPeer(protocol, *(scene.address("gateway"),) * 2)


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value.code(), str(refusal.value.details())


async def test_a_closed_session_lets_in_whom_its_host_chooses_and_as_what(scene: Scene, protocol: Protocol) -> None:
    code, reason = await refused(scene.headset())
    assert code == REFUSED and "narupa lobby guests participant" in reason
    async with peer_of(scene, protocol) as peer:
        status, details = await status_of(peer.update({"a": 1}))
        assert status is grpc.StatusCode.PERMISSION_DENIED and "narupa lobby guests participant" in details

        async with scene.as_operator() as lobby:
            await lobby.set_guest_role("viewer")
            assert await peer.update({"a": 1}) is False  # the same connection, let in now, and only to watch
            async with scene.headset() as viewer:
                await until(lambda: viewer.states)
                assert list(scene.users.values()) == ["viewer", "viewer"]
                await viewer.write({"mine": 1})
                await viewer.say(command={"register": {"name": "vr/x"}})
                await until(lambda: viewer.states >= 2)
                assert "mine" not in viewer.state and viewer.ended is None

                me = next(each for each in await lobby.users() if each.name.startswith("NanoVer"))
                await lobby.set_role(me.id, "participant")
                await until(lambda: scene.users[me.name] == "participant")
                async with asyncio.timeout(30):
                    while "mine" not in viewer.state:  # the token with the new role is on its way
                        await viewer.write({"mine": 1})
                        await asyncio.sleep(0.02)
                    while "vr/x" not in scene.apps["imd"].commands.provided:
                        await asyncio.sleep(0.02)

                await lobby.set_guest_role("none")
                assert (await refused(scene.headset()))[0] == REFUSED
                await viewer.write({"still": "here"})
                await until(lambda: "still" in viewer.state)


async def test_codes_and_invites_open_the_door_whatever_guests_may(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        invite = (await lobby.create_invite("host", uses=3)).secret
        for path, role, name in (
            (f"/{CODE}", "participant", "NanoVer guest 1"),
            (f"/?code={CODE.lower()}&name=Ada%20L", "participant", "Ada L"),
            (f"/{invite}", "host", "NanoVer guest 3"),
            (f"/?invite={invite}&name=Grace", "host", "Grace"),
        ):
            async with scene.headset(path) as headset:
                await until(lambda: headset.states)
                assert scene.users == {name: role}
            await until(lambda: scene.users == {})
        with capture_logs() as logs:
            for path in ("/WRONG-CODE", "/?code=WRONG-CODE", f"/{'w' * 43}", "/?invite=WRONG-INVITE"):
                code, reason = await refused(scene.headset(path))
                assert code == REFUSED and reason and "WRONG" not in reason
            assert (await refused(scene.headset("/?code=a&code=b")))[0] == REFUSED
        assert not any("WRONG-" in str(entry) or invite in str(entry) for entry in logs)


async def test_whoever_is_kicked_goes_and_hears_why(scene: Scene, protocol: Protocol) -> None:
    async with scene.as_operator() as lobby:
        await lobby.set_guest_role("participant")
        async with scene.headset() as headset, peer_of(scene, protocol) as peer, peer.states() as states:
            await headset.write({"avatar.vr": {"name": "x"}})
            await states.first(lambda state: "avatar.vr" in state)
            for user in await lobby.users():
                await lobby.kick(user.id, "noise")
            code, reason = await headset.until_ended()
            assert code == REFUSED and "noise" in reason
            status, details = await status_of(states.first(lambda _: False))
            assert status is grpc.StatusCode.PERMISSION_DENIED and "noise" in details
            assert scene.users == {}
            await until(lambda: "avatar.vr" not in scene.state)


async def test_there_is_room_for_so_many(free_port: Callable[[], int], tmp_path: Path, protocol: Protocol) -> None:
    scene = Scene(free_port, tmp_path, "")
    await scene.start("lobby", "imd")
    await scene.start("gateway", max_clients=2)
    try:
        async with scene.headset() as headset:
            async with peer_of(scene, protocol) as peer:
                assert await peer.update({"a": 1})
                code, reason = await refused(scene.headset())
                assert code == TRY_LATER and "2 clients" in reason
                async with GrpcPeer(protocol, *(scene.address("gateway"),) * 2) as other:
                    status, details = await status_of(other.update({"a": 1}))
                    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED and "2 clients" in details
                assert headset.ended is None
            gc.collect()
            await until(lambda: scene.gateway.guests._places == 1)
            async with scene.headset() as other_headset:
                await until(lambda: other_headset.states)
    finally:
        await scene.stop()


async def test_connections_beyond_all_clients_are_cut_and_those_there_are_stay(
    free_port: Callable[[], int], tmp_path: Path, protocol: Protocol
) -> None:
    scene = Scene(free_port, tmp_path, "")
    await scene.start("lobby", "imd")
    await scene.start("gateway", max_clients=2)
    try:
        async with scene.headset() as headset, peer_of(scene, protocol) as peer, peer.states() as states:
            await states.next()
            for port in (scene.ports["gateway"], scene.ports["websocket"]):
                more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
                async with asyncio.timeout(30):
                    with contextlib.suppress(ConnectionError):
                        assert await more[-1 if port == scene.ports["gateway"] else 0][0].read() == b""
                for _, writer in more:
                    writer.transport.abort()
            await headset.write({"a": 1})
            await states.first(lambda state: "a" in state)
        gc.collect()
        async with asyncio.timeout(30):
            while True:
                async with peer_of(scene, protocol) as peer:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        assert await peer.update({"b": 1})
                        break
    finally:
        await scene.stop()


async def test_a_gateway_without_its_lobby_says_so(free_port: Callable[[], int], tmp_path: Path) -> None:
    scene = Scene(free_port, tmp_path, "")
    await scene.start("lobby")
    await scene.start("gateway", join_limit_s=0.1)
    try:
        await scene.stop("lobby")
        code, reason = await refused(scene.headset())
        assert code == TRY_LATER and "lobby" in reason
    finally:
        await scene.stop()


# Web pages.


async def exchanged(scene: Scene, request: bytes) -> bytes:
    """What the WebSocket port answers to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.ports["websocket"])
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_web_pages_connect_from_here_and_from_nowhere_else(scene: Scene) -> None:
    async with scene.as_operator() as lobby:
        await lobby.set_guest_role("viewer")
    here = f"http://{scene.address('websocket')}"
    async with scene.headset(origin=here) as headset:
        await until(lambda: headset.states)
    await until(lambda: scene.users == {})
    for origin in ("https://evil.example", "null", f"http://localhost:{scene.ports['websocket']}"):
        with pytest.raises(InvalidStatus) as refusal:
            async with scene.headset(origin=origin):
                pass
        assert refusal.value.response.status_code == 403
        assert b"--allow-origins" in (refusal.value.response.body or b"")
    assert scene.users == {}


async def test_a_browser_that_opens_the_address_gets_a_page(scene: Scene) -> None:
    port = scene.ports["websocket"]
    answer = await exchanged(scene, f"GET /about HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"text/html" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert scene.users == {}


async def test_a_browser_gets_the_whole_viewer(scene: Scene) -> None:
    files = packaged_files()
    for name in ["", *files]:
        answer = await exchanged(scene, f"GET /{name} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        if name == "index.html":
            assert head.startswith(b"HTTP/1.1 404")
            continue
        assert head.startswith(b"HTTP/1.1 200") and b"Content-Security-Policy: default-src 'self'" in head
        assert body == files[name or "index.html"]
    answer = await exchanged(scene, b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n")
    assert scene.users == {}


# TLS.


class Folder:
    """What an authority has given out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = Authority.new(NOW)
        self.ca = path / "ca.pem"
        self.ca.write_bytes(self.authority.issued.certificate)
        self.cert, self.key = path / "server.pem", path / "server-key.pem"
        self.issue()

    def issue(self) -> None:
        """The server's certificate is another."""
        issued = self.authority.server(["localhost", "127.0.0.1"], NOW, 90)
        self.cert.write_bytes(issued.certificate)
        self.key.write_bytes(issued.key)

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_cert": self.cert, "tls_key": self.key, "tls_ca": self.ca}


def serial(headset: Headset) -> int:
    """Of the certificate that the gateway shows."""
    shown = headset.connection.transport.get_extra_info("ssl_object").getpeercert()
    return int(shown["serialNumber"], 16)


async def test_over_tls_with_certificates_that_are_renewed_meanwhile(
    free_port: Callable[[], int], tmp_path: Path, protocol: Protocol
) -> None:
    folder = Folder(tmp_path)
    scene = Scene(free_port, tmp_path, "", **folder.settings)
    await scene.start("lobby", "imd", "gateway")
    trusting = ssl.create_default_context(cafile=str(folder.ca))
    place = f"wss://localhost:{scene.ports['websocket']}/"
    try:
        async with Headset(place, ssl=trusting) as headset:
            await headset.write({"a": 1})
            await until(lambda: "a" in headset.state)
            folder.issue()
            async with Headset(place, ssl=trusting) as later:
                await later.write({"b": 1})
                await until(lambda: "b" in headset.state)
                assert serial(later) != serial(headset)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with Headset(place, ssl=ssl.create_default_context()):
                pass
        with pytest.raises(InvalidMessage):
            async with scene.headset():
                pass
        credentials = grpc.ssl_channel_credentials(folder.ca.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{scene.ports['gateway']}", credentials) as channel:
            call = protocol.method("state.State", "UpdateState", channel)
            request = protocol.message("state.UpdateStateRequest")()
            request.update.changed_keys.update({"c": 3})
            assert (await call(request, timeout=20)).success
        await until(lambda: scene.state.get("c") == 3)
        assert OPERATOR not in str(scene.state)
    finally:
        await scene.stop()


async def test_whoever_never_ends_the_handshake_of_tls_is_dropped(
    free_port: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from narupa_gateway import websocket_server

    monkeypatch.setattr(websocket_server, "OPENING_LIMIT_S", 0.3)
    folder = Folder(tmp_path)
    scene = Scene(free_port, tmp_path, "", **folder.settings)
    await scene.start("lobby", "gateway")
    try:
        assert await exchanged(scene, b"") == b""
        assert await exchanged(scene, b"\x16\x03\x01\x02\x00\x01") == b""
    finally:
        await scene.stop()
