"""A copy of the session's shared state, and its changes in the forms of existing clients: each encoded once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final, Literal

import structlog

from narupa_client.session import Session
from narupa_client.state import StateChange
from narupa_shared.changed_keys import MOST_REMOVALS, ChangedKeys
from narupa_shared.errors import NarupaError, QuotaError
from narupa_shared.frames import varint
from narupa_shared.interactions import KEY_PREFIX
from narupa_shared.nanover_messages import state_message
from narupa_shared.structs import to_struct

log = structlog.get_logger(__name__)

StateForm = Literal["compat", "nanover"]

# gRPC messages stay well below the 4 MiB that existing clients accept; a larger change goes out in several.
MAX_BODY: Final = 1024 * 1024
MAX_CACHED: Final = 32
_RETRY_S: Final = 0.5


class SharedStateCopy:
    """Every key with its value, and when it changed last, by a count of its own. No I/O."""

    def __init__(self, most_removals: int = MOST_REMOVALS) -> None:
        """`most_removals`: How many removed keys are remembered for readers who have not been told."""
        self.values: dict[str, Any] = {}
        self._changed = ChangedKeys(most_removals)  # a key that is not in `values` was removed
        self._encoded: dict[tuple[StateForm, int | None], list[bytes]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._error: NarupaError | None = None

    @property
    def revision(self) -> int:
        """Raised with every change."""
        return self._changed.revision

    # Taking changes in.

    def apply(self, change: StateChange) -> None:
        """The change has happened; one that is whole leaves nothing of what was there before."""
        updates = change.updates
        removals: Iterable[str] = change.removals
        if change.whole:
            removals = [key for key in self.values if key not in updates]
            updates = {key: value for key, value in updates.items() if self.values.get(key, _NOTHING) != value}
        removals = [key for key in dict.fromkeys(removals) if key in self.values]
        if not updates and not removals:
            return
        # One that is removed and set in one change has been set.
        self._changed.change([key for key in removals if key not in updates], updates)
        for key in removals:
            del self.values[key]
        self.values.update(updates)
        self._encoded.clear()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def end(self, error: NarupaError) -> None:
        """Everyone who waits, now or later, gets `error`."""
        self._error = error
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)

    # Giving them out.

    def changes(self, after: int | None) -> tuple[dict[str, Any], list[str]]:
        """What was set and removed since revision `after`; all that there is where it is None.

        Raises:
            QuotaError: that is too long ago.
        """
        if after is None:
            return dict(self.values), []
        if after < self._changed.forgotten:
            raise QuotaError("this client is too far behind the shared state; connect again")
        updates: dict[str, Any] = {}
        removals: list[str] = []
        for key in self._changed.since(after):
            if key in self.values:
                updates[key] = self.values[key]
            else:
                removals.append(key)
        return updates, removals

    def messages(self, form: StateForm, after: int | None) -> list[bytes]:
        """The messages that tell what changed since revision `after`, made once for all who are at it."""
        key = (form, after)
        if key not in self._encoded:
            if len(self._encoded) >= MAX_CACHED:
                self._encoded.clear()
            updates, removals = self.changes(after)
            encode = nanover_messages if form == "nanover" else compat_messages
            self._encoded[key] = encode(updates, removals)
        return self._encoded[key]

    def as_it_is(self, keys: Iterable[str]) -> list[bytes]:
        """The message that tells a NanoVer client what these keys are, whatever it has made of them."""
        updates = {key: self.values[key] for key in keys if key in self.values}
        return nanover_messages(updates, [key for key in keys if key not in self.values])

    async def stream(self, form: StateForm, interval_s: float) -> AsyncGenerator[bytes, None]:
        """The state as it is, then its changes, merged for at least `interval_s`, until it ends.

        Raises:
            QuotaError: the reader fell too far behind.
            NarupaError: what `end` was given.
        """
        loop = asyncio.get_running_loop()
        after: int | None = None
        with self._changed.watching() as place:
            while True:
                if self._error:
                    raise self._error
                due = loop.time() + interval_s
                messages = self.messages(form, after)
                after = place.revision = self.revision
                for message in messages:
                    yield message
                while self.revision == after:
                    await self._change()
                if (pause_s := due - loop.time()) > 0:
                    await asyncio.sleep(pause_s)

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._error:
            raise self._error
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


_NOTHING: Final = object()


async def follow_state(session: Session, copy: SharedStateCopy, interval_s: float) -> None:
    """`copy` is kept as the imd service has it, until cancelled; while that is away it stays as it was."""
    while True:
        try:
            async with session.state.watch(interval_s=interval_s) as changes:
                async for change in changes:
                    copy.apply(change)
        except NarupaError as error:
            log.warning("state_lost", reason=str(error))
        await asyncio.sleep(_RETRY_S)


# The wire forms.


def nanover_messages(updates: Mapping[str, Any], removals: Iterable[str]) -> list[bytes]:
    """The message of NanoVer's protocol that tells of a change."""
    return [state_message({key: _as_written(key, value) for key, value in updates.items()}, removals)]


def compat_messages(updates: Mapping[str, Any], removals: Iterable[str]) -> list[bytes]:
    """Serialised `StateUpdate`s of the gRPC protocols, where null is a removed key, none much above `MAX_BODY`."""
    # Serialised Structs concatenate to the Struct of all their keys.
    bodies = [to_struct(dict.fromkeys(removals)).SerializeToString()]
    for key, value in updates.items():
        part = to_struct({key: value}, key).SerializeToString()
        if bodies[-1] and len(bodies[-1]) + len(part) > MAX_BODY:
            bodies.append(b"")
        bodies[-1] += part
    return [b"\x0a" + varint(len(body)) + body for body in bodies]


def _as_written(key: str, value: Any) -> Any:
    """`value` with whole numbers where clients write and read such; the services have one type of number only."""
    if key.startswith(KEY_PREFIX) and isinstance(value, dict):
        return {name: _whole(item) if name in _INDICES else item for name, item in value.items()}
    if key.startswith("selection.") and isinstance(value, dict) and isinstance(value.get("selected"), dict):
        selected = value["selected"]
        return {**value, "selected": {**selected, "particle_ids": _whole(selected.get("particle_ids"))}}
    if key.startswith("update.index.") or key == "simulation.index":
        return _whole(value)
    return value


_INDICES: Final = frozenset(("particles", "groups"))


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
