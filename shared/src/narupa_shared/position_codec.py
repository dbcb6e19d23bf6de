"""Positions in a few bytes a particle, at a stated precision.

Coordinates are counted in steps of the precision from the origin, so an error is at most half a step and never adds up. A
message has what changed since another one, or is whole; what it has is split into bytes of equal weight, and each such plane
is compressed by zstd. The layout, byte by byte: docs/frames.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError

DEFAULT_PRECISION_NM: Final = 0.001
FINEST_PRECISION_NM: Final = 1e-6
COARSEST_PRECISION_NM: Final = 1.0
MAX_PARTICLES: Final = 5_000_000

_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BBBxIIId")
_LENGTH: Final = struct.Struct("<I")
_NUMBERS: Final = 2**32
_FARTHEST_STEP: Final = 2**31 - 1
_LEVEL: Final = 1  # higher ones look longer for repetitions, of which thermal motion has none

Steps = NDArray[np.int32]


class Kind(IntEnum):
    """What a message holds of the positions."""

    EXACT = 0
    """float32 as they are: some are not finite, or too far away to be counted in steps."""
    WHOLE = 1
    """Each particle's steps from the particle before it."""
    CHANGE = 2
    """Each particle's steps from where the message that it refers to has it."""


@dataclass(frozen=True, slots=True)
class PositionHeader:
    """What a message says of itself.

    Attributes:
        kind: What it holds.
        particles: How many there are.
        number: Its own; a reader may build on it with a message that refers to it.
        reference: The number of the message it builds on; its own where it builds on none.
        precision_nm: Length of a step, nm.
        planes: How many compressed planes of bytes follow.
    """

    kind: Kind
    particles: int
    number: int
    reference: int
    precision_nm: float
    planes: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The header of a message, which need not be complete.

        Raises:
            InvalidArgumentError: this is no message of positions, or one of a later version.
        """
        if len(data) < _HEADER.size:
            raise _malformed(data, f"has no header of {_HEADER.size} bytes")
        version, kind, planes, particles, number, reference, precision = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise _malformed(data, f"is of version {version}; this reads version {_VERSION}")
        if kind not in tuple(Kind) or planes > (0 if kind == Kind.EXACT else 4):
            raise _malformed(data, f"is of the unknown kind {kind} with {planes} planes")
        if kind != Kind.CHANGE and reference != number:
            raise _malformed(data, "is whole, and builds on another")
        if not FINEST_PRECISION_NM <= precision <= COARSEST_PRECISION_NM:
            raise _malformed(data, f"has a precision of {precision} nm")
        return cls(Kind(kind), particles, number, reference, precision, planes)

    def packed(self) -> bytes:
        """The first bytes of the message."""
        return _HEADER.pack(
            _VERSION, self.kind, self.planes, self.particles, self.number, self.reference, self.precision_nm
        )


class PositionEncoder:
    """Makes the messages of one view; whoever reads all of them, from a whole one on, has every frame.

    Attributes:
        precision_nm: Length of a step, nm.
    """

    def __init__(self, precision_nm: float = DEFAULT_PRECISION_NM, first: int = 0) -> None:
        """The first message will have the number `first`.

        Raises:
            InvalidArgumentError: the precision is not between 1e-6 and 1 nm.
        """
        if not FINEST_PRECISION_NM <= precision_nm <= COARSEST_PRECISION_NM:
            raise InvalidArgumentError(
                "precision_nm", precision_nm, f"must be {FINEST_PRECISION_NM} to {COARSEST_PRECISION_NM} nm"
            )
        self.precision_nm = float(precision_nm)
        self._number = first - 1
        self._steps: Steps | None = None
        self._whole: bytes | None = None
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def encode(self, positions: NDArray[np.float32], *, key: bool = False) -> bytes:
        """The next message: what changed since the one before, or a whole one if `key` or if there is nothing to build on.

        Decoded coordinates differ from `positions` (N, 3) nm by at most half the precision, and the rounding to float32.

        Raises:
            InvalidArgumentError: the shape is another.
        """
        positions = np.asarray(positions)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise InvalidArgumentError(
                "positions", f"an array of shape {positions.shape}", "must have the shape (N, 3)"
            )
        self._number = (self._number + 1) % _NUMBERS
        before, self._steps, self._whole = self._steps, self._steps_of(positions), None
        if self._steps is None:
            self._whole = self._header(Kind.EXACT, len(positions), 0).packed() + positions.astype("<f4").tobytes()
        elif not key and before is not None and before.shape == self._steps.shape:
            return self._message(Kind.CHANGE, self._steps - before)
        return self.key_frame()

    def key_frame(self) -> bytes:
        """The last message as a whole one, with the same number: who begins with it can go on with the next.

        Raises:
            FailedPreconditionError: nothing has been encoded yet.
        """
        if self._whole is None:
            if self._steps is None:
                raise FailedPreconditionError("no positions have been encoded yet; encode a frame first")
            self._whole = self._message(Kind.WHOLE, np.diff(self._steps, axis=0, prepend=np.int32(0)))
        return self._whole

    def _steps_of(self, positions: NDArray[np.float32]) -> Steps | None:
        scaled = np.multiply(positions, 1 / self.precision_nm, dtype=np.float64)
        np.rint(scaled, out=scaled)
        if scaled.size and not max(scaled.max(), -scaled.min()) <= _FARTHEST_STEP:  # NaN is not less than anything
            return None
        steps: Steps = scaled.astype(np.int32)
        return steps

    def _message(self, kind: Kind, differences: Steps) -> bytes:
        folded = (differences << 1) ^ (differences >> 31)  # 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
        weights = folded.astype("<i4", copy=False).view(np.uint8).reshape(-1, 4)
        largest = int(folded.view(np.uint32).max()) if folded.size else 0
        count = (largest.bit_length() + 7) // 8
        planes = [self._compressor.compress(weights[:, n].tobytes()) for n in range(count)]
        header = self._header(kind, len(differences), count).packed()
        return b"".join([header, *(_LENGTH.pack(len(plane)) for plane in planes), *planes])

    def _header(self, kind: Kind, particles: int, planes: int) -> PositionHeader:
        reference = (self._number - 1) % _NUMBERS if kind == Kind.CHANGE else self._number
        return PositionHeader(kind, particles, self._number, reference, self.precision_nm, planes)


class PositionDecoder:
    """Reads the messages of one view. What it is given may come from anybody."""

    def __init__(self, max_particles: int = MAX_PARTICLES) -> None:
        """Refuses messages of more than `max_particles`."""
        self._max_particles = max_particles
        self._last: PositionHeader | None = None
        self._steps: Steps = np.empty((0, 3), np.int32)
        self._decompressor = zstandard.ZstdDecompressor()

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """The positions (N, 3) in a message, nm. After an error the reader stands where it stood before.

        Raises:
            FailedPreconditionError: it builds on a message that was not the last one read; a whole one mends it.
            InvalidArgumentError: it is malformed, truncated, or of too many particles.
        """
        header = PositionHeader.parse(data)
        if header.particles > self._max_particles:
            raise _malformed(data, f"has {header.particles} particles; at most {self._max_particles} are read")
        if header.kind == Kind.EXACT:
            if len(data) != _HEADER.size + 12 * header.particles:
                raise _malformed(data, f"does not have the length of {header.particles} particles")
            positions = np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(-1, 3).astype(np.float32)
            self._last = None
            return positions
        if header.kind == Kind.CHANGE:
            self._check_reference(header, data)
        folded = self._folded(header, data)
        differences = (folded >> np.uint32(1)).view(np.int32) ^ -(folded & np.uint32(1)).view(np.int32)
        if header.kind == Kind.CHANGE:
            steps = self._steps + differences.reshape(-1, 3)
        else:
            steps = np.cumsum(differences.reshape(-1, 3), axis=0, dtype=np.int32)
        self._steps, self._last = steps, header
        return np.multiply(steps, header.precision_nm, dtype=np.float64).astype(np.float32)

    def _check_reference(self, header: PositionHeader, data: bytes) -> None:
        last = self._last
        if last is None or last.number != header.reference:
            had = "none has been read" if last is None else f"the last one read is {last.number}"
            raise FailedPreconditionError(
                f"positions {header.number} build on message {header.reference}, and {had}; ask for a whole frame"
            )
        if last.particles != header.particles or last.precision_nm != header.precision_nm:
            raise _malformed(
                data,
                f"builds {header.particles} particles at {header.precision_nm} nm on {last.particles} at {last.precision_nm} nm",
            )

    def _folded(self, header: PositionHeader, data: bytes) -> NDArray[np.uint32]:
        count = 3 * header.particles
        start = _HEADER.size + _LENGTH.size * header.planes
        if len(data) < start:
            raise _malformed(data, "ends before the lengths of its planes")
        weights = np.zeros((count, 4), np.uint8)
        for n in range(header.planes):
            (length,) = _LENGTH.unpack_from(data, _HEADER.size + _LENGTH.size * n)
            plane = data[start : start + length]
            start += length
            weights[:, n] = np.frombuffer(self._plane(plane, count, data), np.uint8)
        if start != len(data):
            raise _malformed(data, f"should have {start} bytes")
        return weights.reshape(-1).view("<u4").astype(np.uint32, copy=False)

    def _plane(self, plane: bytes, count: int, data: bytes) -> bytes:
        try:
            # The size that the plane claims is what would be allocated for it.
            if zstandard.frame_content_size(plane) != count:
                raise _malformed(data, f"has a plane that does not say it has {count} bytes")
            return self._decompressor.decompress(plane, max_output_size=count, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise _malformed(data, f"has a plane that is not zstd: {error}") from None


def _malformed(data: bytes, reason: str) -> InvalidArgumentError:
    """The error for a message that cannot be read."""
    return InvalidArgumentError("positions message", f"{len(data)} bytes", reason)
