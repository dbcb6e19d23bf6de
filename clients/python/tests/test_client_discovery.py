"""What `discover` makes of what it heard, and what to type for it."""

import pytest

from narupa_client.cli.discover import join_command, session_facts
from narupa_client.connection import Endpoint
from narupa_client.discovery import FoundSession, discover, merged
from narupa_shared.discovery.essd import ServiceHub
from narupa_shared.errors import InvalidArgumentError

GRPC = {"trajectory": 38802, "imd": 38802, "multiplayer": 38802}


def hub(address: str, *lobbies: str, id: str = "a", name: str = "Lab", session: str = "default") -> ServiceHub:
    return ServiceHub(name, address, id, {"ws": 38801, **GRPC}, session, lobbies)


def test_one_session_heard_in_many_ways_is_one() -> None:
    found = merged(
        [
            ("broadcast", hub("10.0.0.5", "10.0.0.5:38810")),
            ("broadcast", hub("localhost", "localhost:38810")),
            ("mdns", hub("10.0.0.5", "10.0.0.5:38810")),
            ("mdns", hub("10.0.1.5", "10.0.1.5:38810")),
        ]
    )
    assert len(found) == 1
    (session,) = found
    assert session.addresses == ("127.0.0.1", "10.0.0.5", "10.0.1.5")
    assert session.lobbies[0] == Endpoint("127.0.0.1", 38810) and len(session.lobbies) == 3
    assert session.websocket == "ws://127.0.0.1:38801"
    assert session.grpc["imd"] == Endpoint("127.0.0.1", 38802)
    assert session.found_by == ("broadcast", "mdns")


def test_sessions_are_listed_by_name() -> None:
    hubs = [hub("10.0.0.5", id="1", name="b"), hub("10.0.0.5", id="2", name="A"), hub("10.0.0.4", id="3", name="b")]
    assert [(one.name, one.address) for one in merged(("mdns", item) for item in hubs)] == [
        ("A", "10.0.0.5"),
        ("b", "10.0.0.4"),
        ("b", "10.0.0.5"),
    ]


def test_the_command_to_type_joins_that_session_and_is_safe_to_paste() -> None:
    lobby = (Endpoint("10.0.0.5", 38810),)
    assert join_command(FoundSession("Lab", "a", ("10.0.0.5",), {}, "default", lobby)) == (
        "narupa watch --lobby 10.0.0.5:38810"
    )
    assert join_command(FoundSession("Lab", "a", ("10.0.0.5",), {}, "x; rm -rf ~", lobby, tls=True)) == (
        "narupa watch --lobby 10.0.0.5:38810 --session 'x; rm -rf ~' --tls-ca FILE"
    )
    assert join_command(FoundSession("Lab", "a", ("10.0.0.5",), {"ws": 1}, "default")) == ""


def test_other_programs_servers_are_listed_with_their_address() -> None:
    (nanover, narupa) = merged(
        [
            ("broadcast", ServiceHub("ada: NanoVer", "10.0.0.5", "a", {"wss": 1, "ws": 2, "https": 3})),
            ("broadcast", ServiceHub("narupa", "2001:db8::1", "b", {"trajectory": 54321, "imd": 54322})),
        ]
    )
    assert nanover.websocket == "wss://10.0.0.5:1"
    assert narupa.websocket == "" and str(narupa.grpc["imd"]) == "[2001:db8::1]:54322"
    assert session_facts(narupa)["command"] == "" and session_facts(narupa)["session_id"] == ""


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
async def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgumentError, match="seconds"):
        await discover(seconds)
    with pytest.raises(InvalidArgumentError, match="port"):
        await discover(port=0)
