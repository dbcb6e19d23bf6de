"""Positions to a precision for many readers: each is sent what changed since what it had, whoever reads how fast.

A chain is what readers of the same rate are sent. A frame joins it when the first of them takes it, as what changed since the
frame that joined before. Who had that one is sent the change; who had another, or nothing, is sent the frame whole. Both are
made at most once, and of a reader nothing is known but the number of the positions that it had last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from narupa_shared.frames import encode_positions
from narupa_shared.position_codec import Kind, PositionEncoder, PositionHeader


class SentPositions:
    """The positions of one frame, serialised, for any reader of one chain.

    Attributes:
        number: Of the positions within the chain; None where it had gone on without them.
    """

    def __init__(
        self,
        positions: NDArray[np.float32],
        precision_nm: float,
        number: int | None,
        reference: int | None,
        made: bytes,
    ) -> None:
        """
        Args:
            positions: (n, 3), nm.
            precision_nm: See the codec.
            number: See above.
            reference: The number of those that `made` builds on; None where it is whole.
            made: A message of the codec, or nothing.
        """
        self.number = number
        self._positions = positions
        self._precision_nm = precision_nm
        self._reference = reference
        message = encode_positions(made, len(positions)) if made else b""
        self._change, self._whole = (b"", message) if reference is None else (message, b"")

    def message(self, had: int | None) -> bytes:
        """For a reader that had the positions of that number in the chain; None: it had none."""
        if self._reference is not None and had == self._reference:
            return self._change
        if not self._whole:
            encoder = PositionEncoder(self._precision_nm, self.number or 0)
            self._whole = encode_positions(encoder.encode(self._positions), len(self._positions))
        return self._whole


class PositionChain:
    """What readers of one view and rate are sent of positions."""

    def __init__(self, precision_nm: float) -> None:
        self._precision_nm = precision_nm
        self._encoder = PositionEncoder(precision_nm)
        self._newest = -1

    def sent(self, number: int, positions: NDArray[np.float32]) -> SentPositions:
        """The positions (n, 3), nm, of frame `number`, which join the chain unless a later frame has."""
        if number <= self._newest:
            return SentPositions(positions, self._precision_nm, None, None, b"")
        self._newest = number
        made = self._encoder.encode(positions)
        header = PositionHeader.parse(made)
        reference = header.reference if header.kind is Kind.CHANGE else None
        return SentPositions(positions, self._precision_nm, header.number, reference, made)
