"""The lobby's core on a clock that only the test moves: what the contract and the model do not reach."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from lobby_fakes import SharedView, joined, later, new_lobby, running_lobby

from narupa_lobby.registry import Report
from narupa_lobby.services import Endpoint, Service, ServiceStatus
from narupa_lobby.sessions import Spec
from narupa_shared.auth import Identity
from narupa_shared.errors import NotFoundError, UnavailableError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.store import NO_LEASES, Commit, LeaseChanges, StoreError
from narupa_shared.testing.clock import FakeClock, FakeIds

IMD = Service(id="imd-1", kind="imd", endpoints=(Endpoint("grpc", "127.0.0.1", 38812),))
STARTED = Service(id="helix-1", kind="trajectory", status=ServiceStatus.STARTING, simulation="helix", restarts=2)


class FailingStore(MemoryStore):
    """A store that is away while `away`, and whose next `lost` answers do not arrive although the commit is made."""

    away = False
    lost = 0

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        if self.away:
            raise StoreError("away")
        await super().commit(commit, leases)
        if self.lost:
            self.lost -= 1
            raise StoreError("the answer was lost")


async def test_a_lost_answer_makes_nothing_twice() -> None:
    store = FailingStore(FakeClock())
    async with running_lobby(store) as (lobby, _):
        store.lost = 1
        ada = await joined(lobby)
        assert [user.id for user in lobby.state.users("default")] == [ada.user.id]
        assert lobby.state.revision("default") == 1


async def test_a_store_that_is_away_is_said_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narupa_lobby.log_writer.CALL_LIMIT_S", 0.02)
    store = FailingStore(FakeClock())
    async with running_lobby(store) as (lobby, _):
        store.away = True
        with pytest.raises(UnavailableError, match="request_id"):
            await joined(lobby, "Ada", request_id="a")
        assert lobby.state.users("default") == []
        store.away = False
        async with asyncio.timeout(5):
            while not lobby.state.users("default"):  # what was asked is done all the same
                await asyncio.sleep(0.01)
        again = await joined(lobby, "Ada", request_id="a")
        assert [user.id for user in lobby.state.users("default")] == [again.user.id]


async def test_whoever_vanished_may_come_back_for_a_while() -> None:
    async with running_lobby() as (lobby, clock):
        ada = await joined(lobby)
        await later(lobby, clock, 31)
        back = await joined(lobby, "", rejoin_token=ada.grant.token)
        assert (back.user.id, back.user.name, back.user.generation) == (ada.user.id, "Ada", 2)
        await later(lobby, clock, 31)
        await later(lobby, clock, 301)
        assert not lobby.state.collection("departed")
        assert (await joined(lobby, "Ada", rejoin_token=ada.grant.token)).user.id != ada.user.id


async def test_revocations_are_forgotten_when_no_token_is_left() -> None:
    async with running_lobby() as (lobby, clock):
        ada = (await joined(lobby)).user
        await lobby.kick("default", ada.id, "")
        await later(lobby, clock, 999)
        assert [(each.user_id, each.generation) for each in lobby.state.revocations("default")] == [(ada.id, 1)]
        await later(lobby, clock, 11)
        assert lobby.state.revocations("default") == []


async def test_a_session_that_nobody_is_in_ends() -> None:
    async with running_lobby() as (lobby, clock):
        session, host = await lobby.create_session(Spec(idle_timeout_s=60.0), "", "Ada", "")
        kept, _ = await lobby.create_session(Spec(idle_timeout_s=0.0), "", "", "")
        assert host is not None
        user = host.user
        identity = Identity(user.id, user.name, session.id, user.role, 0.0, 1)
        watch = lobby.watch(session.id, identity, "", 0)
        await later(lobby, clock, 1000)
        assert lobby.session_exists(session.id)
        watch.close()
        await later(lobby, clock, 2)
        assert lobby.state.user_count(session.id) == 0
        await later(lobby, clock, 59)
        assert lobby.session_exists(session.id)
        await later(lobby, clock, 1)
        assert not lobby.session_exists(session.id)
        await later(lobby, clock, 10_000)
        assert lobby.session_exists(kept.id) and lobby.session_exists("default")


async def test_a_started_service_stays_listed_when_its_lease_lapses() -> None:
    async with running_lobby() as (lobby, clock):
        await lobby.put_service("default", STARTED)
        lease = await lobby.register("", "", replace(IMD, id="helix-1", kind="trajectory"), "here")
        running = lobby.service("default", "helix-1")
        assert running is not None
        assert (running.status, running.simulation, running.restarts) == (ServiceStatus.RUNNING, "helix", 2)
        assert lobby.registered("default", "helix-1")
        await later(lobby, clock, 4)
        lapsed = lobby.service("default", "helix-1")
        assert lapsed is not None and lapsed.status is ServiceStatus.UNHEALTHY
        assert not lobby.registered("default", "helix-1")
        with pytest.raises(NotFoundError, match="register again"):
            await lobby.renew_lease(lease.id, Report())
        await lobby.remove_service("default", "helix-1")
        assert lobby.service("default", "helix-1") is None


async def test_records_of_others_are_replaced_in_one_step() -> None:
    async with running_lobby() as (lobby, _):
        assert await lobby.replace_record("launches", "default/helix", None, "1")
        assert not await lobby.replace_record("launches", "default/helix", None, "2")
        assert await lobby.replace_record("launches", "default/helix", "1", "2")
        assert dict(lobby.records("launches")) == {"default/helix": "2"}
        await lobby.put_record("launches", "default/helix", None)
        assert dict(lobby.records("launches")) == {}


async def test_a_service_token_is_renewed_in_the_second_half_of_its_life() -> None:
    async with running_lobby(service_lease_s=2000.0) as (lobby, clock):
        lease = await lobby.register("", "", IMD, "here")
        clock.advance(500)
        assert (await lobby.renew_lease(lease.id, Report())).grant == lease.grant
        clock.advance(1)
        assert (await lobby.renew_lease(lease.id, Report())).grant.expires_at == clock() + 1000


async def test_two_lobbies_sign_with_keys_that_both_know() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    one, two = (new_lobby(SharedView(store), clock, ids, key_rotation_s=100.0) for _ in range(2))
    async with one.running(), two.running():
        ada = await joined(one)
        await later(one, clock, 150)
        grace = await joined(two, "Grace")
        await two.fresh(lambda: two.session(""))
        for token in (ada.grant.token, grace.grant.token):
            assert one.tokens.verify(token) == two.tokens.verify(token)


async def test_a_reader_who_is_behind_catches_up_before_it_says_no() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    one, two = (new_lobby(SharedView(store), clock, ids) for _ in range(2))
    async with one.running(), two.running():
        session, _ = await one.create_session(Spec(), "", "", "")
        assert (await two.fresh(lambda: two.session(session.id))).id == session.id
        with pytest.raises(NotFoundError):
            await two.fresh(lambda: two.session("nowhere"))


async def test_a_session_that_nobody_is_in_ends_however_often_the_lobby_restarts() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)

    async def passing(seconds: float) -> bool:
        """A lobby has run for so long; whether the session is still there."""
        lobby = new_lobby(store, clock, ids)
        async with lobby.running():
            await later(lobby, clock, seconds)
            return lobby.session_exists(session.id)

    lobby = new_lobby(store, clock, ids)
    async with lobby.running():
        session, _ = await lobby.create_session(Spec(idle_timeout_s=100.0), "", "Ada", "")
    assert await passing(31), "the session begins to be empty when Ada's lease lapses"
    assert await passing(40)
    assert await passing(40)
    clock.advance(10)  # nobody runs
    assert await passing(5)
    assert not await passing(5)
    assert not store._records.get(("empty", session.id))


async def test_somebody_who_comes_starts_the_time_anew() -> None:
    async with running_lobby() as (lobby, clock):
        session, _ = await lobby.create_session(Spec(idle_timeout_s=100.0), "", "", "")
        await later(lobby, clock, 99)
        user = (await joined(lobby, session_id=session.id)).user
        await lobby.leave(Identity(user.id, user.name, session.id, user.role, 0.0, 1))
        await later(lobby, clock, 99)
        assert lobby.session_exists(session.id)
        await later(lobby, clock, 1)
        assert not lobby.session_exists(session.id)


@pytest.mark.parametrize("lapses", [False, True])
async def test_a_started_service_that_drains_is_draining_until_its_supervisor_says_otherwise(lapses: bool) -> None:
    async with running_lobby() as (lobby, clock):
        service = replace(IMD, id="helix-1", kind="trajectory")

        def status() -> ServiceStatus:
            listed = lobby.service("default", "helix-1")
            assert listed is not None
            return listed.status

        await lobby.put_service("default", STARTED)
        await lobby.drain_service("default", "helix-1")
        assert status() is ServiceStatus.DRAINING, "before it has registered, too"
        lease = await lobby.register("", "", service, "here")
        assert lease.listed.drain and lease.listed.service.status is ServiceStatus.DRAINING
        await lobby.put_service("default", STARTED)
        assert (await lobby.renew_lease(lease.id, Report(ServiceStatus.RUNNING))).listed.drain
        assert status() is ServiceStatus.DRAINING
        await (later(lobby, clock, 4) if lapses else lobby.deregister(lease.id))
        assert status() is ServiceStatus.DRAINING and not lobby.registered("default", "helix-1")
        await lobby.put_service("default", replace(STARTED, status=ServiceStatus.STOPPED, reason="drained"))
        assert status() is ServiceStatus.STOPPED
        await lobby.put_service("default", STARTED)
        lease = await lobby.register("", "", service, "here")
        assert not lease.listed.drain and status() is ServiceStatus.RUNNING
