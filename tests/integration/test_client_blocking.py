"""The blocking face of the client, from a plain thread, against small services that run on a loop elsewhere."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

import narupa_client
from narupa_client.blocking import LoopThread
from narupa_client.testing import FakeImd, FakeLobby, FakeTrajectory
from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_shared.frames import Frame


class Fakes:
    def __init__(self) -> None:
        self.thread = LoopThread()
        self.thread.call(self._start())

    async def _start(self) -> None:
        self.lobby, self.trajectory, self.imd = FakeLobby(), FakeTrajectory(), FakeImd()
        for fake in (self.lobby, self.trajectory, self.imd):
            await fake.start()
        await self.lobby.add_service("trajectory", self.trajectory.address)
        await self.lobby.add_service("imd", self.imd.address)

    async def publish(self, frame: Frame) -> None:
        self.trajectory.publish(frame)

    async def _stop(self) -> None:
        for fake in (self.lobby, self.trajectory, self.imd):
            await fake.stop()
        await asyncio.sleep(0)


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    fakes = Fakes()
    yield fakes
    fakes.thread.call(fakes._stop())
    fakes.thread.close()


def test_the_same_verbs_block(fakes: Fakes) -> None:
    with narupa_client.connect(fakes.lobby.address, "Ada") as session:
        assert session.user_id == "user-1"
        assert session.wait_frame(5).index == 0
        fakes.thread.call(fakes.publish(Frame(4, {"energy.potential": -2.0})))
        while session.frame is None or session.frame.index != 4:
            session.wait_frame(5)
        assert session.frame.potential_energy == -2.0
        with session.pull([0], to=(1, 2, 3), kind="constant") as pull:
            pull.move((3, 2, 1))
            assert session.interactions()[0]["position"] == [3, 2, 1]
            pull.hold(0.01)
        assert session.interactions() == []
        session.state.update({"scene": "a"})
        assert session.state.get() == {"scene": "a"}
        assert "playback/pause" in session.commands()
        assert session.run_command("playback/pause")["ran"] == "playback/pause"
        with pytest.raises(InvalidArgumentError):
            session.run_command("playback/fly")
        with pytest.raises(UnavailableError, match=r"no frame came within 0\.05 s"):
            session.wait_frame(0.05)
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name == "narupa-client" and thread is not fakes.thread._thread
    ]


def test_closing_twice_and_using_it_afterwards(fakes: Fakes) -> None:
    session = narupa_client.connect(trajectory=fakes.trajectory.address)
    session.close()
    session.close()
    with pytest.raises(UnavailableError, match="closed"):
        session.get_frame()


def test_no_lobby_leaves_no_thread() -> None:
    with pytest.raises(UnavailableError, match="cannot reach the lobby"):
        narupa_client.connect("127.0.0.1:1", wait_s=0)
