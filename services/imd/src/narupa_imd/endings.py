"""Interactions that the service has ended, not their owners: who is told, why, and which of them may not come back at once."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from narupa_imd.state import Writer
from narupa_shared.errors import FailedPreconditionError

MAX_KEPT: Final = 1000
MAX_REASON: Final = 500

# Gets the id and the reason.
Tell = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class _Ending:
    writer: Writer
    reason: str
    barred: bool


class Endings:
    """The newest endings, until their ids are set or removed again or their owners are gone."""

    def __init__(self) -> None:
        self._endings: OrderedDict[str, _Ending] = OrderedDict()
        self._listeners: dict[str, Tell] = {}

    @contextlib.contextmanager
    def told(self, connection: str, tell: Tell) -> Iterator[None]:
        """Within, `tell` is called for each interaction of `connection` that the service ends."""
        self._listeners[connection] = tell
        try:
            yield
        finally:
            del self._listeners[connection]

    def add(self, id: str, writer: Writer, reason: str, barred: bool = False) -> None:
        """The interaction `id`, which `writer` had made, has ended.

        Args:
            reason: Why; for people.
            barred: Whether its owner's next words on it are refused until one of them removes it. Clients that write a
                held interaction anew with each movement of the hand would otherwise bring it back at once.
        """
        self._endings[id] = _Ending(writer, reason, barred)
        self._endings.move_to_end(id)
        if len(self._endings) > MAX_KEPT:
            self._endings.popitem(last=False)
        if tell := self._listeners.get(writer.connection):
            tell(id, reason)

    def why(self, id: str, writer: Writer) -> str:
        """Why the writer's interaction `id` was ended; empty where it was not."""
        ending = self._endings.get(id)
        return ending.reason if ending and ending.writer.owner == writer.owner else ""

    def barred(self, id: str, writer: Writer) -> bool:
        """Whether the writer may not set `id` again."""
        ending = self._endings.get(id)
        return ending is not None and ending.barred and ending.writer.owner == writer.owner

    def check(self, id: str, writer: Writer) -> None:
        """Returns when the writer may set `id`.

        Raises:
            FailedPreconditionError: it is barred.
        """
        if self.barred(id, writer):
            reason = self._endings[id].reason
            raise FailedPreconditionError(f"interaction {id!r} was ended: {reason}; remove it, or use another id")

    def forget(self, id: str, writer: Writer) -> None:
        """The writer has set or removed `id` again."""
        ending = self._endings.get(id)
        if ending and (not ending.barred or ending.writer.owner == writer.owner):
            del self._endings[id]

    def end_connection(self, connection: str) -> None:
        """Nobody is left to hear of what this connection had made."""
        for id in [id for id, ending in self._endings.items() if ending.writer.connection == connection]:
            del self._endings[id]

    def clear(self) -> None:
        """Another simulation runs, to which none of it matters."""
        self._endings.clear()
