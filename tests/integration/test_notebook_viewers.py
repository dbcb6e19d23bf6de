"""A session's views in a notebook: what goes over the comm, with small services in this process and the test as the browser."""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import traitlets

import narupa_client
from narupa_client import Session
from narupa_client.notebook import viewer as limits
from narupa_client.notebook import viewers as places
from narupa_client.notebook import window as windows
from narupa_client.notebook.viewers import Viewers
from narupa_client.notebook.widget import COLORS, REPRESENTATIONS, SessionView
from narupa_client.testing.servers import FakeImd, FakeTrajectory
from narupa_shared import frame_keys as keys
from narupa_shared.errors import FailedPreconditionError
from narupa_shared.frames import Frame
from narupa_shared.nanover_messages import frame_of, message, state_change_of, unpacked
from narupa_shared.testing.waiting import until

LIMIT_S = 20.0


class FrontEnd:
    """The browsers' ends of one comm."""

    def __init__(self) -> None:
        self.cell = False
        self.heard: list[tuple[dict[str, Any], bytes]] = []
        self.viewers: Viewers

    def send(self, content: Any, buffers: Any) -> None:
        """What the kernel sends."""
        self.heard.append((dict(content), b"".join(buffers)))

    def say(self, kind: str, viewer: str = "one", items: dict[str, Any] | None = None, **facts: Any) -> None:
        buffers = [] if items is None else [memoryview(message(items))]
        self.viewers.receive({"kind": kind, "viewer": viewer, **facts}, buffers)

    def messages(self, what: str, viewer: str = "one") -> list[dict[str, Any]]:
        return [
            unpacked(data)
            for content, data in self.heard
            if content["kind"] == "message" and content["what"] == what and content["viewer"] == viewer
        ]

    def frames(self, viewer: str = "one") -> list[Frame]:
        return [frame_of(each["frame"]) for each in self.messages("frame", viewer)]

    def state(self, viewer: str = "one") -> dict[str, Any]:
        """The shared state as the viewer knows it."""
        known: dict[str, Any] = {}
        for each in self.messages("state", viewer):
            updates, removals = state_change_of(each["state"])
            known.update(updates)
            for key in removals:
                known.pop(key, None)
        return known

    def answers(self) -> list[dict[str, Any]]:
        return [each["command"] for each in self.messages("command")]

    def closed(self, viewer: str = "one") -> str:
        """Why the viewer was left; empty while it was not."""
        said = [each for each, _ in self.heard if each["kind"] == "closed" and each["viewer"] == viewer]
        assert len(said) <= 1
        return str(said[0]["reason"]) if said else ""

    def acknowledge(self, viewer: str = "one") -> None:
        """Everything that was sent is dealt with."""
        frames, states = (len(self.messages(what, viewer)) for what in ("frame", "state"))
        self.say("ack", viewer, frames=frames, states=states)


@pytest.fixture
async def trajectory() -> AsyncIterator[FakeTrajectory]:
    async with FakeTrajectory() as server:
        server.publish(molecule(0))
        yield server


@pytest.fixture
async def imd() -> AsyncIterator[FakeImd]:
    async with FakeImd() as server:
        yield server


@pytest.fixture
async def session(trajectory: FakeTrajectory, imd: FakeImd) -> AsyncIterator[Session]:
    async with narupa_client.open(trajectory.address, imd.address) as opened:
        yield opened


@pytest.fixture
async def browser(session: Session) -> FrontEnd:
    end = FrontEnd()
    end.viewers = Viewers(session, end.send, asyncio.get_running_loop(), lambda: end.cell)
    return end


def molecule(index: int) -> Frame:
    positions = np.full((3, 3), index, np.float32)
    arrays: dict[str, Any] = {keys.POSITIONS: positions}
    if index == 0:
        arrays[keys.ELEMENTS] = np.array([6, 1, 8], np.uint32)
    return Frame(index, {}, arrays)


async def test_a_view_sees_frames_and_state_and_is_numbered(
    browser: FrontEnd, trajectory: FakeTrajectory, imd: FakeImd
) -> None:
    imd.state["scene"] = [1.0]
    browser.say("open")
    await until(lambda: browser.frames() and browser.state() == {"scene": [1.0]})
    assert browser.heard[0][0] == {"kind": "opened", "viewer": "one"}
    assert browser.frames()[0].index == 0 and keys.ELEMENTS in browser.frames()[0].arrays
    trajectory.publish(molecule(1))
    await until(lambda: len(browser.frames()) == 2)
    assert set(browser.frames()[1].arrays) == {keys.POSITIONS}
    numbers = [content["number"] for content, _ in browser.heard if content["kind"] == "message"]
    assert numbers == list(range(1, len(numbers) + 1))
    browser.say("close")
    await until(browser.closed)
    await until(lambda: trajectory.subscribers == 0 and browser.viewers.count == 0)


