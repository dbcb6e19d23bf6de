"""Two lobbies over one store, one of which has not heard of the other's latest commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog.testing
from lobby_fakes import LaggingView, SharedView, joined, later, new_lobby

from narupa_lobby.admission import Wish
from narupa_lobby.lobby import PROBE, Joined, Lobby
from narupa_lobby.registry import Report
from narupa_lobby.services import Endpoint, Service
from narupa_lobby.sessions import Spec
from narupa_shared.auth import Identity
from narupa_shared.errors import (
    NarupaError,
    NoLongerKeptError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    UnavailableError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.store import NO_LEASES, Commit, LeaseChanges, StoreReplacedError
from narupa_shared.testing.clock import FakeClock, FakeIds

LIMIT_S = 5.0
IMD = Service(id="imd-1", kind="imd", endpoints=(Endpoint("grpc", "127.0.0.1", 38812),))


@dataclass
class Pair:
    """`ahead` commits what `behind` does not hear of while `view.lag`."""

    ahead: Lobby
    behind: Lobby
    view: LaggingView
    store: MemoryStore
    clock: FakeClock

    @property
    def commits(self) -> int:
        return self.store._log.number


@asynccontextmanager
async def two_lobbies(**rules: Any) -> AsyncIterator[Pair]:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    view = LaggingView(store)
    ahead, behind = new_lobby(SharedView(store), clock, ids, **rules), new_lobby(view, clock, ids, **rules)
    async with ahead.running(), behind.running(), asyncio.timeout(LIMIT_S):
        await ahead.caught_up()
        await behind.caught_up()
        view.lag = True
        yield Pair(ahead, behind, view, store, clock)
        view.lag = False


def identity_of(joined: Joined) -> Identity:
    user = joined.user
    return Identity(user.id, user.name, user.session_id, user.role, 0.0, user.generation)


async def test_whoever_comes_to_a_lobby_that_is_behind_is_let_in() -> None:
    async with two_lobbies(open=False) as pair:
        session, _ = await pair.ahead.create_session(Spec(join_code="SECRET-CODE"), "", "", "")
        by_code = await joined(pair.behind, join_code="secret code")
        assert by_code.user.session_id == session.id
        pair.view.lag = True
        _, secret = await pair.ahead.create_invite(session.id, "host", 0.0, 1, "operator")
        by_invite = await joined(pair.behind, invite=secret)
        assert by_invite.user.role == "host"
        pair.view.lag = True
        other, _ = await pair.ahead.create_session(Spec(join_code="OTHER-CODE"), "", "", "")
        by_id = await joined(pair.behind, session_id=other.id, join_code="OTHER-CODE")
        assert by_id.user.session_id == other.id


async def test_whoever_comes_back_or_asks_again_at_a_lobby_that_is_behind_is_the_same() -> None:
    async with two_lobbies() as pair:
        ada = await joined(pair.ahead, "Ada", request_id="a")
        assert (await joined(pair.behind, "", rejoin_token=ada.grant.token)).user == ada.user
        pair.view.lag = True
        grace = await joined(pair.ahead, "Grace", request_id="g")
        assert (await joined(pair.behind, "Grace", request_id="g")).user == grace.user
        await pair.behind.caught_up()
        pair.view.lag = True
        await pair.ahead.leave(identity_of(ada))
        new = await joined(pair.behind, "Ada", rejoin_token=ada.grant.token)
        assert new.user.id != ada.user.id and new.user.generation == 1
        await pair.behind.caught_up()
        pair.view.lag = True
        await pair.ahead.kick("default", grace.user.id, "")
        with pytest.raises(PermissionDeniedError, match="removed"):
            await joined(pair.behind, "Grace", rejoin_token=grace.grant.token)


async def test_whoever_has_come_back_is_not_taken_for_gone_by_a_lobby_that_hears_late_that_they_went() -> None:
    async with two_lobbies() as pair:
        ada = await joined(pair.ahead, "Ada")
        await pair.behind.caught_up()
        pair.view.lag = True
        pair.clock.advance(3600.0)
        await pair.ahead.sweep()
        back = await joined(pair.ahead, "", rejoin_token=ada.grant.token)
        assert back.user.id == ada.user.id and back.user.generation == ada.user.generation + 1
        identity = identity_of(back)
        watch = await pair.behind.fresh(lambda: pair.behind.watch("default", identity, "", 0))
        pair.view.lag = False
        await pair.behind.caught_up()
        await joined(pair.ahead, "Grace")
        await pair.behind.caught_up()
        (_, told) = await anext(watch.watcher)
        assert lobby_pb2.WatchSessionResponse.FromString(told.message).user_joined.name == "Grace"
        watch.close()


async def test_what_is_asked_of_a_lobby_that_is_behind_happens() -> None:
    async with two_lobbies() as pair:
        ada, grace = await joined(pair.ahead, "Ada"), await joined(pair.ahead, "Grace")
        await pair.behind.kick("default", grace.user.id, "")
        pair.view.lag = True
        alan = await joined(pair.ahead, "Alan")
        await pair.behind.set_role("default", alan.user.id, "viewer")
        pair.view.lag = True
        eve = await joined(pair.ahead, "Eve")
        await pair.behind.leave(identity_of(eve))
        pair.view.lag = True
        invite, _ = await pair.ahead.create_invite("default", None, 0.0, 1, "operator")
        await pair.behind.revoke_invite("default", invite.id)
        pair.view.lag = True
        lease = await pair.ahead.register("", "", IMD, "here")
        await pair.behind.renew_lease(lease.id, Report(load=3.0))
        pair.view.lag = True
        other = await pair.ahead.register("", "", Service("imd-2", "imd", endpoints=IMD.endpoints), "here")
        await pair.behind.deregister(other.id)
        await pair.ahead.caught_up()
        state = pair.ahead.state
        assert {user.id: user.role for user in state.users("default")} == {ada.user.id: "host", alan.user.id: "viewer"}
        assert state.invites("default") == []
        assert [(each.id, each.load) for each in state.services("default")] == [("imd-1", 3.0)]


async def test_guests_come_in_as_the_hosts_last_chose_at_a_lobby_that_is_behind() -> None:
    guest: dict[str, Any] = {"gateway_of": "default", "guest": True}
    async with two_lobbies(open=False) as pair:
        await pair.ahead.set_guest_role("default", "viewer")
        assert (await joined(pair.behind, **guest)).user.role == "viewer"
        pair.view.lag = True
        await pair.ahead.set_guest_role("default", "participant")
        assert (await joined(pair.behind, **guest)).user.role == "participant"
        pair.view.lag = True
        await pair.ahead.set_guest_role("default", "none")
        with pytest.raises(PermissionDeniedError, match="as a guest"):
            await joined(pair.behind, **guest)
        pair.view.lag = True
        session, _ = await pair.ahead.create_session(Spec(), "", "", "")
        await pair.behind.set_guest_role(session.id, "host")
        await pair.ahead.caught_up()
        assert pair.ahead.session(session.id).guest_role == "host"


async def test_wrong_guesses_cost_no_commits() -> None:
    async with two_lobbies(open=False) as pair:
        await pair.behind.caught_up()
        before = pair.commits
        for number in range(5):
            with pytest.raises(PermissionDeniedError, match="wrong"):
                await joined(pair.behind, join_code=f"GUESS{number}", address="1.2.3.4")
            with pytest.raises(PermissionDeniedError, match="wrong"):
                await joined(pair.behind, invite=f"guess {number}", address="1.2.3.4")
        asked: list[Commit] = []
        commit = pair.view.commit

        async def counted(each: Commit, leases: LeaseChanges = NO_LEASES) -> None:
            asked.append(each)
            await commit(each, leases)

        pair.view.commit = counted
        with pytest.raises(QuotaError):
            await joined(pair.behind, join_code="GUESS5", address="1.2.3.4")
        assert asked == [], "limits come before the store is asked"
        wishes = [Wish("Eve", f"nowhere {number}", address="1.2.3.5") for number in range(100)]
        found = await asyncio.gather(*(pair.behind.join(wish) for wish in wishes), return_exceptions=True)
        assert {type(each) for each in found} == {NotFoundError}
        assert len(asked) <= 2, "who asks at once shares one question"
        assert pair.commits == before
        await later(pair.behind, pair.clock, 61)
        assert PROBE not in pair.store._leases.names


async def test_a_lobby_that_fell_behind_what_is_kept_says_so_once_and_answers_that_it_starts_anew() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock, kept_commits=3)
    view = LaggingView(store)
    ahead, behind = new_lobby(SharedView(store), clock, ids), new_lobby(view, clock, ids)
    async with ahead.running(), asyncio.timeout(LIMIT_S):
        with pytest.raises(NoLongerKeptError), structlog.testing.capture_logs() as logged:
            async with behind.running():
                view.lag = True
                for number in range(20):
                    await joined(ahead, f"user {number}")
                view.lag = False
                with pytest.raises(NoLongerKeptError, match="read the store anew"):
                    await behind.until_lost()
                assert behind.lost
                for call in (joined(behind), behind.kick("default", "x", ""), behind.rotate_keys(False)):
                    with pytest.raises(UnavailableError, match="starts anew"):
                        await call
        assert [each["event"] for each in logged if each["log_level"] == "error"] == ["lobby_lost"]


@pytest.mark.parametrize("call", ["commit", "since", "renew", "lapsed"])
async def test_a_replaced_store_ends_the_lobby(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narupa_lobby.upkeep.SWEEP_INTERVAL_S", 0.01)

    def replaced(*_: Any, **__: Any) -> Any:
        raise StoreReplacedError("it has been emptied; restart the service")

    async def replaced_soon(*_: Any, **__: Any) -> Any:
        replaced()

    store = MemoryStore(clock := FakeClock())
    view = SharedView(store)
    lobby = new_lobby(view, clock, FakeIds())
    with pytest.raises(StoreReplacedError):
        async with asyncio.timeout(LIMIT_S), lobby.running():
            monkeypatch.setattr(view, call, replaced if call == "since" else replaced_soon)
            if call == "since":
                store._log.close()  # the follower looks again
            lobby._presence.show("user/default/somebody", 1.0)  # there is something to renew
            waiting = asyncio.ensure_future(joined(lobby))
            with pytest.raises(StoreReplacedError):
                await lobby.until_lost()
            outcomes = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(outcomes[0], NarupaError | Joined)
