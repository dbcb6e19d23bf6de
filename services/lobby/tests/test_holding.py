"""Users who are here through a gateway: in the session for as long as it holds them, and a moment longer."""

from __future__ import annotations

from lobby_fakes import SharedView, joined, later, new_lobby, running_lobby

from narupa_lobby.presence import LATE_BEAT_S
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.testing.clock import FakeClock, FakeIds

BRIEF = {"user_lease_s": 10.0, "rejoin_grace_s": 2.0}


async def test_whoever_is_held_stays_and_whoever_is_let_go_may_come_back_in_time() -> None:
    async with running_lobby(**BRIEF) as (lobby, clock):
        ada, grace, nobody = [(await joined(lobby, name)).user.id for name in ("Ada", "Grace", "Nobody")]
        holding = lobby.holding()
        assert await lobby.hold(holding, "default", [ada, grace]) == []
        assert await lobby.hold(holding, "default", [ada]) == []  # again, which changes nothing
        for _ in range(4):
            await lobby._presence.renew_watched()  # as happens each second
            await later(lobby, clock, 4.0)
        assert {user.id for user in lobby.state.users("default")} == {ada, grace}
        assert nobody not in {user.id for user in lobby.state.users("default")}
        holding.end([f"user/default/{grace}"])
        await later(lobby, clock, 1.9)
        assert {user.id for user in lobby.state.users("default")} == {ada, grace}
        assert await lobby.hold(holding, "default", [grace]) == []  # in time
        await later(lobby, clock, 1.9)
        assert {user.id for user in lobby.state.users("default")} == {ada, grace}
        holding.close()
        holding.close()
        await later(lobby, clock, 2.1)
        assert not lobby.state.users("default")


async def test_one_gateway_lets_go_of_nobody_whom_another_holds() -> None:
    async with running_lobby(**BRIEF) as (lobby, clock):
        ada = (await joined(lobby)).user.id
        one, other = lobby.holding(), lobby.holding()
        for holding in (one, other):
            assert await lobby.hold(holding, "default", [ada]) == []
        one.close()
        await later(lobby, clock, 2.1)
        assert lobby.state.user("default", ada)
        other.close()
        await later(lobby, clock, 2.1)
        assert not lobby.state.user("default", ada)


async def test_whoever_a_lobby_saw_that_renews_late_and_dies_has_their_time_to_come_back() -> None:
    async with running_lobby(**BRIEF) as (lobby, clock):
        ada = (await joined(lobby)).user.id
        await lobby.hold(lobby.holding(), "default", [ada])
        await lobby._presence.renew_watched()
        lobby._presence._watches.clear()  # as another lobby sees it, which sees no end of the hold
        clock.advance(LATE_BEAT_S - 0.1)  # in which there is no renewal before it dies
        await later(lobby, clock, BRIEF["rejoin_grace_s"])
        assert lobby.state.user("default", ada)
        await later(lobby, clock, 0.2)
        assert not lobby.state.user("default", ada)


async def test_who_is_not_in_the_session_is_named() -> None:
    async with running_lobby(**BRIEF) as (lobby, clock):
        ada = (await joined(lobby)).user.id
        holding = lobby.holding()
        assert await lobby.hold(holding, "default", ["stranger", ada]) == ["stranger"]
        assert await lobby.hold(holding, "elsewhere", [ada]) == [ada]
        await lobby.kick("default", ada, "too loud")
        assert await lobby.hold(holding, "default", [ada]) == [ada]
        holding.close()
        await later(lobby, clock, 0.0)
        assert not lobby.state.users("default")


async def test_who_joined_at_another_lobby_a_moment_ago_is_held() -> None:
    clock, ids = FakeClock(), FakeIds()
    store = MemoryStore(clock)
    one, other = (new_lobby(SharedView(store), clock, ids, **BRIEF) for _ in range(2))
    async with one.running(), other.running():
        ada = (await joined(one)).user.id
        holding = other.holding()
        assert await other.hold(holding, "default", [ada, "stranger"]) == ["stranger"]
        holding.close()
