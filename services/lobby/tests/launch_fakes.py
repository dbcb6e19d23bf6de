"""A lobby's core and a launcher that do what a test says, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from narupa_lobby.launchers.launcher import Job, LaunchError, Seen
from narupa_lobby.services import Endpoint, Service, ServiceStatus
from narupa_shared.errors import QuotaError


class FakeBoard:
    """Implements `Board` in a few dicts; several lobbies may share one, as they share a store."""

    def __init__(self, *sessions: str, max_services: int = 10) -> None:
        self.sessions = set(sessions or ("default",))
        self.listed: dict[tuple[str, str], Service] = {}
        self.leases: set[tuple[str, str]] = set()
        self.collections: dict[str, dict[str, str]] = {}
        self.max_services = max_services
        self.shown: list[Service] = []
        self.drained: list[str] = []
        self._changed = asyncio.Event()

    lost = False

    def service(self, session_id: str, service_id: str) -> Service | None:
        return self.listed.get((session_id, service_id))

    def registered(self, session_id: str, service_id: str) -> bool:
        return (session_id, service_id) in self.leases

    def session_exists(self, session_id: str) -> bool:
        return session_id in self.sessions

    def records(self, collection: str) -> Mapping[str, str]:
        return dict(self.collections.get(collection, {}))

    async def put_record(self, collection: str, key: str, value: str | None) -> None:
        await asyncio.sleep(0)
        self._put(collection, key, value)

    async def replace_record(self, collection: str, key: str, before: str | None, after: str | None) -> bool:
        await asyncio.sleep(0)
        if self.collections.get(collection, {}).get(key) != before:
            return False
        self._put(collection, key, after)
        return True

    def _put(self, collection: str, key: str, value: str | None) -> None:
        records = self.collections.setdefault(collection, {})
        records.pop(key, None)
        if value is not None:
            records[key] = value
        self._change()

    async def put_service(self, session_id: str, service: Service) -> None:
        await asyncio.sleep(0)
        key = session_id, service.id
        if session_id not in self.sessions:
            return
        if key not in self.listed and len(self.listed) >= self.max_services:
            raise QuotaError("the session takes no more")
        if service.status in (ServiceStatus.STOPPED, ServiceStatus.UNHEALTHY):
            self.leases.discard(key)
        if key in self.leases:
            said = self.listed[key]
            service = replace(said, simulation=service.simulation, restarts=service.restarts, log_tail=service.log_tail)
        self.listed[key] = service
        self.shown.append(service)
        self._change()

    async def remove_service(self, session_id: str, service_id: str) -> None:
        await asyncio.sleep(0)
        self.listed.pop((session_id, service_id), None)
        self.leases.discard((session_id, service_id))
        self._change()

    async def drain_service(self, session_id: str, service_id: str) -> None:
        await asyncio.sleep(0)
        self.drained.append(service_id)
        key = session_id, service_id
        self.listed[key] = replace(self.listed[key], status=ServiceStatus.DRAINING)
        self._change()

    async def changed(self) -> None:
        await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def registers(self, service: Service, status: ServiceStatus = ServiceStatus.RUNNING, load: float = 0.0) -> None:
        """The service says this of itself, under a lease."""
        key = "default", service.id
        self.leases.add(key)
        at = (Endpoint("grpc", "127.0.0.1", 1234),)
        self.listed[key] = replace(self.listed[key], status=status, endpoints=at, load=load, reason="", progress=0.0)
        self._change()

    def lapses(self, service: Service) -> None:
        """The service's lease lapses."""
        key = "default", service.id
        self.leases.discard(key)
        self.listed[key] = replace(self.listed[key], status=ServiceStatus.UNHEALTHY, reason="it vanished")
        self._change()


@dataclass
class FakeLauncher:
    """A launcher whose jobs run until the test says otherwise."""

    name: str = "local"
    outlives_lobby: bool = False
    jobs: dict[str, Seen] = field(default_factory=dict)
    started: list[Job] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=lambda: ["first", "last"])
    refuses: LaunchError | None = None
    blind: bool = False
    looks: int = 0
    closed: bool = False

    async def start(self, job: Job) -> str:
        await asyncio.sleep(0)
        if self.refuses:
            raise self.refuses
        assert job.name not in self.jobs, "started twice"
        self.started.append(job)
        self.jobs[job.name] = Seen("running")
        return job.name

    async def find(self, job: Job) -> str | None:
        return job.name if job.name in self.jobs else None

    async def look(self, ref: str) -> Seen:
        self.looks += 1
        if self.blind:
            raise LaunchError("away", lasting=False)
        return self.jobs.get(ref, Seen("gone", reason="not there"))

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        return self.lines[-lines:]

    async def stop(self, ref: str, grace_s: float) -> None:
        if self.blind:
            raise LaunchError("away", lasting=False)
        self.stopped.append(ref)
        if self.jobs.get(ref) == Seen("running"):
            self.jobs[ref] = Seen("ended", 0, "stopped")

    async def remove(self, ref: str) -> None:
        self.removed.append(ref)
        self.jobs.pop(ref, None)

    async def close(self) -> None:
        self.closed = True

    def ends(self, ref: str, code: int, reason: str = "ended") -> None:
        """The job has ended by itself."""
        self.jobs[ref] = Seen("ended", code, reason)
