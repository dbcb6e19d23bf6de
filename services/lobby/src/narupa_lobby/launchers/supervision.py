"""What is done about one launch at one moment: started, shown, restarted, stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from narupa_lobby import metrics
from narupa_lobby.board import Board
from narupa_lobby.launchers.launcher import Job, Launcher, LaunchError, Seen
from narupa_lobby.launchers.record import LaunchRecord, Phase
from narupa_lobby.launchers.settings import LauncherSettings
from narupa_lobby.services import Service, ServiceStatus
from narupa_shared.errors import QuotaError

log = structlog.get_logger(__name__)

COLLECTION: Final = "launches"
SERVICE_KIND: Final = "trajectory"
LOOK_INTERVAL_S: Final = 1.0
SHOW_INTERVAL_S: Final = 1.0
TAIL_LINES: Final = 12
MAX_REASON: Final = 400
# How long a launcher that does not answer is asked to stop a service before that is given up, s.
STOP_LIMIT_S: Final = 120.0
# Exit statuses of the services: a wrong input or setting, which no restart will mend.
BAD_SETTING: Final = 2


class OvertakenError(Exception):
    """Somebody else has changed the record: read it again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record, and the very text that the store has of it."""

    text: str
    record: LaunchRecord


class Supervision:
    """Takes launches one step further at a time. What it remembers itself may be forgotten at any moment."""

    def __init__(
        self,
        board: Board,
        launchers: Mapping[str, Launcher],
        settings: LauncherSettings,
        job_of: Callable[[LaunchRecord], Job],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._launchers = launchers
        self._settings = settings
        self._job_of = job_of
        self._clock = clock
        self._wall_clock = wall_clock
        self._never_started: set[str] = set()  # names of jobs that nobody can have started yet
        self._seen: dict[str, tuple[float, Seen | None]] = {}  # by service id, as everything below
        self._shown: dict[str, tuple[float, ServiceStatus]] = {}
        self._tail_read_at: dict[str, float] = {}
        self._lost_since: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}

    def made(self, record: LaunchRecord) -> None:
        """The record is new: no other lobby can have started its job."""
        self._never_started.add(record.job_name)

    async def put(self, kept: Kept, **changes: Any) -> Kept:
        """The record with these changes, committed; OvertakenError when it is no longer the same."""
        record = kept.record.model_copy(update=changes)
        text = record.model_dump_json()
        if not await self._board.replace_record(COLLECTION, record.key, kept.text, text):
            raise OvertakenError(record.key)
        return Kept(text, record)

    async def step(self, kept: Kept) -> None:
        """One step, which may take as long as the launcher needs. OvertakenError: the record has changed meanwhile."""
        record = kept.record
        if record.phase in (Phase.STARTING, Phase.RUNNING) and not self._board.session_exists(record.session_id):
            await self.put(kept, phase=Phase.STOPPING, reason="the session has ended", stop_asked_at=self._wall_clock())
        elif record.phase is Phase.STARTING:
            await (self._wait_until_it_runs(kept) if record.ref else self._start(kept))
        elif record.phase is Phase.RUNNING:
            await self._keep_running(kept)
        elif record.phase is Phase.STOPPING:
            await self._stop(kept)
        else:
            await self._tidy(kept)

    async def _start(self, kept: Kept) -> None:
        record = kept.record
        if self._wall_clock() < record.not_before:
            await self._show(record, ServiceStatus.UNHEALTHY, reason=record.reason, log_tail=record.last_lines)
            return
        await self._show(record, ServiceStatus.STARTING)
        launcher, job = self._launchers[record.launcher], self._job_of(record)
        try:
            found = None if job.name in self._never_started else await launcher.find(job)
            self._never_started.discard(job.name)
            ref = found or await launcher.start(job)
        except LaunchError as error:
            await self._failed(kept, str(error), lasting=error.lasting)
            return
        self._seen.pop(record.service_id, None)
        try:
            await self.put(kept, ref=ref, running_since=0.0)
        except OvertakenError:
            with contextlib.suppress(LaunchError):
                await launcher.remove(ref)
            raise
        metrics.LAUNCHES.labels("started").inc()
        log.info("launch_started", service=record.service_id, launcher=record.launcher, ref=ref, adopted=bool(found))

    async def _wait_until_it_runs(self, kept: Kept) -> None:
        record = kept.record
        registered = self._board.registered(record.session_id, record.service_id)
        listed = self._board.service(record.session_id, record.service_id)
        if registered and listed is not None and listed.status is ServiceStatus.RUNNING:
            kept = await self.put(kept, phase=Phase.RUNNING, reason="", last_lines=())
            await self._show(kept.record, ServiceStatus.RUNNING)
            metrics.LAUNCHES.labels("running").inc()
            log.info("launch_running", service=record.service_id)
            return
        seen = await self._look(record)
        if seen is not None and seen.state in ("ended", "gone"):
            await self._failed(kept, seen.reason, seen.exit_code)
            return
        if seen is not None and seen.state == "pending":
            await self._show(record, ServiceStatus.STARTING, reason=seen.reason, progress=0.05)
            return
        if not record.running_since:
            kept = await self.put(kept, running_since=self._wall_clock())
        elif self._wall_clock() - record.running_since > record.spec.start_timeout_s:
            limit = f"it did not run within {record.spec.start_timeout_s:g} s (start_timeout_s)"
            await self._failed(kept, limit)
            return
        await self._show(record, ServiceStatus.STARTING, progress=0.2, log_tail=await self._tail_now_and_then(record))

    async def _keep_running(self, kept: Kept) -> None:
        record = kept.record
        seen = await self._look(record)
        if seen is not None and seen.state in ("ended", "gone"):
            await self._failed(kept, seen.reason, seen.exit_code)
            return
        now = self._clock()
        if not self._board.registered(record.session_id, record.service_id):
            self._idle_since.pop(record.service_id, None)
            since = self._lost_since.setdefault(record.service_id, now)
            if now - since > self._settings.lost_after_s:
                await self._failed(kept, f"it has not been in touch with the lobby for {now - since:.0f} s")
            return
        self._lost_since.pop(record.service_id, None)
        await self._show(record, ServiceStatus.RUNNING)
        listed = self._board.service(record.session_id, record.service_id)
        limit = record.spec.idle.stop_after_s
        if listed is None or listed.load > 0 or not limit:
            self._idle_since.pop(record.service_id, None)
        elif now - self._idle_since.setdefault(record.service_id, now) > limit:
            reason = f"nobody watched it for {limit:g} s"
            await self.put(kept, phase=Phase.STOPPING, reason=reason, stop_asked_at=self._wall_clock())

    async def _failed(self, kept: Kept, why: str, code: int | None = None, *, lasting: bool = False) -> None:
        """The attempt is over: another follows after a while, or none."""
        record, now, policy = kept.record, self._wall_clock(), kept.record.spec.restart
        lines = await self._tail(record)
        with contextlib.suppress(LaunchError):
            if record.ref:
                await self._launchers[record.launcher].stop(record.ref, self._settings.stop_grace_s)
        self._forget(record)
        failures = (*(at for at in record.failures if now - at < policy.window_s), now)[-101:]
        over = {"phase": Phase.STOPPED, "ended_at": now, "last_lines": lines}
        listed = self._board.service(record.session_id, record.service_id)
        drained = listed is not None and listed.status is ServiceStatus.DRAINING
        if code == 0 or (drained and code is None):
            await self.put(kept, **over, failed=False, reason="drained" if drained else "it has ended by itself")
        elif lasting or code == BAD_SETTING:
            said = f"{why}: {lines[-1]}" if lines and code == BAD_SETTING else why
            await self.put(kept, **over, failed=True, failures=failures, reason=said[:MAX_REASON])
        elif len(failures) > policy.max_restarts:
            times = f"{len(failures)} times within {policy.window_s:g} s" if len(failures) > 1 else "once"
            said = f"{why}; it failed {times}, which is all that its spec allows"
            await self.put(kept, **over, failed=True, failures=failures, reason=said[:MAX_REASON])
        else:
            delay = min(policy.first_delay_s * 2.0 ** (len(failures) - 1), policy.longest_delay_s)
            said = f"{why}; it starts again after {delay:g} s (restart {len(failures)} of {policy.max_restarts})"
            kept = await self.put(
                kept,
                phase=Phase.STARTING,
                ref="",
                attempt=record.attempt + 1,
                not_before=now + delay,
                running_since=0.0,
                failures=failures,
                reason=said[:MAX_REASON],
                last_lines=lines,
            )
            self.made(kept.record)
            await self._show(kept.record, ServiceStatus.UNHEALTHY, reason=kept.record.reason, log_tail=lines)
            if record.ref:
                with contextlib.suppress(LaunchError):
                    await self._launchers[record.launcher].remove(record.ref)
        metrics.LAUNCHES.labels("failed").inc()
        log.warning("launch_failed", service=record.service_id, reason=why, exit_code=code, failures=len(failures))

    async def _stop(self, kept: Kept) -> None:
        record = kept.record
        waited = self._wall_clock() - record.stop_asked_at
        listed = self._board.service(record.session_id, record.service_id)
        if listed is not None and self._board.registered(record.session_id, record.service_id):
            if listed.status is not ServiceStatus.DRAINING:
                await self._board.drain_service(record.session_id, record.service_id)
            if listed.load > 0 and 0 <= waited < self._settings.drain_s:
                return
        lines = await self._tail(record)
        try:
            if not record.ref and record.job_name not in self._never_started:
                record = record.model_copy(
                    update={"ref": await self._launchers[record.launcher].find(self._job_of(record)) or ""}
                )
            if record.ref:
                await self._launchers[record.launcher].stop(record.ref, self._settings.stop_grace_s)
        except LaunchError as error:
            if 0 <= waited < STOP_LIMIT_S:
                return  # and try again
            log.warning("launch_not_stopped", service=record.service_id, ref=record.ref, reason=str(error))
        self._forget(record)
        kept = await self.put(
            kept, phase=Phase.STOPPED, ref=record.ref, ended_at=self._wall_clock(), failed=False, last_lines=lines
        )
        metrics.LAUNCHES.labels("stopped").inc()
        log.info("launch_stopped", service=record.service_id, reason=record.reason)
        await self._tidy(kept)

    async def _tidy(self, kept: Kept) -> None:
        """A stopped launch is shown for a while, one that failed until it is started again; then nothing is left of it."""
        record = kept.record
        there = self._board.session_exists(record.session_id)
        kept_for = self._wall_clock() - record.ended_at
        if there and (record.failed or 0 <= kept_for < self._settings.keep_stopped_s):
            lines = record.last_lines if record.failed else ()
            await self._show(record, ServiceStatus.STOPPED, reason=record.reason, log_tail=lines)
            return
        with contextlib.suppress(LaunchError):
            if record.ref:
                await self._launchers[record.launcher].remove(record.ref)
        if not await self._board.replace_record(COLLECTION, record.key, kept.text, None):
            raise OvertakenError(record.key)
        if there:
            await self._board.remove_service(record.session_id, record.service_id)

    async def _look(self, record: LaunchRecord) -> Seen | None:
        """What the launcher sees, asked at most once a second; None when it cannot see now."""
        at, seen = self._seen.get(record.service_id, (float("-inf"), None))
        if self._clock() - at < LOOK_INTERVAL_S:
            return seen
        try:
            seen = await self._launchers[record.launcher].look(record.ref)
        except LaunchError as error:
            if seen is not None:
                log.warning("launch_out_of_sight", service=record.service_id, reason=str(error))
            seen = None
        self._seen[record.service_id] = (self._clock(), seen)
        return seen

    async def _tail(self, record: LaunchRecord) -> tuple[str, ...]:
        if not record.ref:
            return record.last_lines
        try:
            return tuple(await self._launchers[record.launcher].log_tail(record.ref, TAIL_LINES))
        except LaunchError:
            return record.last_lines

    async def _tail_now_and_then(self, record: LaunchRecord) -> tuple[str, ...]:
        """The log's tail, or what of it is listed already when that is less than a second old."""
        now = self._clock()
        if now - self._tail_read_at.get(record.service_id, float("-inf")) < SHOW_INTERVAL_S:
            listed = self._board.service(record.session_id, record.service_id)
            return listed.log_tail if listed is not None else ()
        self._tail_read_at[record.service_id] = now
        return await self._tail(record)

    async def _show(
        self,
        record: LaunchRecord,
        status: ServiceStatus,
        *,
        reason: str = "",
        progress: float = 0.0,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        """The service is listed so, if it is not already; what a registered service says of itself goes first.

        While the status stays the same, at most once a second: each time is an event for everybody in the session.
        """
        session_id, service_id = record.session_id, record.service_id
        listed = self._board.service(session_id, service_id)
        dead = status in (ServiceStatus.STOPPED, ServiceStatus.UNHEALTHY)
        if listed is not None and self._board.registered(session_id, service_id) and not dead:
            wanted = listed
        else:
            wanted = replace(service_of(record), status=status, reason=reason[:MAX_REASON], progress=progress)
        wanted = replace(wanted, simulation=record.spec.name, restarts=record.attempt, log_tail=log_tail)
        at, last = self._shown.get(service_id, (float("-inf"), None))
        if wanted == listed or (wanted.status == last and self._clock() - at < SHOW_INTERVAL_S):
            return
        self._shown[service_id] = (self._clock(), wanted.status)
        with contextlib.suppress(QuotaError):  # it runs all the same, and is listed once there is room
            await self._board.put_service(session_id, wanted)

    def _forget(self, record: LaunchRecord) -> None:
        for facts in (self._seen, self._shown, self._tail_read_at, self._lost_since, self._idle_since):
            facts.pop(record.service_id, None)


def service_of(record: LaunchRecord) -> Service:
    """The service as it is listed before it has said anything itself."""
    return Service(
        id=record.service_id,
        kind=SERVICE_KIND,
        status=ServiceStatus.STARTING,
        metadata={"title": record.spec.title} if record.spec.title else {},
        simulation=record.spec.name,
    )
