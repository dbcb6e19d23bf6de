"""The engine's side of IMD, without any I/O: what it says to a client first, and what a client may ask of it.

Whatever comes is a stranger's. A message that cannot be, or is larger than the system allows, ends the session; what is kept of
one that is not complete is never more than the largest message.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.imd_protocol import (
    ByteOrder,
    Decoder,
    ImdParticleCountError,
    ImdProtocolError,
    Message,
    MessageType,
    SessionInfo,
    handshake,
    parsed_forces,
)

NATIVE: Final[ByteOrder] = "<" if sys.byteorder == "little" else ">"
# What a client may send, by version.
FROM_CLIENTS: Final = {
    2: frozenset(
        {
            MessageType.DISCONNECT,
            MessageType.GO,
            MessageType.KILL,
            MessageType.MDCOMM,
            MessageType.PAUSE,
            MessageType.TRANSMISSION_RATE,
            MessageType.IO_ERROR,
        }
    ),
}
FROM_CLIENTS[3] = FROM_CLIENTS[2] | {MessageType.RESUME, MessageType.WAIT}
_LEAVING: Final = frozenset({MessageType.DISCONNECT, MessageType.KILL, MessageType.IO_ERROR})


@dataclass(frozen=True, slots=True)
class Push:
    """The forces that a client wants to act from now on, and no others.

    Attributes:
        indices: (n,) particles, ascending, each once; none for no force at all.
        forces: (n, 3) in the units of the protocol's version; finite, none of them zero.
    """

    indices: NDArray[np.int32]
    forces: NDArray[np.float32]

    @classmethod
    def of(cls, message: Message, byte_order: ByteOrder, particle_count: int) -> Push:
        """What an MDCOMM message says; forces on the same particle add up, and those of zero are left out.

        Raises:
            ImdProtocolError: an index is none, or a force is not finite.
        """
        indices, forces = parsed_forces(message, byte_order)
        if len(indices) and not (indices.min() >= 0 and indices.max() < particle_count):
            wrong = indices[(indices < 0) | (indices >= particle_count)][0]
            raise ImdProtocolError(f"a force on particle {wrong} of {particle_count}")
        if not np.isfinite(forces).all():
            raise ImdProtocolError("a force that is not finite")
        unique, places = np.unique(indices, return_inverse=True)
        total = np.zeros((len(unique), 3))
        np.add.at(total, places.ravel(), forces)
        acting = total.any(axis=1)
        limit = np.finfo(np.float32).max
        return cls(unique[acting], total[acting].clip(-limit, limit).astype(np.float32))

    @property
    def empty(self) -> bool:
        return not len(self.indices)


class EngineSession:
    """One client's connection to an engine, as told by what came.

    Attributes:
        going: Whether the client has said GO.
        left: Whether it has said goodbye, in whatever way.
        paused: Whether it wants no frames at present.
        rate: It wants every so manyth frame.
        pending: Bytes of a message of which the rest has not come.
    """

    def __init__(self, version: int, info: SessionInfo, particle_count: int, most_forces: int) -> None:
        """
        Args:
            version: 2 or 3.
            info: What frames will hold.
            particle_count: Of the system.
            most_forces: On how many particles a client may push at once.
        """
        self.version = version
        self.info = info
        self.particle_count = particle_count
        self.byte_order: ByteOrder = NATIVE
        self._decoder = Decoder(min(particle_count, most_forces))
        self.going = self.left = self.paused = False
        self.rate = 1
        self.pending = 0

    def greeting(self) -> bytes:
        """What the client is sent first."""
        return handshake(self.version, self.byte_order, self.info)

    def feed(self, data: bytes) -> tuple[int, Push | None]:
        """How many messages `data` completes, and the newest of the forces in them; None where there are none.

        Raises:
            ImdProtocolError: this is no IMD, or nothing that a client may send; nothing after it can be understood.
        """
        push, count = None, 0
        if self.left:
            return count, push
        self._decoder.feed(data)
        for message in self._messages():
            count += 1
            if message.type not in FROM_CLIENTS[self.version]:
                raise ImdProtocolError(f"a client of version {self.version} sends no {message.type.name}")
            if not self.going and message.type not in (MessageType.GO, *_LEAVING):
                raise ImdProtocolError(f"GO was due, and {message.type.name} came")
            if message.type is MessageType.MDCOMM:
                push = Push.of(message, self.byte_order, self.particle_count)
            else:
                self._take(message)
            if self.left:
                break
        self.pending = self._decoder.pending
        return count, push

    def _messages(self) -> Iterator[Message]:
        try:
            yield from self._decoder.messages()
        except ImdParticleCountError as error:
            raise ImdProtocolError(
                f"a message about {error.sent} particles, where {error.expected} can be spoken of at once"
            ) from None

    def _take(self, message: Message) -> None:
        match message.type:
            case MessageType.GO:
                self.going = True
            case MessageType.PAUSE:
                self.paused = not self.paused if self.version == 2 else True
            case MessageType.RESUME:
                self.paused = False
            case MessageType.TRANSMISSION_RATE:
                self.rate = max(1, message.value)
            case type if type in _LEAVING:
                self.left = True
