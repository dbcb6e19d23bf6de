"""How the service and its engine process talk: messages over a socket pair, frames through shared memory.

A message is a JSON header with an optional block of bytes. A frame's arrays lie in one of a few slots of shared memory; the
engine writes a slot, announces it, and does not touch it again until the service has acknowledged it. The memory is an
unnamed file, so that nothing is left behind however either side ends.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.frames import decode_v1, encode_v1
from narupa_trajectory.sources.source import Snapshot

HEAD: Final = struct.Struct("<II")
SLOTS: Final = 4
MAX_HEADER: Final = 64 * 1024 * 1024
# A slot holds positions, velocities, user forces (3 float32 each) and their indices (uint32) for each particle.
BYTES_PER_PARTICLE: Final = 3 * 4 * 3 + 4

Message = dict[str, Any]


def packed(header: Mapping[str, Any], block: bytes = b"") -> bytes:
    """One message as bytes."""
    text = json.dumps(header).encode()
    return HEAD.pack(len(text), len(block)) + text + block


async def read_message(reader: asyncio.StreamReader) -> tuple[Message, bytes]:
    """The next message. Raises asyncio.IncompleteReadError when the other side is gone."""
    header_size, block_size = HEAD.unpack(await reader.readexactly(HEAD.size))
    header: Message = json.loads(await reader.readexactly(header_size))
    return header, await reader.readexactly(block_size) if block_size else b""


def jsoned(items: Mapping[str, Any]) -> str:
    """Numbers, texts and arrays as JSON text that `unjsoned` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            return {"dtype": value.dtype.str, "shape": value.shape, "data": data}
        return value

    return json.dumps({key: plain(value) for key, value in items.items()})


def unjsoned(text: str | bytes) -> dict[str, Any]:
    """What `jsoned` was given."""

    def rich(value: Any) -> Any:
        if isinstance(value, dict):
            return np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"])).reshape(value["shape"])
        return value

    return {key: rich(value) for key, value in json.loads(text).items()}


class BlockingChannel:
    """The engine's end: plain blocking calls from one thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._buffer = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, header: Mapping[str, Any], block: bytes = b"") -> None:
        self._socket.sendall(packed(header, block))

    def receive(self, timeout_s: float | None) -> list[Message]:
        """All messages that have come; waits up to `timeout_s` (None: for ever) for the first.

        Raises:
            EOFError: the service is gone.
        """
        messages = self._complete()
        if messages:
            timeout_s = 0.0
        self._socket.settimeout(timeout_s)
        try:
            while True:
                chunk = self._socket.recv(1 << 16)
                if not chunk:
                    raise EOFError
                self._buffer += chunk
                messages += self._complete()
                self._socket.settimeout(0.0)
                if messages and len(chunk) < 1 << 16:
                    break
        except (BlockingIOError, TimeoutError):
            pass
        finally:
            self._socket.settimeout(None)
        return messages

    def _complete(self) -> list[Message]:
        messages: list[Message] = []
        while len(self._buffer) >= HEAD.size:
            header_size, block_size = HEAD.unpack_from(self._buffer)
            end = HEAD.size + header_size + block_size
            if len(self._buffer) < end:
                break
            header: Message = json.loads(bytes(self._buffer[HEAD.size : HEAD.size + header_size]))
            header["block"] = bytes(self._buffer[HEAD.size + header_size : end])
            del self._buffer[:end]
            messages.append(header)
        return messages


def interaction_numbers(snapshot: Snapshot) -> Message:
    """The header's part about each interaction; nothing where there are none."""
    if not snapshot.interaction_ids:
        return {}
    return {
        "interactions": {
            "ids": snapshot.interaction_ids,
            "energies": snapshot.interaction_energies.tolist(),
            "work": snapshot.interaction_work.tolist(),
            "forces": snapshot.interaction_forces.tolist(),
        }
    }


def interaction_arrays(header: Message) -> dict[str, Any]:
    """The fields of a snapshot that `interaction_numbers` has put into `header`."""
    if "interactions" not in header:
        return {}
    numbers = header["interactions"]
    return {
        "interaction_ids": tuple(numbers["ids"]),
        "interaction_energies": np.array(numbers["energies"], np.float64),
        "interaction_work": np.array(numbers["work"], np.float64),
        "interaction_forces": np.array(numbers["forces"], np.float64).reshape(-1, 3),
    }


def recorded_message(slot: int, snapshot: Snapshot) -> tuple[Message, bytes]:
    """The header and block that announce a snapshot of a recorded session, of which nothing is in shared memory.

    It keeps `slot` busy all the same, so that no more is on the way than the service takes.
    """
    assert snapshot.recorded is not None
    header = {"slot": slot, "recorded": True, "time_ps": snapshot.time_ps, "step": snapshot.step}
    return header, encode_v1(snapshot.recorded)


