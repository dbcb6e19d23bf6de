"""Starts, watches over and stops the simulations of the catalogue, for all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydantic import SecretStr, ValidationError

from narupa_lobby.board import Board
from narupa_lobby.catalogue.folder import Catalogue
from narupa_lobby.catalogue.simulation import SimulationSpec
from narupa_lobby.catalogue.template import SessionTemplate
from narupa_lobby.launchers.launcher import Job, Launcher, LaunchError
from narupa_lobby.launchers.record import LaunchRecord, Phase, launch_key
from narupa_lobby.launchers.settings import LauncherSettings
from narupa_lobby.launchers.supervision import COLLECTION, SERVICE_KIND, Kept, OvertakenError, Supervision, service_of
from narupa_lobby.services import Service, ServiceStatus
from narupa_shared.errors import FailedPreconditionError, NotFoundError, QuotaError, UnavailableError

log = structlog.get_logger(__name__)

LOBBIES: Final = "lobbies"
BEATS_PER_TAKE_OVER: Final = 3
POLL_S: Final = 0.5
SHORTEST_PAUSE_S: Final = 0.05
TRIES: Final = 5
MAX_LOG_LINES: Final = 1000
# At the end of the lobby: how long steps may take to finish, and local services to end, s.
STEP_END_LIMIT_S: Final = 1.0
END_GRACE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A simulation, and how it is with it in one session."""

    name: str
    title: str
    description: str
    kind: str
    launcher: str
    status: ServiceStatus = ServiceStatus.AVAILABLE
    service_id: str = ""


@dataclass(frozen=True, slots=True)
class LobbyFacts:
    """What started services need to know of their lobby.

    Attributes:
        address: HOST:PORT under which they reach it; several separated by commas.
        host: The address on which it listens.
        service_key: With which services register.
        open_access: Whether callers without a token are let in on addresses that others reach.
        environment: Further environment variables for all of them.
        local_environment: And for those on this machine, which see the lobby's files.
    """

    address: str
    host: str = "127.0.0.1"
    service_key: SecretStr | None = None
    open_access: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    local_environment: Mapping[str, str] = field(default_factory=dict)


