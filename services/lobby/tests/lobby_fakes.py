"""Lobbies in the test's own process: on a clock that only the test moves, one alone or several over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from narupa_lobby.admission import Wish
from narupa_lobby.lobby import Joined, Lobby
from narupa_lobby.rules import Rules
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.store import NO_LEASES, BehindError, Commit, Contents, LeaseChanges, Store
from narupa_shared.testing.clock import FakeClock, FakeIds


class SharedView:
    """One of several owners' view of a store in memory."""

    shared = True

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def open(self) -> Contents:
        store = self._store
        if not store._is_open:
            return await store.open()
        return Contents(store._epoch, store._log.number, dict(store._records), store._log.commits, store._leases.names)

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        await asyncio.sleep(0)  # as over a network: another may be first
        await self._store.commit(commit, leases)

    def since(self, number: int) -> AsyncIterator[Commit]:
        return self._store.since(number)

    async def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        return await self._store.renew(leases)

    async def lapsed(self, at_most: int = 1000) -> tuple[str, ...]:
        return await self._store.lapsed(at_most)

    async def close(self) -> None:
        """The others go on."""


class LaggingView(SharedView):
    """A view that hears of others' commits only while it does not `lag`, or when its own is refused for being behind."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.on_time = asyncio.Event()
        self.on_time.set()

    @property
    def lag(self) -> bool:
        return not self.on_time.is_set()

    @lag.setter
    def lag(self, lag: bool) -> None:
        (self.on_time.clear if lag else self.on_time.set)()

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        try:
            await super().commit(commit, leases)
        except BehindError:
            self.lag = False
            raise

    async def since(self, number: int) -> AsyncIterator[Commit]:
        async for commit in super().since(number):
            await self.on_time.wait()
            yield commit


def new_lobby(store: Store, clock: FakeClock, ids: FakeIds, **rules: Any) -> Lobby:
    return Lobby(Rules(**{"token_ttl_s": 1000.0} | rules), store, clock=clock, wall_clock=clock, new_id=ids)


@asynccontextmanager
async def running_lobby(store: Store | None = None, **rules: Any) -> AsyncIterator[tuple[Lobby, FakeClock]]:
    """A lobby that runs, and its clock."""
    clock = FakeClock()
    lobby = new_lobby(store or MemoryStore(clock), clock, FakeIds(), **rules)
    async with lobby.running():
        yield lobby, clock


async def joined(lobby: Lobby, name: str = "Ada", **wish: Any) -> Joined:
    return await lobby.join(Wish(name, **wish))


async def later(lobby: Lobby, clock: FakeClock, seconds: float) -> None:
    """Time has gone on, and the lobby has swept before and after."""
    await lobby.sweep()
    clock.advance(seconds)
    await lobby.sweep()
