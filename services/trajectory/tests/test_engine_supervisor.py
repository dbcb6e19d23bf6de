"""Supervisor and loop together, with engines that are threads here: each account is told once, however its engine ends."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from engine_fakes import FakeSource

from narupa_shared.errors import FailedPreconditionError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.engine import loop as looping
from narupa_trajectory.engine import supervisor as supervising
from narupa_trajectory.engine.channel import BlockingChannel, FrameMemory, unnamed_memory
from narupa_trajectory.engine.connection import Engine, EngineSettings
from narupa_trajectory.engine.loop import EngineLoop
from narupa_trajectory.engine.supervisor import BlowUp, Supervisor
from narupa_trajectory.sources.source import Snapshot, SourceInfo

SANE = Interaction.parse("sane", particles=[0], owner="ann")
BOMB = Interaction.parse("bomb", particles=[1], owner="bob", kind="spring")


def settings(playing: bool = True) -> EngineSettings:
    return EngineSettings("demo:peptide", playing, 0.0, None, False, 0.001)


class CrashingSource(FakeSource):
    """Ends its engine without a word when `crash` is set."""

    crash = False

    def advance(self, steps: int) -> bool:
        if self.crash:
            raise SystemExit
        return super().advance(steps)


class ThreadProcess:
    """Looks like a process to the supervisor."""

    pid = 0
    returncode: int | None = None

    def __init__(self, loop: EngineLoop, ours: socket.socket) -> None:
        self._ended = asyncio.Event()
        self._on_end = partial(asyncio.get_running_loop().call_soon_threadsafe, self._ended.set)
        self._thread = threading.Thread(target=self._run, args=(loop, ours))
        self._thread.start()

    def _run(self, loop: EngineLoop, ours: socket.socket) -> None:
        try:
            loop.run()
        except (SystemExit, EOFError, OSError):
            pass
        finally:
            self.returncode = 1
            ours.close()
            self._on_end()

    async def wait(self) -> int:
        await self._ended.wait()
        self._thread.join()
        return 1


class Observed:
    """Everything that the supervisor tells, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.reasons: list[str] = []
        self.finished: list[FinishedInteraction] = []
        self.blow_ups: list[BlowUp] = []
        self.news = asyncio.Event()

    def _say(self, text: str) -> None:
        self.log.append(text)
        self.news.set()

    def engine_starting(self, text: str, progress: float) -> None: ...

    def engine_loaded(self, info: SourceInfo, topology: dict[str, Any], fresh: bool) -> None:
        self._say("loaded" if fresh else "restarted")

    def engine_frame(self, snapshot: Snapshot, urgent: bool) -> None:
        self._say("frame")

    def engine_reset(self) -> None:
        self._say("reset")

    def engine_finished(self, items: Sequence[FinishedInteraction]) -> None:
        self.finished += items
        self._say("finished")

    def engine_refused(self, id: str, reason: str) -> None:
        self._say(f"refused {id}")

    def engine_blew_up(self, blow_up: BlowUp) -> None:
        self.blow_ups.append(blow_up)
        self._say("blew up")

    def engine_failed(self, reason: str, retrying: bool) -> None:
        self.reasons.append(reason)
        self._say("failed" if not retrying else "retrying")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def told(self) -> list[tuple[str, str]]:
        return [(item.id, item.reason) for item in self.finished]


class Engines:
    """Starts one thread after another, with these sources.

    Attributes:
        gate: A start waits for it.
    """

    def __init__(self) -> None:
        self.sources: list[FakeSource] = []
        self.started: list[FakeSource] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self, settings: EngineSettings, checkpoint: bytes, limit_s: float, starting: Any) -> Engine:
        await self.gate.wait()
        source = self.sources.pop(0)
        self.started.append(source)
        if checkpoint:
            source.restore(checkpoint)
        ours, theirs = socket.socketpair()
        descriptor = unnamed_memory()
        memory = FrameMemory.create(descriptor, 3)
        keys = (
            "playing",
            "frame_interval_s",
            "steps_per_frame",
            "velocities",
            "checkpoint_interval_s",
            "on_blow_up",
            "energy_share",
        )
        loop = EngineLoop(BlockingChannel(theirs), memory, source, {key: getattr(settings, key) for key in keys})
        reader, writer = await asyncio.open_connection(sock=ours)
        process: Any = ThreadProcess(loop, theirs)
        attached = FrameMemory.attach(descriptor, 3)
        os.close(descriptor)
        return Engine(process, reader, writer, attached, source.info, {})


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines()

    async def ended(process: Any, at_once: bool = False) -> None:
        await process.wait()

    monkeypatch.setattr(looping, "CHECKPOINT_SHARE", 1.0)  # a slow machine is no reason to make fewer here
    monkeypatch.setattr(supervising, "start_engine", engines.start)
    monkeypatch.setattr(supervising, "end_process", ended)
    return engines


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def supervisor(observed: Observed, engines: Engines) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(observed, 5.0, 5.0)
    yield supervisor
    await supervisor.close()


