"""Keeps one engine process running: starts it, feeds it, hears from it, and starts it again from its last checkpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.interactions import Interaction
from narupa_shared.nanover_messages import state_change_of, unpacked
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.recordings.recording import MAX_ITEMS, StateChange
from narupa_trajectory.engine.accounts import OpenAccounts, finished_of, time_in, works_in
from narupa_trajectory.engine.channel import Message, read_message, recorded_snapshot, unjsoned
from narupa_trajectory.engine.connection import (
    STOP_LIMIT_S,
    Engine,
    EngineProcess,
    EngineSettings,
    Request,
    begun,
    domain_error,
    end_process,
    ending,
    start_engine,
    start_waiting,
)
from narupa_trajectory.sources.source import Snapshot, SourceInfo

log = structlog.get_logger(__name__)

COMMAND_LIMIT_S: Final = 30.0
# This many failures in a row, each within QUICK_S of the start before it, and the engine stays down.
QUICK_FAILURES: Final = 4
QUICK_S: Final = 10.0
BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class BlowUp:
    """One interaction has made the simulation blow up, and has been taken out of it.

    Attributes:
        culprit: The interaction's id.
        owner: Whose it was.
        reason: What was wrong with the simulation.
        time_ps: About when, in simulated time; None where the source has no time.
        restored_to_ps: Where the simulation stands now; None where it has no time, or could not go back.
        restored: Whether it has gone back to where all was well.
        playing: Whether it goes on by itself.
    """

    culprit: str
    owner: str
    reason: str
    time_ps: float | None
    restored_to_ps: float | None
    restored: bool
    playing: bool

    def accusation(self) -> str:
        """What the culprit's owner is told."""
        at = "" if self.time_ps is None else f" at {self.time_ps:.3f} ps"
        return f"it made the simulation blow up{at}: {self.reason}"

    def sentence(self) -> str:
        """What everyone is told: whose interaction it was, when, and what to do."""
        at = "" if self.time_ps is None else f" at {self.time_ps:.3f} ps"
        who = f"interaction {self.culprit} of {self.owner or 'somebody unknown'}"
        told = f"{who} made the simulation blow up{at} and has been taken out of it ({self.reason})"
        back = "the checkpoint" if self.restored_to_ps is None else f"the checkpoint at {self.restored_to_ps:.3f} ps"
        place = f"from {back}" if self.restored else "from where it is, since this engine cannot go back"
        if self.playing:
            return f"{told}; the simulation goes on without it {place}"
        reset = ", playback/reset starts over" if self.restored else ""
        return f"{told}; playback/play goes on without it {place}{reset}"


class EngineObserver(Protocol):
    """Who is told what the engine does. All calls come on the event loop and must not block."""

    def engine_starting(self, text: str, progress: float) -> None:
        """What an engine that does not run yet is doing, and how far it is, 0 to 1."""

    def engine_loaded(self, info: SourceInfo, topology: dict[str, Any], fresh: bool) -> None:
        """A source runs: newly loaded (`fresh`), or again after a failure."""

    def engine_frame(self, snapshot: Snapshot, urgent: bool) -> None:
        """A snapshot was taken; `urgent` ones go to everyone at once."""

    def engine_topology(self, topology: dict[str, Any]) -> None:
        """A recording goes on with another system, of which the next snapshot is."""

    def engine_state(self, change: StateChange) -> None:
        """What a recording says of the shared state."""

    def engine_ended(self) -> None:
        """A recording has come to its end, and stands there."""

    def engine_reset(self) -> None:
        """The source is back at its first frame; the next snapshot is of that."""

    def engine_finished(self, items: Sequence[FinishedInteraction]) -> None:
        """These interactions have ended, each told once."""

    def engine_refused(self, id: str, reason: str) -> None:
        """The engine cannot do interaction `id`."""

    def engine_blew_up(self, blow_up: BlowUp) -> None:
        """The simulation has blown up, and the engine has recovered from it."""

    def engine_failed(self, reason: str, retrying: bool) -> None:
        """The engine is down, and is being started again, or (not `retrying`) stays down until a load or reset."""


