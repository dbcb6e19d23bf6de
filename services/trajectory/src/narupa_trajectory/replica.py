"""One of several replicas: it asks the lobby to lead, runs the engine while it does, and relays whoever else does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import structlog

from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.sdk.narupa.lobby.v1 import LeadResponse, Service, ServiceStatus
from narupa_trajectory.checkpoint_store import CheckpointKeeper
from narupa_trajectory.imd_link import address_of
from narupa_trajectory.leadership import Answer, Tenure
from narupa_trajectory.playback import Playback
from narupa_trajectory.relay import Relay, Upstream, UpstreamChannel
from narupa_trajectory.relayed_frames import Relayed
from narupa_trajectory.succession import UNSURE, Succession

log = structlog.get_logger(__name__)

KIND: Final = "trajectory"
# The lease is renewed this many times in its life; before the lobby has said how long that is, it is asked so often, s.
ASKS_PER_LEASE: Final = 4
FIRST_BEAT_S: Final = 0.3
# How soon the lobby is asked again once the leader's stream has broken, s.
HURRY_S: Final = 0.1
HURRY_FOR_S: Final = 10.0
# How long a call waits for somebody to lead, s.
LED_LIMIT_S: Final = 5.0
# Who has had no frames for so long says so, and others look for them elsewhere, s.
APART_S: Final = 3.0
# In what a service says of itself: that it does not have its frames from the leader, so that nobody is to have them from it.
RELAY_FROM: Final = "relay_from"
# Who could not load what is to run leaves it to others for so long, s.
UNABLE_S: Final = 5.0


class Place(Protocol):
    """A service's place at the lobby (`narupa_shared.registration.LobbyRegistration`)."""

    @property
    def service_id(self) -> str: ...
    def find(self, kind: str) -> Sequence[Service]: ...
    async def changed(self) -> None: ...
    async def lead(self, seen_epoch: int, timeout_s: float, *, resign: bool = False) -> LeadResponse: ...


