"""Sessions are found from another machine: two network namespaces, joined by a cable of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from narupa_shared.discovery.essd import ESSD_PORT
from tests.integration.cables import ip, on

SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.77.1", "10.213.77.2"
ANNOUNCE = """
import asyncio, sys
from narupa_gateway.discovery import Discovery, gateway_ports

async def main():
    ports = gateway_ports(38802, 38801)
    lobbies = ["127.0.0.1:38810", ":38810"]
    near = Discovery("near", "127.0.0.1", ports, session="near", lobbies=lobbies)
    far = Discovery("far", "0.0.0.0", ports, session="far", lobbies=lobbies, mdns=True)
    async with near, far:
        await far.mdns.registered.wait()
        print("announced", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Machines:
    """Two machines that see each other and nothing else."""

    server: str
    client: str

    def run(self, machine: str, *command: str) -> subprocess.CompletedProcess[str]:
        """`command` on `machine`, to its end."""
        return subprocess.run(on(machine, *command), capture_output=True, text=True, timeout=60, check=False)

    def discovered(self, machine: str, *arguments: str) -> list[dict[str, Any]]:
        """What the command line finds on `machine`."""
        found = self.run(machine, sys.executable, "-m", "narupa_client.cli", "discover", "--json", *arguments)
        assert found.stdout, found.stderr
        sessions: list[dict[str, Any]] = json.loads(found.stdout)
        return sessions


@pytest.fixture
def machines() -> Iterator[Machines]:
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip, of iproute2")
    made = Machines(f"narupa-{os.getpid()}-server", f"narupa-{os.getpid()}-client")
    with contextlib.ExitStack() as stack:
        try:
            for name in (made.server, made.client):
                ip("netns", "add", name)
                stack.callback(ip, "netns", "delete", name)
            ip("-n", made.server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", made.client)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.strip()}")
        # Without a broadcast address, as many set-ups leave it.
        for name, address in ((made.server, SERVER_ADDRESS), (made.client, CLIENT_ADDRESS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield made


@pytest.fixture
def announcing(machines: Machines) -> Iterator[Machines]:
    """A session for everybody and one for its own machine are announced on the server."""
    command = on(machines.server, sys.executable, "-c", ANNOUNCE)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert "announced\n" in iter(server.stdout.readline, ""), "the server ended"
            yield machines
        finally:
            server.communicate("")


def test_another_machine_finds_the_session_at_the_address_of_the_interface(announcing: Machines) -> None:
    (far,) = announcing.discovered(announcing.client)
    assert (far["name"], far["addresses"]) == ("far", [SERVER_ADDRESS])
    assert far["command"] == f"narupa watch --lobby {SERVER_ADDRESS}:38810 --session far"
    # The lobby's loopback address means nothing to others.
    assert far["lobbies"] == [f"{SERVER_ADDRESS}:38810"]
    assert far["found_by"] == ["broadcast", "mdns"]


def test_its_own_machine_finds_it_by_loopback_first(announcing: Machines) -> None:
    far, near = announcing.discovered(announcing.server)
    assert (near["name"], near["addresses"], near["found_by"]) == ("near", ["127.0.0.1"], ["broadcast"])
    assert far["addresses"] == ["127.0.0.1", SERVER_ADDRESS]
    assert far["lobbies"][0] == "127.0.0.1:38810"


def test_it_is_found_again_after_the_cable_was_out(announcing: Machines) -> None:
    ip("-n", announcing.server, "link", "set", "cable", "down")
    assert announcing.discovered(announcing.client, "--no-mdns", "--seconds", "0.2") == []
    ip("-n", announcing.server, "link", "set", "cable", "up")
    while not (found := announcing.discovered(announcing.client, "--no-mdns")):
        pass  # until the interfaces are looked at again
    assert found[0]["addresses"] == [SERVER_ADDRESS]


def test_the_messages_go_where_existing_clients_listen() -> None:
    assert ESSD_PORT == 54545
