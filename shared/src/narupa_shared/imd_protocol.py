"""IMD, the protocol by which simulation engines are watched and pulled over TCP: versions 2 and 3, without any I/O.

The side that listens is the engine ("server"), the side that connects its client. A message is a header of two big-endian
int32, type and value, with a body whose size follows from both. Bodies are in the engine's own byte order, which its
handshake gives away by sending the version unswapped; what the client sends is in that order too. Version 3 is the
specification of Woods et al. (imdclient, "IMDv3 Protocol"); version 2 has none, and is what VMD, NAMD, GROMACS and LAMMPS do.

Numbers are handed over as they are on the wire. Their units are the engine's affair: see `docs/engines.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narupa_shared.errors import UnavailableError

VERSIONS: Final = (2, 3)
DEFAULT_PORT: Final = 8888
GO_LIMIT_S: Final = 1.0  # an engine drops a client that has not said GO within this of the handshake

ByteOrder = Literal["<", ">"]
HEADER: Final = struct.Struct(">ii")
SESSION_FLAGS: Final = 7
INTEGERS: Final = range(-(2**31), 2**31)


class MessageType(IntEnum):
    """The first number of a header; from 10 on, only in version 3."""

    DISCONNECT = 0
    ENERGIES = 1
    COORDINATES = 2
    GO = 3
    HANDSHAKE = 4
    KILL = 5
    MDCOMM = 6
    PAUSE = 7
    TRANSMISSION_RATE = 8
    IO_ERROR = 9
    SESSION_INFO = 10
    RESUME = 11
    TIME = 12
    BOX = 13
    VELOCITIES = 14
    FORCES = 15
    WAIT = 16


PER_PARTICLE: Final = {MessageType.COORDINATES: 12, MessageType.VELOCITIES: 12, MessageType.FORCES: 12}
ONE_BLOCK: Final = {MessageType.ENERGIES: 40, MessageType.TIME: 24, MessageType.BOX: 36}


class ImdProtocolError(UnavailableError):
    """The other side does not speak IMD, or breaks its rules. Nothing after this can be understood."""


class ImdParticleCountError(ImdProtocolError):
    """The engine sends another number of particles than the system has.

    Attributes:
        sent: How many it sends.
        expected: How many the system has.
    """

    def __init__(self, sent: int, expected: int) -> None:
        self.sent = sent
        self.expected = expected
        super().__init__(f"the engine sends {sent} particles instead of {expected}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was on the wire."""

    type: MessageType
    value: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What every frame of a session holds (version 3), in the order of the wire."""

    time: bool = False
    energies: bool = False
    box: bool = False
    coordinates: bool = True
    wrapped: bool = False
    velocities: bool = False
    forces: bool = False

    def order(self) -> tuple[MessageType, ...]:
        """The messages of one frame, in the order of the specification."""
        sent = (
            (self.time, MessageType.TIME),
            (self.energies, MessageType.ENERGIES),
            (self.box, MessageType.BOX),
            (self.coordinates, MessageType.COORDINATES),
            (self.velocities, MessageType.VELOCITIES),
            (self.forces, MessageType.FORCES),
        )
        return tuple(type for present, type in sent if present)


@dataclass(frozen=True, slots=True)
class Time:
    """When a frame is, in the engine's units."""

    timestep: float
    time: float
    step: int


