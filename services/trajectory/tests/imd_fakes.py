"""An engine that speaks IMD as it is told to, on a port of its own, and keeps what it hears."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from narupa_shared.imd_protocol import Decoder, Message, MessageType

LIMIT_S = 10.0


class FakeEngine:
    """Greets its one client with `greeting`, then sends `frame(step)` for each step while it is not paused.

    Attributes:
        port: Where it listens.
        heard: What its client has sent, in order.
        steps: How many frames it sends at most; it falls silent then.
    """

    def __init__(self, greeting: bytes, frame: Callable[[int], bytes], *, particles: int, steps: int = 10**9) -> None:
        self.heard: list[Message] = []
        self.steps = steps
        self._greeting = greeting
        self._frame = frame
        self._decoder = Decoder(particles)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._news = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()
        self._listener.close()

    def hang_up(self) -> None:
        """Ends as a crash would, in the middle of whatever it sends."""
        self.__exit__(None, None, None)

    def forces(self) -> list[Message]:
        return [message for message in self.heard if message.type is MessageType.MDCOMM]

    def await_heard(self, passed: Callable[[list[Message]], bool]) -> None:
        """Returns once what it has heard passes."""
        with self._news:
            assert self._news.wait_for(lambda: passed(self.heard), LIMIT_S), [item.type.name for item in self.heard]

    def _run(self) -> None:
        while not self._ended:
            with contextlib.suppress(OSError):
                self._serve(self._listener.accept()[0])
                return

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(0.002)
            client.sendall(self._greeting)
            going, paused, step = False, False, 0
            while not self._ended:
                try:
                    data = client.recv(65536)
                    if not data:
                        return
                    self._decoder.feed(data)
                except TimeoutError:
                    pass
                for message in self._decoder.messages():
                    with self._news:
                        self.heard.append(message)
                        self._news.notify_all()
                    going |= message.type is MessageType.GO
                    if message.type is MessageType.PAUSE:
                        paused = not paused if self._greeting[4:8].strip(b"\0") == b"\x02" else True
                    elif message.type is MessageType.RESUME:
                        paused = False
                    elif message.type is MessageType.DISCONNECT:
                        return
                if going and not paused and step < self.steps:
                    step += 1
                    client.sendall(self._frame(step))


def positions_at(step: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Three particles in A; the first moves 0.01 A a step along x."""
    return np.array([[0.01 * step, 0, 0], [5, 0, 0], [0, 5, 0]], np.float32)
