"""Sessions are found: on loopback, by our own client, by the command line, and by a NanoVer client that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import narupa_client
from narupa_gateway.discovery import Discovery, gateway_ports
from narupa_shared.discovery.broadcasting import HubBroadcaster
from narupa_shared.discovery.essd import MAX_BYTES, ServiceHub
from narupa_shared.discovery.interfaces import InterfaceAddress
from narupa_shared.discovery.listening import HubListener
from narupa_shared.discovery.mdns import MdnsAdvertiser, browse
from narupa_shared.errors import UnavailableError

NEAR = "127.255.255.255"
LOOPBACK = InterfaceAddress("lo", "127.0.0.1", None)
PORTS = gateway_ports(38802, 38801)
HUB = ServiceHub("Lab", "", "a-b-c", PORTS, "default", (":38810",))
PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason="needs the NanoVer client: make peers")


@pytest.fixture
async def listener() -> AsyncIterator[HubListener]:
    async with HubListener(0, NEAR) as listener:
        yield listener


def near(name: str, port: int) -> HubBroadcaster:
    hub = ServiceHub(name, "", name, PORTS)
    return HubBroadcaster(hub, "127.0.0.1", port=port, interval_s=0.02)


async def test_several_programs_listen_and_announce_at_once(listener: HubListener) -> None:
    async with HubListener(listener.port, NEAR) as other, near("a", listener.port), near("b", listener.port):
        for each in (listener, other):
            hubs = await each.until(lambda hubs: len(hubs) == 2)
            assert {hub.name for hub in hubs} == {"a", "b"}
            assert {hub.address for hub in hubs} == {"localhost"}


async def test_an_interface_that_fails_is_logged_once_and_hinders_no_other(listener: HubListener) -> None:
    # An IPv4 socket refuses either, before anything is sent.
    broken = [InterfaceAddress("bad0", "203.0.113.1", "::1"), InterfaceAddress("bad1", "203.0.113.2", "::2")]
    with capture_logs() as logs:
        sender = HubBroadcaster(HUB, "0.0.0.0", port=listener.port, interval_s=0.02, read=lambda: [*broken, LOOPBACK])
        async with sender:
            await listener.until(bool)
            async with HubListener(listener.port, NEAR) as later:  # hears only of another round
                await later.until(bool)
    assert sorted(entry["where"] for entry in logs if entry["event"] == "cannot_announce") == [
        "bad0 ::1",
        "bad1 ::2",
    ]


async def test_interfaces_that_come_later_are_announced_to(listener: HubListener) -> None:
    there: list[InterfaceAddress] = []
    failing = [OSError("not now")]

    def read() -> Sequence[InterfaceAddress]:
        if failing:
            raise failing.pop()
        return list(there)

    sender = HubBroadcaster(HUB, "127.0.0.1", port=listener.port, interval_s=0.01, reread_s=0.02, read=read)
    async with sender:
        while failing:
            await asyncio.sleep(0.005)
        assert sender.targets == ()
        there.append(LOOPBACK)
        await listener.until(bool)
        there.clear()
        while sender.targets:
            await asyncio.sleep(0.005)


async def test_strangers_do_not_disturb_listening(listener: HubListener, garbage: tuple[bytes, ...]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for data in (*garbage, b"", b"{}", b"[" * MAX_BYTES):
            stranger.sendto(data, (NEAR, listener.port))
        stranger.sendto(HUB.at("0.0.0.0", loopback=True).encode(), (NEAR, listener.port))
    (hub,) = await listener.until(bool)
    assert hub.name == "Lab" and hub.address == "127.0.0.1" and hub.lobbies == ("127.0.0.1:38810",)


async def test_a_port_that_somebody_holds_is_said() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("0.0.0.0", 0))
        port = held.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"UDP port {port} cannot be listened on"):
            await narupa_client.discover(0.05, port=port, mdns=False)


async def test_the_python_client_finds_a_session(listener: HubListener) -> None:
    discovery = Discovery("Lab", "127.0.0.1", PORTS, session="kinases", lobbies=["127.0.0.1:38810"], port=listener.port)
    async with discovery:
        await listener.until(bool)
        (found,) = await narupa_client.discover(1.0, port=listener.port, mdns=False)
    assert (found.name, found.session_id, found.address) == ("Lab", "kinases", "127.0.0.1")
    assert found.lobbies == (narupa_client.Endpoint("127.0.0.1", 38810),)
    assert found.websocket == "ws://127.0.0.1:38801"


async def discovered(*arguments: str) -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "narupa_client.cli", "discover", "--no-mdns", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command_lists_sessions_and_other_servers_and_how_to_join_them(listener: HubListener) -> None:
    port = listener.port
    ours = Discovery("Ours", "127.0.0.1", PORTS, session="kinases", lobbies=["127.0.0.1:38810"], port=port)
    async with ours, near("theirs", port):
        (status, table, said), (json_status, text, _) = await asyncio.gather(
            discovered("--port", str(port)), discovered("--port", str(port), "--json")
        )
    assert (status, json_status, said) == (0, 0, "")
    assert "narupa watch --lobby 127.0.0.1:38810 --session kinases" in table
    assert "ws://127.0.0.1:38801" in table and "a NanoVer client" in table
    facts = json.loads(text)
    assert [session["name"] for session in facts] == ["Ours", "theirs"]
    assert facts[0]["command"] == "narupa watch --lobby 127.0.0.1:38810 --session kinases"
    assert facts[0]["found_by"] == ["broadcast"] and facts[1]["command"] == ""


async def test_the_command_says_what_to_do_when_nothing_is_announced(listener: HubListener) -> None:
    status, out, said = await discovered("--port", str(listener.port), "--seconds", "0.1", "--json")
    assert (status, json.loads(out)) == (1, [])
    assert "--lobby HOST:PORT" in said and "invite link" in said


SEARCH = """
import sys
from nanover.essd import DiscoveryClient
from nanover.websocket.client import app_client
port = int(sys.argv[1])
with DiscoveryClient(address="127.255.255.255", port=port) as client:
    print(next(iter(client.search_for_services(30.0))).properties)