class Supervisor:
    """Owns the engine: one at a time, restarted from the last checkpoint whenever it dies."""

    def __init__(self, observer: EngineObserver, load_limit_s: float, silence_limit_s: float) -> None:
        self._observer = observer
        self._load_limit_s = load_limit_s
        self._silence_limit_s = silence_limit_s
        self._engine: Engine | None = None
        self._waiting: EngineProcess | None = None
        self._settings: EngineSettings | None = None
        self._task: asyncio.Task[None] | None = None
        self._checkpoint = b""
        self._checkpoint_time_ps: float | None = None
        self._next_id = 0
        self._interactions: Sequence[Interaction] = ()
        self._sent: Sequence[Interaction] = ()  # what the engine was told last
        self._quarantined: set[str] = set()
        self._accounts = OpenAccounts()
        self._interactions_unapplied = False
        self._interactions_waiting = False
        self._every = False
        self._waits = False
        self._wanted_at: float | None = None
        self._failures = 0
        self._switching = asyncio.Lock()
        self._last_time_ps: float | None = None
        self.steps_per_second = 0.0
        self.restarts = 0
        self.failure = ""
        self.on_checkpoint: Callable[[bytes, float | None], None] = lambda block, time_ps: None

    @property
    def info(self) -> SourceInfo | None:
        """What runs, or None while nothing does."""
        return self._engine.info if self._engine else None

    @property
    def settings(self) -> EngineSettings | None:
        return self._settings

    @property
    def pid(self) -> int | None:
        """The engine's process id, for operators and tests."""
        return self._engine.process.pid if self._engine else None

    async def load(self, settings: EngineSettings, checkpoint: bytes = b"") -> None:
        """`settings.source` runs, from its first frame or a checkpoint of it on. When it cannot, what ran before goes on.

        Raises:
            NarupaError: why it cannot be loaded.
        """
        async with self._switching:
            engine = await self._started(settings, checkpoint)
            await self._end("another simulation was loaded")
            self._settings = settings
            self._failures = 0
            self._adopt(engine, fresh=True)
            self._checkpoint, self._checkpoint_time_ps = checkpoint, time_in(checkpoint, engine.info.particle_count)

    async def _started(self, settings: EngineSettings, checkpoint: bytes) -> Engine:
        waiting, self._waiting = self._waiting, None
        starting = self._observer.engine_starting
        if waiting is not None and waiting.source == settings.source and waiting.process.returncode is None:
            return await begun(waiting, settings, checkpoint, self._load_limit_s, starting)
        if waiting is not None:
            await waiting.dispose()
        return await start_engine(settings, checkpoint, self._load_limit_s, starting)

    async def prepare(self, settings: EngineSettings) -> None:
        """An engine process has loaded `settings.source` and waits, so that `load` of that source takes no time.

        Raises:
            NarupaError: why it cannot be loaded.
        """
        async with self._switching:
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                await waiting.dispose()
            self._waiting = await start_waiting(settings, self._load_limit_s)
            log.info("engine_waits", source=settings.source, pid=self._waiting.process.pid)

    async def close(self) -> None:
        """No engine runs, nor waits. Idempotent."""
        async with self._switching:
            if self._waiting is not None:
                await self._waiting.dispose()
                self._waiting = None
            await self._end("the service has stopped")

    async def command(self, do: str, on_done: Callable[[], None] | None = None, **arguments: Any) -> bytes:
        """Runs a command in the engine and returns its answer.

        Once the engine has done it, and before it is heard of again, `on_done` is called.

        Raises:
            UnavailableError: no engine runs just now.
            NarupaError: the engine refused.
        """
        engine = self._engine
        if engine is None:
            raise UnavailableError(f"the engine is not running: {self.failure or 'it is starting'}")
        self._next_id += 1
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        id = self._next_id
        engine.replies[id] = Request(future, on_done)
        engine.send({"do": do, "id": id, **arguments})
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S):
                return await future
        except TimeoutError:
            raise UnavailableError(f"the engine did not answer {do} within {COMMAND_LIMIT_S:g} s") from None

    async def restart_from_start(self) -> None:
        """The present source runs again from its first frame, whatever state its engine is in."""
        if self._settings is None:
            raise UnavailableError("no source is loaded")
        await self.load(self._settings)

    def want(self, at: float) -> None:
        """The next snapshot is due at `at` (time.monotonic) or at the first frame after it."""
        if self._engine and at != self._wanted_at:
            self._wanted_at = at
            self._engine.send({"do": "want", "at": at})

    def every(self, on: bool) -> None:
        """Whether each frame is wanted."""
        if on != self._every:
            self._every = on
            if self._engine:
                self._engine.send({"do": "every", "on": on})

    def wait(self, on: bool) -> None:
        """Whether the source stands where it is, though it plays, until this is called again."""
        if on != self._waits:
            self._waits = on
            if self._engine:
                self._engine.send({"do": "wait", "on": on})

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """These interactions, and no others, act from the engine's next frame on. Newer calls overtake unsent ones."""
        self._interactions = interactions
        self._quarantined &= {item.id for item in interactions}
        if self._interactions_unapplied:
            self._interactions_waiting = True
        else:
            self._send_interactions()

    def _send_interactions(self) -> None:
        self._interactions_waiting = False
        if self._engine is None:
            return
        self._interactions_unapplied = True
        self._sent = self._acting
        self._engine.send({"do": "interactions", "set": [item.to_json() for item in self._sent]})

    @property
    def interactions_acting(self) -> int:
        """How many interactions act on the simulation, which runs."""
        return len(self._sent) if self._engine else 0

    @property
    def _acting(self) -> Sequence[Interaction]:
        return [item for item in self._interactions if item.id not in self._quarantined]

    def _adopt(self, engine: Engine, fresh: bool) -> None:
        self._engine = engine
        self._wanted_at = None
        self._interactions_unapplied = False
        self.failure = ""
        if fresh:
            self._forget_checkpoint()
            self._last_time_ps = None
        log.info(
            "engine_running", source=engine.info.name, particles=engine.info.particle_count, pid=engine.process.pid
        )
        for do, on in (("every", self._every), ("wait", self._waits)):
            if on:
                engine.send({"do": do, "on": True})
        if self._interactions:
            self._send_interactions()
        self._observer.engine_loaded(engine.info, engine.topology, fresh)
        self._task = asyncio.create_task(self._supervise(engine), name="engine-supervisor")

    async def _end(self, reason: str) -> None:
        """No engine runs, and what acted in it has been told."""
        task, self._task = self._task, None
        engine, self._engine = self._engine, None
        if engine:
            engine.send({"do": "stop", "reason": reason})
        heard_out = True
        if task:
            if engine:
                _, late = await asyncio.wait({task}, timeout=STOP_LIMIT_S)
                heard_out = not late
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if engine:
            await self._dispose(engine, at_once=not heard_out)
        self._tell(self._accounts.close(reason))

    def _tell(self, items: Sequence[FinishedInteraction]) -> None:
        if items:
            self._observer.engine_finished(items)

    def _forget_checkpoint(self) -> None:
        self._checkpoint, self._checkpoint_time_ps = b"", None

    async def _dispose(self, engine: Engine, at_once: bool) -> None:
        await end_process(engine.process, at_once)
        engine.writer.close()
        for request in engine.replies.values():
            if not request.answer.done():
                request.answer.set_exception(UnavailableError("the engine stopped before it answered"))

    async def _supervise(self, engine: Engine) -> None:
        """Hears from `engine` until it ends, then from its successors."""
        while True:
            reason, retryable = await self._listen(engine)
            if self._engine is not engine:
                return  # it was asked to stop
            at_ps = time_in(self._checkpoint, engine.info.particle_count)
            self._checkpoint_time_ps = self._checkpoint_time_ps if at_ps is None else at_ps
            self._engine = None
            self.steps_per_second = 0.0
            await self._dispose(engine, at_once=not reason)  # one that has said why is about to end by itself
            quick = time.monotonic() - engine.started_at < QUICK_S
            self._failures = self._failures + 1 if quick else 1
            reason = reason or f"the engine {ending(engine.process)}"
            successor = await self._successor(reason, engine.info.restorable) if retryable else None
            if successor is None:
                self.failure = reason
                log.error("engine_failed", reason=reason)
                self._tell(self._accounts.close(f"the engine failed: {reason}"))
                self._observer.engine_failed(reason, retrying=False)
                return
            engine = successor

    async def _successor(self, reason: str, restorable: bool) -> Engine | None:
        """The engine that goes on from the last checkpoint; None once restarting has failed too often."""
        assert self._settings is not None
        while self._failures < QUICK_FAILURES:
            if not restorable:
                then = "joining it again"
            elif self._checkpoint_time_ps is None:
                then = "restarting from the start"
            else:
                then = f"restarting from the checkpoint at {self._checkpoint_time_ps:.2f} ps"
            self.failure = f"{reason}; {then}"
            log.warning("engine_restarting", reason=reason, checkpoint_time_ps=self._checkpoint_time_ps)
            self._observer.engine_failed(self.failure, retrying=True)
            await asyncio.sleep(BACK_OFF_S[min(self._failures - 1, len(BACK_OFF_S) - 1)])
            try:
                engine = await start_engine(
                    self._settings, self._checkpoint, self._load_limit_s, self._observer.engine_starting
                )
            except NarupaError as error:
                self._failures += 1
                reason = str(error)
                continue
            self.restarts += 1
            task = self._task
            self._adopt_again(engine)
            self._task = task
            return engine
        return None

    def _adopt_again(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted_at = None
        self._interactions_unapplied = False
        self.failure = ""
        log.info("engine_resumed", source=engine.info.name, time_ps=self._checkpoint_time_ps, pid=engine.process.pid)
        for do, on in (("every", self._every), ("wait", self._waits)):
            if on:
                engine.send({"do": do, "on": True})
        if engine.info.restorable:
            works = works_in(self._checkpoint, engine.info.particle_count)
            self._accounts.rolled_back(works, self._checkpoint_time_ps or 0.0)
        still = {item.id for item in self._acting}
        self._tell(self._accounts.close("it was let go while the engine was being restarted", still=still))
        self._send_interactions()
        self._observer.engine_loaded(engine.info, engine.topology, False)

    async def _listen(self, engine: Engine) -> tuple[str, bool]:
        """Why the engine ended ("" when it did not say), and whether it is worth another try."""
        while True:
            try:
                async with asyncio.timeout(self._silence_limit_s):
                    header, block = await read_message(engine.reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return "", True
            except TimeoutError:
                if self._settings and not self._settings.playing:
                    continue  # a paused engine has nothing to say
                return f"the engine has made no step for {self._silence_limit_s:g} s", True
            match header["event"]:
                case "frame":
                    recorded = "recorded" in header
                    snapshot = recorded_snapshot(header, block) if recorded else engine.memory.read(header)
                    snapshot.taken_at = header["taken_at"]
                    engine.send({"do": "ack", "slot": header["slot"]})
                    self._wanted_at = None
                    self._last_time_ps = snapshot.time_ps
                    self._accounts.seen(snapshot)
                    self._observer.engine_frame(snapshot, header["urgent"])
                case "topology":
                    self._observer.engine_topology(unjsoned(block))
                case "state":
                    self._observer.engine_state(replayed_change(header, block))
                case "ended":
                    if self._settings:
                        self._settings.playing = False
                    self._observer.engine_ended()
                case "statistics":
                    self.steps_per_second = header["steps_per_second"]
                case "checkpoint":
                    time_ps = header["time_ps"]
                    self._checkpoint = block
                    self._checkpoint_time_ps = self._last_time_ps if time_ps is None else time_ps
                    self.on_checkpoint(block, self._checkpoint_time_ps)
                case "interactions_applied":
                    self._interactions_unapplied = False
                    if engine.info.live:
                        self._accounts.applied(self._sent, self._last_time_ps or 0.0)
                    if self._interactions_waiting:
                        self._send_interactions()
                case "finished":
                    items = [finished_of(item) for item in header["items"]]
                    for item in items:
                        self._accounts.told(item.id)
                    self._tell(items)
                case "diverged":
                    self._blew_up(BlowUp(**{name: header[name] for name in BlowUp.__dataclass_fields__}))
                case "refused":
                    self._observer.engine_refused(header["interaction"], header["reason"])
                case "reset":
                    self._forget_checkpoint()
                    self._last_time_ps = 0.0
                    self._tell(self._accounts.close("the simulation was reset"))
                    if engine.info.live:
                        self._accounts.applied(self._sent, 0.0)
                    self._observer.engine_reset()
                case "reply":
                    self._reply(engine, header, block)
                case "failed":
                    return header["text"], True

    def _blew_up(self, blow_up: BlowUp) -> None:
        """The culprit acts no more, in this engine or the next, until it is gone from what is wanted."""
        self._quarantined.add(blow_up.culprit)
        if self._settings:
            self._settings.playing = blow_up.playing
        if blow_up.restored and self._engine:
            works = works_in(self._checkpoint, self._engine.info.particle_count)
            self._accounts.rolled_back(works, blow_up.restored_to_ps or 0.0)
        self._tell(self._accounts.close(blow_up.accusation(), only=blow_up.culprit))
        self._observer.engine_blew_up(blow_up)

    def _reply(self, engine: Engine, header: Message, block: bytes) -> None:
        request = engine.replies.pop(header["id"])
        # Whoever asked may have left, but the engine has done it.
        if "error" not in header and request.on_done:
            request.on_done()
        if request.answer.done():
            return
        if "error" in header:
            request.answer.set_exception(domain_error(header["error"]["kind"], header["error"]["text"]))
        else:
            request.answer.set_result(block)


def replayed_change(header: Message, block: bytes) -> StateChange:
    """What an engine says of the shared state that it replays."""
    updates, removals = state_change_of(unpacked(block, MAX_ITEMS)["state"])
    return StateChange(updates, tuple(removals), header["whole"])
