"""Lobbies against the simplest model of them: whatever happens in whatever order, every view equals the truth."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lobby_fakes import SharedView, new_lobby

from narupa_lobby.admission import Wish
from narupa_lobby.history import SessionWatch
from narupa_lobby.lobby import PROBE, Joined, Lobby
from narupa_lobby.records import GuestRole
from narupa_lobby.registry import Report
from narupa_lobby.services import Endpoint, Service
from narupa_lobby.sessions import Spec
from narupa_shared.auth import Identity
from narupa_shared.errors import (
    FailedPreconditionError,
    NarupaError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
)
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.redis import RedisStore
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import Store
from narupa_shared.testing.clock import FakeClock, FakeIds
from narupa_shared.testing.redis_server import RedisServer

Result = TypeVar("Result")
MAX_USERS = 4
LIMIT_S = 5.0  # of the real time that one step may take
LEASES = "{narupa}:leases"  # Redis's sorted set of them, by deadline in us
LONG_S = 40.0  # all leases lapse in it, and 300 s are not over
ROLES = {"viewer": 1, "participant": 2, "host": 3}


@dataclass
class Person:
    """Somebody who has joined once."""

    name: str
    session: str
    request: str
    joined: Joined
    watch: SessionWatch | None = None
    departed: float | None = None  # when they vanished
    barred: bool = False

    @property
    def identity(self) -> Identity:
        user = self.joined.user
        return Identity(user.id, user.name, user.session_id, user.role, 0.0, user.generation)


@dataclass
class Truth:
    """What must be so."""

    roles: dict[str, dict[str, str]] = field(default_factory=lambda: {"default": {}})  # of users, by session
    loads: dict[str, dict[str, float]] = field(default_factory=lambda: {"default": {}})  # of services, by session
    guests: dict[str, GuestRole | None] = field(default_factory=lambda: {"default": None})  # their role, by session
    people: dict[str, Person] = field(default_factory=dict)
    leases: dict[str, tuple[str, str]] = field(default_factory=dict)  # lease id: session, service


class Seen:
    """What one watcher of a session has seen, across restarts of its lobby."""

    def __init__(
        self, watch: SessionWatch, users: dict[str, str], services: dict[str, float], guests: GuestRole | None
    ) -> None:
        self.watch = watch
        self.users, self.services, self.guests = users, services, guests
        self.epoch = watch.events.epoch
        self.revision = watch.events.revision

    def take(self) -> None:
        while self.watch.watcher._waiting:
            revision, told = self.watch.watcher._waiting.popleft()
            event = pb.WatchSessionResponse.FromString(told.message)
            assert revision == event.revision == self.revision + 1, "a gap, or an event twice"
            self.revision = revision
            match event.WhichOneof("event"):
                case "user_joined":
                    assert event.user_joined.id not in self.users
                    self.users[event.user_joined.id] = role(event.user_joined.role)
                case "user_changed":
                    self.users[event.user_changed.id] = role(event.user_changed.role)
                case "user_left":
                    del self.users[event.user_left.id]
                case "service_changed":
                    self.services[event.service_changed.id] = event.service_changed.occupancy
                case "service_removed":
                    del self.services[event.service_removed.id]
                case "session_changed":
                    session = event.session_changed
                    chosen = {0: "none", **{number: name for name, number in ROLES.items()}}[session.guest_role]
                    self.guests = cast(GuestRole, chosen) if session.HasField("guest_role") else None
                case "session_ended":
                    self.users, self.services = {}, {}


def role(number: int) -> str:
    return {value: name for name, value in ROLES.items()}[number]


class Lobbies(RuleBasedStateMachine):
    """One lobby over a store of its own; `several` over one store where a subclass says so."""

    several = 1
    times: Mapping[str, float] = {}

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(debug=False)
        self.clock = FakeClock()
        self.ids = FakeIds()
        self.numbers = itertools.count()
        self.resources = contextlib.ExitStack()
        self.truth = Truth()
        self.lobbies: list[Lobby] = []
        self.hosts: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        self.seen: dict[tuple[int, str], Seen] = {}

    @functools.cached_property
    def memory(self) -> MemoryStore:
        return MemoryStore(self.clock)

    def store(self) -> Store:
        """For the next lobby that starts: with what the others and those before it have kept."""
        return self.memory if self.several == 1 else SharedView(self.memory)

    def lease_names(self) -> frozenset[str]:
        """Every lease that the store holds."""
        return self.memory._leases.names

    async def let_pass(self, seconds: float) -> None:
        """Time has gone on for leases and for everything else, and nobody who watches has lost their lease by that."""
        self.clock.advance(seconds)
        for lobby in self.lobbies:  # as they do each second, however long the test's step
            await lobby._presence.renew_watched()

    def run(self, work: Awaitable[Result]) -> Result:
        async def working() -> Result:
            async with asyncio.timeout(LIMIT_S):
                result = await work
                while len({lobby._writer.number for lobby in self.lobbies}) > 1:
                    for host, _ in self.hosts:
                        if host.done():
                            host.result()
                    await asyncio.sleep(0)
                return result

        return self.runner.run(working())

    @initialize()
    def begin(self) -> None:
        for index in range(self.several):
            self.run(self.start(index))

    async def start(self, index: int) -> None:
        limits = {"max_users": MAX_USERS, "max_services": 3, "max_sessions": 3}
        lobby = new_lobby(self.store(), self.clock, self.ids, **limits, **self.times)
        started, stop = asyncio.Event(), asyncio.Event()

        async def host() -> None:
            async with lobby.running():
                started.set()
                await stop.wait()

        task = asyncio.create_task(host())
        await asyncio.wait({task, waiting := asyncio.ensure_future(started.wait())}, return_when="FIRST_COMPLETED")
        waiting.cancel()
        if task.done():
            task.result()
        self.lobbies.insert(index, lobby)
        self.hosts.insert(index, (task, stop))
        for session in self.truth.roles:
            if before := self.seen.get((index, session)):
                before.watch = lobby.watch(session, None, before.epoch, before.revision)
            else:
                self.watch(index, session)

    def watch(self, index: int, session: str) -> None:
        lobby = self.lobbies[index]
        watch = lobby.watch(session, None, "", 0)
        users = {user.id: user.role for user in lobby.state.users(session)}
        services = {service.id: service.load for service in lobby.state.services(session)}
        self.seen[index, session] = Seen(watch, dict(users), services, lobby.session(session).guest_role)

    def lobby(self, data: st.DataObject) -> Lobby:
        return data.draw(st.sampled_from(self.lobbies))

    def session(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(list(self.truth.roles)))

    def someone(self, data: st.DataObject, here: Callable[[Person], bool]) -> Person | None:
        found = [each for each in self.truth.people.values() if here(each)]
        return data.draw(st.sampled_from(found)) if found else None

    def present(self, person: Person) -> bool:
        return person.joined.user.id in self.truth.roles.get(person.session, {})

    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        session, name = self.session(data), f"user {next(self.numbers)}"
        wish = Wish(name, session, request_id=f"request of {name}")
        if len(self.truth.roles[session]) == MAX_USERS:
            self.refused(QuotaError, self.lobby(data).join(wish))
            return
        joined = self.run(self.lobby(data).join(wish))
        self.truth.people[joined.user.id] = Person(name, session, wish.request_id, joined)
        self.truth.roles[session][joined.user.id] = "host"

    @rule(data=st.data(), others=st.integers(2, 4))
    def join_at_once(self, data: st.DataObject, others: int) -> None:
        """The same request reaches several lobbies, or one lobby several times."""
        session, name = self.session(data), f"user {next(self.numbers)}"
        if len(self.truth.roles[session]) == MAX_USERS:
            return
        wish = Wish(name, session, request_id=f"request of {name}")

        asked = [self.lobby(data) for _ in range(others)]  # before any call is made, as drawing may end the example

        async def all_at_once() -> list[Joined]:
            return await asyncio.gather(*(lobby.join(wish) for lobby in asked))

        found = self.run(all_at_once())
        assert len({each.user.id for each in found}) == 1
        self.truth.people[found[0].user.id] = Person(name, session, wish.request_id, found[0])
        self.truth.roles[session][found[0].user.id] = "host"

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if person := self.someone(data, self.present):
            again = self.run(self.lobby(data).join(Wish(person.name, person.session, request_id=person.request)))
            assert again.user.id == person.joined.user.id

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        person = self.someone(data, lambda each: each.session in self.truth.roles)
        if person is None:
            return
        request = f"return {next(self.numbers)}"
        wish = Wish(person.name, person.session, rejoin_token=person.joined.grant.token, request_id=request)
        roles, id = self.truth.roles[person.session], person.joined.user.id
        if person.barred:
            self.refused(NarupaError, self.lobby(data).join(wish))
        elif id in roles:
            assert self.run(self.lobby(data).join(wish)).user.id == id
        elif len(roles) == MAX_USERS:
            self.refused(QuotaError, self.lobby(data).join(wish))
        elif person.departed is not None and self.clock() - person.departed < 300:
            person.joined = self.run(self.lobby(data).join(wish))
            assert person.joined.user.id == id
            roles[id] = person.joined.user.role
            person.departed, person.request = None, request

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if person := self.someone(data, self.present):
            self.run(self.lobby(data).leave(person.identity))
            self.run(self.lobby(data).leave(person.identity))
            self.gone(person)

    @rule(data=st.data())
    def kick(self, data: st.DataObject) -> None:
        if person := self.someone(data, self.present):
            self.run(self.lobby(data).kick(person.session, person.joined.user.id, ""))
            self.gone(person)
            person.barred = True

    def gone(self, person: Person) -> None:
        del self.truth.roles[person.session][person.joined.user.id]
        self.end_watch_of(person)

    def end_watch_of(self, person: Person) -> None:
        if person.watch:
            person.watch.close()
            person.watch = None

    @rule(data=st.data(), role=st.sampled_from(sorted(ROLES)))
    def set_role(self, data: st.DataObject, role: Any) -> None:
        if (person := self.someone(data, self.present)) is None:
            return
        roles, id = self.truth.roles[person.session], person.joined.user.id
        work = self.lobby(data).set_role(person.session, id, role)
        if roles[id] == "host" != role and list(roles.values()).count("host") == 1:
            self.refused(FailedPreconditionError, work)
            return
        self.run(work)
        roles[id] = role

    @rule(data=st.data(), role=st.sampled_from([*ROLES, "none", None]))
    def set_guest_role(self, data: st.DataObject, role: Any) -> None:
        session = self.session(data)
        self.run(self.lobby(data).set_guest_role(session, role))
        self.truth.guests[session] = role

    @rule(data=st.data(), welcome=st.booleans())
    def join_as_guest(self, data: st.DataObject, welcome: bool) -> None:
        session, name = self.session(data), f"guest {next(self.numbers)}"
        request = f"request of {name}"
        wish = Wish(name, gateway_of=session, guest=True, guests_welcome=welcome, request_id=request)
        work = self.lobby(data).join(wish)
        role = self.truth.guests[session] or ("host" if welcome else "none")
        if role == "none":
            self.refused(PermissionDeniedError, work)
        elif len(self.truth.roles[session]) == MAX_USERS:
            self.refused(QuotaError, work)
        else:
            joined = self.run(work)
            self.truth.people[joined.user.id] = Person(name, session, request, joined)
            self.truth.roles[session][joined.user.id] = role

    @rule(data=st.data())
    def watch_as(self, data: st.DataObject) -> None:
        if person := self.someone(data, lambda each: self.present(each) and each.watch is None):
            person.watch = self.lobby(data).watch(person.session, person.identity, "", 0)

    @rule(data=st.data())
    def stop_watching(self, data: st.DataObject) -> None:
        if person := self.someone(data, lambda each: each.watch is not None):
            self.end_watch_of(person)

    @rule(data=st.data())
    def create_session(self, data: st.DataObject) -> None:
        name = f"session {next(self.numbers)}"
        work = self.lobby(data).create_session(Spec(name=name), "", "", name)
        if len(self.truth.roles) == 3:
            self.refused(QuotaError, work)
            return
        made, _ = self.run(work)
        assert self.run(self.lobby(data).create_session(Spec(name=name), "", "", name))[0].id == made.id
        self.truth.roles[made.id], self.truth.loads[made.id], self.truth.guests[made.id] = {}, {}, None
        for index in range(self.several):
            self.watch(index, made.id)

    @precondition(lambda self: len(self.truth.roles) > 1)
    @rule(data=st.data())
    def end_session(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(list(self.truth.roles)[1:]))
        for person in self.truth.people.values():
            if person.session == session:
                self.end_watch_of(person)
        self.run(self.lobby(data).end_session(session, "over"))
        del self.truth.roles[session], self.truth.loads[session], self.truth.guests[session]
        for index in range(self.several):
            seen = self.seen.pop((index, session))
            seen.take()
            assert (seen.users, seen.services) == ({}, {})
            seen.watch.close()

    @rule(data=st.data(), number=st.integers(1, 4), load=st.integers(0, 2))
    def register(self, data: st.DataObject, number: int, load: int) -> None:
        session, id = self.session(data), f"service-{number}"
        service = Service(id, "imd", endpoints=(Endpoint("grpc", "::1", 1),), load=float(load))
        loads = self.truth.loads[session]
        work = self.lobby(data).register(session, "", service, "here")
        if id not in loads and len(loads) == 3:
            self.refused(QuotaError, work)
            return
        lease = self.run(work)
        self.truth.leases = {key: at for key, at in self.truth.leases.items() if at != (session, id)}
        self.truth.leases[lease.id] = (session, id)
        loads[id] = float(load)

    @precondition(lambda self: self.truth.leases)
    @rule(data=st.data(), load=st.integers(0, 2))
    def renew(self, data: st.DataObject, load: int) -> None:
        lease = data.draw(st.sampled_from(list(self.truth.leases)))
        session, id = self.truth.leases[lease]
        work = self.lobby(data).renew_lease(lease, Report(load=float(load)))
        if id not in self.truth.loads.get(session, {}):
            self.refused(NotFoundError, work)
            return
        self.run(work)
        self.truth.loads[session][id] = float(load)

    @precondition(lambda self: self.truth.leases)
    @rule(data=st.data())
    def deregister(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(list(self.truth.leases)))
        session, id = self.truth.leases.pop(lease)
        self.run(self.lobby(data).deregister(lease))
        self.truth.loads.get(session, {}).pop(id, None)

    @rule()
    def time_passes(self) -> None:
        """Who does not watch vanishes, and services lapse."""

        async def pass_and_sweep() -> None:
            await asyncio.gather(*(lobby.sweep() for lobby in self.lobbies))
            async with contextlib.AsyncExitStack() as stack:
                for lobby in self.lobbies:  # they sweep by themselves, too
                    await stack.enter_async_context(lobby._upkeep._sweeping)
                await self.let_pass(LONG_S)
            await asyncio.gather(*(lobby.sweep() for lobby in self.lobbies))

        self.run(pass_and_sweep())
        for person in self.truth.people.values():
            if self.present(person) and person.watch is None:
                role = self.truth.roles[person.session].pop(person.joined.user.id)
                user: Any = replace(person.joined.user, role=role)  # type: ignore[arg-type]
                person.joined, person.departed = replace(person.joined, user=user), self.clock()
        for loads in self.truth.loads.values():
            loads.clear()

    @rule(data=st.data(), killed=st.booleans())
    def restart(self, data: st.DataObject, killed: bool) -> None:
        index = data.draw(st.integers(0, self.several - 1))
        lobby = self.lobbies[index]
        for person in self.truth.people.values():
            self.end_watch_of(person)
        for (at, _), seen in self.seen.items():
            if at == index:
                seen.take()
                seen.watch.close()
        self.runner.run(self.stop(index, killed))
        self.run(self.start(index))
        assert self.lobbies[index] is not lobby

    async def stop(self, index: int, killed: bool) -> None:
        task, stop = self.hosts.pop(index)
        self.lobbies.pop(index)
        if killed:
            task.cancel()
        stop.set()
        await asyncio.wait({task})

    def refused(self, kind: type[NarupaError], work: Awaitable[Any]) -> None:
        try:
            self.run(work)
        except kind:
            return
        raise AssertionError(f"{kind.__name__} was to be raised")

    @invariant()
    def every_view_is_the_truth(self) -> None:
        for index, lobby in enumerate(self.lobbies):
            assert {each.id for each in lobby.state.sessions()} == set(self.truth.roles)
            for session, roles in self.truth.roles.items():
                assert {user.id: user.role for user in lobby.state.users(session)} == roles
                loads = {service.id: service.load for service in lobby.state.services(session)}
                assert loads == self.truth.loads[session]
                guests = lobby.session(session).guest_role
                assert guests == self.truth.guests[session]
                seen = self.seen[index, session]
                seen.take()
                assert (seen.users, seen.services, seen.guests) == (roles, loads, guests)
        assert len({lobby.state.revision("default") for lobby in self.lobbies}) <= 1

    @invariant()
    def no_lease_leaks(self) -> None:
        if self.lobbies:
            users = {f"user/{session}/{id}" for session, roles in self.truth.roles.items() for id in roles}
            services = {f"service/{session}/{id}" for session, loads in self.truth.loads.items() for id in loads}
            assert self.lease_names() - {PROBE} == users | services

    def teardown(self) -> None:
        for index in reversed(range(len(self.hosts))):
            self.runner.run(self.stop(index, killed=False))
        self.runner.close()
        self.resources.close()


class TwoLobbies(Lobbies):
    """Two lobbies over one store."""

    several = 2


class OverSqlite(Lobbies):
    """One lobby over a file."""

    @functools.cached_property
    def path(self) -> Path:
        return Path(self.resources.enter_context(TemporaryDirectory())) / "lobby.sqlite"

    def store(self) -> SqliteStore:
        self.file = SqliteStore(self.path, self.clock)
        return self.file

    def lease_names(self) -> frozenset[str]:
        return self.file._leases.names


class TwoOverRedis(Lobbies):
    """Two lobbies over a real Redis, whose leases are so long that only `let_pass` makes them lapse: it brings them forward."""

    several = 2
    times = dict.fromkeys(("user_lease_s", "rejoin_grace_s", "service_lease_s"), 3600.0)
    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.redis = self.resources.enter_context(redis.Redis.from_url(self.server.url, decode_responses=True))
        self.redis.flushall()

    def store(self) -> RedisStore:
        return RedisStore(self.server.url, timeout_s=LIMIT_S)

    def lease_names(self) -> frozenset[str]:
        return frozenset(cast("list[str]", self.redis.zrange(LEASES, 0, -1)))

    async def let_pass(self, seconds: float) -> None:
        for name in self.lease_names() - {PROBE}:
            self.redis.zincrby(LEASES, -3600e6 * 2, name)
        await super().let_pass(seconds)


@pytest.fixture(scope="module", autouse=True)
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as TwoOverRedis.server:
        yield


def explored(machine: type[Lobbies], examples: int) -> Any:
    """The machine as a test: with so many examples, or with very many when the profile is to explore."""
    case = machine.TestCase
    exploring = settings.get_current_profile_name() == "explore"
    case.settings = settings(
        max_examples=examples * (20 if exploring else 1),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    return case


TestOneLobby = explored(Lobbies, 25)
TestTwoLobbies = explored(TwoLobbies, 25)
TestOneLobbyOverSqlite = explored(OverSqlite, 25)
TestTwoLobbiesOverRedis = explored(TwoOverRedis, 25)
