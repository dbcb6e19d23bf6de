"""A lobby chooses who leads a group of replicas, alone and with another over the same store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lobby_fakes import LaggingView, SharedView, later, new_lobby, running_lobby

from narupa_lobby.lobby import Lobby
from narupa_lobby.registry import Report
from narupa_lobby.services import Endpoint, Service, ServiceStatus
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.testing.clock import FakeClock, FakeIds

LEASE_S = 1.5


async def registered(lobby: Lobby, name: str, group: str = "g") -> str:
    """The id of the lease of a new replica."""
    service = Service(name, "trajectory", endpoints=(Endpoint("grpc", "127.0.0.1", 38811),), group=group)
    return (await lobby.register("", "", service, "127.0.0.1")).id


def epochs(lobby: Lobby) -> dict[str, int]:
    return {service.id: service.epoch for service in lobby.state.services("default")}


async def renewed(lobby: Lobby, *leases: str) -> None:
    for lease in leases:
        await lobby.renew_lease(lease, Report())


async def test_the_first_to_ask_leads_for_as_long_as_it_asks_again() -> None:
    async with running_lobby() as (lobby, clock):
        a, b = await registered(lobby, "a"), await registered(lobby, "b")
        first = await lobby.lead(a, 0)
        assert (first.epoch, first.standbys, first.leader_id) == (1, 1, "a")
        for _ in range(5):
            await later(lobby, clock, 1.0)
            await renewed(lobby, a, b)
            assert (await lobby.lead(a, 0)).epoch == 1
            other = await lobby.lead(b, 0)
            assert (other.epoch, other.leader_id, other.leader_epoch) == (0, "a", 1)
        assert epochs(lobby) == {"a": 1, "b": 0}


async def test_another_leads_once_the_lease_has_lapsed_and_the_list_says_so() -> None:
    async with running_lobby() as (lobby, clock):
        a, b = await registered(lobby, "a"), await registered(lobby, "b")
        await lobby.lead(a, 0)
        await later(lobby, clock, LEASE_S)
        assert (await lobby.lead(b, 0)).epoch == 2
        assert epochs(lobby) == {"a": 0, "b": 2}
        late = await lobby.lead(a, 0)
        assert (late.epoch, late.leader_id, late.leader_epoch) == (0, "b", 2)


async def test_a_leader_whose_lease_was_swept_leads_on_in_the_next_epoch() -> None:
    async with running_lobby() as (lobby, clock):
        a = await registered(lobby, "a")
        await lobby.lead(a, 0)
        await later(lobby, clock, LEASE_S)
        assert (await lobby.lead(a, 1)).epoch == 2


async def test_who_resigns_or_leaves_leaves_the_lead_at_once() -> None:
    async with running_lobby() as (lobby, _):
        a, b = await registered(lobby, "a"), await registered(lobby, "b")
        await lobby.lead(a, 0)
        await lobby.resign(a)
        await lobby.resign(a)
        assert epochs(lobby) == {"a": 0, "b": 0}
        assert (await lobby.lead(b, 0)).epoch == 2
        await lobby.deregister(b)
        assert (await lobby.lead(a, 0)).epoch == 3


async def test_resigning_late_takes_nothing_from_the_successor() -> None:
    async with running_lobby() as (lobby, clock):
        a, b = await registered(lobby, "a"), await registered(lobby, "b")
        await lobby.lead(a, 0)
        await later(lobby, clock, LEASE_S)
        await lobby.lead(b, 0)
        await lobby.resign(a)
        assert (await lobby.lead(a, 0)).epoch == 0
        assert epochs(lobby) == {"a": 0, "b": 2}


async def test_a_service_that_registers_anew_is_not_the_leader_it_was() -> None:
    async with running_lobby() as (lobby, clock):
        old = await registered(lobby, "a")
        b = await registered(lobby, "b")
        await lobby.lead(old, 0)
        new = await registered(lobby, "a")
        with pytest.raises(NotFoundError):
            await lobby.lead(old, 0)
        assert (await lobby.lead(new, 0)).epoch == 0  # the lease of who it was before has yet to lapse
        assert epochs(lobby)["a"] == 0
        await later(lobby, clock, LEASE_S)
        assert (await lobby.lead(b, 0)).epoch == 2


async def test_standbys_are_those_that_could_take_over() -> None:
    async with running_lobby() as (lobby, _):
        leases = {name: await registered(lobby, name) for name in ("a", "b", "c")}
        await registered(lobby, "other", group="h")
        await registered(lobby, "alone", group="")
        await lobby.renew_lease(leases["c"], Report(ServiceStatus.DRAINING))
        assert (await lobby.lead(leases["a"], 0)).standbys == 1


async def test_what_cannot_be_meant_is_refused() -> None:
    async with running_lobby() as (lobby, _):
        alone = await registered(lobby, "alone", group="")
        a = await registered(lobby, "a")
        with pytest.raises(FailedPreconditionError, match="without a group"):
            await lobby.lead(alone, 0)
        with pytest.raises(InvalidArgumentError, match="seen_epoch"):
            await lobby.lead(a, 2**60)
        with pytest.raises(NotFoundError):
            await lobby.lead("unknown", 0)
        with pytest.raises(InvalidArgumentError, match=r"service\.group"):
            await registered(lobby, "b", group="../x")
        assert (await lobby.lead(a, 0)).epoch == 1


async def test_a_lobby_that_was_away_leaves_the_lead_to_who_had_it() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    first = new_lobby(store, clock, FakeIds("first"))
    async with first.running():
        a, b = await registered(first, "a"), await registered(first, "b")
        assert (await first.lead(a, 0)).epoch == 1
    clock.advance(60.0)
    second = new_lobby(store, clock, FakeIds("second"))
    async with second.running():
        assert (await second.lead(b, 1)).epoch == 0
        await later(second, clock, 1.0)
        assert (await second.lead(a, 1)).epoch == 1
        await renewed(second, a, b)
        await later(second, clock, LEASE_S)
        assert (await second.lead(b, 1)).epoch == 2


async def test_a_lobby_that_has_lost_its_store_goes_on_from_the_epoch_that_services_know() -> None:
    async with running_lobby() as (lobby, _):
        assert (await lobby.lead(await registered(lobby, "a"), 7)).epoch == 8


async def test_ending_a_session_forgets_its_leaders() -> None:
    async with running_lobby() as (lobby, _):
        from narupa_lobby.sessions import Spec

        session, _host = await lobby.create_session(Spec(name="class"), "", "", "")
        service = Service("a", "trajectory", endpoints=(Endpoint("grpc", "127.0.0.1", 1),), group="g")
        lease = await lobby.register(session.id, "", service, "127.0.0.1")
        await lobby.lead(lease.id, 0)
        await lobby.end_session(session.id, "over")
        assert not lobby.state.collection("leaders")


async def test_of_two_lobbies_one_grants_the_lead_and_the_one_behind_renews_nothing() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    view = LaggingView(store)
    rules: dict[str, Any] = {"leader_lease_s": LEASE_S}
    ahead, behind = new_lobby(SharedView(store), clock, ids, **rules), new_lobby(view, clock, ids, **rules)
    async with ahead.running(), behind.running(), asyncio.timeout(5.0):
        a, b = await registered(ahead, "a"), await registered(ahead, "b")
        await behind.caught_up()
        assert (await behind.lead(a, 0)).epoch == 1
        await ahead.caught_up()
        view.lag = True
        clock.advance(LEASE_S)
        assert (await ahead.lead(b, 0)).epoch == 2
        # The lobby behind still has a for the leader, and is about to renew it.
        late = await behind.lead(a, 0)
        assert (late.epoch, late.leader_id, late.leader_epoch) == (0, "b", 2)
        both = await asyncio.gather(ahead.lead(a, 0), behind.lead(a, 0), ahead.lead(b, 0), behind.lead(b, 0))
        assert [each.epoch for each in both] == [0, 0, 2, 2]


async def test_of_many_who_ask_at_once_one_leads() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    lobbies = [new_lobby(SharedView(store), clock, ids) for _ in range(2)]
    async with lobbies[0].running(), lobbies[1].running(), asyncio.timeout(5.0):
        leases = [await registered(lobbies[0], f"replica-{number}") for number in range(6)]
        await lobbies[1].caught_up()
        found = await asyncio.gather(*(lobbies[number % 2].lead(lease, 0) for number, lease in enumerate(leases)))
        assert sorted(each.epoch for each in found) == [0, 0, 0, 0, 0, 1]