class Launches:
    """Owns what is started on demand. All that must last is in the store; each launch is looked after by one lobby."""

    def __init__(
        self,
        board: Board,
        catalogue: Catalogue,
        launchers: Mapping[str, Launcher],
        settings: LauncherSettings,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        """Nothing is started, and nothing of earlier lobbies taken on, before `running` is entered.

        Args:
            board: The lobby's core.
            catalogue: What can be started.
            launchers: By name.
            settings: The lobby's.
            shared: Whether other lobbies use the same store.
            clock: Monotonic, s.
            wall_clock: s since the Unix epoch.
            new_id: Short ids that make the ids of services unique.
        """
        self._board = board
        self._catalogue = catalogue
        self._launchers = launchers
        self._settings = settings
        self._shared = shared
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_id = new_id
        self._instance = f"lobby-{secrets.token_hex(8)}"
        self._facts = LobbyFacts("127.0.0.1:38810")
        self._supervision = Supervision(board, launchers, settings, self._job, clock, wall_clock)
        self._parsed: dict[str, LaunchRecord] = {}  # by text
        self._steps: dict[str, asyncio.Task[None]] = {}
        self._tidying: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._beats: dict[str, tuple[str, float]] = {}  # of other lobbies: the last, and when it was first seen
        self._own_beat: tuple[int, float] = (0, float("-inf"))

    async def start(self, session_id: str, simulation: str) -> Service:
        """The simulation is starting in the session, or does already; returns its service as it is listed.

        Raises:
            NotFoundError: no such session or simulation.
            FailedPreconditionError: its launcher cannot give it its inputs.
            QuotaError: the session takes no more services.
            UnavailableError: it is just being stopped.
        """
        for _ in range(TRIES):
            if not self._board.session_exists(session_id):
                raise NotFoundError("session", session_id)
            spec = self._catalogue.simulation(simulation)
            kept = self._kept(launch_key(session_id, simulation))
            if kept is not None and kept.record.phase in (Phase.STARTING, Phase.RUNNING):
                return self._board.service(session_id, kept.record.service_id) or service_of(kept.record)
            if kept is not None and kept.record.phase is Phase.STOPPING:
                raise UnavailableError(
                    f"the simulation {simulation!r} is just being stopped; try again in some seconds"
                )
            record = self._new_record(session_id, simulation, spec)
            text = record.model_dump_json()
            self._supervision.made(record)
            if await self._board.replace_record(COLLECTION, record.key, kept.text if kept else None, text):
                return await self._listed(Kept(text, record), kept)
        raise UnavailableError(f"others are starting and stopping {simulation!r} at this moment; try again")

    def _new_record(self, session_id: str, simulation: str, spec: SimulationSpec | None) -> LaunchRecord:
        if spec is None:
            there = ", ".join(sorted(self._catalogue.contents.simulations)[:20]) or "none"
            raise NotFoundError("simulation", simulation, f"the catalogue has: {there}")
        launcher = spec.launcher or self._settings.default
        if reason := spec.unfit_for(launcher):
            raise FailedPreconditionError(f"{simulation!r} cannot be started by {launcher}: {reason}")
        return LaunchRecord(
            session_id=session_id,
            service_id=f"{simulation}-{self._new_id()}",
            spec=spec,
            folder=self._catalogue.folder or Path.cwd(),
            launcher=launcher,
            owner=self._instance,
        )

    async def _listed(self, kept: Kept, before: Kept | None) -> Service:
        """The new launch is listed in the place of the stopped one before it."""
        record = kept.record
        if before is not None:
            await self._board.remove_service(record.session_id, before.record.service_id)
            if before.record.ref:
                self._tidy_up(before.record)
        try:
            await self._board.put_service(record.session_id, service_of(record))
        except QuotaError:
            await self._board.replace_record(COLLECTION, record.key, kept.text, None)
            raise
        self._wake.set()
        return self._board.service(record.session_id, record.service_id) or service_of(record)

    def _tidy_up(self, record: LaunchRecord) -> None:
        async def remove() -> None:
            with contextlib.suppress(LaunchError):
                await self._launchers[record.launcher].remove(record.ref)

        task = asyncio.create_task(remove(), name=f"tidying up after {record.service_id}")
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def stop(self, session_id: str, service_id: str) -> Service:
        """The service drains, and then stops. Idempotent.

        Raises:
            NotFoundError: no such service.
            FailedPreconditionError: the lobby did not start it.
        """
        for _ in range(TRIES):
            kept = self._by_service(session_id, service_id)
            if kept is None:
                if self._board.service(session_id, service_id) is None:
                    raise NotFoundError("service", service_id)
                raise FailedPreconditionError(
                    f"the lobby did not start the service {service_id!r}; stop it where it was started"
                )
            if kept.record.phase in (Phase.STARTING, Phase.RUNNING):
                asked = {"reason": "stopped on request", "stop_asked_at": self._wall_clock()}
                try:
                    await self._supervision.put(kept, phase=Phase.STOPPING, **asked)
                except OvertakenError:
                    continue
                with contextlib.suppress(NotFoundError):
                    await self._board.drain_service(session_id, service_id)
                self._wake.set()
            return self._board.service(session_id, service_id) or service_of(kept.record)
        raise UnavailableError(f"the service {service_id!r} is changing at this moment; try again")

    async def log_lines(self, session_id: str, service_id: str, lines: int) -> list[str]:
        """The last lines that a started service wrote, at most 1000.

        Raises:
            NotFoundError: no such service, or the lobby did not start it.
            UnavailableError: its log cannot be read now.
        """
        kept = self._by_service(session_id, service_id)
        if kept is None:
            raise NotFoundError("service", service_id, "only services that the lobby started have a log here")
        record = kept.record
        wanted = min(max(lines, 1), MAX_LOG_LINES)
        found: list[str] = []
        if record.ref:
            try:
                found = await self._launchers[record.launcher].log_tail(record.ref, wanted)
            except LaunchError as error:
                if not record.last_lines:
                    raise UnavailableError(str(error)) from error
        return found or list(record.last_lines)[-wanted:]

    def simulations(self, session_id: str) -> list[Offer]:
        """What the catalogue offers to this session, and what else runs in it, by name."""
        specs = dict(self._catalogue.contents.simulations)
        launched = {k.record.spec.name: k.record for k in self._all() if k.record.session_id == session_id}
        for name, record in launched.items():
            if record.phase is not Phase.STOPPED:
                specs.setdefault(name, record.spec)
        return [self._offer(specs[name], launched.get(name)) for name in sorted(specs)]

    def _offer(self, spec: SimulationSpec, record: LaunchRecord | None) -> Offer:
        facts = (spec.name, spec.title or spec.name, spec.description, SERVICE_KIND)
        if record is None or (record.phase is Phase.STOPPED and not record.failed):
            return Offer(*facts, spec.launcher or self._settings.default)
        listed = self._board.service(record.session_id, record.service_id) or service_of(record)
        return Offer(*facts, record.launcher, listed.status, record.service_id)

    def templates(self) -> Mapping[str, SessionTemplate]:
        """What sessions can be made from, by name."""
        return self._catalogue.contents.templates

    def problems(self) -> list[str]:
        """What is wrong with specs of the catalogue, a line each."""
        return list(self._catalogue.contents.problems)

    @contextlib.asynccontextmanager
    async def running(self, facts: LobbyFacts) -> AsyncIterator[None]:
        """Launches are looked after while this is open, those of earlier lobbies too; at the end local services stop."""
        self._facts = facts
        await self._beat()
        keeper = asyncio.create_task(self._run(), name="launches")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._end()

    async def _run(self) -> None:
        while True:
            await self.tick()
            self._wake.clear()
            changed, woken = asyncio.ensure_future(self._board.changed()), asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait({changed, woken}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in (changed, woken):
                    waiting.cancel()
                await asyncio.gather(changed, woken, return_exceptions=True)
            await asyncio.sleep(SHORTEST_PAUSE_S)  # a busy lobby changes many times a second

    async def tick(self) -> None:
        """Each launch of this lobby that has no step under way begins its next; those of dead lobbies become this one's."""
        with contextlib.suppress(UnavailableError):  # the store is away: what runs goes on
            await self._beat()
            for kept in self._all():
                key = kept.record.key
                if kept.record.owner != self._instance:
                    await self._take_over(kept)
                elif key not in self._steps:
                    task = asyncio.create_task(self._step(kept), name=f"step of {kept.record.service_id}")
                    self._steps[key] = task
                    task.add_done_callback(lambda _, key=key: self._steps.pop(key, None))  # type: ignore[misc]

    async def settled(self) -> None:
        """Every step that is under way is done."""
        while pending := [*self._steps.values(), *self._tidying]:
            await asyncio.gather(*pending)

    async def _step(self, kept: Kept) -> None:
        try:
            await self._supervision.step(kept)
        except OvertakenError:
            pass
        except UnavailableError as error:
            log.warning("launch_waits_for_the_store", service=kept.record.service_id, reason=str(error))
            await asyncio.sleep(SHORTEST_PAUSE_S)
        except Exception:
            # One launch that fails in a way nobody foresaw must not end the others, nor be tried without a pause.
            log.exception("launch_step_failed", service=kept.record.service_id)
            await asyncio.sleep(POLL_S)

    async def _beat(self) -> None:
        """Other lobbies see that this one is alive."""
        number, at = self._own_beat
        if self._shared and self._clock() - at >= self._settings.take_over_s / BEATS_PER_TAKE_OVER:
            await self._board.put_record(LOBBIES, self._instance, str(number + 1))
            self._own_beat = (number + 1, self._clock())

    async def _take_over(self, kept: Kept) -> None:
        """A launch whose lobby is gone becomes this one's. Only one lobby succeeds."""
        owner = kept.record.owner
        beat = self._board.records(LOBBIES).get(owner) if self._shared else None
        if beat is not None:
            last, since = self._beats.get(owner, ("", 0.0))
            if beat != last:
                self._beats[owner] = (beat, self._clock())
                return
            if self._clock() - since <= self._settings.take_over_s:
                return
        with contextlib.suppress(OvertakenError):
            await self._supervision.put(kept, owner=self._instance)
            log.info("launch_taken_over", service=kept.record.service_id, owner=owner)
        if not any(each.record.owner == owner for each in self._all()) and beat is not None:
            await self._board.put_record(LOBBIES, owner, None)
            self._beats.pop(owner, None)

    async def _end(self) -> None:
        """What would not outlive the lobby stops in good order; the rest goes on, and waits for the next lobby."""
        # Without the store it is not known which launches are still this lobby's: they go on, and wait for the next one.
        if self._steps or self._tidying:
            pending = {*self._steps.values(), *self._tidying}
            _, late = await asyncio.wait(pending, timeout=STEP_END_LIMIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        mortal = [
            kept
            for kept in self._all()
            if not self._board.lost
            and kept.record.owner == self._instance
            and kept.record.phase is not Phase.STOPPED
            and not self._launchers[kept.record.launcher].outlives_lobby
        ]
        await asyncio.gather(*(self._end_one(kept) for kept in mortal))
        with contextlib.suppress(UnavailableError):
            if self._shared:
                await self._board.put_record(LOBBIES, self._instance, None)
        await asyncio.gather(*(launcher.close() for launcher in self._launchers.values()))

    async def _end_one(self, kept: Kept) -> None:
        record = kept.record
        launcher = self._launchers[record.launcher]
        try:
            ref = record.ref or await launcher.find(self._job(record)) or ""
            if ref:
                await launcher.stop(ref, min(self._settings.stop_grace_s, END_GRACE_S))
            over = {"ref": ref, "failed": False, "reason": "its lobby was stopped", "ended_at": self._wall_clock()}
            await self._supervision.put(kept, phase=Phase.STOPPED, **over)
        except (LaunchError, OvertakenError, UnavailableError) as error:
            log.warning("launch_not_stopped", service=record.service_id, reason=str(error))

    def _job(self, record: LaunchRecord) -> Job:
        facts = self._facts
        here = facts.local_environment if record.launcher == "local" else {}
        return Job(
            name=record.job_name,
            session_id=record.session_id,
            service_id=record.service_id,
            spec=record.spec,
            folder=record.folder,
            lobby=self._settings.lobby or facts.address,
            host=facts.host,
            lobby_named=self._settings.lobby is not None,
            service_key=facts.service_key,
            open_access=facts.open_access,
            environment={**facts.environment, **here, **self._settings.environment},
        )

    def phases(self) -> Counter[Phase]:
        """How many launches are in each phase, as last looked at. May be called on any thread."""
        return Counter({record.key: record.phase for record in list(self._parsed.values())}.values())

    def _all(self) -> list[Kept]:
        texts = self._board.records(COLLECTION)
        parsed = {text: record for text in texts.values() if (record := self._parse(text)) is not None}
        self._parsed = parsed  # forgets those that are no longer there
        return [Kept(text, parsed[text]) for text in texts.values() if text in parsed]

    def _parse(self, text: str) -> LaunchRecord | None:
        if text not in self._parsed:
            try:
                self._parsed[text] = LaunchRecord.model_validate_json(text)
            except ValidationError as error:
                log.error("launch_record_unreadable", reason=str(error)[:200])
                return None
        return self._parsed[text]

    def _kept(self, key: str) -> Kept | None:
        text = self._board.records(COLLECTION).get(key)
        record = self._parse(text) if text is not None else None
        return Kept(text, record) if text is not None and record is not None else None

    def _by_service(self, session_id: str, service_id: str) -> Kept | None:
        for kept in self._all():
            if kept.record.session_id == session_id and kept.record.service_id == service_id:
                return kept
        return None
