"""What each of several processes of a gateway is told, and which ports they share."""

from __future__ import annotations

import contextlib
import socket

import pytest
from pydantic import ValidationError

from narupa_gateway.config import GatewayConfig
from narupa_gateway.worker import of_worker
from narupa_gateway.workers import held_ports
from narupa_shared.daemon import StartError


def test_every_process_has_the_shared_ports_and_a_metrics_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NARUPA_GATEWAY_DISCOVERY", raising=False)
    config = GatewayConfig(processes=3, metrics_port=9100, service_id="door", discovery_name="here", max_clients=7)
    ports = {"port": 1001, "websocket_port": 1002}
    first, second, third = (of_worker(config, number, ports) for number in (1, 2, 3))
    assert {(each.port, each.websocket_port, each.imd_port) for each in (first, second, third)} == {(1001, 1002, None)}
    assert [each.metrics_port for each in (first, second, third)] == [9100, 9101, 9102]
    assert [each.service_id for each in (first, second, third)] == ["door", "door-2", "door-3"]
    assert [each.discovery for each in (first, second, third)] == [True, False, False]
    assert {each.max_clients for each in (first, second, third)} == {7}


def test_what_was_left_to_chance_stays_so() -> None:
    config = GatewayConfig(processes=2, metrics_port=0, discovery=False)
    second = of_worker(config, 2, {"port": 1, "websocket_port": 2, "imd_port": 3})
    assert (second.metrics_port, second.service_id, second.imd_port) == (0, "", 3)
    assert not of_worker(config, 1, {}).discovery
    assert of_worker(GatewayConfig(processes=2), 2, {}).metrics_port is None


def test_a_system_that_cannot_share_ports_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    assert GatewayConfig(processes=1).processes == 1
    with pytest.raises(ValidationError, match=r"SO_REUSEPORT.*use 1"):
        GatewayConfig(processes=2)


def test_there_must_be_metrics_ports_for_all() -> None:
    assert GatewayConfig(processes=2, metrics_port=65534).processes == 2
    with pytest.raises(ValidationError, match="not so many ports"):
        GatewayConfig(processes=3, metrics_port=65534)


def test_the_ports_are_held_for_those_who_share_them_alone() -> None:
    config = GatewayConfig(port=0, websocket_port=0, imd_port=0, processes=2)
    with held_ports(config) as ports:
        assert ports.keys() == {"port", "websocket_port", "imd_port"}
        assert len(set(ports.values())) == 3
        with contextlib.closing(_listening(ports["port"], shares=True)):
            with contextlib.closing(_listening(ports["port"], shares=True)):
                pass
            with pytest.raises(OSError, match="in use"):
                _listening(ports["port"], shares=False)


@pytest.mark.parametrize("shares", [True, False])
def test_a_port_that_somebody_has_is_refused_though_they_would_share_it(shares: bool) -> None:
    with contextlib.closing(_listening(0, shares)) as theirs:
        port = theirs.getsockname()[1]
        config = GatewayConfig(port=0, websocket_port=port, processes=2)
        with pytest.raises(StartError, match=f"{port}: .*use.*--websocket-port"), held_ports(config):
            pytest.fail("the port is shared")


def _listening(port: int, shares: bool) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