@dataclass(frozen=True, slots=True)
class Energies:
    """The energies of the whole system, in the engine's units; the temperature in K."""

    step: int
    temperature: float
    total: float
    potential: float
    van_der_waals: float
    coulomb: float
    bonds: float
    angles: float
    dihedrals: float
    impropers: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One instant, in the engine's units; arrays are read-only and in this machine's byte order."""

    bodies: dict[MessageType, bytes]
    byte_order: ByteOrder

    @property
    def time(self) -> Time | None:
        body = self.bodies.get(MessageType.TIME)
        return None if body is None else Time(*struct.unpack(f"{self.byte_order}ddq", body))

    @property
    def energies(self) -> Energies | None:
        body = self.bodies.get(MessageType.ENERGIES)
        return None if body is None else Energies(*struct.unpack(f"{self.byte_order}i9f", body))

    @property
    def box(self) -> NDArray[np.float32] | None:
        """(3, 3), rows are the box vectors."""
        return self._array(MessageType.BOX)

    @property
    def positions(self) -> NDArray[np.float32]:
        """(N, 3)."""
        positions = self._array(MessageType.COORDINATES)
        assert positions is not None
        return positions

    @property
    def velocities(self) -> NDArray[np.float32] | None:
        """(N, 3)."""
        return self._array(MessageType.VELOCITIES)

    @property
    def forces(self) -> NDArray[np.float32] | None:
        """(N, 3), of everything that acts."""
        return self._array(MessageType.FORCES)

    def _array(self, type: MessageType) -> NDArray[np.float32] | None:
        body = self.bodies.get(type)
        if body is None:
            return None
        return np.frombuffer(body, f"{self.byte_order}f4").astype(np.float32, copy=False).reshape(-1, 3)


class Decoder:
    """Cuts one direction of a connection into messages. It never keeps more than one message that the system can have."""

    def __init__(self, particle_count: int) -> None:
        """For a system of `particle_count` particles, which bounds what a message may hold."""
        self._count = particle_count
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def skip(self, size: int) -> int:
        """Drops blocks of `size` bytes until only the last complete one and what follows is left; returns how many."""
        blocks = max(0, len(self._buffer) // size - 1)
        del self._buffer[: blocks * size]
        return blocks

    def messages(self) -> Iterator[Message]:
        """Those that are complete.

        Raises:
            ImdParticleCountError: one is of another number of particles.
            ImdProtocolError: what came is no message, or one of a size that cannot be.
        """
        while len(self._buffer) >= HEADER.size:
            number, value = HEADER.unpack_from(self._buffer)
            type, size = self._checked(number, value)
            end = HEADER.size + size
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[HEADER.size : end])
            del self._buffer[:end]
            yield Message(type, value, body)

    def _checked(self, number: int, value: int) -> tuple[MessageType, int]:
        """The type and the size of the body, which the value must fit."""
        try:
            type = MessageType(number)
        except ValueError:
            start = bytes(self._buffer[: HEADER.size]).hex(" ")
            raise ImdProtocolError(
                f"there is no message of type {number} in IMD; what came begins with {start}"
            ) from None
        if type in PER_PARTICLE:
            if value != self._count:
                raise ImdParticleCountError(value, self._count)
            return type, value * PER_PARTICLE[type]
        if type is MessageType.MDCOMM:
            if not 0 <= value <= self._count:
                raise ImdParticleCountError(value, self._count)
            return type, value * 16
        if type in ONE_BLOCK:
            if value != 1:
                raise ImdProtocolError(f"a message {type.name} of {value} blocks; there is 1 in a frame")
            return type, ONE_BLOCK[type]
        if type is MessageType.SESSION_INFO:
            if value != SESSION_FLAGS:
                raise ImdProtocolError(f"a session info of {value} bytes; version 3 has {SESSION_FLAGS}")
            return type, value
        return type, 0


class ClientSession:
    """What a client knows of its connection to an engine: the handshake, then frames. It is told what came, and does no I/O.

    Attributes:
        version: 2 or 3; 0 before the handshake.
        byte_order: The engine's.
        info: What its frames hold; None before it is known. Of version 2 only that coordinates come.
    """

    def __init__(self, particle_count: int) -> None:
        self._decoder = Decoder(particle_count)
        self._bodies: dict[MessageType, bytes] = {}
        self._order: tuple[MessageType, ...] = ()
        self._frame_size = 0  # bytes of each, known from the first; 0 in version 2, where they may differ
        self.version = 0
        self.byte_order: ByteOrder = "<"
        self.info: SessionInfo | None = None

    def feed(self, data: bytes, newest: bool = False) -> list[Frame]:
        """The frames that `data` completes, oldest first.

        Args:
            data: What came.
            newest: Whether older ones may be left out where a newer one has come too (version 3): an engine can send them
                faster than they can be looked at.

        Raises:
            ImdProtocolError: this is no IMD, or not in the order that was announced.
        """
        self._decoder.feed(data)
        frames: list[Frame] = []
        for message in self._messages(newest):
            if not self.version:
                self._greet(message)
            elif self.info is None:
                self._learn(message)
            elif message.type in (MessageType.DISCONNECT, MessageType.KILL, MessageType.IO_ERROR):
                raise ImdProtocolError(f"the engine ended the session ({message.type.name})")
            elif frame := self._take(message):
                frames.append(frame)
        return frames

    def _messages(self, newest: bool) -> Iterator[Message]:
        if newest and self._frame_size and not self._bodies:
            self._decoder.skip(self._frame_size)
        for message in self._decoder.messages():
            yield message
            if newest and self._frame_size and not self._bodies:  # between two frames
                self._decoder.skip(self._frame_size)

    def _greet(self, message: Message) -> None:
        if message.type is not MessageType.HANDSHAKE:
            raise ImdProtocolError(f"a handshake was due, and {message.type.name} came: this is no IMD engine")
        raw = struct.pack(">i", message.value)
        orders: tuple[ByteOrder, ...] = ("<", ">")
        versions = {order: struct.unpack(f"{order}i", raw)[0] for order in orders}
        for order, version in versions.items():
            if version in VERSIONS:
                self.version, self.byte_order = version, order
        if not self.version:
            raise ImdProtocolError(f"a handshake of version {versions['<']} (or {versions['>']}); 2 and 3 are known")
        if self.version == 2:
            self._begin(SessionInfo())

    def _learn(self, message: Message) -> None:
        if message.type is not MessageType.SESSION_INFO:
            raise ImdProtocolError(f"a session info was due after the handshake, and {message.type.name} came")
        self._begin(SessionInfo(*(bool(flag) for flag in message.body)))

    def _begin(self, info: SessionInfo) -> None:
        if not info.coordinates:
            raise ImdProtocolError("the engine sends no coordinates; switch them on in its input")
        self.info = info
        self._order = info.order()

    def _take(self, message: Message) -> Frame | None:
        """The frame that `message` completes, if it does."""
        if self.version == 2:  # energies, where an engine has some, and coordinates, each when it likes
            if message.type not in (MessageType.ENERGIES, MessageType.COORDINATES):
                raise ImdProtocolError(f"a message {message.type.name} in a session of version 2")
            self._bodies[message.type] = message.body
            return Frame(dict(self._bodies), self.byte_order) if message.type is MessageType.COORDINATES else None
        due = self._order[len(self._bodies)]
        if message.type is not due:
            raise ImdProtocolError(f"a message {message.type.name} where {due.name} was due")
        self._bodies[message.type] = message.body
        if len(self._bodies) < len(self._order):
            return None
        frame, self._bodies = Frame(self._bodies, self.byte_order), {}
        self._frame_size = sum(HEADER.size + len(body) for body in frame.bodies.values())
        return frame

    def forces(self, indices: ArrayLike, forces: ArrayLike) -> bytes:
        """The message after which these forces act, and no others, until the next one.

        Args:
            indices: (n,) particles, each once; none for no force at all.
            forces: (n, 3) in the engine's units.
        """
        return forces_message(indices, forces, self.byte_order)

    def pause(self) -> bytes:
        """The message that stops the engine. Of version 2 it is a toggle: never send it to an engine that has stopped."""
        return header(MessageType.PAUSE)

    def resume(self) -> bytes:
        """The message that makes an engine which has stopped go on. Of version 2 it is the toggle again."""
        return header(MessageType.PAUSE if self.version == 2 else MessageType.RESUME)


def header(type: MessageType, value: int = 0) -> bytes:
    """A message without a body, or the header of one with."""
    if value not in INTEGERS:
        raise ValueError(f"a header's value is an int32, not {value}")
    return HEADER.pack(type, value)


def forces_message(indices: ArrayLike, forces: ArrayLike, byte_order: ByteOrder) -> bytes:
    """MDCOMM: (n,) indices, then (n, 3) forces, in the engine's byte order."""
    places = np.asarray(indices, dtype=f"{byte_order}i4")
    vectors = np.asarray(forces, dtype=f"{byte_order}f4").reshape(-1, 3)
    if len(places) != len(vectors):
        raise ValueError(f"{len(places)} indices for {len(vectors)} forces")
    return header(MessageType.MDCOMM, len(places)) + places.tobytes() + vectors.tobytes()


