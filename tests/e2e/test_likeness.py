"""Whether the measure tells pictures that are spoilt from those that are drawn a little otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.e2e.likeness import Pixels, difference, read_picture, side_by_side

REFERENCES: Final = sorted(Path(__file__).with_name("pictures").glob("*.png"))
SIZE: Final = (440, 332)
GROUND: Final = (243, 245, 248)
RED, BLUE, GREY = (232, 72, 63), (74, 109, 242), (111, 122, 134)
# A chain of atoms: where they are, and of which colour.
ATOMS: Final = [(60 + 40 * at, 170 + (30 if at % 2 else -30), (GREY, RED, GREY, BLUE)[at % 4]) for at in range(9)]


def molecule(lit: bool = True, bonds: bool = True, ribbon: bool = True, oxygen: tuple[int, int, int] = RED) -> Pixels:
    """A ball-and-stick picture with a ribbon below it, drawn by hand."""
    image = Image.new("RGB", SIZE, GROUND)
    draw = ImageDraw.Draw(image)
    if bonds:
        draw.line([(x, y) for x, y, _ in ATOMS], fill=GREY, width=5)
    for x, y, color in ATOMS:
        shown = oxygen if color == RED else color
        for step in range(15):
            light = 0.6 + 0.6 * step / 15 if lit else 1.0
            radius = 15 - step
            fill = tuple(min(255, round(part * light)) for part in shown)
            middle = (x - 0.4 * step if lit else x, y - 0.4 * step if lit else y)
            draw.ellipse([middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius], fill=fill)
    if ribbon:
        draw.line([(60 + 40 * at, 280 + (8 if at % 2 else -8)) for at in range(9)], fill=(217, 82, 122), width=12)
    return np.asarray(image, dtype=np.float64)


def shifted(picture: Pixels, by_px: int) -> Pixels:
    moved = np.roll(picture, by_px, axis=1)
    moved[:, :by_px] = picture[0, 0]
    return moved


SPOILT: Final = {
    "wrong colour": molecule(oxygen=(60, 200, 90)),
    "no bonds": molecule(bonds=False),
    "unlit": molecule(lit=False),
    "no ribbon": molecule(ribbon=False),
    "shifted by 3 %": shifted(molecule(), round(0.03 * SIZE[0])),
    "nothing": molecule()[:1, :1].repeat(SIZE[1], axis=0).repeat(SIZE[0], axis=1),
}


@pytest.mark.parametrize("picture", SPOILT.values(), ids=SPOILT.keys())
def test_what_is_spoilt_is_another_picture(picture: Pixels) -> None:
    found = difference(picture, molecule())
    assert not found.small, found


def test_edges_that_are_smoothed_otherwise_are_the_same_picture() -> None:
    image = Image.fromarray(molecule().astype(np.uint8))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float64)
    noise = np.random.default_rng(1).normal(0, 4, soft.shape)
    assert difference(soft, molecule()).small
    assert difference(np.clip(molecule() + noise, 0, 255), molecule()).small
    assert difference(molecule(), molecule()) == (0, 0)


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_reference_is_told_from_itself_spoilt(path: Path) -> None:
    reference = read_picture(path)
    ground = reference[0, 0]
    shown = np.abs(reference - ground).max(axis=2) > 3
    unlit = np.where(shown[..., None], np.where(reference.max(axis=2, keepdims=True) > 128, 230.0, 60.0), reference)
    halved = reference.copy()
    halved[:, : SIZE[0] // 2] = ground
    for what, spoilt in {
        "shifted": shifted(reference, round(0.03 * SIZE[0])),
        "with red for blue": reference[..., ::-1],
        "unlit": unlit,
        "in half": halved,
    }.items():
        assert not difference(spoilt, reference).small, what
    soft = np.asarray(Image.fromarray(reference.astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5)), np.float64)
    assert difference(soft, reference).small, difference(soft, reference)


def test_pictures_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(440, 300\) and not \(440, 332\)"):
        difference(molecule()[:300], molecule())


def test_what_differs_can_be_looked_at() -> None:
    assert side_by_side(SPOILT["no bonds"], molecule()).size == (3 * (SIZE[0] + 4), SIZE[1])
    assert side_by_side(molecule()[:300], molecule()).size == (2 * (SIZE[0] + 4), SIZE[1])
