"""Guests on a clock that only the test moves: who may bring them, as what they come in, and what that is kept as."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from lobby_fakes import joined, later, running_lobby

from narupa_lobby.guests import admitted_as
from narupa_lobby.records import GuestRole, Session, events_from_json, from_json, to_json
from narupa_lobby.rules import Rules
from narupa_lobby.sessions import Spec
from narupa_shared.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, QuotaError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.testing.clock import FakeClock

SESSION = Session("s", "Course", "CODE-CODE", 10, 10, 0.0, 0.0)
# What a gateway of the default session says for a client without a secret.
GUEST: dict[str, Any] = {"gateway_of": "default", "guest": True}


@pytest.mark.parametrize(
    ("chosen", "role_of_all", "open", "role"),
    [
        (None, None, True, "host"),
        (None, "viewer", True, "viewer"),
        (None, None, False, "participant"),
        (None, "host", False, "host"),
        ("viewer", "host", True, "viewer"),
        ("participant", None, False, "participant"),
        ("host", None, False, "host"),
    ],
)
def test_who_is_welcome_comes_in_as_everybody_unless_a_host_has_chosen(
    chosen: GuestRole | None, role_of_all: Any, open: bool, role: str
) -> None:
    session = replace(SESSION, guest_role=chosen, join_role=role_of_all)
    assert admitted_as(session, Rules(open=open), welcome=True) == role


@pytest.mark.parametrize("open", [True, False])
def test_a_gateway_that_is_not_open_lets_in_only_as_what_a_host_has_chosen(open: bool) -> None:
    with pytest.raises(PermissionDeniedError):
        admitted_as(SESSION, Rules(open=open), welcome=False)
    assert admitted_as(replace(SESSION, guest_role="viewer"), Rules(open=open), welcome=False) == "viewer"


@pytest.mark.parametrize("welcome", [True, False])
def test_a_host_may_choose_that_nobody_comes_in(welcome: bool) -> None:
    with pytest.raises(PermissionDeniedError) as refusal:
        admitted_as(replace(SESSION, guest_role="none"), Rules(), welcome)
    for word in ("'Course'", "guest", "narupa lobby guests participant", "join code", "invite", "address"):
        assert word in str(refusal.value)


def test_a_password_is_not_passed_by_unless_a_host_says_so() -> None:
    guarded = replace(SESSION, password_hash="hash")
    with pytest.raises(PermissionDeniedError) as refusal:
        admitted_as(guarded, Rules(), welcome=True)
    assert "its password or an invite" in str(refusal.value) and "join code" not in str(refusal.value)
    assert admitted_as(replace(guarded, guest_role="viewer"), Rules(), welcome=True) == "viewer"


async def test_guests_are_users_like_all_others() -> None:
    async with running_lobby(open=False, max_users=2) as (lobby, clock):
        await lobby.set_guest_role("default", "viewer")
        ada = await joined(lobby, "  Ada ", **GUEST, request_id="a")
        assert (ada.user.name, ada.user.role) == ("Ada", "viewer")
        assert (await joined(lobby, "Ada", **GUEST, request_id="a")).user == ada.user
        await lobby.set_role("default", ada.user.id, "host")
        await lobby.set_guest_role("default", "none")
        assert lobby.state.users("default")[0].role == "host", "who is in stays what they are"
        await later(lobby, clock, 31)
        back = await joined(lobby, "", **GUEST, rejoin_token=ada.grant.token)
        assert (back.user.id, back.user.role) == (ada.user.id, "host"), "who was in comes back"
        await lobby.set_guest_role("default", "participant")
        eve = await joined(lobby, "Eve", **GUEST)
        with pytest.raises(QuotaError, match="full"):
            await joined(lobby, "Alan", **GUEST)
        await lobby.kick("default", eve.user.id, "")
        with pytest.raises(PermissionDeniedError, match="removed"):
            await joined(lobby, "Eve", **GUEST, rejoin_token=eve.grant.token)


async def test_a_code_that_comes_through_a_gateway_is_as_good_as_any() -> None:
    async with running_lobby(open=False, join_role="host") as (lobby, _):
        code = lobby.session("").join_code
        await lobby.set_guest_role("default", "none")
        assert (await joined(lobby, gateway_of="default", join_code=code)).user.role == "host"
        assert (await joined(lobby, **GUEST, join_code=code)).user.role == "host", "who has a code is no guest"
        with pytest.raises(PermissionDeniedError, match="join_code is wrong"):
            await joined(lobby, **GUEST, join_code="WRONG-CODE")
        _, secret = await lobby.create_invite("default", "viewer", 0.0, 1, "operator")
        assert (await joined(lobby, **GUEST, invite=secret)).user.role == "viewer"
        with pytest.raises(PermissionDeniedError, match="join_code is missing"):
            await joined(lobby, gateway_of="default")


async def test_only_a_gateway_of_the_session_brings_guests_and_only_to_it() -> None:
    async with running_lobby() as (lobby, _):
        other, _ = await lobby.create_session(Spec(join_code="OTHER-CODE", guest_role="host"), "", "", "")
        await lobby.set_guest_role("default", "participant")
        for wish in (
            {"guest": True, "guests_welcome": True},
            {"guest": True, "session_id": other.id},
            {"guest": True, "session_id": other.id, "gateway_of": "default"},
            {"guest": True, "operator": True},
        ):
            with pytest.raises(PermissionDeniedError, match="only a gateway"):
                await joined(lobby, **wish)
        assert (await joined(lobby, **GUEST)).user.session_id == "default"
        assert (await joined(lobby, guest=True, gateway_of=other.id)).user.session_id == other.id
        with pytest.raises(PermissionDeniedError, match="join_code is wrong"):
            await joined(lobby, gateway_of="default", join_code="OTHER-CODE")


async def test_attempts_count_against_the_client_and_not_the_gateway() -> None:
    async with running_lobby(open=False) as (lobby, clock):
        code = lobby.session("").join_code
        gateway = {"address": "10.0.0.1", "gateway_of": "default"}
        for _ in range(5):
            with pytest.raises(PermissionDeniedError):
                await joined(lobby, **gateway, client_address="2001:db8::1", join_code="WRONG-CODE")
        with pytest.raises(QuotaError, match="wrong attempts"):  # of the same network
            await joined(lobby, **gateway, client_address="2001:db8::2", join_code=code)
        await joined(lobby, **gateway, client_address="2001:db8:1::1", join_code=code)
        await joined(lobby, **gateway, join_code=code)
        clock.advance(11)
        await joined(lobby, **gateway, client_address="2001:db8::1", join_code=code)


async def test_nobody_else_chooses_what_attempts_are_counted_against() -> None:
    async with running_lobby(open=False) as (lobby, _):
        code = lobby.session("").join_code
        for number in range(5):
            with pytest.raises(PermissionDeniedError):
                await joined(lobby, address="10.0.0.1", client_address=f"10.0.1.{number}", join_code="WRONG-CODE")
        with pytest.raises(QuotaError):
            await joined(lobby, address="10.0.0.1", client_address="10.0.1.9", join_code=code)
        await joined(lobby, address="10.0.1.1", client_address="not \x00 even heeded", join_code=code)


@pytest.mark.parametrize("address", ["x" * 65, "10.0.0.1\n", "\x1b[2J", "\0"])
async def test_a_malformed_address_is_refused(address: str) -> None:
    async with running_lobby() as (lobby, _):
        with pytest.raises(InvalidArgumentError, match="client_address"):
            await joined(lobby, gateway_of="default", client_address=address)


async def test_watchers_hear_of_a_choice_and_only_of_changes() -> None:
    async with running_lobby() as (lobby, _):
        watch = lobby.watch("default", None, "", 0)
        for role in ("viewer", "viewer", "none", None, None):
            await lobby.set_guest_role("default", role)  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            told = await watch.watcher.batch(10)
        assert [revision for revision, _ in told] == [1, 2, 3]
        watch.close()
        with pytest.raises(NotFoundError, match="session"):
            await lobby.set_guest_role("elsewhere", "viewer")


async def test_a_choice_outlives_the_lobby() -> None:
    store = MemoryStore(FakeClock())
    async with running_lobby(store) as (lobby, _):
        await lobby.set_guest_role("default", "none")
        made, _ = await lobby.create_session(Spec(guest_role="viewer"), "", "", "")
    async with running_lobby(store, max_users=7) as (lobby, _):  # what the settings say of the session is said anew
        default = lobby.session("")
        assert (default.guest_role, default.max_users) == ("none", 7)
        assert lobby.session(made.id).guest_role == "viewer"


def test_what_an_earlier_version_wrote_is_a_session_where_nobody_has_chosen() -> None:
    key = ("sessions", SESSION.id)
    text = to_json(key, SESSION)
    assert text is not None
    earlier = {name: value for name, value in json.loads(text).items() if name != "guest_role"}
    assert from_json(key, json.dumps(earlier)) == SESSION
    view = {
        "id": "s", "name": "Course", "user_count": 0, "service_count": 0, "max_users": 1, "max_services": 1,
        "idle_timeout_s": 0.0, "join_role": "viewer", "template": "", "created_at": 0.0, "hosts": [], "has_password": False,
    }  # fmt: skip
    (event,) = events_from_json(
        json.dumps([{"session_id": "s", "revision": 1, "kind": "session_ended", "session": view}])
    )
    assert event.session is not None and event.session.guest_role is None
