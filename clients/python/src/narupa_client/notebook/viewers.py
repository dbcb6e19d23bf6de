"""The viewers that show one widget, and the messages of its comm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from narupa_client.notebook.viewer import LEFT, REFUSED, Send, Viewer
from narupa_client.session import Session

# One widget may be shown in several places; each of them is a viewer.
MAX_VIEWERS: Final = 8
MAX_ID: Final = 64
MAX_MESSAGE_BYTES: Final = 1024 * 1024
# Messages that wait for the event loop. More than a viewer that waits for its acknowledgements ever sends.
MAX_WAITING: Final = 512


class Viewers:
    """Who shows the widget. `receive` and `close` may be called in any thread, all else happens on the session's loop."""

    def __init__(
        self,
        session: Session,
        send: Send,
        loop: asyncio.AbstractEventLoop,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            session: What they see.
            send: Sends content and buffers over the comm, from any thread.
            loop: The session's.
            busy: Says, in any thread, whether the kernel may be kept from calling `receive`.
        """
        self._session = session
        self._send = send
        self._loop = loop
        self._busy = busy
        self._viewers: dict[str, Viewer] = {}
        self._lock = threading.Lock()
        self._waiting = 0
        self._closed = False

    @property
    def count(self) -> int:
        """How many are served."""
        return len(self._viewers)

    def receive(self, content: object, buffers: Sequence[Any] = ()) -> None:
        """A message has come over the comm; what is none of ours, or too large, is passed over."""
        if not isinstance(content, Mapping):
            return
        kind, viewer = content.get("kind"), content.get("viewer")
        if (
            kind not in ("open", "message", "ack", "close")
            or not isinstance(viewer, str)
            or not 0 < len(viewer) <= MAX_ID
        ):
            return
        if len(buffers) > 1 or any(memoryview(each).nbytes > MAX_MESSAGE_BYTES for each in buffers):
            return
        with self._lock:
            if self._waiting >= MAX_WAITING:
                return
            self._waiting += 1
        self._on_loop(lambda: self._receive(kind, viewer, content, buffers))

    def close(self) -> None:
        """Nobody is served any more. Idempotent."""
        self._on_loop(self._close)

    def _on_loop(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop is closed, and with it the session
            self._send_closed("", LEFT)

    def _receive(self, kind: str, id: str, content: Mapping[Any, Any], buffers: Sequence[bytes]) -> None:
        with self._lock:
            self._waiting -= 1
        viewer = self._viewers.get(id)
        if kind == "open":
            if viewer is None:
                self._open(id)
        elif viewer is None:
            return
        elif kind == "close":
            viewer.end(REFUSED, "this view was closed")
        else:
            viewer.take(content, buffers)

    def _open(self, id: str) -> None:
        # After a long cell, those come first that have given up waiting for its end.
        if self._closed or sum(not each.ended for each in self._viewers.values()) >= MAX_VIEWERS:
            said = (
                LEFT if self._closed else f"this view is shown in {MAX_VIEWERS} places, which is the limit; close one"
            )
            self._send_closed(id, said)
            return
        viewer = Viewer(
            self._session, lambda content, buffers: self._send({**content, "viewer": id}, buffers), self._busy
        )
        try:
            task = self._session._scope.spawn(viewer.run(), "narupa-viewer")
        except RuntimeError:  # the session is closed
            self._send_closed(id, LEFT)
            return
        self._viewers[id] = viewer
        task.add_done_callback(lambda _: self._viewers.pop(id, None))

    def _send_closed(self, id: str, reason: str) -> None:
        self._send({"kind": "closed", "viewer": id, "code": REFUSED, "reason": reason}, ())

    def _close(self) -> None:
        self._closed = True
        for viewer in self._viewers.values():
            viewer.end(REFUSED, "this view was closed")
