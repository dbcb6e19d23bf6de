"""Who is seen to be here: users whose watches are open at this lobby, or whom a gateway holds here, have their leases renewed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final

from narupa_shared.stores.store import Store, StoreError

BEAT_S: Final = 1.0
# A lobby whose machine is busy renews late. When it dies, whom it saw have all their time to come back, however late it was.
LATE_BEAT_S: Final = 5.0


class Presence:
    """Counts open watches, and holds, by lease, and renews."""

    def __init__(self, store: Store, grace_s: float) -> None:
        """`grace_s` is how long a user has to come back, s; so much and `LATE_BEAT_S` lasts each renewal of who watches."""
        self._store = store
        self._watched_s = grace_s + LATE_BEAT_S
        self._watches: Counter[str] = Counter()
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()

    def watched(self, lease: str) -> bool:
        """Whether a watch of this user is open here, or somebody holds them."""
        return lease in self._watches

    def begin(self, lease: str) -> None:
        """One more watch of this user is open, or hold begins."""
        self._watches[lease] += 1
        self.show(lease, self._watched_s)

    def end(self, lease: str, grace_s: float) -> None:
        """One of those is over; after the last one, the user has `grace_s` to come back."""
        self._watches[lease] -= 1
        if not self._watches[lease]:
            del self._watches[lease]
            self.show(lease, grace_s)

    def show(self, lease: str, seconds: float) -> None:
        """The user shows life, and is here for `seconds` more unless a watch is open."""
        self._due[lease] = self._watched_s if lease in self._watches else seconds
        self._wake.set()

    async def renew_due(self) -> frozenset[str]:
        """Renews what has changed since the last time; returns leases that are not there."""
        due, self._due = self._due, {}
        self._wake.clear()
        try:
            return await self._store.renew(due) if due else frozenset()
        except StoreError:
            self._due = due | self._due
            raise

    async def renew_watched(self) -> frozenset[str]:
        """Renews the leases of everybody who watches here; returns those that are not there."""
        self._due = dict.fromkeys(self._watches, self._watched_s) | self._due
        return await self.renew_due()

    async def changed(self) -> None:
        """Returns once something is due."""
        await self._wake.wait()


class Holding:
    """The users who are here through one gateway, until it is closed."""

    def __init__(self, presence: Presence, grace_s: float) -> None:
        """After they are let go, users have `grace_s` to come back."""
        self._presence = presence
        self._grace_s = grace_s
        self._leases: set[str] = set()

    def begin(self, lease: str) -> None:
        """The user is here. Idempotent."""
        if lease not in self._leases:
            self._leases.add(lease)
            self._presence.begin(lease)

    def end(self, leases: Iterable[str]) -> None:
        """These users are not, as far as this gateway goes. Idempotent."""
        for lease in self._leases.intersection(leases):
            self._leases.discard(lease)
            self._presence.end(lease, self._grace_s)

    def close(self) -> None:
        """Nobody is."""
        self.end(tuple(self._leases))
