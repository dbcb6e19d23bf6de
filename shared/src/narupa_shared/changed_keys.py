"""When each key of a map changed last: what somebody who saw the map as it was some time ago is to be told. No I/O."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

MOST_REMOVALS: Final = 10_000
TOLD_REMOVALS: Final = 1000


@dataclass(slots=True, eq=False)
class Place:
    """How far somebody who watches has been told: of everything up to `revision`."""

    revision: int


class ChangedKeys:
    """Every key with the revision of its last change.

    That a key was removed is remembered until all who watch have been told, but of no more than `most` keys; of what all have
    been told, the last `told` are remembered all the same, for those who come back after a break.

    Attributes:
        revision: Raised with every change.
        forgotten: Removals up to this revision may not be remembered.
    """

    def __init__(self, most: int = MOST_REMOVALS, told: int = TOLD_REMOVALS) -> None:
        self.revision = 0
        self.forgotten = 0
        self._most = most
        self._told = min(told, most)
        self._at: OrderedDict[str, int] = OrderedDict()  # the oldest change first
        self._removed: OrderedDict[str, None] = OrderedDict()  # the first one removed first
        self._places: set[Place] = set()

    def change(self, removed: Iterable[str], updated: Iterable[str]) -> None:
        """These keys are gone, and those have other values, from one further revision on."""
        self.revision += 1
        for key in removed:
            self._removed[key] = None
            self._note(key)
        for key in updated:
            self._removed.pop(key, None)
            self._note(key)
        if len(self._removed) > self._told:
            self._forget()

    def _note(self, key: str) -> None:
        self._at[key] = self.revision
        self._at.move_to_end(key)

    def _forget(self) -> None:
        all_told = min((place.revision for place in self._places), default=self.revision)
        while (count := len(self._removed)) > self._told:
            key = next(iter(self._removed))
            if self._at[key] > all_told and count <= self._most:
                return
            del self._removed[key]
            self.forgotten = max(self.forgotten, self._at.pop(key))

    def at(self, key: str) -> int | None:
        """The revision at which `key` was changed or removed last; None where that is not known, or not any more."""
        return self._at.get(key)

    def since(self, revision: int) -> Iterator[str]:
        """The keys that were changed or removed after `revision`, which is not before `forgotten`; the latest first."""
        for key, at in reversed(self._at.items()):
            if at <= revision:
                return
            yield key

    @contextlib.contextmanager
    def watching(self, revision: int = 0) -> Iterator[Place]:
        """Somebody watches, who knows all up to `revision`; their place is theirs to move on with all that they are told."""
        place = Place(revision)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)
