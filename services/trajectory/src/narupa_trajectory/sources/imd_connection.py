"""The connection to a running engine's IMD port: frames come in, forces and commands go out, and nothing waits for ever."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Final
from urllib.parse import urlsplit

from numpy.typing import ArrayLike

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from narupa_shared.imd_protocol import (
    DEFAULT_PORT,
    ClientSession,
    Frame,
    ImdProtocolError,
    MessageType,
    SessionInfo,
    header,
)

SCHEME: Final = "imd"
CONNECT_LIMIT_S: Final = 5.0
HANDSHAKE_LIMIT_S: Final = 10.0
GOODBYE_LIMIT_S: Final = 0.4  # with PATIENCE_S, within what an engine process is given to stop
CHUNK: Final = 1 << 20  # more than comes while a frame is dealt with: one read leaves nothing stale behind


def address_of(target: str) -> tuple[str, int]:
    """Host and port of `imd://HOST:PORT`.

    Raises:
        InvalidArgumentError: it is not of this form.
    """
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgumentError("input", target, f"is no address ({error}); write imd://HOST:PORT") from error
    if parts.scheme != SCHEME or not host or parts.path not in ("", "/") or parts.username is not None:
        raise InvalidArgumentError("input", target, "is no engine's address; write imd://HOST:PORT")
    if port == 0:
        raise InvalidArgumentError("input", target, "no engine listens on port 0")
    return host, port or DEFAULT_PORT


class Connection:
    """One client's connection to an engine, from one thread. The engine has been told to go.

    Attributes:
        address: `HOST:PORT`, for people.
        session: What is known of the engine.
        paused: Whether it has been told to stop.
    """

    def __init__(self, host: str, port: int, particle_count: int, version: str = "auto") -> None:
        """
        Args:
            host: Name or address of the engine's machine.
            port: Its IMD port.
            particle_count: How many particles it must send.
            version: "2", "3", or "auto" for either.

        Raises:
            UnavailableError: nobody answers there, or it is no IMD engine.
            FailedPreconditionError: it speaks another version.
        """
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.session = ClientSession(particle_count)
        self.paused = False
        self._out = bytearray()
        self._early: list[Frame] = []
        try:
            self._socket = socket.create_connection((host, port), timeout=CONNECT_LIMIT_S)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnavailableError(
                f"no engine answers IMD at {self.address} ({reason}); start it there first, and this again"
            ) from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setblocking(False)
            self._shake_hands(version)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> SessionInfo:
        assert self.session.info is not None
        return self.session.info

    def receive(self, timeout_s: float, newest: bool = True) -> list[Frame]:
        """The frames that have come, oldest first; waits up to `timeout_s` for one. `newest`: see `ClientSession.feed`.

        Raises:
            UnavailableError: the engine is gone, or what it sends is no IMD.
        """
        if self._early:
            frames, self._early = self._early, []
            return frames
        return self._read(timeout_s, newest)

    def push(self, indices: ArrayLike, forces: ArrayLike) -> None:
        """These forces act in the engine from as soon as it looks, and no others. Units are the engine's."""
        self._send(self.session.forces(indices, forces))

    def set_rate(self, steps: int) -> None:
        """The engine sends a frame every so many steps."""
        self._send(header(MessageType.TRANSMISSION_RATE, steps))

    def pause(self) -> None:
        """The engine stops at its next step. Idempotent."""
        if not self.paused:
            self.paused = True
            self._send(self.session.pause())

    def resume(self) -> None:
        """The engine goes on. Idempotent."""
        if self.paused:
            self.paused = False
            self._send(self.session.resume())

    def close(self) -> None:
        """The engine feels no force of ours any more, and has been told goodbye. Idempotent.

        What it still sends is read until it hangs up: an engine that writes to nobody may end itself.
        """
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(OSError, UnavailableError):
            if self.session.info is not None:
                self.push([], [])
                self._send(header(MessageType.DISCONNECT))
                deadline = time.monotonic() + GOODBYE_LIMIT_S
                while (left := deadline - time.monotonic()) > 0 and self._chunk(left) is not None:
                    pass
        self._socket.close()

    def _shake_hands(self, version: str) -> None:
        deadline = time.monotonic() + HANDSHAKE_LIMIT_S
        while self.session.info is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"{self.address} took the connection and has sent no IMD handshake for {HANDSHAKE_LIMIT_S:g} s; "
                    "its simulation may not run yet, or another client may hold it"
                )
            self._early += self._read(left)
        # GO in any case: LAMMPS ends itself when a client leaves without it.
        self._send(header(MessageType.GO, 1))
        spoken = self.session.version
        if version not in ("auto", str(spoken)):
            raise FailedPreconditionError(
                f"the engine at {self.address} speaks IMD version {spoken}, not {version}; leave version out, or change "
                "the engine's input"
            )

    def _read(self, timeout_s: float, newest: bool = False) -> list[Frame]:
        """The frames that one read completes, or the news of the session's beginning; none when the time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            known = self.session.info
            data = self._chunk(max(0.0, deadline - time.monotonic()))
            if data is None:
                raise UnavailableError(
                    f"the engine at {self.address} has closed the connection: it has ended, or will not have us"
                )
            if not data:
                return []
            try:
                frames = self.session.feed(data, newest)
            except ImdProtocolError as error:
                error.args = (f"{self.address}: {error}",)
                raise
            if frames or (known is None and self.session.info is not None):
                return frames

    def _chunk(self, timeout_s: float) -> bytes | None:
        """What has come, b"" for nothing in time; None when the other side has hung up. Sends what waits to be sent."""
        deadline = time.monotonic() + timeout_s
        while True:
            wait = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select([self._socket], [self._socket] if self._out else [], [], wait)
            if writable:
                self._flush()
            if readable:
                try:
                    data = self._socket.recv(CHUNK)
                    self._acknowledge()
                    return data or None
                except BlockingIOError:
                    continue
                except OSError:
                    return None
            if not wait:
                return b""

    def _acknowledge(self) -> None:
        """Engines leave Nagle's algorithm on: what they send next waits until the system has acknowledged what came."""
        if hasattr(socket, "TCP_QUICKACK"):  # Linux; it holds until the system thinks otherwise
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _send(self, data: bytes) -> None:
        self._out += data
        self._flush()

    def _flush(self) -> None:
        """Sends what the system takes now; the rest goes while frames are waited for, so that neither side blocks the other."""
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise UnavailableError(
                f"the engine at {self.address} has closed the connection ({error.strerror or error})"
            ) from error
