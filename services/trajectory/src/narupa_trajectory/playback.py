"""Playback: the one owner of what runs, what its frames are, and who gets them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from narupa_shared import frame_keys as keys
from narupa_shared.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NarupaError,
    NoLongerKeptError,
    QuotaError,
    UnavailableError,
)
from narupa_shared.fanout import Broadcaster
from narupa_shared.frames import Frame
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.published import Form, PublishedFrame, Topology
from narupa_shared.recordings.recording import StateChange
from narupa_shared.subscriptions import Mode, Subscription
from narupa_shared.views import EVERYTHING, View
from narupa_trajectory.checkpoint_store import Saved
from narupa_trajectory.config import TrajectoryConfig
from narupa_trajectory.engine.channel import snapshot_in
from narupa_trajectory.engine.connection import EngineSettings
from narupa_trajectory.engine.supervisor import BlowUp, Supervisor
from narupa_trajectory.published_frames import PublishedFrames, check_fit
from narupa_trajectory.recent_frames import RecentFrames
from narupa_trajectory.recorders import Recorders
from narupa_trajectory.relayed_frames import Relayed, continued
from narupa_trajectory.reports import FinishedReports
from narupa_trajectory.selections import Selections
from narupa_trajectory.snapshot_items import snapshot_items
from narupa_trajectory.sources.catalogue import SourceSpec, check_spec, source_name
from narupa_trajectory.sources.source import Snapshot, SourceInfo

log = structlog.get_logger(__name__)


# A newcomer gets the last frame when it is no older than this; else the next one, if that comes soon enough.
FRESH_S: Final = 0.2
STALE_AFTER_S: Final = 1.0
# How long everyone is told of a blow-up that the simulation has gone on from by itself, s.
BLOW_UP_TOLD_S: Final = 5.0
# Frames may be this many more than when a checkpoint was kept, or as many as came since the one before that, times the latter,
# before the next is due.
INDEX_MARGIN: Final = 1000
INDEX_GROWTH: Final = 4
# How long a step is waited for to be shown, s.
SHOWN_LIMIT_S: Final = 2.0
# The longest wall-clock time between frames that can be asked for, s.
MAX_INTERVAL_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording was played at another service, and how.

    Attributes:
        run_id: The recording's.
        frame: Its frame that was shown last.
        paused: Whether it stood there.
        interval_s: Wall-clock time between frames, s; None: whatever it is here.
    """

    run_id: str
    frame: int
    paused: bool = False
    interval_s: float | None = None


