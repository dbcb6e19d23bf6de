"""What a gateway announces of itself."""

from __future__ import annotations

import asyncio
import socket

import pytest
from structlog.testing import capture_logs

from narupa_gateway.discovery import Discovery, default_name, gateway_ports
from narupa_shared.discovery.listening import HubListener

NEAR = "127.255.255.255"
PORTS = {"trajectory": 38802, "imd": 38802, "multiplayer": 38802, "ws": 38801}


def test_every_client_finds_its_port_by_the_name_it_knows() -> None:
    assert gateway_ports(38802, 38801) == PORTS
    assert gateway_ports(None, 443, tls=True) == {"wss": 443, "https": 443}


def test_a_name_says_the_machine_and_a_session_that_has_one() -> None:
    assert default_name("default", "ada.lab.example.org") == "Narupa on ada"
    assert default_name("kinases", "ada") == "Narupa kinases on ada"
    assert Discovery("", "127.0.0.1", {}, session="default").hub.name.startswith("Narupa on ")


async def test_a_gateway_on_loopback_is_announced_to_this_machine() -> None:
    async with HubListener(0, NEAR) as listener:
        announced = Discovery(
            "Lab", "127.0.0.1", PORTS, session="kinases", lobbies=["127.0.0.1:38810"], port=listener.port
        )
        async with announced:
            (hub,) = await listener.until(bool)
    assert (hub.name, hub.session, dict(hub.services)) == ("Lab", "kinases", PORTS)
    assert (hub.address, hub.lobbies, hub.id) == ("localhost", ("127.0.0.1:38810",), announced.hub.id)


async def test_turned_off_nothing_is_sent() -> None:
    async with HubListener(0, NEAR) as listener:
        off = Discovery("Off", "127.0.0.1", PORTS, session="default", broadcast=False, port=listener.port)
        on = Discovery("On", "127.0.0.1", PORTS, session="default", port=listener.port)
        async with off, on:
            await listener.until(bool)
    assert [hub.name for hub in listener.heard.hubs] == ["On"]


async def test_an_address_that_is_not_of_this_machine_is_logged_once_and_hinders_nobody() -> None:
    await _troubled("203.0.113.1")


async def test_a_name_that_means_nothing_is_logged_and_hinders_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    await _troubled("gateway.invalid")


async def _troubled(host: str) -> None:
    with capture_logs() as logs:
        async with Discovery("Lab", host, PORTS, session="default", mdns=False, port=9), asyncio.timeout(30):
            while not logs:
                await asyncio.sleep(0.005)
    assert [entry["event"] for entry in logs] == ["cannot_announce"]
    assert logs[0]["where"] == host