async def test_nothing_is_queued_for_a_view_that_does_not_draw(browser: FrontEnd, trajectory: FakeTrajectory) -> None:
    browser.say("open")
    async with trajectory.publishing(molecule):
        await until(lambda: len(browser.frames()) == limits.FRAMES_UNDER_WAY)
        shown = trajectory.current.index
        await until(lambda: trajectory.current.index > shown + 50)
        assert len(browser.frames()) == limits.FRAMES_UNDER_WAY
        before = trajectory.current.index
        browser.acknowledge()
        await until(lambda: len(browser.frames()) > limits.FRAMES_UNDER_WAY)
    # What comes then is what is so by now, and nothing of what was passed over.
    assert browser.frames()[limits.FRAMES_UNDER_WAY].index >= before


async def test_a_view_that_a_cell_keeps_from_being_heard_goes_on(
    browser: FrontEnd, trajectory: FakeTrajectory, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "SILENT_S", 0.05)
    monkeypatch.setattr(windows, "UNHEARD_INTERVAL_S", 0.01)
    monkeypatch.setattr(limits, "KEEPALIVE_S", 0.01)
    monkeypatch.setattr(limits, "SILENCE_S", 0.5)
    browser.cell = True
    browser.say("open")
    async with trajectory.publishing(molecule):
        await until(lambda: len(browser.frames()) > 2 * limits.FRAMES_UNDER_WAY)
        await session.state.update({"a": 1})
        await until(lambda: browser.state() == {"a": 1.0})
        browser.say("ack", number=7, frames=1)
        await until(lambda: browser.heard[-1][0].get("heard") == 7)
        # Silence counts from when the viewer could be heard; before it ends, nothing more is sent ahead.
        assert not browser.closed()
        browser.cell = False
        await until(browser.closed)


async def test_state_waits_for_the_view_too(browser: FrontEnd, session: Session) -> None:
    browser.say("open")
    await until(lambda: browser.messages("state"))
    for number in range(60):
        await session.state.update({"a": number})
    await until(lambda: len(browser.messages("state")) == limits.STATES_UNDER_WAY)
    await session.state.update({"b": 1})
    browser.acknowledge()
    await until(lambda: browser.state() == {"a": 59.0, "b": 1.0})
    assert len(browser.messages("state")) < 20


async def test_writes_and_commands_are_those_of_the_session(
    browser: FrontEnd, trajectory: FakeTrajectory, imd: FakeImd
) -> None:
    browser.say("open")
    await until(browser.frames)
    browser.say("message", items={"state": {"updates": {"avatar.me": {"name": "Ada"}}, "removals": []}})
    await until(lambda: "avatar.me" in imd.state and "avatar.me" in browser.state())
    request = {"name": "playback/pause", "arguments": {}, "id": 4}
    browser.say("message", items={"command": {"request": request}})
    await until(browser.answers)
    (answer,) = browser.answers()
    assert answer["request"] == request and answer["response"]["ran"] == "playback/pause"
    browser.say("message", items={"command": {"request": {"name": "nonsense", "id": 5}}})
    await until(lambda: len(browser.answers()) == 2)
    assert "no such command" in browser.answers()[1]["exception"]
    assert [each for each, _ in browser.heard if each["kind"] == "written"] == [
        {"kind": "written", "viewer": "one"}
    ] * 3
    # What a view owns ends with it.
    browser.say("close")
    await until(lambda: "avatar.me" not in imd.state and imd.writers == 0)


async def test_a_refused_write_is_told_as_it_is(browser: FrontEnd, imd: FakeImd) -> None:
    imd.state["locked"] = 1.0
    browser.say("open")
    await until(lambda: browser.state() == {"locked": 1.0})
    told = len(browser.messages("state"))
    browser.say("message", items={"state": {"updates": {"locked": 2, "locked.new": 2}}})
    await until(lambda: len(browser.messages("state")) > told)
    assert state_change_of(browser.messages("state")[told]["state"]) == ({"locked": 1.0}, ["locked.new"])
    assert not browser.closed()