def recorded_snapshot(header: Message, block: bytes) -> Snapshot:
    """The snapshot that `recorded_message` announced; its positions are in `recorded`."""
    return Snapshot(np.empty((0, 3), np.float32), header["time_ps"], header["step"], recorded=decode_v1(block))


def snapshot_block(snapshot: Snapshot) -> bytes:
    """One instant of a recording as the block of a message."""
    names = ("positions", "time_ps", "step", "box", "potential_energy", "kinetic_energy", "temperature", "velocities")
    items = {name: getattr(snapshot, name) for name in names}
    if snapshot.recorded is not None:
        items["recorded"] = np.frombuffer(encode_v1(snapshot.recorded), np.uint8)
    return jsoned(items).encode()


def snapshot_in(block: bytes) -> Snapshot:
    """What `snapshot_block` was given."""
    items = unjsoned(block)
    recorded = items.pop("recorded", None)
    return Snapshot(**items, recorded=None if recorded is None else decode_v1(recorded.tobytes()))


def unnamed_memory() -> int:
    """The descriptor of an empty file that lives in memory and has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("narupa-frames", 0)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass(frozen=True, slots=True)
class FrameMemory:
    """Shared memory for the frames of a system of `particle_count` particles."""

    particle_count: int
    view: mmap.mmap

    @classmethod
    def create(cls, descriptor: int, particle_count: int) -> FrameMemory:
        """The memory behind `descriptor`, grown to fit. The engine does this once it knows its system."""
        size = max(SLOTS * particle_count * BYTES_PER_PARTICLE, mmap.PAGESIZE)
        os.ftruncate(descriptor, size)
        return cls(particle_count, mmap.mmap(descriptor, size))

    @classmethod
    def attach(cls, descriptor: int, particle_count: int) -> FrameMemory:
        """The memory that the engine has created behind `descriptor`."""
        size = max(SLOTS * particle_count * BYTES_PER_PARTICLE, mmap.PAGESIZE)
        return cls(particle_count, mmap.mmap(descriptor, size))

    def write(self, slot: int, snapshot: Snapshot) -> Message:
        """Puts the arrays into `slot`, and returns the header that announces them together with all numbers."""
        n = self.particle_count
        user = len(snapshot.user_index)
        self._array(slot, 0, 3 * n)[:] = snapshot.positions.reshape(-1)
        if snapshot.velocities is not None:
            self._array(slot, 3 * n, 3 * n)[:] = snapshot.velocities.reshape(-1)
        if user:
            self._array(slot, 6 * n, 3 * user)[:] = snapshot.user_forces.reshape(-1)
            self._array(slot, 9 * n, user).view(np.uint32)[:] = snapshot.user_index
        return {
            "slot": slot,
            "time_ps": snapshot.time_ps,
            "step": snapshot.step,
            "box": None if snapshot.box is None else snapshot.box.reshape(-1).tolist(),
            "potential_energy": snapshot.potential_energy,
            "kinetic_energy": snapshot.kinetic_energy,
            "temperature": snapshot.temperature,
            "energies_at_ps": snapshot.energies_at_ps,
            "velocities": snapshot.velocities is not None,
            "user_energy": snapshot.user_energy,
            "user_count": user,
            "user_work": snapshot.user_work,
            **interaction_numbers(snapshot),
        }

    def read(self, header: Message) -> Snapshot:
        """A copy of what `write` announced with `header`."""
        n, slot, user = self.particle_count, header["slot"], header["user_count"]
        box = header["box"]
        return Snapshot(
            positions=self._array(slot, 0, 3 * n).reshape(n, 3).copy(),
            time_ps=header["time_ps"],
            step=header["step"],
            box=None if box is None else np.array(box, np.float32).reshape(3, 3),
            potential_energy=header["potential_energy"],
            kinetic_energy=header["kinetic_energy"],
            temperature=header["temperature"],
            energies_at_ps=header["energies_at_ps"],
            velocities=self._array(slot, 3 * n, 3 * n).reshape(n, 3).copy() if header["velocities"] else None,
            user_energy=header["user_energy"],
            user_index=self._array(slot, 9 * n, user).view(np.uint32).copy(),
            user_forces=self._array(slot, 6 * n, 3 * user).reshape(user, 3).copy(),
            user_work=header["user_work"],
            **interaction_arrays(header),
        )

    def _array(self, slot: int, offset: int, count: int) -> NDArray[np.float32]:
        start = (slot * self.particle_count * BYTES_PER_PARTICLE) + 4 * offset
        return np.frombuffer(self.view, np.float32, count, start)
