"""How much is under way to a view in a notebook, while it acknowledges and while a cell keeps it from that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narupa_client.notebook import window as limits
from narupa_client.notebook.window import Window


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def listening() -> None:
    """The kernel hears the viewer."""


async def test_a_window_has_room_for_so_many_until_they_are_acknowledged(clock: Clock) -> None:
    window = Window(2, clock)
    window.sent(10)
    await window.room(listening)
    window.sent(10)
    waiting = asyncio.ensure_future(window.room(listening))
    for nonsense in (0, -1, 3, 10**30, True, 1.0, None, "1", [1]):
        window.acknowledge(nonsense)
        await asyncio.sleep(0)
        assert not waiting.done() and window.under_way == 2
    window.acknowledge(1)
    await waiting
    window.acknowledge(2)
    window.acknowledge(1)
    assert window.under_way == 0


async def test_a_viewer_that_is_listened_to_and_acknowledges_nothing_is_sent_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.001)
    window = Window(1, clock)
    window.sent(10)
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        clock.now += 3600

    waiting = asyncio.ensure_future(window.room(look))
    async with asyncio.timeout(20):
        while looked < 5:
            await asyncio.sleep(0)
    assert not waiting.done()
    window.acknowledge(1)
    await waiting


async def test_a_viewer_that_cannot_be_heard_is_sent_to_after_a_while(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.001)
    window = Window(1, clock)
    heard_at = clock.now
    window.sent(10)
    waiting = asyncio.ensure_future(window.room(lambda: heard_at))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    clock.now += limits.SILENT_S
    async with asyncio.timeout(20):
        await waiting


def sent_for(window: Window, clock: Clock, seconds: float, size: int) -> int:
    """How many were sent to a viewer of which nothing is heard."""
    heard_at, end, count = clock.now, clock.now + seconds, 0
    while clock.now < end:
        if window.due(heard_at):
            window.sent(size)
            count += 1
        clock.now += 0.05
    return count


def test_small_frames_go_on_at_five_a_second_for_ten_minutes(clock: Clock) -> None:
    count = sent_for(Window(4, clock), clock, 600, 13_000)
    assert 2300 <= count <= 3000


@pytest.mark.parametrize("size", [0, 1000, 120_000, 1_200_000, 20_000_000])
def test_what_is_under_way_to_a_viewer_that_is_gone_has_an_end(clock: Clock, size: int) -> None:
    window = Window(4, clock)
    first = sent_for(window, clock, 60, size)
    assert 0 < first <= 60 / limits.UNHEARD_INTERVAL_S + 1
    # Not much more than the pace of the beginning, after the first one of which no pace is known.
    assert (first - 2) * size <= 60 * limits.MAX_BYTES_UNHEARD / limits.LASTING_S
    sent_for(window, clock, 3600, size)
    assert window.under_way * size <= limits.MAX_BYTES_UNHEARD + size


def test_who_is_heard_again_has_room_again(clock: Clock) -> None:
    window = Window(4, clock)
    sent_for(window, clock, 3600, 1_200_000)
    slow = sent_for(window, clock, 60, 1_200_000)
    window.acknowledge(window.under_way)
    assert window.under_way == 0 and sent_for(window, clock, 60, 1_200_000) > 4 * max(slow, 1)


def test_a_view_knows_whether_a_cell_runs_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython")
    from IPython.core.events import EventManager, available_events

    from narupa_client.notebook import kernel

    class Shell:
        events: Any = EventManager(None, available_events)

    monkeypatch.setattr(kernel, "get_ipython", Shell)
    cells = kernel.Cells()
    assert cells.running  # the one that makes the view
    Shell.events.trigger("post_run_cell", None)
    assert not cells.running
    Shell.events.trigger("pre_run_cell", None)
    assert cells.running
    cells.close()
    cells.close()
    Shell.events.trigger("pre_run_cell", None)
    assert not cells.running and not any(Shell.events.callbacks.values())


def test_messages_are_dealt_with_where_the_front_end_asks() -> None:
    pytest.importorskip("ipykernel")
    from ipykernel.comm.comm import BaseComm

    from narupa_client.notebook.kernel import hear_where_asked

    comm: Any = BaseComm(primary=False)
    if not hasattr(comm, "_reply_subshell_for"):
        pytest.skip("this ipykernel always does that")
    comm._reply_subshell_id = None  # it was last sent from a cell
    assert comm._reply_subshell_for({}, "named") is None
    hear_where_asked(comm)
    assert comm._reply_subshell_for({}, "named") == "named"