async def test_two_views_of_one_session_are_apart(browser: FrontEnd, trajectory: FakeTrajectory, imd: FakeImd) -> None:
    for viewer in ("one", "two"):
        browser.say("open", viewer)
        browser.say("message", viewer, {"state": {"updates": {f"avatar.{viewer}": 1}}})
    await until(lambda: browser.frames("one") and browser.frames("two") and "avatar.two" in browser.state("one"))
    browser.say("close", "one")
    await until(lambda: "avatar.one" not in browser.state("two"))
    trajectory.publish(molecule(1))
    await until(lambda: len(browser.frames("two")) == 2)
    assert len(browser.frames("one")) == 1 and not browser.closed("two")


async def test_a_view_is_told_of_a_service_that_is_away_and_goes_on_when_it_is_back(
    browser: FrontEnd, trajectory: FakeTrajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TELL_AFTER_S", 0.0)
    monkeypatch.setattr(limits, "_LOOK_EVERY_S", 0.01)
    browser.say("open")
    await until(browser.frames)
    await trajectory.stop()
    await until(lambda: "cannot be reached" in str(browser.frames()[-1].values.get(keys.EXCEPTION)))
    await trajectory.start()
    trajectory.publish(molecule(0))
    # Everything that was said before a frame of index 0 is void.
    await until(lambda: browser.frames()[-1].index == 0 and keys.POSITIONS in browser.frames()[-1].arrays)


async def test_the_end_of_the_session_ends_its_views(
    browser: FrontEnd, session: Session, trajectory: FakeTrajectory, imd: FakeImd
) -> None:
    browser.say("open")
    browser.say("message", items={"state": {"updates": {"avatar.me": 1}}})
    await until(lambda: browser.frames() and "avatar.me" in imd.state)
    await session.aclose()
    assert browser.closed() == limits.LEFT and browser.viewers.count == 0
    browser.say("open", "two")
    await until(lambda: browser.closed("two"))
    await until(lambda: trajectory.subscribers == 0 and imd.writers == 0)


async def test_a_view_of_which_nothing_is_heard_is_given_up(browser: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEPALIVE_S", 0.01)
    browser.say("open")
    await until(lambda: browser.messages("nothing"))
    assert not browser.closed()
    monkeypatch.setattr(limits, "SILENCE_S", 0.0)
    await until(browser.closed)
    (said,) = [each for each, _ in browser.heard if each["kind"] == "closed"]
    assert said["code"] == limits.GOING_AWAY  # it may come again


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"nonsense",
        msgpack.packb([1, 2]),
        msgpack.packb({"frame": {"frame.index": 0}}),
        msgpack.packb({"state": 1}),
        msgpack.packb({"state": {"updates": {"a": [[]] * 200_000}}}),
        msgpack.packb({"command": 1}),
        msgpack.packb({"command": {"register": {"name": "a"}}}),
        msgpack.packb({"command": {"request": 1}}),
        b"\x81" * 1000,
    ],
)
async def test_what_is_no_message_ends_that_view_and_no_other(browser: FrontEnd, data: bytes) -> None:
    browser.say("open", "good")
    browser.say("open")
    await until(lambda: browser.frames() and browser.frames("good"))
    browser.viewers.receive({"kind": "message", "viewer": "one"}, [data])
    await until(browser.closed)
    assert browser.viewers.count == 1 and not browser.closed("good")


async def test_what_is_none_of_ours_is_passed_over(browser: FrontEnd) -> None:
    browser.say("open")
    await until(browser.frames)
    heard = len(browser.heard)
    nonsense: list[object] = [None, 1, [], "open", {}, {"kind": "open"}, {"kind": "open", "viewer": 1}]
    nonsense += [
        {"kind": "open", "viewer": "x" * 1000},
        {"kind": ["open"], "viewer": "x"},
        {"kind": "x", "viewer": "x"},
    ]
    nonsense += [{"kind": "ack", "viewer": "nobody"}, {"kind": "open", "viewer": ""}, {1: 2}]
    for each in nonsense:
        browser.viewers.receive(each, [])
    for count in (-1, 10**40, "1", None, [1], {"a": 1}, 0.5, True):
        browser.say("ack", frames=count, states=count)
    browser.viewers.receive({"kind": "message", "viewer": "one"}, [b"x" * (places.MAX_MESSAGE_BYTES + 1)])
    browser.viewers.receive({"kind": "message", "viewer": "one"}, [b"x", b"y"])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(browser.heard) == heard and not browser.closed() and browser.viewers.count == 1