class Playback:
    """What runs, and its frames on their way to everyone. Lives on the event loop's thread."""

    def __init__(
        self,
        config: TrajectoryConfig,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self.selections = Selections(config.selection_limit_s, clock)
        self.broadcaster = Broadcaster(self._wanted_changed, self.selections.particles)
        self.broadcaster.producer_interval_s = config.frame_interval_s
        self.reports = FinishedReports(new_id(), max_watchers=config.max_subscribers)
        self.published = PublishedFrames(
            clock, config.published_frames_per_s, config.published_frames_burst, config.max_message_bytes
        )
        self.engine = Supervisor(self, config.load_limit_s, config.silence_limit_s)
        self.recorders = Recorders(
            self.broadcaster, self.engine.wait, config.wait_for_recorders, config.recorder_patience_s
        )
        for text in config.sources:
            check_spec(text)
        self.specs: list[SourceSpec] = [SourceSpec.parse(text) for text in config.sources]
        self.names: list[str] = [source_name(spec) for spec in self.specs]
        self.source_index = 0
        self.playing = not config.paused
        self.frame_interval_s = config.frame_interval_s
        self.steps_per_frame = config.steps_per_frame
        self.info: SourceInfo | None = None
        self.counter = -1
        self.run_id = ""  # a frame's index, and a recording's frame number, mean something within one run
        self.loads = 0
        self.exception = ""
        self.blow_ups = 0
        self.frames_made = 0
        self.failed = False
        self.idle = False  # paused by itself, because nobody watches
        self.starting = ("", 0.0)  # what the engine does until it runs, and how far it is, 0 to 1
        self._watched = False
        self._topology: Topology | None = None
        self._topology_items: dict[str, Any] = {}
        self._had_exception = False
        self._blown_up = False  # `exception` is of a blow-up that the engine has recovered from
        self._exception_until = math.inf
        self._frame_index = 0
        self._recent = RecentFrames(config.recent_frames, config.recent_bytes)
        self._published_at = -math.inf
        self._asking = False
        self._placing = asyncio.Lock()
        self._newest_waiters: list[asyncio.Future[PublishedFrame]] = []
        self.epoch = 0  # in which this service leads, where it is a replica
        self._continues: Saved | None = None  # what the engine that is being loaded goes on with
        self._checkpoint: tuple[bytes, float | None] = (b"", None)
        self._checkpoint_at = -math.inf
        self._index_limit = 0
        self._saved_index = 0
        self.engine.on_checkpoint = self.checkpoint_made
        self.may_show: Callable[[], bool] = lambda: True
        self.on_saved: Callable[[Saved], None] | None = None
        self.on_loaded: Callable[[], None] = lambda: None
        self.on_status: Callable[[], None] = lambda: None
        # Each is called when somebody begins to watch, or nobody does any more.
        self.on_audience: list[Callable[[], None]] = []
        self.on_ended: Callable[[str, str], None] = lambda id, reason: None
        self.on_replayed: Callable[[StateChange], None] = lambda change: None

    # What the engine tells.

    def engine_starting(self, text: str, progress: float) -> None:
        self.starting = (text, progress)
        self.on_status()

    def engine_loaded(self, info: SourceInfo, topology: dict[str, Any], fresh: bool) -> None:
        self.info = info
        self.failed = False
        self._forgive()
        if fresh:
            self.loads += 1
            self._topology_items = topology
            self._start_over()
        elif not info.live:
            self.engine_topology(topology)  # it starts over, perhaps with another system than it broke off with
        paced = self.engine.settings is not None and self.engine.settings.own_pace
        own_s = info.frame_interval_s if paced else None
        self.broadcaster.producer_interval_s = self.frame_interval_s if own_s is None else own_s
        self.on_replayed(StateChange(whole=True))  # what a recording says of the state it says after this
        self.on_loaded()
        self.on_status()
        self._wanted_changed()

    def engine_topology(self, topology: dict[str, Any]) -> None:
        assert self.info is not None
        self.info = replace(self.info, particle_count=int(topology[keys.PARTICLE_COUNT]))
        self._topology_items = topology
        self._start_over()
        self.on_loaded()  # no other load: the recording itself says what becomes of the shared state

    def engine_state(self, change: StateChange) -> None:
        self.on_replayed(change)

    def engine_ended(self) -> None:
        self._goes(False)
        self.on_status()

    def engine_reset(self) -> None:
        self._forgive()
        self._start_over()
        self.on_status()

    def engine_frame(self, snapshot: Snapshot, urgent: bool) -> None:
        self.frames_made += 1
        if not self.published.replaces:
            self._publish(self._items(snapshot), urgent, snapshot.taken_at)
        elif (current := self.broadcaster.current) and current.frame.values.get(keys.EXCEPTION, "") != self.exception:
            # The engine is back, if not its frames.
            self._publish({**current.frame.values, **current.frame.arrays, **self._service_items()}, urgent=True)

    def engine_finished(self, items: Sequence[FinishedInteraction]) -> None:
        self.reports.add(items, self.run_id)
        for item in items:
            log.info(
                "interaction_finished",
                id=item.id,
                owner=item.owner,
                potential=item.potential,
                particles=len(item.particles),
                start_time_ps=item.start_time_ps,
                end_time_ps=item.end_time_ps,
                duration_s=round(item.duration_s, 3),
                work=item.work,
                reason=item.reason,
            )

    def engine_refused(self, id: str, reason: str) -> None:
        log.warning("interaction_refused", id=id, reason=reason)
        self.on_ended(id, f"the simulation refuses it: {reason}")

    def engine_blew_up(self, blow_up: BlowUp) -> None:
        self.blow_ups += 1
        self._goes(blow_up.playing)
        self._except(blow_up.sentence())
        self._blown_up = True
        if blow_up.playing:
            self._exception_until = self._clock() + BLOW_UP_TOLD_S
        log.warning(
            "simulation_blew_up",
            id=blow_up.culprit,
            owner=blow_up.owner,
            time_ps=blow_up.time_ps,
            reason=blow_up.reason,
        )
        self.on_ended(blow_up.culprit, blow_up.accusation())
        self.on_status()

    def engine_failed(self, reason: str, retrying: bool) -> None:
        self.failed = not retrying
        self._blown_up = False
        self._except(reason)
        self.on_status()

    def _except(self, reason: str) -> None:
        """Everyone has the last frame again, at once and with `reason`."""
        self.exception, self._exception_until = reason, math.inf
        current = self.broadcaster.current
        if current:
            self._had_exception = True
            items = {**current.frame.values, **current.frame.arrays, keys.EXCEPTION: reason}
            self._publish(items, urgent=True)

    def _forgive(self) -> None:
        self.exception, self._exception_until, self._blown_up = "", math.inf, False

    def _start_over(self) -> None:
        """The next frame is the first of its kind: index 0, everything in it, and a higher simulation counter."""
        assert self.info is not None
        continues, self._continues = self._continues, None
        if continues is not None and self._resumes(continues):
            return
        self.counter += 1
        self._frame_index = 0
        self.published.end()
        self._had_exception = False
        self._recent.clear()
        self.run_id = self.info.content_id or self._new_id()
        self._topology = Topology(self._whole_topology)
        self._checkpoint, self._checkpoint_at = (b"", None), -math.inf
        self._saved_index = 0
        self.keep()

    @property
    def _whole_topology(self) -> dict[str, Any]:
        assert self.info is not None
        return {**self._topology_items, keys.PARTICLE_COUNT: float(self.info.particle_count), **self._facts}

    def _resumes(self, saved: Saved) -> bool:
        """Whether the run of another replica's goes on here: then the next frame has a higher index than all it had."""
        assert self.info is not None
        relayed = self._topology if self.run_id == saved.run_id else None
        if not saved.block or saved.run_id == self.info.content_id:
            return False
        self.counter = saved.counter
        self._frame_index = max(saved.index_limit, self._frame_index if relayed is not None else 0)
        self.run_id = saved.run_id
        self._recent.clear()
        self._topology = Topology(self._whole_topology) if relayed is None else continued(relayed, self._whole_topology)
        self._checkpoint = saved.block, saved.time_ps
        self._saved_index = self._frame_index
        self.keep()
        return True

    @property
    def _facts(self) -> dict[str, Any]:
        """What the service says of what runs."""
        name = self.info.name if self.info else ""
        return {keys.COUNTER: float(self.counter), keys.SIMULATION_NAME: name, keys.RUN: self.run_id}

    def _items(self, snapshot: Snapshot) -> dict[str, Any]:
        """The keys of a frame of the simulation that change with time."""
        if self._clock() > self._exception_until:
            self._forgive()
            self.on_status()
        return snapshot_items(snapshot) | self._service_items()

    def _service_items(self) -> dict[str, Any]:
        # Once clients have been told of an exception they must also be told that it is over.
        exception = {keys.EXCEPTION: self.exception} if self._had_exception else {}
        epoch = {keys.EPOCH: float(self.epoch)} if self.epoch else {}
        return {keys.TIMESTAMP: self._clock(), **epoch, **exception}

    def _publish(
        self, items: dict[str, Any], urgent: bool, taken_at: float | None = None, *, repeated: bool = False
    ) -> None:
        topology = self.published.topology or self._topology
        if topology is None or not (repeated or self.may_show()):
            return
        frame = Frame.of(self._frame_index, items)
        published = self.broadcaster.publish(frame, topology, self._clock(), urgent, taken_at=taken_at)
        self._frame_index += 1
        self._published_at = self._clock()
        # Its own, so that what was made for those who follow is not kept with it.
        self._recent.keep(PublishedFrame(frame, topology, lambda: None))
        waiters, self._newest_waiters = self._newest_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(published)
        self.recorders.look()
        self._wanted_changed()
        if self.on_saved and self._frame_index >= self._index_limit:
            self.keep()

    # What replicas leave to each other, and show of each other.

    def checkpoint_made(self, block: bytes, time_ps: float | None) -> None:
        """The engine has made a checkpoint of what runs."""
        self._checkpoint, self._checkpoint_at = (block, time_ps), self._clock()
        self.keep()

    def keep(self) -> None:
        """What another replica would go on from is offered to be kept, where any is."""
        settings = self.engine.settings
        if self.on_saved is None or settings is None or not self.run_id or not self.may_show():
            return
        grown = self._frame_index - self._saved_index
        self._saved_index = self._frame_index
        self._index_limit = self._frame_index + max(INDEX_MARGIN, INDEX_GROWTH * grown)
        block, time_ps = self._checkpoint
        self.on_saved(
            Saved(
                epoch=self.epoch,
                source=settings.source,
                run_id=self.run_id,
                counter=self.counter,
                index_limit=self._index_limit,
                playing=self.playing,
                frame_interval_s=self.frame_interval_s,
                own_pace=settings.own_pace,
                steps_per_frame=self.steps_per_frame,
                time_ps=time_ps,
                block=block,
            )
        )

    def show_relayed(self, relayed: Relayed) -> PublishedFrame:
        """Everybody who is due one gets a frame of the service that leads, as it came."""
        facts, now = relayed.topology.frame.values, self._clock()
        self._topology = relayed.topology
        self._frame_index = relayed.frame.index + 1
        self.run_id = str(facts.get(keys.RUN, ""))
        self.counter = int(float(facts.get(keys.COUNTER, self.counter)))
        self._had_exception = keys.EXCEPTION in relayed.frame.values
        self._published_at = now
        made: dict[Form, bytes] = {} if relayed.response is None else {"v1": relayed.response}
        return self.broadcaster.publish(relayed.frame, relayed.topology, now, relayed.urgent, made)

    async def go_on(self, saved: Saved, after: tuple[str, int] | None = None) -> None:
        """What another replica left runs here: from its checkpoint on, in its run, or as `start` where there is none that fits.

        Raises:
            NarupaError: it cannot be loaded.
            ValueError: it is no source of this service.
        """
        self.source_index = [spec.text for spec in self.specs].index(saved.source)
        self.playing, self.idle = saved.playing, False
        self.counter = max(self.counter, saved.counter)
        self.frame_interval_s, self.steps_per_frame = saved.frame_interval_s, saved.steps_per_frame
        settings = replace(self.settings_of(self.source_index), own_pace=saved.own_pace, after=after)
        if saved.block:
            self._continues = saved
            try:
                await self.engine.load(settings, saved.block)
                return
            except NarupaError as error:
                log.error("checkpoint_not_restored", reason=str(error), time_ps=saved.time_ps)
            finally:
                self._continues = None
        await self.engine.load(settings)

    def explain(self, reason: str) -> None:
        """Everyone has the last frame again, at once and with `reason`, whether or not this service may show another."""
        current, shown = self.broadcaster.current, self.published.topology or self._topology
        if current is None or shown is None or current.topology.base is not shown.base:
            return
        self._had_exception = True
        items = {**current.frame.values, **current.frame.arrays, keys.EXCEPTION: reason}
        self._publish(items, urgent=True, repeated=True)

    def stand_down(self) -> None:
        """No engine runs here, and another service makes the frames."""
        self.epoch = 0
        self.info, self.failed, self.idle = None, False, False
        self._forgive()
        self.published.end()
        self.reports.drain(UnavailableError("another replica leads now; watch again"))
        self.reports = FinishedReports(self._new_id(), max_watchers=self._config.max_subscribers)
        self.on_status()

    # What clients publish.

    async def publish_frame(self, frame: Frame, owner: str) -> int:
        """`frame` goes to everyone: in place of the simulation, which pauses, if its index is 0, else over what is shown.

        Returns:
            The index under which they get it.

        Raises:
            InvalidArgumentError: a key, type or shape is wrong, or does not fit what is shown.
            FailedPreconditionError: it has keys of the simulation, which runs.
            QuotaError: `owner` publishes too many, or too much.
            UnavailableError: the engine is starting.
        """
        self.published.admit(owner)
        given = self.published.checked(frame)
        if given.index:
            return self._show_over(given)
        check_fit(given, Frame())

        def show() -> None:
            self._goes(False)
            facts = {keys.COUNTER: float(self.counter)}
            self.published.replace(given, facts, self._new_id())
            self._publish(self._service_items(), urgent=True)
            self.on_status()

        if self.failed:
            show()
        else:
            await self.engine.command("pause", show)
        log.info("frame_published_in_place", owner=owner, particles=self.particle_count)
        return 0

    def _show_over(self, given: Frame) -> int:
        current = self.broadcaster.current
        shown = self.published.topology or self._topology
        if current is None or shown is None or current.topology.base is not shown.base:
            raise UnavailableError("there is no frame yet that this one could be put over; try again in a moment")
        items = self.published.overlay(given, current.frame, shown, running=self.playing and not self.failed)
        self._publish(items | self._service_items(), urgent=True)
        return self._frame_index - 1

    def _bring_back(self) -> None:
        """The simulation's next frame is shown, whole, where clients have published others in its place."""
        if self.published.replaces and self._topology is not None:
            self.published.end()
            simulation = self._topology.frame
            self._topology = Topology({**simulation.values, **simulation.arrays})

    @property
    def frame_age_s(self) -> float:
        """How long ago the last frame was shown, s; infinity before the first."""
        return self._clock() - self._published_at

    @property
    def checkpoint_age_s(self) -> float:
        """How long ago the engine gave the last checkpoint, s; infinity before the first of what runs."""
        return self._clock() - self._checkpoint_at

    @property
    def shown_run_id(self) -> str:
        """The run of the frames that are shown now."""
        return self.published.run_id or self.run_id

    @property
    def particle_count(self) -> int:
        """Of the frames that are shown now."""
        shown = self.published.topology
        if shown is None or not self.published.replaces:
            return self.info.particle_count if self.info else 0
        return int(float(shown.frame.values.get(keys.PARTICLE_COUNT, 0.0)))

    # What subscribers want.

    def subscribe(
        self, form: Form, mode: Mode, interval_s: float, name: str, view: View = EVERYTHING, *, watched: bool = True
    ) -> Subscription:
        """A new stream of frames. An interval of 0 means the service's default; a shorter one than allowed is lengthened.

        Without `watched` it is of a replica where nobody watches.

        Raises:
            InvalidArgumentError: a negative or non-finite interval; `name` is the field's name.
            QuotaError: too many streams, or different views.
        """
        check_interval(interval_s, name)
        if len(self.broadcaster.subscriptions) >= self._config.max_subscribers:
            raise QuotaError(
                f"{self._config.max_subscribers} streams of frames are open, which is this service's limit"
            )
        interval = interval_s or self._config.subscriber_interval_s
        interval = max(interval, self._config.minimum_subscriber_interval_s)
        soon = self.playing and self.engine.info is not None
        # Of what is relayed few frames come while nobody watches: who wants every one is not to begin before a gap.
        soon |= mode == "all" and self.info is None and not self.watched
        stale_after_s = STALE_AFTER_S if soon and self._clock() - self._published_at > FRESH_S else 0.0
        subscription = self.broadcaster.subscribe(form, mode, interval, stale_after_s, view)
        subscription.watched = watched
        return subscription

    async def subscribe_after(
        self, place: Place, mode: Mode, interval_s: float, view: View = EVERYTHING
    ) -> Subscription:
        """As `subscribe`, natively. A recording that nobody watches here goes on from `place` first, if it is of that one.

        Raises:
            InvalidArgumentError: a place that is not in the recording, or a bad interval.
            QuotaError: too many streams.
            UnavailableError: the engine did not do it.
        """
        check_interval(interval_s, "frame_interval_s")
        pace = place.interval_s
        if pace is not None and not 0 <= pace <= MAX_INTERVAL_S:
            reason = f"must be 0 to {MAX_INTERVAL_S:g} seconds"
            raise InvalidArgumentError("place.dynamics_interval_s", pace, reason)
        async with self._placing:
            count = (self.info.frame_count or 0) if self.info and not self.info.live else 0
            if self.watched or not count or place.run_id != self.shown_run_id or self.engine.info is None:
                return self.subscribe("v1", mode, interval_s, "frame_interval_s", view)
            if place.frame >= count:
                reason = f"the recording has frames 0 to {count - 1}"
                raise InvalidArgumentError("place.frame", place.frame, reason)
            return await self._take_over(
                place, count, lambda: self.subscribe("v1", mode, interval_s, "frame_interval_s", view)
            )

    async def _take_over(self, place: Place, count: int, subscribe: Callable[[], Subscription]) -> Subscription:
        """What `subscribe` makes while the recording stands at the frame that is to be its first."""
        start = place.frame if place.paused else (place.frame + 1) % count
        subscription: Subscription | None = None
        try:
            self._bring_back()
            await self.engine.command("stand", index=start)
            self.playing = self.idle = False
            self._remember(playing=False)
            subscription = subscribe()
            self.engine.every(self.broadcaster.every_frame_wanted)  # before it plays on
            if place.interval_s is not None and place.interval_s != self.frame_interval_s:
                await self.set_dynamics_interval(place.interval_s)
            if not place.paused:
                await self.play()
        except BaseException:
            if subscription is not None:
                self.broadcaster.unsubscribe(subscription)
            if not place.paused:
                with contextlib.suppress(NarupaError):
                    await self.play()
            raise
        log.info("recording_taken_over", frame=start, paused=place.paused)
        return subscription

    def _wanted_changed(self) -> None:
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        """Asks the engine for a snapshot at the time when somebody is due one, and for none when nobody is."""
        self._asking = False
        if self.watched != self._watched:
            self._watched = self.watched
            for changed in self.on_audience:
                changed()
        self.recorders.look()
        self.engine.every(self.broadcaster.every_frame_wanted)
        due = self.broadcaster.next_due()
        if due < math.inf:
            self.engine.want(max(due, 0.0))

    async def newest(self, limit_s: float = 10.0) -> PublishedFrame:
        """The source's present frame. Raises: UnavailableError when none comes."""
        current, age = self.broadcaster.current, self._clock() - self._published_at
        # However often it is asked, the engine shows no more frames for this than for a subscriber.
        if current and (not self.advancing or age < self._config.subscriber_interval_s):
            return current
        waiter: asyncio.Future[PublishedFrame] = asyncio.get_running_loop().create_future()
        self._newest_waiters.append(waiter)
        try:
            if len(self._newest_waiters) == 1:
                await self.engine.command("show")
            async with asyncio.timeout(limit_s):
                return await waiter
        except TimeoutError:
            raise UnavailableError(f"the engine made no frame within {limit_s:g} s") from None
        finally:
            waiter.cancel()

    async def frame_at(self, index: int, form: Form, view: View = EVERYTHING) -> bytes:
        """The whole frame `index`, as a response: of a recording any, of a live source one that is still kept.

        Raises:
            InvalidArgumentError: `view` cannot be.
            NoLongerKeptError: there is no such frame, or not any more.
        """
        if self.info is None or self._topology is None:
            raise UnavailableError("no source has been loaded yet")
        if self.info.live:
            return await self.broadcaster.whole_response(self._recent.get(index), form, view)
        if index >= (self.info.frame_count or 0):
            raise NoLongerKeptError(
                f"index is {index}: the recording has frames 0 to {(self.info.frame_count or 1) - 1}"
            )
        snapshot = snapshot_in(await self.engine.command("frame_at", index=index))
        frame = Frame.of(index, self._items(snapshot))
        # A frame of a recorded session is whole: it may be of another system than is shown now.
        topology = self._topology if snapshot.recorded is None else Topology(self._facts)
        return await self.broadcaster.whole_response(PublishedFrame(frame, topology, lambda: None), form, view)

    def frame_range(self, start: int, stop: int | None, stride: int) -> Sequence[int]:
        """The indices that a request for many frames means. Raises: UnavailableError, InvalidArgumentError."""
        if self.info is None:
            raise UnavailableError("no source has been loaded yet")
        if stride < 1:
            raise InvalidArgumentError("stride", stride, "must be 1 or more")
        if self.info.live:
            end = self._recent.end
        else:
            end = self.info.frame_count or 0
        return range(start, end if stop is None else min(stop, end), stride)

    # What the playback commands do.

    async def start(self, after: tuple[str, int] | None = None) -> None:
        """The first source runs; if it is a recording of the run `after` names, from the next frame on.

        Raises:
            NarupaError: it cannot be loaded.
        """
        await self.engine.load(replace(self.settings_of(0), after=after))

    def settings_of(self, index: int) -> EngineSettings:
        """What an engine is told that is to run source `index`."""
        return EngineSettings(
            source=self.specs[index].text,
            playing=self.advancing,
            frame_interval_s=self.frame_interval_s,
            steps_per_frame=self.steps_per_frame,
            velocities=self._config.velocities,
            checkpoint_interval_s=self._config.checkpoint_interval_s,
            on_blow_up=self._config.on_blow_up,
            energy_share=self._config.energy_share,
        )

    def _remember(self, **changes: Any) -> None:
        """A restarted engine will be told the same."""
        if self.engine.settings:
            for name, value in changes.items():
                setattr(self.engine.settings, name, value)

    def _goes(self, playing: bool) -> None:
        """What the engine does now. Called in the order in which it did things: it may blow up as soon as it plays."""
        self.playing, self.idle = playing, False
        self._remember(playing=playing)
        self.keep()

    def _goes_on(self, playing: bool) -> None:
        self._bring_back()
        self._goes(playing)
        if self._blown_up:
            self._forgive()
            self.on_status()

    async def play(self) -> None:
        await self.engine.command("play", lambda: self._goes_on(True))

    async def pause(self) -> None:
        await self.engine.command("pause", lambda: self._goes(False))

    async def step(self) -> None:
        """One more frame, which has been shown when this returns."""
        shown: asyncio.Future[PublishedFrame] = asyncio.get_running_loop().create_future()

        def done() -> None:
            self._goes_on(False)
            self._newest_waiters.append(shown)  # the engine's next frame is the one

        await self.engine.command("step", done)
        with contextlib.suppress(TimeoutError):  # the step is done, whether or not it may be shown
            async with asyncio.timeout(SHOWN_LIMIT_S):
                await shown

    # Whether anybody watches.

    @property
    def watched(self) -> bool:
        """Whether anybody looks at frames, here or at a replica that has them from here."""
        return any(subscription.watched for subscription in self.broadcaster.subscriptions)

    @property
    def advancing(self) -> bool:
        """Whether the engine is to go on: it plays, and has not paused itself."""
        return self.playing and not self.idle

    async def begin_idle(self) -> None:
        """The engine pauses until `end_idle`, or until a user plays. Raises: NarupaError when it does not."""
        await self.engine.command("pause")
        if self.playing:
            self.idle = True
            self._remember(playing=False)
            self.on_status()

    async def end_idle(self) -> None:
        """The engine goes on where it paused itself. Raises: NarupaError when it does not."""
        await self.engine.command("play")
        self.idle = False
        if self.playing:
            self._remember(playing=True)
        else:  # a user paused it at the same moment
            await self.engine.command("pause")
        self.on_status()

    async def reset(self) -> None:
        if self.failed or self.engine.info is None:
            await self.engine.load(self.settings_of(self.source_index))
        else:
            await self.engine.command("reset")

    async def load(self, index: int) -> None:
        """Source `index` of the list runs. Raises: InvalidArgumentError, or why it cannot be loaded; then nothing changes."""
        if not 0 <= index < len(self.specs):
            raise InvalidArgumentError(
                "index", index, f"sources are 0 to {len(self.specs) - 1}; playback/list names them"
            )
        previous, self.source_index = self.source_index, index
        try:
            await self.engine.load(self.settings_of(index))
        except BaseException:
            self.source_index = previous
            raise

    async def next(self) -> None:
        await self.load((self.source_index + 1) % len(self.specs))

    async def seek(self, index: int, time: float) -> None:
        """The recording is at frame `index`, or at the last that is no later than `time`, s; what is below 0 is not given.

        Raises:
            FailedPreconditionError: what runs is no recording, or one without times.
            InvalidArgumentError: neither is given, or both.
        """
        if (index < 0) == (time < 0):
            raise InvalidArgumentError("playback/seek", f"index {index}, time {time:g}", "give one of index and time")
        if self.info is not None and self.info.live:
            raise FailedPreconditionError("a live source cannot seek; load a recording, or use playback/reset")
        time_s = None if time < 0 else time
        await self.engine.command("seek", self._bring_back, index=index, time_s=time_s)

    async def set_dynamics_interval(self, interval_s: float) -> None:
        await self.engine.command("interval", value=interval_s)
        self.frame_interval_s = self.broadcaster.producer_interval_s = interval_s
        self._remember(frame_interval_s=interval_s, own_pace=False)
        self.keep()
        self._wanted_changed()

    async def set_frame_interval(self, steps: int) -> None:
        await self.engine.command("steps", value=steps)
        self.steps_per_frame = steps
        self._remember(steps_per_frame=steps)
        self.keep()

    @property
    def steps(self) -> int:
        """Integration steps per frame."""
        return self.steps_per_frame or (self.info.steps_per_frame if self.info else 1)

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        """These interactions, and no others, act on the simulation. Those that do not fit it are left out."""
        count = self.info.particle_count if self.info else 0
        fitting = [item for item in interactions if item.particles[-1] < count]
        if len(fitting) < len(interactions):
            log.warning("interactions_left_out", count=len(interactions) - len(fitting), particles=count)
        self.engine.set_interactions([replace(item, properties={}) for item in fitting])


def check_interval(interval_s: float, name: str) -> None:
    """Raises: InvalidArgumentError for a subscriber's interval that is none."""
    if not (math.isfinite(interval_s) and interval_s >= 0):
        raise InvalidArgumentError(name, interval_s, "must be 0 or more seconds (0 takes the service's default)")
