"""The table of access: whole, closed by default, and the page that it makes."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import narupa_shared.gen
from narupa_shared.access import (
    METHODS,
    Access,
    Standing,
    check_command,
    check_method,
    command_access,
    method_access,
    missing,
    page,
)
from narupa_shared.auth import Caller
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import StartError, serving
from narupa_shared.errors import PermissionDeniedError

ROLES: tuple[Standing, ...] = ("viewer", "participant", "host", "operator", "service")
LOBBY, IMD, TRAJECTORY = "/narupa.lobby.v1.LobbyService", "/narupa.imd.v1", "/narupa.trajectory.v1.TrajectoryService"


def generated_modules() -> list[ModuleType]:
    gen = narupa_shared.gen
    names = (item.name for item in pkgutil.walk_packages(gen.__path__, f"{gen.__name__}."))
    return [importlib.import_module(name) for name in names if name.endswith("_pb2")]


def test_the_table_has_every_method_of_every_proto_and_no_other() -> None:
    services: list[Any] = [
        service for module in generated_modules() for service in module.DESCRIPTOR.services_by_name.values()
    ]
    declared = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert len(declared) > 40
    assert set(METHODS) == declared


def test_each_role_may_what_the_lesser_may() -> None:
    ranks = ROLES[:4]
    for method, access in METHODS.items():
        allowed = [access.admits(rank) for rank in ranks]
        assert allowed == sorted(allowed), method
        assert allowed[-1], method


@pytest.mark.parametrize(
    ("method", "roles"),
    [
        (f"{IMD}.InteractionService/Interact", "participant host operator"),
        (f"{IMD}.InteractionService/ListInteractions", "viewer participant host operator service"),
        (f"{IMD}.InteractionService/FollowInteractions", "operator service"),
        (f"{IMD}.StateService/WatchState", "viewer participant host operator service"),
        (f"{IMD}.StateService/UpdateState", "participant host operator"),
        (f"{IMD}.StateService/UpdateLocks", "participant host operator"),
        ("/narupa.protocol.state.State/UpdateState", "participant host operator"),
        ("/nanover.protocol.state.State/UpdateLocks", "participant host operator"),
        ("/nanover.protocol.trajectory.TrajectoryService/SubscribeFrames", "viewer participant host operator service"),
        (f"{TRAJECTORY}/SubscribeFrames", "viewer participant host operator service"),
        (f"{LOBBY}/WatchSession", "viewer participant host operator service"),
        (f"{LOBBY}/HoldUsers", "operator service"),
        (f"{LOBBY}/ListServices", "viewer participant host operator service"),
        (f"{LOBBY}/GetSession", "viewer participant host operator"),
        (f"{LOBBY}/KickUser", "host operator"),
        (f"{LOBBY}/StartService", "host operator"),
        (f"{LOBBY}/CreateSession", "operator"),
        (f"{LOBBY}/RotateKeys", "operator"),
        (f"{LOBBY}/Join", "viewer participant host operator service"),
    ],
)
def test_who_may_what(method: str, roles: str) -> None:
    assert [role for role in ROLES if METHODS[method].admits(role)] == roles.split()


def test_only_getting_a_token_needs_none() -> None:
    public = {method for method, access in METHODS.items() if access.public}
    assert public == {
        f"{LOBBY}/{name}" for name in ("Join", "RegisterService", "RenewLease", "Lead", "DeregisterService")
    }


def test_a_method_that_is_not_in_the_table_is_closed() -> None:
    for method in ("/narupa.lobby.v1.LobbyService/Burn", "", f"{LOBBY}/Join/", "x" * 1000):
        with pytest.raises(PermissionDeniedError, match="nobody may call"):
            method_access(method)
    assert missing([f"{LOBBY}/Join", "/a.B/C"]) == ["/a.B/C"]


@pytest.mark.parametrize(
    ("access", "role", "says"),
    [
        (Access("host"), "viewer", "Do needs the role host, and yours is viewer; a host of the session can give"),
        (Access("participant"), "viewer", "needs the role participant"),
        (Access("host"), "service", "services only watch"),
        (Access("operator"), "host", "narupa-operator-key"),
        (Access(None, service=True), "host", "needs the role service, and yours is host; it is for services"),
    ],
)
def test_a_refusal_says_what_is_needed_and_who_can_give_it(access: Access, role: Standing, says: str) -> None:
    with pytest.raises(PermissionDeniedError, match=says):
        check_method("/a.B/Do", access, role)


@pytest.mark.parametrize("name", ["commands/list", "playback/list", "trajectory/get-frame-interval", "imd/get-x"])
def test_commands_that_tell_something_are_for_viewers(name: str) -> None:
    for role in ROLES:
        check_command(Caller("peer", None, role), name)
    with pytest.raises(PermissionDeniedError, match="yours is none"):
        check_command(Caller("peer", None), name)


@pytest.mark.parametrize(
    "name",
    ["playback/play", "trajectory/set-frame-interval", "get-x", "a/get", "", "/", "playback/list/", "x/reset/get-y"],
)
def test_every_other_command_is_for_hosts(name: str) -> None:
    for role in ROLES:
        caller = Caller("peer", None, role)
        if role in ("host", "operator"):
            check_command(caller, name)
            continue
        with pytest.raises(PermissionDeniedError, match="needs the role host"):
            check_command(caller, name)


def test_the_page_is_the_table() -> None:
    text = page()
    assert text == (Path(__file__).parents[2] / "docs" / "access.md").read_text(), "run `make protos`"
    for method in METHODS:
        assert f"`{method.rpartition('/')[2]}`" in text
    assert "| `Interact` | - | yes | yes | - | - |" in text
    assert command_access("playback/list").least == "viewer"


async def test_a_service_with_a_method_that_nobody_may_call_does_not_start() -> None:
    class App:
        service_names = ("grpc.health.v1.Health",)

    app: Any = App()
    with pytest.raises(StartError, match="does not say who may call /grpc"):
        async with serving("test", ServiceConfig(), app):
            pass