def parsed_forces(message: Message, byte_order: ByteOrder) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The indices (n,) and forces (n, 3) of an MDCOMM message."""
    end = 4 * message.value
    indices = np.frombuffer(message.body[:end], f"{byte_order}i4").astype(np.int32, copy=False)
    return indices, np.frombuffer(message.body[end:], f"{byte_order}f4").astype(np.float32, copy=False).reshape(-1, 3)


def handshake(version: int, byte_order: ByteOrder, info: SessionInfo | None = None) -> bytes:
    """How an engine begins: the handshake, and in version 3 the session info."""
    greeting = struct.pack(">i", MessageType.HANDSHAKE) + struct.pack(f"{byte_order}i", version)
    if version == 2 or info is None:
        return greeting
    flags = bytes(getattr(info, field.name) for field in fields(info))
    return greeting + header(MessageType.SESSION_INFO, SESSION_FLAGS) + flags


def frame_message(
    byte_order: ByteOrder,
    positions: ArrayLike,
    *,
    time: Time | None = None,
    energies: Energies | None = None,
    box: ArrayLike | None = None,
    velocities: ArrayLike | None = None,
    forces: ArrayLike | None = None,
) -> bytes:
    """One frame as an engine sends it, in the order of version 3: what is None is left out."""
    parts = []
    if time is not None:
        body = struct.pack(f"{byte_order}ddq", time.timestep, time.time, time.step)
        parts += [header(MessageType.TIME, 1), body]
    if energies is not None:
        values = [getattr(energies, field.name) for field in fields(energies)]
        parts += [header(MessageType.ENERGIES, 1), struct.pack(f"{byte_order}i9f", *values)]
    if box is not None:
        parts += [header(MessageType.BOX, 1), np.asarray(box, f"{byte_order}f4").tobytes()]
    arrays = (
        (MessageType.COORDINATES, positions),
        (MessageType.VELOCITIES, velocities),
        (MessageType.FORCES, forces),
    )
    for type, array in arrays:
        if array is not None:
            packed = np.asarray(array, f"{byte_order}f4")
            parts += [header(type, packed.size // 3), packed.tobytes()]
    return b"".join(parts)
