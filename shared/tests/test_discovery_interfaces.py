"""Over which interfaces a session is announced, and what its multicast record says."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.discovery.essd import ServiceHub
from narupa_shared.discovery.interfaces import (
    InterfaceAddress,
    Target,
    interface_addresses,
    multicast_addresses,
    targets,
)
from narupa_shared.discovery.mdns import hub_of, instance_label, text_of
from narupa_shared.errors import InvalidArgumentError


def entry(address: str, netmask: str | None = "255.255.255.0", **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"family": socket.AF_INET, "address": address, "netmask": netmask, "broadcast": None, "ptp": None, **more}
    )


UP, DOWN = SimpleNamespace(isup=True), SimpleNamespace(isup=False)
# As psutil tells it on Linux, where those of eth1 were given without a broadcast address, and on Windows, which tells none.
ADDRESSES = {
    "lo": [entry("127.0.0.1", "255.0.0.0"), entry("::1", None, family=socket.AF_INET6)],
    "eth0": [
        entry("192.168.1.5", broadcast="192.168.1.255"),
        entry("fe80::1%eth0", None, family=socket.AF_INET6),
        entry("00:00:00:00:00:01", None, family=17, broadcast="ff:ff:ff:ff:ff:ff"),
    ],
    "eth1": [
        entry("10.1.2.3", "255.255.0.0"),
        entry("10.4.0.9", broadcast="10.4.0.9"),
        entry("10.9.0.1", "255.255.255.252", broadcast="0.0.0.0"),
    ],
    "tun0": [entry("10.8.0.2", "255.255.255.255", ptp="10.8.0.1")],
    "p2p0": [entry("10.7.0.2", "255.255.255.254")],
    "odd0": [entry("10.6.0.2", "not a mask"), entry("10.5.0.2", None)],
    "wlan0": [entry("172.16.0.9", broadcast="172.16.0.255")],
    "gone0": [entry("172.17.0.9", broadcast="172.17.0.255")],
}
STATES = {name: UP for name in ADDRESSES if name != "gone0"} | {"wlan0": DOWN}
LOOPBACK = Target("lo", "127.0.0.1", "127.255.255.255", "localhost")
ETH0 = Target("eth0", "192.168.1.5", "192.168.1.255", "192.168.1.5")
FAR = (
    ETH0,
    Target("eth1", "10.1.2.3", "10.1.255.255", "10.1.2.3"),
    Target("eth1", "10.4.0.9", "10.4.0.255", "10.4.0.9"),
    Target("eth1", "10.9.0.1", "10.9.0.3", "10.9.0.1"),
)
INTERFACES = interface_addresses(ADDRESSES, STATES)


def test_what_is_down_or_no_ipv4_or_has_no_broadcast_is_told_so() -> None:
    broadcasts = {item.address: item.broadcast for item in INTERFACES}
    assert broadcasts == {
        "127.0.0.1": "127.255.255.255",
        "192.168.1.5": "192.168.1.255",
        "10.1.2.3": "10.1.255.255",
        "10.4.0.9": "10.4.0.255",
        "10.9.0.1": "10.9.0.3",
        "10.8.0.2": None,
        "10.7.0.2": None,
        "10.6.0.2": None,
        "10.5.0.2": None,
    }


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", (LOOPBACK,)),
        ("localhost", (LOOPBACK,)),
        ("[::1]", (LOOPBACK,)),
        ("127.0.0.2", (Target("lo", "127.0.0.2", "127.255.255.255", "127.0.0.2"),)),
        ("0.0.0.0", (LOOPBACK, *FAR)),
        ("::", (LOOPBACK, *FAR)),
        ("[::]", (LOOPBACK, *FAR)),
        ("192.168.1.5", (ETH0,)),
        ("10.8.0.2", ()),
        ("203.0.113.1", ()),
        ("2001:db8::1", ()),
    ],
)
def test_announced_where_the_service_listens_and_nowhere_else(host: str, expected: tuple[Target, ...]) -> None:
    assert targets(host, INTERFACES) == expected


def test_loopback_that_is_down_is_left_out() -> None:
    assert targets("127.0.0.1", interface_addresses(ADDRESSES, {"eth0": UP})) == ()


def test_multicast_goes_to_loopback_only_where_there_is_nothing_else() -> None:
    assert multicast_addresses("0.0.0.0", INTERFACES) == tuple(target.address for target in FAR)
    assert multicast_addresses("127.0.0.1", INTERFACES) == ("127.0.0.1",)
    assert multicast_addresses("0.0.0.0", [InterfaceAddress("lo", "127.0.0.1", None)]) == ("127.0.0.1",)
    assert multicast_addresses("203.0.113.1", INTERFACES) == ()


GRPC = {"trajectory": 38802, "imd": 38802, "multiplayer": 38802}
HUB = ServiceHub("Lab 8.6", "", "a-b", {"ws": 38801, **GRPC}, "default", (":38810", "lab.example.org:38810"), True)


def encoded(text: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in text.items()}


def test_the_record_says_what_the_hub_does() -> None:
    text = text_of(HUB)
    assert {"session", "version", "lobby", "ws", "grpc", "tls"} <= text.keys()
    assert hub_of(encoded(text), "10.0.0.5") == ServiceHub(
        HUB.name, "10.0.0.5", HUB.id, HUB.services, HUB.session, HUB.lobbies, True
    )


@given(st.text(max_size=300), st.text(min_size=1, max_size=64), st.integers(0, 4))
def test_every_entry_of_the_record_fits(name: str, session: str, lobbies: int) -> None:
    places = tuple(f"{'lobby' * 20}-{number}.example.org:38810" for number in range(lobbies))
    text = text_of(ServiceHub(name, "", "a", GRPC, session, places))
    assert all(len(f"{key}={value}".encode()) <= 255 for key, value in text.items())
    label = instance_label(name)
    assert label and "." not in label and len(label.encode()) <= 59


@given(
    st.dictionaries(
        st.sampled_from([b"id", b"name", b"session", b"lobby", b"grpc", b"ws", b"tls"]) | st.binary(max_size=8),
        st.none() | st.binary(max_size=40) | st.sampled_from([b"38801", b"0", b":1,lab:2,,"]),
    )
)
def test_any_record_is_a_session_that_is_safe_to_print_or_refused(text: dict[bytes, bytes | None]) -> None:
    try:
        hub = hub_of(text, "10.0.0.5")
    except InvalidArgumentError:
        return
    assert hub.session and hub.id and hub.name
    assert all(part.isprintable() for part in (hub.session, hub.id, hub.name, *hub.lobbies))
    assert all(0 < port < 65536 for port in hub.services.values())
