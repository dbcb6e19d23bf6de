"""When a service that was asked to leave ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog.testing

from narupa_shared.draining import Drain


class Place:
    """A place at a lobby, as a test wants it.

    Attributes:
        reports: How often it was asked to report at once.
    """

    def __init__(self, others: int = 1, registered: bool = True) -> None:
        self.drain_asked = asyncio.Event()
        self.registered = registered
        self.reports = 0
        self._others = others

    def others_running(self) -> list[object]:
        return [object()] * self._others

    def report_now(self) -> None:
        self.reports += 1


class Subscribers:
    """How many are served; a test sets it."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> int:
        return self.count


async def how_long(drain: Drain, stop: asyncio.Event, meanwhile: Callable[[], None] = lambda: None) -> float:
    """How long until the service may end, s."""
    started = time.monotonic()
    ending = asyncio.create_task(drain.until_end(stop))
    await asyncio.sleep(0.02)
    meanwhile()
    async with asyncio.timeout(5):
        await ending
    return time.monotonic() - started


async def test_nothing_ends_unasked() -> None:
    ending = asyncio.create_task(Drain(Place(), Subscribers(0), 0.0).until_end(asyncio.Event()))
    await asyncio.sleep(0.05)
    assert not ending.done()
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)


async def test_it_ends_once_everybody_has_moved() -> None:
    place, subscribers, stop = Place(), Subscribers(3), asyncio.Event()
    drain = Drain(place, subscribers, 60.0)
    stop.set()

    def moved() -> None:
        assert drain.active and place.reports == 1
        subscribers.count = 0

    with structlog.testing.capture_logs() as logs:
        assert await how_long(drain, stop, moved) < 1
    assert [entry["event"] for entry in logs] == ["service_drains", "service_drained"]
    assert logs[0]["asked_by"] == "signal" and (logs[1]["moved"], logs[1]["left"]) == (3, 0)


async def test_it_does_not_wait_for_ever_for_who_stays() -> None:
    place = Place()
    place.drain_asked.set()
    with structlog.testing.capture_logs() as logs:
        assert 0.1 <= await how_long(Drain(place, Subscribers(2), 0.1), asyncio.Event()) < 2
    assert logs[0]["asked_by"] == "lobby" and (logs[1]["moved"], logs[1]["left"]) == (0, 2)


async def test_it_ends_at_once_when_there_is_nobody_or_nowhere_to_move() -> None:
    stop = asyncio.Event()
    stop.set()
    for place, subscribers in ((Place(), 0), (Place(others=0), 5), (Place(registered=False), 5)):
        drain = Drain(place, Subscribers(subscribers), 60.0)
        with structlog.testing.capture_logs() as logs:
            assert await how_long(drain, stop) < 1
        assert not drain.active and place.reports == 0
        assert [entry["event"] for entry in logs] == ["service_leaves"]