find = {"discovery_address": "127.255.255.255", "discovery_port": port, "search_time": 30.0}
print(app_client._search_for_first_server_with_name(server_name=sys.argv[2], **find).get_service_address("ws"))
print(app_client._search_for_first_local_server(**find).get_service_address("ws"))
"""


@needs_peers
async def test_a_nanover_client_finds_the_session_by_name_and_as_one_of_its_own_machine(listener: HubListener) -> None:
    # As long as it may be: existing clients measure it anew in their own way.
    name = "Die Sitzung im größten Hörsaal \N{DNA DOUBLE HELIX} " * 20
    discovery = Discovery(name, "127.0.0.1", PORTS, session="kinases", lobbies=["127.0.0.1:38810"], port=listener.port)
    async with discovery:
        (hub,) = await listener.until(bool)
        peer = await asyncio.create_subprocess_exec(
            *(PEERS, "-c", SEARCH, str(listener.port), hub.name),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await peer.communicate()
    assert peer.returncode == 0, err.decode()
    properties, by_name, local = out.decode().splitlines()
    assert "'trajectory': 38802" in properties and "'essd_version': '1.0.0'" in properties
    assert by_name == local == "('localhost', 38801)"


SERVE = """
import sys
from nanover.essd import DiscoveryServer, ServiceHub
with DiscoveryServer(broadcast_port=int(sys.argv[1]), delay=0.1) as server:
    server.broadcast_addresses = []
    hub = ServiceHub(name="theirs", address="127.0.0.1")
    hub.add_service("ws", 4321)
    server.services[hub] = [type("Address", (), {"address": "127.0.0.1", "broadcast": "127.255.255.255"})]
    sys.stdin.read()
"""


@needs_peers
async def test_a_nanover_server_is_found(listener: HubListener) -> None:
    pipes = {"stdin": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.DEVNULL}
    peer = await asyncio.create_subprocess_exec(PEERS, "-c", SERVE, str(listener.port), **pipes)  # type: ignore[arg-type]
    try:
        (hub,) = await listener.until(bool)
    finally:
        await peer.communicate(b"")
    assert (hub.name, hub.address, dict(hub.services), hub.session) == ("theirs", "127.0.0.1", {"ws": 4321}, "")


async def test_multicast_dns_gives_two_sessions_of_one_name_two_names_and_finds_both() -> None:
    ids = {str(uuid.uuid4()), str(uuid.uuid4())}
    hubs = [ServiceHub("Lab 8.6", "", id, PORTS, "default", (":38810", "127.0.0.1:1")) for id in ids]
    async with asyncio.timeout(60):
        advertisers = [MdnsAdvertiser(hub, "127.0.0.1", read=lambda: [LOOPBACK]) for hub in hubs]
        async with advertisers[0], advertisers[1]:
            for advertiser in advertisers:
                await advertiser.registered.wait()
            assert len({advertiser.name for advertiser in advertisers}) == 2
            assert all(advertiser.name.startswith("Lab 8-6") for advertiser in advertisers)
            found: list[ServiceHub] = []
            while len(found) < 2:
                found = [hub for hub in await browse(0.5, ["127.0.0.1"]) if hub.id in ids]
        assert {hub.id for hub in found} == ids
        assert all(hub.name == "Lab 8.6" and dict(hub.services) == PORTS for hub in found)
        assert all(hub.address == "127.0.0.1" and hub.lobbies[0] == "127.0.0.1:38810" for hub in found)
        while [hub for hub in await browse(0.2, ["127.0.0.1"]) if hub.id in ids]:
            pass  # their goodbyes are heard


async def test_multicast_dns_that_cannot_be_used_is_logged_once_and_tried_again() -> None:
    interfaces = [InterfaceAddress("bad0", "203.0.113.1", "203.0.113.255")]
    with capture_logs() as logs:
        async with (
            asyncio.timeout(60),
            MdnsAdvertiser(HUB, "0.0.0.0", reread_s=0.02, read=lambda: list(interfaces)) as advertiser,
        ):
            while not logs:
                await asyncio.sleep(0.01)
            interfaces[:] = [LOOPBACK]
            await advertiser.registered.wait()
    assert [entry["event"] for entry in logs] == ["cannot_announce_mdns", "announcing_mdns"]


def test_multicast_dns_is_loaded_only_when_it_is_used() -> None:
    program = "import sys, narupa_client, narupa_gateway.discovery; sys.exit('zeroconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
