"""What a recording says of the shared state, on its way to imd, which may be away or slower than the recording. No I/O."""

from __future__ import annotations

from typing import Any, Final

import structlog

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2
from narupa_shared.recordings.recording import StateChange
from narupa_shared.structs import to_struct

log = structlog.get_logger(__name__)

# A message has about this much at the most, bytes: services take four times as much by default.
MESSAGE_BYTES: Final = 1024 * 1024
# What is larger by itself is left out, bytes.
MAX_VALUE_BYTES: Final = 2 * 1024 * 1024


class ReplayedState:
    """The state that is replayed, and what of it imd has not been told. Changes that are not told yet become one."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}
        self._updates: dict[str, Any] = {}
        self._removals: set[str] = set()
        self._whole = False
        self._refused: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell."""
        return self._whole or bool(self._updates or self._removals)

    def changed(self, change: StateChange) -> bool:
        """The recording says this as well; returns whether there is something new to tell."""
        if change.whole and not change.updates and not self._state:
            return False
        if change.whole:
            self._state, self._whole = dict(change.updates), True
            self._updates, self._removals = dict(change.updates), set()
        else:
            self._state = change.applied(self._state)
            for key in change.removals:
                self._updates.pop(key, None)
            self._updates.update(change.updates)
            self._removals = (self._removals | set(change.removals)) - change.updates.keys()
        return True

    def forget_told(self) -> None:
        """imd is another one, or has been restarted: it is to be told everything."""
        self._whole = bool(self._state) or self._whole
        self._updates, self._removals = dict(self._state), set()

    def next_message(self) -> imd_pb2.ReplayedState | None:
        """What to tell next; None where there is nothing new. `waiting` says whether that was all."""
        if not self.waiting:
            return None
        message = imd_pb2.ReplayedState(whole=self._whole, removals=sorted(self._removals))
        self._whole = False
        self._removals = set()
        size = 0
        while self._updates and size < MESSAGE_BYTES:
            key = next(iter(self._updates))
            size += self._put(message, key, self._updates.pop(key))
        return message

    def _put(self, message: imd_pb2.ReplayedState, key: str, value: Any) -> int:
        """The value is in the message, or left out and logged once; returns its size, bytes."""
        try:
            struct = to_struct({key: value}, "recording")
            if (size := struct.ByteSize()) > MAX_VALUE_BYTES:
                raise InvalidArgumentError(key, f"{size} bytes", f"at most {MAX_VALUE_BYTES} are replayed")
        except InvalidArgumentError as error:
            if key not in self._refused:
                self._refused.add(key)
                log.warning("not_replayed", key=key, reason=str(error))
            return 0
        message.updates.MergeFrom(struct)
        return size