class Replica:
    """Which part this service has among its replicas.

    Attributes:
        tenure: What it may believe of its own leadership.
        relay: The frames of whoever else leads.
        channel: The way to that one.
        keeper: Keeps checkpoints for the others; None without a place for them.
    """

    def __init__(
        self,
        group: str,
        playback: Playback,
        succession: Succession,
        place: Place,
        channel: Callable[[Callable[[], Sequence[Upstream]]], UpstreamChannel],
        leading: Callable[[], AbstractAsyncContextManager[object]],
        keeper: CheckpointKeeper | None = None,
        *,
        warm: bool = False,
        second_hand: bool = False,
        tenure: Tenure | None = None,
    ) -> None:
        """It neither leads nor relays yet.

        Args:
            group: Of the replicas.
            playback: Of this service.
            succession: What is done with it.
            place: At the lobby.
            channel: Makes the way to those whom the function given finds.
            leading: What is to be open while this service leads, besides the engine.
            keeper: Keeps checkpoints for the others.
            warm: Whether an engine is to wait for this service to lead.
            second_hand: Whether frames are had from others that have them from the leader, where there are any.
            tenure: In place of one by this machine's clock.
        """
        self.tenure = tenure or Tenure()
        self.channel = channel(self._leaders)
        self.relay = Relay(channel(self._upstreams), self._show, self._lost, lambda: playback.watched)
        playback.on_audience.append(self.relay.look)
        self.keeper = keeper
        self._group = group
        self._playback = playback
        self._succession = succession
        self._place = place
        self._leading = leading
        self._warm = warm
        self._second_hand = second_hand
        self._relayed = asyncio.Event()
        self._led_in = 0  # the epoch in which the engine here was started; 0 while there is none
        self._lease_s = FIRST_BEAT_S * ASKS_PER_LEASE
        self._resigned = False
        self._unable_until = -math.inf
        self._hurry = asyncio.Event()
        self._hurry_until = -math.inf
        self._decided = asyncio.Event()
        self._settled = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._preparing = asyncio.Lock()
        playback.may_show = lambda: self.leads

    @property
    def leads(self) -> bool:
        """Whether this service leads at this instant, and what its engine does is the group's."""
        return self._mine and self.tenure.holds

    @property
    def settled(self) -> bool:
        """Whether it has something to show: it leads with an engine, or relays."""
        return self._settled.is_set()

    @property
    def _mine(self) -> bool:
        """Whether nobody else has led since the engine here was started, as far as is known."""
        return self._led_in > 0 and self.tenure.granted and self.tenure.unbroken_since <= self._led_in

    @property
    def apart(self) -> bool:
        """Whether it neither leads nor has had frames of who does for some time."""
        return self.settled and not self.leads and self.relay.apart_s > APART_S

    @property
    def feeds(self) -> bool:
        """Whether other replicas may have from it what it has from the leader."""
        return not self._second_hand and self.settled and not self.apart

    def _leaders(self) -> Sequence[Upstream]:
        """Who else leads, by what the lobby said last; nobody of whom a later one is known."""
        known = max(self.tenure.seen, self.relay.frames.epoch)
        others = [each for each in self._replicas() if each.epoch]
        if not others:
            return ()
        found = max(others, key=lambda each: each.epoch)
        if found.id == self._place.service_id or found.epoch < known:
            return ()
        return (_upstream(found),)

    def _upstreams(self) -> Sequence[Upstream]:
        """From whom to have frames: others that have them from the leader, in an order of this replica's own, then the leader."""
        if not self._second_hand:
            return self._leaders()
        own_id = self._place.service_id
        relays = [
            each
            for each in self._replicas()
            if each.id != own_id
            and not each.epoch
            and each.status is ServiceStatus.RUNNING
            and RELAY_FROM not in each.metadata
        ]
        relays.sort(key=lambda each: random.Random(f"{own_id}/{each.id}").random())
        return (*map(_upstream, relays), *self._leaders())

    def _replicas(self) -> Sequence[Service]:
        return [each for each in self._place.find(KIND) if each.group == self._group]

    async def until_led(self) -> None:
        """Returns once this or another replica leads. Raises: UnavailableError after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LED_LIMIT_S):
                while not self.leads and not self._leaders():
                    await self._place.changed()
                return
        raise UnavailableError("no replica leads at present; try again in a moment")

    async def resign(self) -> None:
        """This service does not lead any more and does not want to; another takes over at once."""
        if self._resigned:
            return
        self._resigned = True
        held = self.tenure.granted
        if self.leads and self.keeper is not None:
            with contextlib.suppress(NarupaError):  # then the last one that was kept has to do
                await self._succession.leave()
                await self.keeper.flush()
        self.tenure.resigned()
        self._decided.set()
        if held:
            await self._give_up()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It takes part while this is open; entered once it has something to show.

        Raises:
            NarupaError: what is to run cannot be loaded, and never has been.
        """
        self._running = asyncio.create_task(self._run(), name="replica")
        settling = asyncio.create_task(self._settled.wait(), name="replica-settles")
        try:
            await asyncio.wait({self._running, settling}, return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                self._running.result()
            yield
        finally:
            for task in (settling, self._running):
                task.cancel()
            await asyncio.gather(settling, self._running, return_exceptions=True)

    async def until_failed(self) -> None:
        """Raises what it cannot go on after, once there is something; to be called while it runs."""
        assert self._running is not None, "the replica runs"
        await asyncio.wait({self._running})
        self._running.result()

    async def _run(self) -> None:
        """Leads or relays until cancelled.

        Raises:
            NarupaError: what is to run cannot be loaded, and never has been.
        """
        asking = asyncio.create_task(self._ask(), name="replica-election")
        acting = asyncio.create_task(self._act(), name="replica-role")
        tasks = (asking, acting)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The election.

    async def _ask(self) -> None:
        while True:
            if not self._resigned and self._now >= self._unable_until:
                await self._ask_once()
            self._decided.set()
            hurried = self._now < self._hurry_until and not self.tenure.granted
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HURRY_S if hurried else self._lease_s / ASKS_PER_LEASE):
                    await self._hurry.wait()

    async def _ask_once(self) -> None:
        asked_at = self.tenure.now
        seen = max(self.tenure.seen, self.relay.frames.epoch)
        try:
            reply = await self._place.lead(seen, self._lease_s / (ASKS_PER_LEASE - 1))
        except UnavailableError as error:
            log.debug("leader_unknown", reason=str(error))
            return
        if self._resigned:
            return
        before = self.tenure.granted, self.tenure.epoch
        self._lease_s = max(reply.lease_ttl_s, 0.1)
        self.tenure.answered(
            asked_at, Answer(reply.epoch, self._lease_s, reply.standbys, reply.leader_id, reply.leader_epoch)
        )
        if self._mine:
            self._playback.epoch = self.tenure.epoch
        if before != (self.tenure.granted, self.tenure.epoch):
            log.info("leadership", leads=self.tenure.granted, epoch=self.tenure.seen, standbys=reply.standbys)

    @property
    def _now(self) -> float:
        return self.tenure.now

    def superseded(self) -> None:
        """Somebody else has been heard of who leads by now."""
        self.tenure.superseded(self.tenure.epoch + 1)
        self._decided.set()

    def _lost(self) -> None:
        self._hurry_until = self._now + HURRY_FOR_S
        self._hurry.set()

    def _show(self, relayed: Relayed) -> None:
        run_id = self._playback.run_id
        self._succession.show(relayed)
        if run_id != self._playback.run_id:
            self._relayed.set()
        if not self._settled.is_set():
            self._settled.set()
            self._playback.on_status()

    # What it does.

    async def _act(self) -> None:
        while True:
            await self._relay_until_chosen()
            await self._lead_until_lost()

    async def _relay_until_chosen(self) -> None:
        relaying = asyncio.create_task(self.relay.run(self._place.changed), name="relaying")
        warming = asyncio.create_task(self._keep_warm(), name="warm-standby")
        chosen = False
        try:
            while not (self.tenure.granted and self.tenure.holds):
                await self._news_or(relaying)
            chosen = True
        finally:
            relaying.cancel()
            if self._preparing.locked() and chosen:
                await self._preparing.acquire()  # what is being loaded is needed in a moment
                self._preparing.release()
            warming.cancel()
            await asyncio.gather(relaying, warming, return_exceptions=True)

    async def _keep_warm(self) -> None:
        """An engine waits that has loaded what is relayed, once something is."""
        loaded = ""
        while self._warm:
            await self._relayed.wait()
            self._relayed.clear()
            source = self._succession.relayed_source
            if source == loaded:
                continue
            loaded = source
            async with self._preparing:
                try:
                    await self._succession.prepare(source)
                except NarupaError as error:
                    log.warning("standby_not_warm", source=source, reason=str(error))

    async def _news_or(self, task: asyncio.Task[None], within_s: float = math.inf) -> None:
        """Returns when there is news of who leads, or after `within_s`; raises what ended `task`."""
        self._decided.clear()
        waiting = asyncio.create_task(self._decided.wait(), name="replica-news")
        try:
            limit_s = within_s if within_s < math.inf else None
            await asyncio.wait({waiting, task}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        if task.done():
            task.result()

    async def _lead_until_lost(self) -> None:
        self._led_in = self.tenure.epoch
        began = self._now
        working = asyncio.create_task(self._work(self._led_in), name="leading")
        halted = False
        try:
            while self._mine:
                if not halted and not self.tenure.holds:
                    halted = True
                    log.warning(
                        "leadership_unsure", epoch=self.tenure.epoch, reason=UNSURE, age_s=round(self.tenure.age_s, 3)
                    )
                    await self._succession.halt()
                elif halted and self.tenure.holds:
                    halted = False
                    log.info("leadership_resumed", epoch=self.tenure.epoch)
                    await self._succession.go_on()
                await self._news_or(working, math.inf if halted else self.tenure.left_s)
        except NarupaError as error:
            if not self._settled.is_set():
                raise
            log.error("cannot_lead", reason=str(error), epoch=self.tenure.epoch, after_s=round(self._now - began, 3))
            self._unable_until = self._now + UNABLE_S
            await self._give_up()
        finally:
            self._led_in = 0
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await self._succession.follow()
            if (shown := self._playback.broadcaster.current) is not None:
                self.relay.frames.go_on_after(shown)
        log.info("leadership_left", epoch=self.tenure.epoch)

    async def _give_up(self) -> None:
        self.tenure.resigned()
        with contextlib.suppress(UnavailableError):
            await self._place.lead(self.tenure.seen, self._lease_s, resign=True)

    async def _work(self, epoch: int) -> None:
        """The engine runs, from where the last leader left it, with all that belongs to it, until cancelled."""
        saved = await self.keeper.newest(epoch) if self.keeper is not None else None
        async with self._keeping():
            began = self._now
            await self._succession.lead(epoch, saved)
            took_s = round(self._now - began, 3)
            log.info("leads", epoch=self.tenure.epoch, run=self._playback.run_id, took_s=took_s,
                     from_ps=saved.time_ps if saved else None)  # fmt: skip
            self._settled.set()
            self._playback.on_status()
            async with self._leading():  # not before: interactions are for a system that is known
                await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def _keeping(self) -> AsyncIterator[None]:
        """Checkpoints are written while this is open."""
        if self.keeper is None:
            yield
            return
        self._playback.on_saved = self.keeper.offer
        writing = asyncio.create_task(self.keeper.run(), name="checkpoint-writer")
        try:
            yield
        finally:
            self._playback.on_saved = None
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


def _upstream(service: Service) -> Upstream:
    ends = service.endpoints
    return Upstream(service.id, service.epoch, tuple(address_of(end.host, end.port, end.protocol) for end in ends))