async def pulled_for_a_while(supervisor: Supervisor, observed: Observed, *interactions: Interaction) -> None:
    """They act, and a checkpoint has been made meanwhile."""
    supervisor.set_interactions(interactions)
    ids = {item.id for item in interactions}
    async with asyncio.timeout(10):
        while not ids <= supervising.works_in(supervisor._checkpoint, 3).keys():
            await asyncio.sleep(0.002)


async def test_what_acts_is_told_when_another_source_is_loaded_and_when_the_service_stops(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    engines.sources = [FakeSource(), FakeSource()]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE)
    await supervisor.load(settings())
    assert observed.told() == [("sane", "another simulation was loaded")]
    assert [line for line in observed.log if line != "frame"] == ["loaded", "finished", "loaded"]
    await pulled_for_a_while(supervisor, observed, SANE)
    await supervisor.close()
    assert observed.told()[1:] == [("sane", "the service has stopped")]


async def test_what_acts_when_the_engine_dies_goes_on_and_is_told_once(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    first = CrashingSource()
    engines.sources = [first, FakeSource()]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE)
    first.crash = True
    await observed.until(lambda: "restarted" in observed.log)
    assert observed.told() == []
    supervisor.set_interactions(())
    await observed.until(lambda: bool(observed.finished))
    assert observed.told() == [("sane", "")]
    assert observed.finished[0].work > 0


async def test_an_engine_that_somebody_else_runs_is_joined_again(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    first = CrashingSource(restorable=False)
    engines.sources = [first, FakeSource(restorable=False)]
    await supervisor.load(settings())
    first.crash = True
    await observed.until(lambda: "restarted" in observed.log)
    (reason,) = observed.reasons
    assert reason.endswith("; joining it again")


async def test_what_is_let_go_while_the_engine_is_dead_is_told_with_its_work_at_the_checkpoint(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    first = CrashingSource()
    engines.sources = [first, FakeSource()]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE, BOMB)
    engines.gate.clear()
    first.crash = True
    await observed.until(lambda: "retrying" in observed.log)
    works = supervising.works_in(supervisor._checkpoint, 3)
    supervisor.set_interactions([BOMB])
    engines.gate.set()
    await observed.until(lambda: "restarted" in observed.log)
    assert observed.told() == [("sane", "it was let go while the engine was being restarted")]
    assert observed.finished[0].owner == "ann"
    assert observed.finished[0].work == works["sane"] > 0


async def test_what_acts_in_an_engine_that_stays_down_is_told(
    supervisor: Supervisor, observed: Observed, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "QUICK_FAILURES", 1)
    first = CrashingSource()
    engines.sources = [first]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE)
    first.crash = True
    await observed.until(lambda: "failed" in observed.log)
    ((id, reason),) = observed.told()
    assert id == "sane"
    assert reason.startswith("the engine failed: ")


async def test_a_culprit_is_told_once_and_stays_out_of_the_next_engine_too(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    first, second = CrashingSource(bombs={"bomb"}), FakeSource(bombs={"bomb"})
    engines.sources = [first, second]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE)
    supervisor.set_interactions([SANE, BOMB])
    await observed.until(lambda: bool(observed.blow_ups))
    (blow_up,) = observed.blow_ups
    assert (blow_up.culprit, blow_up.owner, blow_up.restored, blow_up.playing) == ("bomb", "bob", True, False)
    ((id, reason),) = observed.told()
    assert id == "bomb"
    assert "blow up" in reason
    assert supervisor.restarts == 0
    await supervisor.command("play")
    first.crash = True
    await observed.until(lambda: "restarted" in observed.log)
    supervisor.set_interactions([SANE, BOMB.moved((1.0, 1.0, 1.0))])
    await supervisor.command("step")
    assert [item.id for item in second.interactions] == ["sane"]
    supervisor.set_interactions(())
    await observed.until(lambda: len(observed.finished) == 2)
    assert observed.told()[1] == ("sane", "")


async def test_a_reset_tells_what_acts_and_lets_it_begin_anew(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    engines.sources = [FakeSource()]
    await supervisor.load(settings())
    await pulled_for_a_while(supervisor, observed, SANE)
    await supervisor.command("reset")
    assert observed.told() == [("sane", "the simulation was reset")]
    supervisor.set_interactions(())
    await observed.until(lambda: len(observed.finished) == 2)
    assert observed.told()[1] == ("sane", "")


async def test_what_a_command_has_done_is_known_before_what_comes_of_it(
    supervisor: Supervisor, observed: Observed, engines: Engines
) -> None:
    engines.sources = [FakeSource(bombs={"bomb"})]
    await supervisor.load(settings(playing=False))
    supervisor.set_interactions([BOMB])
    await supervisor.command("play", lambda: observed._say("plays"))
    await observed.until(lambda: bool(observed.blow_ups))
    assert observed.log.index("plays") < observed.log.index("blew up")
    supervisor.set_interactions([BOMB, SANE])
    with pytest.raises(FailedPreconditionError, match="blow up"):
        engines.started[0].bombs = {"bomb", "sane"}
        await supervisor.command("step")
