"""Where a service says that it is: the addresses that its operator gives it, spelled out."""

from __future__ import annotations

import socket

import pytest
from pydantic import ValidationError

from narupa_shared.config import MAX_ADVERTISED, ServiceConfig, ports_of
from narupa_shared.daemon import Bound
from narupa_shared.registration import LobbyRegistration


@pytest.mark.parametrize(
    ("address", "ports"),
    [
        ("host:80", [80]),
        ("[::1]:80", [80]),
        ("host:80-82", [80, 81, 82]),
        ("host:80-80", [80]),
        ("host:82-80", []),
        ("host", []),
        (":80", []),
        ("host:", []),
        ("host:80-", []),
        ("host:-80", []),
        ("host:65536", []),
        ("host:1-65536", []),
        ("host:²", []),
        ("host:1-2-3", []),
    ],
)
def test_an_address_names_ports_or_none(address: str, ports: list[int]) -> None:
    assert list(ports_of(address)) == ports


@pytest.mark.parametrize("advertise", [("host",), ("host:2-1",), (f"host:1-{MAX_ADVERTISED + 1}",), ("a:1-5", "b:1-5")])
def test_addresses_that_nobody_could_use_are_refused(advertise: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="advertise"):
        ServiceConfig(advertise=advertise)


def test_a_lobby_is_at_one_port() -> None:
    with pytest.raises(ValidationError, match="is not HOST:PORT"):
        ServiceConfig(lobby="host:80-82")


async def test_a_replica_registers_under_its_own_name_and_every_port_that_leads_to_its_group() -> None:
    firsts = set()
    for name in ("a", "b", "c", "d"):
        config = ServiceConfig(service_id=name, advertise=("*:38811", "127.0.0.1:38820-38822"))
        own, *others = await LobbyRegistration(config, "trajectory", Bound("0.0.0.0", 38811))._endpoints()
        assert (own.host, own.port) == (socket.gethostname(), 38811)
        assert {each.host for each in others} == {"127.0.0.1"}
        assert sorted(each.port for each in others) == [38820, 38821, 38822]
        firsts.add(others[0].port)
    assert len(firsts) > 1  # so that not everybody outside comes to the same replica
