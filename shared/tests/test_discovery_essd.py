"""The message that announces a session: what goes out fits, and what comes in may be anything."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from narupa_shared.discovery.essd import MAX_BYTES, ServiceHub, checked_lobbies, printable_line
from narupa_shared.discovery.listening import MAX_HUBS, MESSAGES_PER_S, HeardHubs
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.testing.clock import FakeClock

PORTS = {"trajectory": 38802, "imd": 38802, "multiplayer": 38802, "ws": 38801}
HUB = ServiceHub("Lab", "10.0.0.5", "a-b-c", PORTS, "default", ("10.0.0.5:38810",))
# As a NanoVer server writes it, and an older Narupa one.
NANOVER = (
    b'{"name": "ada: NanoVer iMD Server", "address": "192.168.1.7", "id": "0f38cf4f-64e2-4ab9-a3e2-6aa0f1c53b7c", '
    b'"essd_version": "1.0.0", "services": {"ws": 38801}}'
)
NARUPA = b'{"name":"Narupa","address":"localhost","services":{"trajectory":54321,"imd":54322}}'


def message(**changes: Any) -> bytes:
    fields = {"name": "Lab", "address": "10.0.0.5", "id": "a", "services": {"ws": 1}, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def test_a_hub_comes_back_as_it_went_out() -> None:
    assert ServiceHub.parse(HUB.encode()) == HUB
    assert json.loads(HUB.encode())["essd_version"] == "1.0.0"


def test_existing_programs_messages_are_understood() -> None:
    hub = ServiceHub.parse(NANOVER)
    assert (hub.name, hub.address, dict(hub.services)) == ("ada: NanoVer iMD Server", "192.168.1.7", {"ws": 38801})
    assert (hub.session, hub.lobbies) == ("", ())
    assert ServiceHub.parse(NARUPA).id == "localhost"


@given(
    name=st.text(max_size=300),
    session=st.text(min_size=1, max_size=64),
    lobbies=st.integers(0, 4),
    address=st.ip_addresses().map(str),
)
@example(name="\N{DNA DOUBLE HELIX}" * 200, session="\N{TEST TUBE}" * 64, lobbies=4, address="255.255.255.255")
def test_whatever_the_name_the_message_fits_as_existing_clients_measure_it(
    name: str, session: str, lobbies: int, address: str
) -> None:
    places = tuple(f"lobby-{number}.example.org:38810" for number in range(lobbies))
    data = ServiceHub(name, address, "i" * 36, PORTS, session, places, True).encode()
    assert len(data) <= MAX_BYTES
    assert len(json.dumps(json.loads(data)).encode()) <= MAX_BYTES
    hub = ServiceHub.parse(data)
    assert dict(hub.services) == PORTS
    assert hub.address == address
    line = printable_line(name)
    assert hub.name in (line, address) or line.startswith(hub.name.removesuffix("...").rstrip())


def test_a_long_name_is_cut_before_anything_is_left_out() -> None:
    hub = ServiceHub("é" * 128, "10.0.0.5", "i" * 36, PORTS, "default", tuple(f"{n}.example.org:38810" for n in "abcd"))
    sent = ServiceHub.parse(hub.encode())
    assert sent.name.endswith("é...") and len(sent.name) > 16
    assert sent.lobbies == hub.lobbies


def test_more_services_than_fit_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="services"):
        ServiceHub("Lab", "10.0.0.5", "a", {f"service-{number:020}": 1 for number in range(40)}).encode()


@given(st.binary(max_size=1100))
@example(b"[" * 1024)
@example(b'{"a":' * 200)
@example(b'{"name": NaN}')
@example(b"\xff\xfe")
@example(b'{"name": "a", "address": "10.0.0.1", "services": {"ws": ' + b"9" * 900 + b"}}")
@example(b'{"name": "a", "address": "10.0.0.1", "narupa": [[]]}')
@example(b'{"name": "a", "address": "10.0.0.1", "id": "\\u0000\\ud800"}')
def test_any_bytes_are_a_hub_or_refused(data: bytes) -> None:
    try:
        hub = ServiceHub.parse(data)
    except InvalidArgumentError:
        return
    assert hub.id and hub.name and hub.address


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": JSON,
            "address": st.just("10.0.0.1") | JSON,
            "id": JSON,
            "services": st.dictionaries(st.text(max_size=8), st.integers(-5, 70_000) | JSON) | JSON,
            "narupa": st.fixed_dictionaries({}, optional={"session": JSON, "lobbies": JSON, "tls": JSON}) | JSON,
        },
    )
)
def test_any_fields_are_a_hub_that_is_safe_to_print_or_refused(fields: dict[str, Any]) -> None:
    try:
        hub = ServiceHub.parse(json.dumps(fields).encode()).seen_from("10.0.0.9")
    except InvalidArgumentError:
        return
    assert all(text.isprintable() for text in (hub.name, hub.address, hub.id, hub.session, *hub.lobbies, *hub.services))
    assert all(0 < port < 65536 for port in hub.services.values())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": ...}, "name"),
        ({"address": ...}, "address"),
        ({"address": "10.0.0.1; rm -rf /"}, "address"),
        ({"address": "-oProxyCommand"}, "address"),
        ({"address": "127.1"}, "address"),
        ({"address": "0x7f000001"}, "address"),
        ({"address": "fe80::1%$(id)"}, "address"),
        ({"address": "a" * 300}, "address"),
        ({"id": 7}, "id"),
        ({"services": []}, "services"),
        ({"services": {"ws": "38801"}}, "services"),
        ({"services": {"ws": True}}, "services"),
        ({"services": {"ws": 1.5}}, "services"),
        ({"services": {"ws": 0}}, "services"),
        ({"services": {"ws": 65536}}, "services"),
        ({"services": {"w s": 1}}, "services"),
        ({"services": {f"s{number}": 1 for number in range(17)}}, "services"),
        ({"more": "x" * 1024}, "message"),
    ],
)
def test_the_field_that_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        ServiceHub.parse(message(**changes))
    assert refused.value.field == field
    assert len(str(refused.value)) < 300


def test_what_would_control_a_terminal_is_left_out_of_names() -> None:
    hub = ServiceHub.parse(message(name="a\x1b[31m\n\u202eb\ud800", id="i\x07d"))
    assert hub.name == "a [31m b" and hub.id == "i d"


def test_lobbies_that_are_none_are_left_out() -> None:
    said = [
        "lab.example.org:38810",
        ":5",
        "0.0.0.0:6",
        "[::]:7",
        "[fe80::1]:8",
        "nothing",
        "a b:9",
        "x:0",
        "x:99999",
        "x:\u0661",
        4,
    ]
    assert checked_lobbies(said) == ("lab.example.org:38810", ":5", ":6", ":7")
    assert checked_lobbies(["[2001:db8::1]:8"]) == ("[2001:db8::1]:8",)
    assert checked_lobbies("a:1") == () and checked_lobbies(None) == ()


def test_a_lobby_of_this_machine_is_named_to_this_machine_only() -> None:
    hub = ServiceHub("Lab", "", "a", PORTS, "default", ("127.0.0.1:1", "localhost:2", "[::1]:3", ":4", "10.0.0.9:5"))
    assert hub.at("10.0.0.5", loopback=False).lobbies == (":4", "10.0.0.9:5")
    assert hub.at("localhost", loopback=True).lobbies == hub.lobbies


def test_any_address_and_that_of_ones_own_machine_mean_the_senders() -> None:
    for address in ("0.0.0.0", "[::]", "localhost", "127.0.0.1"):
        hub = ServiceHub.parse(message(address=address, narupa={"session": "s", "lobbies": [":1", "127.0.0.1:2"]}))
        seen = hub.seen_from("10.0.0.7")
        assert (seen.address, seen.lobbies) == ("10.0.0.7", ("10.0.0.7:1",))
    near = ServiceHub.parse(message(address="localhost", narupa={"session": "s", "lobbies": [":1", "127.0.0.1:2"]}))
    assert near.seen_from("127.0.0.1").lobbies == ("localhost:1", "127.0.0.1:2")
    assert ServiceHub.parse(message(address="10.0.0.5")).seen_from("10.0.0.7").address == "10.0.0.5"


def test_a_hub_is_news_once_and_again_when_it_changes(clock: FakeClock) -> None:
    heard = HeardHubs(clock)
    assert heard.take(message(), "10.0.0.5")
    assert not heard.take(message(), "10.0.0.5")
    assert heard.take(message(name="Lab 2"), "10.0.0.5")
    assert [hub.name for hub in heard.hubs] == ["Lab 2"]
    assert heard.take(message(address="10.0.1.5"), "10.0.1.5")
    assert len(heard.hubs) == 2


def test_strangers_fill_neither_memory_nor_time(clock: FakeClock) -> None:
    heard = HeardHubs(clock)
    for number in range(2 * MAX_HUBS):
        clock.advance(0.01)
        heard.take(message(id=str(number)), "10.0.0.5")
    assert len(heard.hubs) == MAX_HUBS and heard.ignored == MAX_HUBS
    assert heard.take(message(id="0", name="still followed"), "10.0.0.5")
    ignored = heard.ignored
    for _ in range(int(MESSAGES_PER_S) + 10):
        heard.take(b"junk", "10.0.0.5")
    assert not heard.take(message(id="0", name="too much"), "10.0.0.5")
    clock.advance(1.0)
    assert heard.take(message(id="0", name="again"), "10.0.0.5")
    assert heard.ignored == ignored + MESSAGES_PER_S + 11
