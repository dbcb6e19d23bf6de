"""What a viewer does not know yet: of the newest frame, and of the shared state. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from narupa_client.frames import CurrentFrame
from narupa_client.state import StateChange
from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.nanover_messages import frame_message, state_message

_NOTHING: Final = object()


class FrameNews:
    """What one viewer was sent of the frames, and what is another since then. Frames between two that are sent may be skipped."""

    def __init__(self) -> None:
        self._sent: CurrentFrame | None = None
        self._told_of_trouble = False

    def message(self, frame: CurrentFrame) -> bytes:
        """The message after which the viewer knows `frame`: all of it, under index 0, where it is of another run."""
        before, self._sent = self._sent, frame
        told, self._told_of_trouble = self._told_of_trouble, False
        if before is None or _another_run(before, frame):
            return frame_message(Frame(0, dict(frame.values), dict(frame.arrays)))
        values = {key: value for key, value in frame.values.items() if before.values.get(key, _NOTHING) != value}
        arrays = {key: array for key, array in frame.arrays.items() if not _same(before.arrays.get(key), array)}
        if told:  # whoever was told of a trouble must also be told that it is over
            values[keys.EXCEPTION] = frame.values.get(keys.EXCEPTION, "")
        return frame_message(Frame(max(frame.index, 1), values, arrays))

    def trouble(self, text: str) -> bytes | None:
        """The message that says why no frames come; None where the viewer was told already."""
        if self._told_of_trouble:
            return None
        self._told_of_trouble = True
        said: dict[str, Any] = {keys.EXCEPTION: f"the simulation cannot be reached at present: {text}"}
        return frame_message(Frame(1, said))


def _another_run(before: CurrentFrame, frame: CurrentFrame) -> bool:
    """Whether what is known of `before` is of no use for `frame`."""
    if frame.index == 0 or frame.index < before.index:
        return True
    if any(before.values.get(key) != frame.values.get(key) for key in (keys.RUN, keys.COUNTER)):
        return True
    return bool(before.values.keys() - frame.values.keys() or before.arrays.keys() - frame.arrays.keys())


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        return np.array_equal(old, new)
    return type(old) is type(new) and bool(old == new)


class StateNews:
    """The shared state as it is, and the keys of which one viewer has yet to be told. Changes are merged until it is."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._untold: dict[str, None] = {}
        self._known = False
        self._begun = False

    @property
    def any(self) -> bool:
        """Whether there is something to tell; the state itself is, to begin with, even where it is empty."""
        return self._known and (bool(self._untold) or not self._begun)

    def apply(self, change: StateChange) -> None:
        """The change has happened."""
        self._known = True
        gone = self.values.keys() - change.updates.keys() if change.whole else set(change.removals)
        for key in gone:
            if self.values.pop(key, _NOTHING) is not _NOTHING:
                self._untold[key] = None
        for key, value in change.updates.items():
            if self.values.get(key, _NOTHING) != value:
                self.values[key] = value
                self._untold[key] = None

    def doubt(self, wanted: Iterable[str]) -> None:
        """The viewer has made something else of these keys, and is to be told of them as they are."""
        self._untold |= dict.fromkeys(wanted)

    def message(self) -> bytes:
        """The message with which the viewer knows everything; nothing is left to tell."""
        self._begun = True
        untold, self._untold = self._untold, {}
        updates = {key: self.values[key] for key in untold if key in self.values}
        return state_message(updates, [key for key in untold if key not in self.values])