async def test_a_view_that_sends_without_end_is_left_and_holds_up_nobody(browser: FrontEnd, imd: FakeImd) -> None:
    browser.say("open", "good")
    browser.say("open")
    await until(lambda: browser.frames() and browser.frames("good"))
    for number in range(10_000):
        browser.say("message", items={"state": {"updates": {"a": number}}})
    await until(browser.closed)
    browser.say("message", "good", {"state": {"updates": {"b": 1}}})
    await until(lambda: "b" in browser.state("good"))
    assert not browser.closed("good")


async def test_there_are_so_many_views_and_no_more(browser: FrontEnd) -> None:
    for number in range(places.MAX_VIEWERS + 1):
        browser.say("open", str(number))
    await until(lambda: browser.closed(str(places.MAX_VIEWERS)))
    assert browser.viewers.count == places.MAX_VIEWERS
    browser.viewers.close()
    await until(lambda: browser.viewers.count == 0)


async def test_those_that_gave_up_waiting_for_a_cell_take_no_place(browser: FrontEnd) -> None:
    for number in range(3 * places.MAX_VIEWERS):
        browser.say("open", str(number))
        browser.say("open", str(number))
        browser.say("close", str(number))
    browser.say("open", "last")
    await until(lambda: browser.frames("last"))
    await until(lambda: browser.viewers.count == 1)
    assert not browser.closed("last")


async def test_a_widget_has_a_view_and_ends_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(SessionView, "send", lambda _, content, buffers=None: heard.append(content))
    view = session.view(colors="chain", selection=np.array([2, 1]), height=300)
    assert (view.colors, view.selection, view.height, view.representation) == ("chain", [1, 2], 300, "ball and stick")
    view._handle_custom_msg({"kind": "open", "viewer": "one"}, [])
    await until(lambda: [each for each in heard if each.get("what") == "frame"])
    view.set_state({"selection": [3, 0], "camera": {"position": [0, 0, 3], "target": [0, 0, 0]}})
    assert view.selection == [0, 3] and view.camera == {"position": [0.0, 0.0, 3.0], "target": [0.0, 0.0, 0.0]}
    for hostile in ({"selection": [-1]}, {"camera": {"position": "x"}}, {"height": 10**9}, {"colors": "x"}):
        with pytest.raises(traitlets.TraitError):
            view.set_state(hostile)
    assert view.selection == [0, 3] and view.height == 300
    view.close()
    view.close()
    await until(lambda: heard[-1]["kind"] == "closed")
    with pytest.raises(TypeError, match="no theme"):
        session.view(theme="dark")


async def test_a_blocking_session_has_views_too(
    trajectory: FakeTrajectory, imd: FakeImd, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(SessionView, "send", lambda _, content, buffers=None: heard.append(content))

    def run() -> None:
        with narupa_client.connect(trajectory=trajectory.address, imd=imd.address) as session:
            view = session.view()
            view._handle_custom_msg({"kind": "open", "viewer": "one"}, [])
            session.wait_frame(LIMIT_S)
        view._handle_custom_msg({"kind": "open", "viewer": "two"}, [])
        view.close()

    async with trajectory.publishing(molecule):
        with ThreadPoolExecutor(1) as notebook:
            await asyncio.get_running_loop().run_in_executor(notebook, run)
    closed = [each for each in heard if each["kind"] == "closed"]
    assert closed[0] == {"kind": "closed", "viewer": "one", "code": limits.REFUSED, "reason": limits.LEFT}
    assert closed[1]["reason"] == limits.LEFT


async def test_without_anywidget_it_is_said_what_to_install(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "narupa_client.notebook.widget", None)
    with pytest.raises(FailedPreconditionError, match=re.escape("pip install 'narupa-client[notebook]'")):
        session.view()


def test_what_a_page_loads_is_small_and_asks_nobody_for_more() -> None:
    code = (Path(limits.__file__).parent / "static" / "view.js").read_bytes()
    size = len(gzip.compress(code, 9))
    print(f"{size / 1000:.0f} kB compressed")
    assert size < 500_000
    assert not re.search(rb"\bimport\b", code)


def test_what_can_be_chosen_is_what_the_viewer_has() -> None:
    settings = (Path(__file__).parents[2] / "clients/web/src/panel/settings.ts").read_text()
    for name, here in (("representation", REPRESENTATIONS), ("colors", COLORS)):
        (options,) = re.findall(rf"{name}: {{\s+label: [^,]+,\s+options: \[(.*?)\n    \]", settings, re.DOTALL)
        assert tuple(re.findall(r'\["([^"]+)",', options)) == here
