"""The frames of late, to be looked up by their index."""

from __future__ import annotations

from collections import OrderedDict

from narupa_shared.errors import NoLongerKeptError
from narupa_shared.published import PublishedFrame


class RecentFrames:
    """A ring that forgets the oldest by count and by memory; the newest one is always in it."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._frames: OrderedDict[int, PublishedFrame] = OrderedDict()
        self._bytes = 0

    def keep(self, published: PublishedFrame) -> None:
        self._frames[published.frame.index] = published
        self._bytes += published.frame.nbytes
        while len(self._frames) > self._most or (self._bytes > self._most_bytes and len(self._frames) > 1):
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= oldest.frame.nbytes

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0

    @property
    def end(self) -> int:
        """The index after the newest one's; 0 where there is none."""
        return next(reversed(self._frames)) + 1 if self._frames else 0

    def get(self, index: int) -> PublishedFrame:
        """Raises: NoLongerKeptError when it is not there, or not any more."""
        kept = self._frames.get(index)
        if kept is None:
            span = f"{next(iter(self._frames))} to {self.end - 1}" if self._frames else "none"
            raise NoLongerKeptError(f"index is {index}: frames kept of this live source are {span}")
        return kept
