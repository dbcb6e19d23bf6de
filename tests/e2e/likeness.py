"""How alike two pictures of a molecule are, as people see them: by what is drawn, not by its last pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pictures are compared in cells of so many pixels each way, which evens out how edges are smoothed.
CELL: Final = 4
# So many levels (of 255) off, in any colour, and a cell looks another.
SEEN: Final = 20.0
# Beyond the background, and beyond what smoothing leaves in a cell, levels.
_DRAWN: Final = 6.0

Pixels = NDArray[np.float64]


class Difference(NamedTuple):
    """How two pictures differ, over the cells where either shows more than background.

    Attributes:
        mean: Of the colours, levels of 255.
        share: The part of the cells that look another.
    """

    mean: float
    share: float

    @property
    def small(self) -> bool:
        """Whether people would call the pictures the same."""
        return self.mean < 4.0 and self.share < 0.04


def read_picture(path: Path) -> Pixels:
    """The picture's colours, (height, width, 3), 0 to 255."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def difference(picture: Pixels, reference: Pixels) -> Difference:
    """How they differ. Raises ValueError: they are not of one size."""
    if picture.shape != reference.shape:
        raise ValueError(f"the picture is {picture.shape[1::-1]} and not {reference.shape[1::-1]}")
    seen, known = _cells(picture), _cells(reference)
    ground = _background(reference)
    drawn = (np.abs(seen - ground).max(axis=2) > _DRAWN) | (np.abs(known - ground).max(axis=2) > _DRAWN)
    if not drawn.any():
        return Difference(0.0, 0.0)
    off = np.abs(seen - known)[drawn]
    return Difference(float(off.mean()), float((off.max(axis=1) > SEEN).mean()))


def side_by_side(picture: Pixels, reference: Pixels) -> Image.Image:
    """The picture, the reference, and where they differ, for people to look at."""
    shown = [picture, reference]
    if picture.shape == reference.shape:
        shown.append(255.0 - np.abs(picture - reference))
    height = max(each.shape[0] for each in shown)
    padded = [np.pad(each, ((0, height - each.shape[0]), (0, 4), (0, 0)), constant_values=128) for each in shown]
    return Image.fromarray(np.hstack(padded).round().astype(np.uint8))


def _cells(pixels: Pixels) -> Pixels:
    height, width = (size // CELL * CELL for size in pixels.shape[:2])
    whole = pixels[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL, 3)
    return np.asarray(whole.mean(axis=(1, 3)))


def _background(pixels: Pixels) -> NDArray[Any]:
    """The colour that most pixels have."""
    codes = pixels.reshape(-1, 3).round().astype(np.int64) @ (1 << 16, 1 << 8, 1)
    values, counts = np.unique(codes, return_counts=True)
    most = int(values[counts.argmax()])
    return np.array([most >> 16, most >> 8 & 255, most & 255], dtype=np.float64)
