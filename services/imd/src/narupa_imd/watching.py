"""One watch of the shared state: what changed, merged per interval, for as long as somebody listens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

from narupa_imd.config import ImdConfig
from narupa_imd.session import ImdSession
from narupa_imd.streams import Streams
from narupa_imd.wire import Encode, Encodings
from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError, QuotaError


class Watching:
    """Serves every watcher, of any wire form."""

    def __init__(self, session: ImdSession, streams: Streams, config: ImdConfig) -> None:
        self._session = session
        self._streams = streams
        self._config = config
        self._encodings = Encodings()
        self.watchers = 0

    def interval(self, name: str, seconds: float) -> float:
        """The time between two messages to a watcher who asked for `seconds`; 0 means the default.

        Raises:
            InvalidArgumentError: negative or not finite.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise InvalidArgumentError(name, seconds, "must be a number of seconds, 0 or more")
        return max(seconds or self._config.watch_interval_s, self._config.minimum_watch_interval_s)

    async def messages(
        self, encode: Encode, interval_s: float, after: int | None = None, prefix: str = "", may_restart: bool = True
    ) -> AsyncIterator[bytes]:
        """The serialised messages: the changes after `after`, or everything when it is None, and then what changes.

        Args:
            may_restart: Whether a watcher that lags too far behind gets everything again, instead of an error.

        Raises:
            NoLongerKeptError: `after` is no longer kept.
            QuotaError: the watcher fell too far behind.
            NarupaError: the service drains.
        """
        loop = asyncio.get_running_loop()
        state = self._session.state
        self.watchers += 1
        try:
            changes = state.changes(after, prefix)
            with state.watching() as place:
                while True:
                    place.revision = changes.revision
                    if changes:
                        due = loop.time() + interval_s
                        for message in self._encodings.of(encode, changes, after, prefix):
                            yield message
                        await self._streams.pause(max(due - loop.time(), 0))
                    after = changes.revision
                    while state.revision == after:
                        await self._streams.change()
                    try:
                        changes = state.changes(after, prefix)
                    except NoLongerKeptError as error:
                        if not may_restart:
                            raise QuotaError(f"the watcher fell too far behind: {error}") from error
                        after = None
                        changes = state.changes(None, prefix)
        finally:
            self.watchers -= 1
