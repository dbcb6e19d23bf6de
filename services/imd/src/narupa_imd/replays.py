"""What a recording that is played says of the shared state: shown to everybody, without effect, and behind whoever is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog

from narupa_imd.state import SharedState, Writer
from narupa_shared.errors import NarupaError

log = structlog.get_logger(__name__)

# One owner for all: what one replay has shown another may show anew, as when a service takes over from another.
OWNER: Final = "replay"


class Replay:
    """The keys that one follower replays, until `end`.

    A key that somebody has, or has locked, stays as it is, and one that is replayed is anybody's who writes it. Where users
    stand (`user-origin.*`), and what only the service says, is not replayed.

    Attributes:
        connection: What the keys belong to, which is no client's.
    """

    def __init__(self, state: SharedState, connection: str) -> None:
        self.connection = connection
        self._state = state
        self._writer = Writer(OWNER, connection, replays=True)
        self._refused = ""

    def show(self, updates: Mapping[str, Any], removals: Iterable[str] = (), whole: bool = False) -> None:
        """The updates are in the state and the removals are not, as far as nobody else has them; with `whole`, the updates
        are all that is replayed. What cannot be shown, such as a value that is too large, is left out, and logged.
        """
        shown = {key: value for key, value in updates.items() if self._available(key)}
        mine = self._state.owned_by(self.connection) - updates.keys()
        gone = list(filter(self._available, mine if whole else mine & set(removals)))
        try:
            self._state.update(self._writer, shown, gone)
        except NarupaError:
            self._state.update(self._writer, {}, gone)
            self._show_each(shown)

    def _available(self, key: str) -> bool:
        return self._state.available(self._writer, key)

    def _show_each(self, values: Mapping[str, Any]) -> None:
        refused: list[NarupaError] = []
        for key, value in values.items():
            try:
                self._state.update(self._writer, {key: value})
            except NarupaError as error:
                refused.append(error)
        if refused and str(refused[0]) != self._refused:
            self._refused = str(refused[0])
            log.warning("not_replayed", keys=len(refused), reason=self._refused)

    def end(self) -> None:
        """Nothing is replayed. Idempotent."""
        self._state.end_connection(self.connection)
