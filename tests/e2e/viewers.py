"""What the end-to-end tests of the viewer have in common: what is to be waited for, beside a native client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import numpy as np

from narupa_client import Session
from tests.e2e.browsers import Browser
from tests.e2e.sessions import LIMIT_S

T = TypeVar("T")

_CHOOSE: Final = """(() => {{
    const field = document.querySelector({selector!r});
    field.value = {value!r};
    field.dispatchEvent(new Event(field.type === "range" ? "input" : "change"));
}})()"""


async def eventually(look: Callable[[], Awaitable[T]], within_s: float = LIMIT_S) -> T:
    """The first truthy value of `look`."""
    async with asyncio.timeout(within_s):
        while not (value := await look()):
            await asyncio.sleep(0.05)
    return value


async def avatar_of(client: Session, name: str) -> str:
    """The key of somebody's avatar; empty where they have none."""
    avatars = await client.state.get("avatar.")
    return next((key for key, value in avatars.items() if value.get("name") == name), "")


async def pull_of(client: Session, handle: Callable[[np.ndarray], object] = lambda _: True) -> Mapping[str, Any]:
    """The one interaction in the state, once there is one whose handle meets the condition."""

    async def look() -> Mapping[str, Any]:
        pulls = list((await client.state.get("interaction.")).values())
        assert len(pulls) <= 1
        return pulls[0] if pulls and handle(np.asarray(pulls[0]["position"])) else {}

    return await eventually(look)


@asynccontextmanager
async def guests(client: Session, role: str) -> AsyncIterator[None]:
    """Those who come without a code come in as this, meanwhile."""
    await client.lobby.set_guest_role(role)
    try:
        yield
    finally:
        await client.lobby.set_guest_role(None)


async def none_pull(client: Session) -> bool:
    return not await client.state.get("interaction.")


async def grab(
    browser: Browser, page: str, client: Session, x: int = 320, y: int = 190, *, finger: bool = False
) -> tuple[int, int]:
    """The mouse is pressed, or a finger put, on an atom near x, y, which is now pulled; returns where.

    One that has moved on is let be.
    """
    async with asyncio.timeout(2 * LIMIT_S):
        while True:
            at = await browser.atom(page, x, y)
            if finger:  # which moves at once, or it would be a long press
                await browser.fingers(page, [at], [(at[0] + 12, at[1])])
            else:
                await browser.do("mouse", page, kind="down")
            with contextlib.suppress(TimeoutError):
                await eventually(lambda: _pulls(client), within_s=3.0)
                return at
            if finger:
                await browser.fingers(page, [], down=False)
            else:
                await browser.do("mouse", page, kind="up")


async def _pulls(client: Session) -> bool:
    return bool(await client.state.get("interaction."))


async def choose(browser: Browser, page: str, setting: str, value: str) -> None:
    """The setting, or else the field of this selector, has that value."""
    selector = setting if setting[0] in ".#" else f"#set-{setting}"
    await browser.read(page, _CHOOSE.format(selector=selector, value=value))
