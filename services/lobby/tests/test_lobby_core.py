"""The lobby's core on a clock that only the test moves: users, leases, tokens, access, limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from narupa_lobby.access import Access
from narupa_lobby.lobby import Lobby
from narupa_lobby.services import MAX_ENDPOINTS, MAX_FACTS, Endpoint, Service, ServiceStatus, check_status
from narupa_lobby.session import Limits, ServiceChanged, ServiceRemoved, UserJoined, UserLeft
from narupa_shared.auth import Identity, TokenSigner, TokenVerifier
from narupa_shared.errors import (
    InvalidArgumentError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.testing.clock import FakeClock, FakeIds

IMD = Service(id="imd-1", kind="imd", endpoints=(Endpoint("grpc", "127.0.0.1", 38812),))

MakeLobby = Callable[..., Lobby]


@pytest.fixture
def make_lobby(clock: FakeClock, ids: FakeIds) -> MakeLobby:
    def make(access: Access = Access(open=True), **limits: Any) -> Lobby:  # noqa: B008
        return Lobby(
            TokenSigner.generate(clock), access, Limits(**limits), clock=clock, wall_clock=clock, new_id=ids,
            token_ttl_s=100.0,
        )  # fmt: skip

    return make


@pytest.fixture
def lobby(make_lobby: MakeLobby) -> Lobby:
    return make_lobby()


def identity(lobby: Lobby, clock: FakeClock, token: str) -> Identity:
    verifier = TokenVerifier(None, clock)
    verifier.trust([lobby.signer.public_key])
    return verifier.verify(token)


def joined(lobby: Lobby, clock: FakeClock, name: str = "Ada") -> Identity:
    return identity(lobby, clock, lobby.join("", name, "")[2].token)


def later(clock: FakeClock, lobby: Lobby, seconds: float) -> None:
    clock.advance(seconds)
    lobby.expire()


def names(lobby: Lobby) -> list[str]:
    return [user.name for user in lobby.session("").users.values()]


def test_a_session_exists_from_the_start(lobby: Lobby) -> None:
    assert [session.id for session in lobby.sessions] == ["default"]
    assert lobby.session("") is lobby.session("default")
    with pytest.raises(NotFoundError, match=r"'elsewhere'.*'default'"):
        lobby.session("elsewhere")


def test_join_gives_a_token_for_who_joined(lobby: Lobby, clock: FakeClock) -> None:
    session, user, grant = lobby.join("", "  Ada Lovelace ", "")
    assert user.name == "Ada Lovelace"
    assert identity(lobby, clock, grant.token) == Identity(
        user.id, "Ada Lovelace", "default", "participant", clock() + 100
    )
    assert lobby.seconds_left(grant) == 100
    assert session.events.revision == 1


def test_names_may_repeat_and_ids_differ(lobby: Lobby) -> None:
    assert lobby.join("", "Ada", "")[1].id != lobby.join("", "Ada", "")[1].id
    assert names(lobby) == ["Ada", "Ada"]


@pytest.mark.parametrize("name", ["", "   ", "a" * 65, "a\nb", "\x00", "a\u202eb"])
def test_bad_names_are_refused(lobby: Lobby, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="user_name"):
        lobby.join("", name, "")
    assert names(lobby) == []


def test_a_full_session_refuses_users_and_services(make_lobby: MakeLobby) -> None:
    lobby = make_lobby(max_users=1, max_services=1)
    lobby.join("", "Ada", "")
    with pytest.raises(QuotaError, match="full"):
        lobby.join("", "Grace", "")
    lobby.register("", "", IMD)
    lobby.register("", "", IMD)  # the same one again is not one more
    with pytest.raises(QuotaError):
        lobby.register("", "", replace(IMD, id="imd-2"))


def test_a_user_who_never_watches_leaves_after_the_lease(lobby: Lobby, clock: FakeClock) -> None:
    lobby.join("", "Ada", "")
    later(clock, lobby, 29.9)
    assert names(lobby) == ["Ada"]
    later(clock, lobby, 0.1)
    assert names(lobby) == []


def test_renewing_the_token_shows_life(lobby: Lobby, clock: FakeClock) -> None:
    ada = joined(lobby, clock)
    later(clock, lobby, 20)
    assert identity(lobby, clock, lobby.renew_token(ada).token).expires_at == clock() + 100
    later(clock, lobby, 20)
    assert names(lobby) == ["Ada"]


def test_a_watching_user_stays_and_leaves_soon_after_the_last_watch(lobby: Lobby, clock: FakeClock) -> None:
    ada = joined(lobby, clock)
    with lobby.watching("", ada, "", 0):
        with lobby.watching("", ada, "", 0):
            later(clock, lobby, 1000)
        later(clock, lobby, 1000)
        lobby.renew_token(ada)  # does not start a lease beside the watch
        later(clock, lobby, 1000)
        assert names(lobby) == ["Ada"]
    later(clock, lobby, 1.9)
    with lobby.watching("", ada, "", 0):  # a reconnect within the grace is no leaving
        later(clock, lobby, 1000)
    later(clock, lobby, 2.0)
    assert names(lobby) == []


def test_leaving_is_at_once_final_and_idempotent(lobby: Lobby, clock: FakeClock) -> None:
    ada = joined(lobby, clock)
    with lobby.watching("", ada, "", 0):
        lobby.leave(ada)
        assert names(lobby) == []
        lobby.leave(ada)
    later(clock, lobby, 100)
    with pytest.raises(NotFoundError, match="join again"):
        lobby.renew_token(ada)
    with pytest.raises(NotFoundError, match="join again"), lobby.watching("", ada, "", 0):
        pass


def test_a_watch_needs_a_token_of_its_session(lobby: Lobby, clock: FakeClock) -> None:
    stranger = replace(joined(lobby, clock), session_id="other")
    with pytest.raises(UnauthenticatedError, match="'other'"), lobby.watching("", stranger, "", 0):
        pass


async def test_watchers_see_everything_that_changes(lobby: Lobby, clock: FakeClock) -> None:
    with lobby.watching("", None, "", 0) as (session, watcher):
        ada = joined(lobby, clock)
        lease = lobby.register("", "", IMD)
        lobby.renew_lease(lease.id, None, 0.0, {})  # nothing changed: no event
        lobby.renew_lease(lease.id, None, 3.0, {})
        lobby.renew_lease(lease.id, ServiceStatus.UNHEALTHY, 3.0, {"reason": "full"})
        lobby.register("", "", replace(IMD, status=ServiceStatus.UNHEALTHY, load=3.0, metadata={"reason": "full"}))
        lobby.leave(ada)
        later(clock, lobby, 3.0)
        events = [await anext(watcher) for _ in range(session.events.revision)]
    user = events[0][1].user  # type: ignore[union-attr]
    ill = replace(IMD, status=ServiceStatus.UNHEALTHY, load=3.0, metadata={"reason": "full"})
    assert events == [
        (1, UserJoined(user)),
        (2, ServiceChanged(IMD)),
        (3, ServiceChanged(replace(IMD, load=3.0))),
        (4, ServiceChanged(ill)),
        (5, UserLeft(user)),
        (6, ServiceRemoved(ill)),
    ]


def test_a_revision_needs_its_epoch(lobby: Lobby, clock: FakeClock) -> None:
    joined(lobby, clock)
    with pytest.raises(InvalidArgumentError, match="epoch"), lobby.watching("", None, "", 1):
        pass
    with pytest.raises(NoLongerKeptError), lobby.watching("", None, "old", 1):
        pass


def test_watchers_are_counted_and_limited(make_lobby: MakeLobby) -> None:
    lobby = make_lobby(max_watchers=1)
    with lobby.watching("", None, "", 0), pytest.raises(QuotaError), lobby.watching("", None, "", 0):
        pass
    with lobby.watching("", None, "", 0):
        pass


def test_a_lease_lapses_unless_renewed(lobby: Lobby, clock: FakeClock) -> None:
    lease = lobby.register("", "", IMD)
    for _ in range(5):
        later(clock, lobby, 2.9)
        lobby.renew_lease(lease.id, None, 0.0, {})
    later(clock, lobby, 3.0)
    assert lobby.session("").services() == []
    with pytest.raises(NotFoundError, match="register again"):
        lobby.renew_lease(lease.id, None, 0.0, {})
    lobby.deregister(lease.id)


def test_registering_again_ends_the_older_lease(lobby: Lobby, clock: FakeClock) -> None:
    older = lobby.register("", "", IMD)
    newer = lobby.register("", "", replace(IMD, load=1.0))
    with pytest.raises(NotFoundError):
        lobby.renew_lease(older.id, None, 0.0, {})
    lobby.deregister(older.id)
    later(clock, lobby, 2.0)
    lobby.renew_lease(newer.id, None, 1.0, {})
    later(clock, lobby, 2.0)
    assert [service.load for service in lobby.session("").services()] == [1.0]
    lobby.deregister(newer.id)
    assert lobby.session("").services() == []


def test_the_lobby_names_a_service_without_an_id(lobby: Lobby) -> None:
    lease = lobby.register("", "", replace(IMD, id=""))
    assert lobby.session("").services()[0].id == lease.service_id != ""


def test_a_service_token_is_renewed_in_the_second_half_of_its_life(lobby: Lobby, clock: FakeClock) -> None:
    lease = lobby.register("", "", IMD)
    assert identity(lobby, clock, lease.grant.token) == Identity("imd-1", "imd", "default", "service", clock() + 100)
    clock.advance(50)
    assert lobby.renew_lease(lease.id, None, 0.0, {}).grant == lease.grant
    clock.advance(1)
    renewed = lobby.renew_lease(lease.id, None, 0.0, {}).grant
    assert renewed.expires_at == clock() + 100
    assert lobby.renew_lease(lease.id, None, 0.0, {}).grant == renewed


def test_services_are_listed_best_first(lobby: Lobby) -> None:
    for name, kind, status, load, capacity in [
        ("half", "trajectory", 3, 50, 100),
        ("draining", "trajectory", 5, 0, 100),
        ("tenth", "trajectory", 3, 10, 100),
        ("ill", "trajectory", 4, 0, 100),
        ("busy", "trajectory", 3, 10, 50),
        ("starting", "trajectory", 2, 0, 100),
        ("boundless-2", "imd", 3, 2, 0),
        ("boundless-1", "imd", 3, 1, 0),
    ]:
        lobby.register(
            "", "", replace(IMD, id=name, kind=kind, status=ServiceStatus(status), load=float(load), capacity=capacity)
        )
    listed = [service.id for service in lobby.session("").services()]
    assert listed == ["boundless-1", "boundless-2", "tenth", "busy", "half", "starting", "ill", "draining"]
    assert [service.id for service in lobby.session("").services("imd")] == ["boundless-1", "boundless-2"]


END = Endpoint("grpc", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (r"service\.id", {"id": "a b"}),
        (r"service\.id", {"id": "a" * 65}),
        (r"service\.kind", {"kind": ""}),
        (r"service\.kind", {"kind": "IMD"}),
        (r"service\.kind", {"kind": "a" * 33}),
        (r"service\.kind", {"kind": "imd\n"}),
        (r"service\.endpoints", {"endpoints": ()}),
        (r"service\.endpoints", {"endpoints": (END,) * (MAX_ENDPOINTS + 1)}),
        (r"service\.endpoints\[1\]\.protocol", {"endpoints": (END, replace(END, protocol=""))}),
        (r"service\.endpoints\[0\]\.host", {"endpoints": (replace(END, host=""),)}),
        (r"service\.endpoints\[0\]\.host", {"endpoints": (replace(END, host="a/b"),)}),
        (r"service\.endpoints\[0\]\.host", {"endpoints": (replace(END, host="a" * 254),)}),
        (r"service\.endpoints\[0\]\.port", {"endpoints": (replace(END, port=0),)}),
        (r"service\.endpoints\[0\]\.port", {"endpoints": (replace(END, port=65536),)}),
        (r"service\.capacity", {"capacity": -1}),
        (r"service\.capacity", {"capacity": 2_000_000}),
        (r"service\.occupancy", {"load": math.nan}),
        (r"service\.occupancy", {"load": math.inf}),
        (r"service\.occupancy", {"load": -1.0}),
        (r"service\.metadata", {"metadata": {str(n): "" for n in range(MAX_FACTS + 1)}}),
        (r"service\.metadata", {"metadata": {"a": "b" * 5000}}),
        (r"service\.metadata key", {"metadata": {"": "b"}}),
        (r"service\.metadata key", {"metadata": {"a" * 65: "b"}}),
    ],
)
def test_bad_services_are_refused_and_change_nothing(lobby: Lobby, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^{field} is "):
        lobby.register("", "", replace(IMD, **change))
    assert lobby.session("").services() == []
    assert lobby.session("").events.revision == 0


def test_bad_renewals_are_refused_and_do_not_renew(lobby: Lobby, clock: FakeClock) -> None:
    lease = lobby.register("", "", IMD)
    clock.advance(2)
    with pytest.raises(InvalidArgumentError, match="occupancy"):
        lobby.renew_lease(lease.id, None, math.nan, {})
    with pytest.raises(InvalidArgumentError, match="metadata"):
        lobby.renew_lease(lease.id, None, 0.0, {"a": "b" * 5000})
    later(clock, lobby, 1)
    assert lobby.session("").services() == []


@pytest.mark.parametrize("number", [-1, 0, 6, 1000])
def test_unknown_statuses_are_refused(number: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"3 \(running\)"):
        check_status("status", number)


def test_a_closed_lobby_asks_for_its_codes(make_lobby: MakeLobby) -> None:
    lobby = make_lobby(Access(open=False, join_code=SecretStr("sésame"), service_key=SecretStr("key")))
    for wrong in ("", "sesame", "sésame ", "\ud800"):
        with pytest.raises(PermissionDeniedError, match=r"join_code is (wrong|missing)") as refusal:
            lobby.join("", "Ada", wrong)
        assert "sésame" not in str(refusal.value)
        with pytest.raises(PermissionDeniedError, match=r"service_key is (wrong|missing)"):
            lobby.register("", wrong, IMD)
    lobby.join("", "Ada", "sésame")
    lobby.register("", "key", IMD)


def test_a_closed_lobby_without_codes_says_what_to_set(make_lobby: MakeLobby) -> None:
    lobby = make_lobby(Access(open=False))
    with pytest.raises(PermissionDeniedError, match="--join-code"):
        lobby.join("", "Ada", "")
    with pytest.raises(PermissionDeniedError, match="NARUPA_LOBBY_SERVICE_KEY"):
        lobby.register("", "", IMD)


async def test_draining_ends_watches_and_lets_nobody_in(lobby: Lobby) -> None:
    with lobby.watching("", None, "", 0) as (_, watcher):
        lobby.drain()
        with pytest.raises(UnavailableError):
            await anext(watcher)
    for attempt in (lambda: lobby.join("", "Ada", ""), lambda: lobby.register("", "", IMD)):
        with pytest.raises(UnavailableError):
            attempt()
