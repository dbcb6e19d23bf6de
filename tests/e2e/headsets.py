"""An emulated headset on a page of a real browser, and where things are in its room."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tests.e2e.browsers import Browser

Side = Literal["left", "right"]
Vector = NDArray[np.float64]

# Where the head is, and what the viewer promises of where the molecule is then, m.
EYES: Final = np.array([0.0, 1.6, 0.0])
MIDDLE: Final = EYES + np.array([0.0, -0.3, -0.95])
HALF: Final = 0.5
LARGEST_NM: Final = 0.6
# Simulation space in the room of somebody who looks along -Z: y is up in both.
TURN: Final = np.diag([-1.0, 1.0, -1.0])
# Existing clients hang simulation space, mirrored in x, into a left-handed room.
MIRROR: Final = np.diag([-1.0, 1.0, 1.0])
# The `scene` of a box that is where it is at first.
UNTURNED: Final = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
# A palm of the left hand that is turned to the face, as x, y, z, w.
PALM_TO_FACE: Final = (0.0, -(0.5**0.5), 0.0, 0.5**0.5)
AHEAD: Final = (0.0, 0.0, 0.0, 1.0)
# Of the menu: its size, how far above the palm it is, its header's share, and its rows.
MENU: Final = np.array([0.26, 0.24])
MENU_ABOVE: Final = np.array([0.0, 0.17, 0.0])
HEADER: Final = 0.14
ROWS: Final = (
    ("Play", "Pause", "Step", "Reset"),
    ("Spring", "Gaussian", "Constant"),
    ("Weaker", "Stronger"),
    ("Bring here", "Move for all", "Leave"),
)
_DRAWN: Final = """new Promise((done) => {
    let left = 4;
    const next = () => (left-- > 0 ? requestAnimationFrame(next) : done(true));
    next();
})"""
_IN: Final = "!!headset.activeSession"


class Room:
    """Where the simulation is in the room of somebody who has just put a headset on.

    Attributes:
        scale: Metres in a nanometre.
    """

    def __init__(self, positions: NDArray[np.float32]) -> None:
        """`positions`: of all particles when the headset was put on, nm, (N, 3)."""
        low, high = positions.min(axis=0), positions.max(axis=0)
        self._middle = (low + high) / 2.0
        self.scale = min(LARGEST_NM, HALF / float((high - low).max() / 2))

    def place(self, point: Sequence[float] | NDArray[Any]) -> Vector:
        """Where a point of the simulation (nm) is, m."""
        there: Vector = MIDDLE + self.scale * TURN @ (np.asarray(point, np.float64) - self._middle)
        return there

    def point(self, place: Sequence[float] | NDArray[Any]) -> Vector:
        """Which point of the simulation (nm) is there."""
        at: Vector = self._middle + TURN @ (np.asarray(place, np.float64) - MIDDLE) / self.scale
        return at


def beside(place: Vector, right: float, up: float, back: float) -> Vector:
    """So far from a place, m."""
    there: Vector = place + np.array([right, up, back])
    return there


def turned(quaternion: Sequence[float], vector: Vector) -> Vector:
    """The vector, turned by x, y, z, w."""
    axis, w = np.asarray(quaternion[:3], np.float64), float(quaternion[3])
    out: Vector = vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)
    return out


def seen_by_others(scene: Sequence[float], place: Sequence[float]) -> Vector:
    """Which point of the simulation (nm) others who are in headsets see at a place of the shared room, under its `scene`."""
    position, (x, y, z, w), size = np.asarray(scene[:3]), scene[3:7], np.asarray(scene[7:])
    point: Vector = MIRROR @ (turned((-x, -y, -z, w), np.asarray(place, np.float64) - position) / size)
    return point


class Headset:
    """The emulated headset of a page, which was opened with `headset=True`."""

    def __init__(self, browser: Browser, page: str) -> None:
        self._browser = browser
        self._page = page

    async def put_on(self, mode: Literal["VR", "AR"] = "VR") -> None:
        """Whoever is on the page has it on, has pressed the page's button for that, and sees the simulation."""
        await self._browser.until(self._page, "document.querySelector(\"button[aria-label='Enter VR']\") !== null")
        if mode == "VR":
            await self._browser.do("click", self._page, selector="button[aria-label='Enter VR']")
        else:
            await self._browser.press(self._page, "p")
            await self._browser.do("click", self._page, selector="summary:has-text('Headset')")
            await self._browser.do("click", self._page, selector="text=Enter AR")
        await self._browser.until(self._page, _IN)
        await self.drawn()

    async def take_off(self) -> None:
        await self._browser.read(self._page, "void headset.activeSession.end()")
        await self.is_off()

    async def is_off(self) -> None:
        await self._browser.until(self._page, f"!{_IN}")
        await self.drawn()

    async def drawn(self) -> None:
        """What was done before has been seen by the page."""
        await self._browser.read(self._page, _DRAWN)

    async def look_from(self, place: Vector) -> None:
        await self._browser.read(self._page, f"void headset.position.set({_numbers(place)})")
        await self.drawn()

    async def move(
        self,
        side: Side,
        place: Vector,
        turn: Sequence[float] = AHEAD,
        kind: Literal["controllers", "hands"] = "controllers",
    ) -> None:
        """A controller or a bare hand is there, and points so."""
        hand = f"headset.{kind}.{side}"
        script = f"{hand}.position.set({_numbers(place)}); {hand}.quaternion.set({_numbers(turn)})"
        await self._browser.read(self._page, f"void ({script.replace(';', ',')})")
        await self.drawn()

    async def press(self, side: Side, button: Literal["trigger", "squeeze"], value: float = 1.0) -> None:
        await self._browser.read(self._page, f"headset.controllers.{side}.updateButtonValue({button!r}, {value})")
        await self.drawn()

    async def release(self, side: Side, button: Literal["trigger", "squeeze"]) -> None:
        await self.press(side, button, 0.0)

    async def pinch(self, side: Side, value: float = 1.0) -> None:
        await self._browser.read(self._page, f"headset.hands.{side}.updatePinchValue({value})")
        await self.drawn()

    async def pulses(self, side: Side) -> list[float]:
        """How strongly a controller has been made to tremble so far."""
        strengths: list[float] = await self._browser.read(
            self._page, f"pulses.filter((each) => each.side === {side!r}).map((each) => each.strength)"
        )
        return strengths

    async def says(self, text: str) -> None:
        """These words come to be written before the eyes, or have been since this was asked last."""
        await self._browser.until(
            self._page, f"written.join(' ').includes({json.dumps(text)}) && (written.length = 0, true)"
        )

    async def choose(self, label: str, grip: Vector) -> None:
        """An item of the menu is pressed with the right hand, while the left one, which is held at `grip`, shows its palm."""
        row = next(each for each in ROWS if label in each)
        across = (row.index(label) + 0.5) / len(row)
        down = HEADER + (ROWS.index(row) + 0.5) * (1 - HEADER) / len(ROWS)
        middle = grip + MENU_ABOVE
        out = (EYES - middle) / np.linalg.norm(EYES - middle)
        right = np.cross([0.0, 1.0, 0.0], out) / np.linalg.norm(np.cross([0.0, 1.0, 0.0], out))
        up = np.cross(out, right)
        item = middle + right * (across - 0.5) * MENU[0] + up * (0.5 - down) * MENU[1]
        await self.move("right", item + 0.15 * out, _quaternion(np.column_stack([right, up, out])))
        await self.press("right", "trigger")
        await self.release("right", "trigger")


def _quaternion(turn: Vector) -> list[float]:
    """x, y, z, w of a rotation matrix that turns by less than half a circle."""
    w = 0.5 * float(np.sqrt(1.0 + np.trace(turn)))
    x, y, z = (float(turn[b, a] - turn[a, b]) / (4 * w) for a, b in ((1, 2), (2, 0), (0, 1)))
    return [x, y, z, w]


def _numbers(values: Sequence[float] | Vector) -> str:
    return ", ".join(f"{float(value):.9g}" for value in values)
