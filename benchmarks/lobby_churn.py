"""People and services come and go at random while lobbies are killed; at the end every view must equal the truth.

`python -m benchmarks.lobby_churn [--store sqlite|memory|redis] [--people N] [--services N] [--seconds S] [--kills N]`: people
join, watch, leave, vanish and come back; services register, renew, deregister and die; auditors follow the session and
resume where they were. Each join and registration that was acknowledged must be found again, nobody may be there twice, no
auditor may miss or repeat an event, and no lease may be left over. Prints what happened; ends with status 1 and a line for
each violation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from benchmarks.lobbies import LobbyProcess, channels, lobbies
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as pb
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

CONNECTIONS: Final = 8
AUDITORS: Final = 3
CALL_LIMIT_S: Final = 5.0
RETRY_S: Final = 0.1
SERVICE_LEASE_S: Final = 3.0
GRACE_S: Final = 3.0
SETTLE_LIMIT_S: Final = 30.0
_AWAY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
)
Result = TypeVar("Result")


@dataclass
class Truth:
    """What must be found at the end, and what went wrong on the way."""

    users: dict[str, str] = field(default_factory=dict)
    """Name to id of those who are present."""
    services: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    join_times: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    outages: list[float] = field(default_factory=list)


class Reach:
    """Calls that are repeated, at whichever lobby answers, until they are."""

    def __init__(self, connections: Sequence[grpc.aio.Channel], choice: random.Random) -> None:
        self._stubs = [lobby_pb2_grpc.LobbyServiceStub(channel) for channel in connections]  # type: ignore[no-untyped-call]
        self._choice = choice

    def stub(self) -> Any:
        return self._choice.choice(self._stubs)

    async def call(self, call: Callable[[Any], Awaitable[Result]]) -> Result:
        """The answer, as soon as a lobby gives one; errors other than of the connection are raised."""
        while True:
            try:
                return await call(self.stub())
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY:
                    raise
                await asyncio.sleep(RETRY_S)


class Person:
    """Somebody who comes and goes until it is time to stay or to be gone."""

    def __init__(self, number: int, reach: Reach, truth: Truth, choice: random.Random, mean_stay_s: float) -> None:
        self._name = f"person {number}"
        self._reach = reach
        self._truth = truth
        self._choice = choice
        self._mean_stay_s = mean_stay_s
        self._joins = 0
        self._user_id = ""
        self._token = ""
        self._watch: asyncio.Task[None] | None = None
        self._epoch = ""
        self._revision = 0
        self._here = 0.0  # when the lobby last had a watch of theirs, or was asked for their join

    async def live(self, until: float, stays: bool) -> None:
        """Comes and goes until `until` (event loop's clock); then is present if `stays`, else has left."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._choice.uniform(0, min(self._mean_stay_s, until - loop.time())))
        while loop.time() < until:
            await self._join()
            await self._stay(until)
            if self._lapsed:
                await self._unwatch()
            if loop.time() >= until:
                break
            if self._watch is None:
                continue
            what = self._choice.choice(("leave", "leave", "vanish", "hiccup", "return"))
            self._truth.counts[what] += 1
            if what == "leave":
                await self._leave()
            elif what == "vanish":
                await self._unwatch()
                self._truth.users.pop(self._name, None)
                self._forget()
            elif what == "hiccup":  # back in time: the same user, and nobody saw them go
                await self._unwatch()
                await asyncio.sleep(self._choice.uniform(0, 0.3 * GRACE_S))
                self._start_watch()
            else:  # too late, but as the same user
                await self._unwatch()
                self._truth.users.pop(self._name, None)
                await asyncio.sleep(2 * GRACE_S)
        if stays and not self._token:
            await self._join()
        elif not stays and self._token and self._watch is not None:
            await self._leave()
        if stays and self._watch is None:
            await self._join()

    @property
    def _lapsed(self) -> bool:
        """Whether the lobby has taken them for gone, since no lobby could be reached for so long."""
        return self._watch is not None and self._watch.done()

    async def end(self) -> None:
        await self._unwatch()

    async def _stay(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, min(self._choice.expovariate(1 / self._mean_stay_s), until - loop.time())))

    async def _join(self) -> None:
        if self._watch is not None:
            return
        if not self._token:
            self._joins += 1
        before = self._user_id
        request = pb.JoinRequest(
            user_name=self._name,
            request_id=f"{self._name}/{self._joins}/{self._truth.counts['join']}",
            rejoin_token=self._token,
        )
        began = time.perf_counter()

        def join(stub: Any) -> Any:
            # The lobby counts from some time between now and its answer.
            self._here = asyncio.get_running_loop().time()
            return stub.Join(request, timeout=CALL_LIMIT_S)

        reply = await self._reach.call(join)
        self._truth.join_times.append(time.perf_counter() - began)
        self._truth.counts["join"] += 1
        if before and reply.user.id != before:
            self._truth.violations.append(f"{self._name} came back as {reply.user.id}, not as {before}")
        self._user_id, self._token = reply.user.id, reply.token
        self._truth.users[self._name] = reply.user.id
        self._start_watch()

    async def _leave(self) -> None:
        token = self._token
        await self._reach.call(
            lambda stub: stub.Leave(pb.LeaveRequest(), metadata=_bearer(token), timeout=CALL_LIMIT_S)
        )
        self._truth.users.pop(self._name, None)
        await self._unwatch()
        self._forget()

    def _forget(self) -> None:
        self._user_id = self._token = self._epoch = ""

    def _start_watch(self) -> None:
        self._watch = asyncio.create_task(self._keep_watching())

    async def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
            if not self._watch.cancelled() and (error := self._watch.exception()):
                self._truth.violations.append(f"{self._name}: the watch failed: {error!r:.300}")
            self._watch = None

    async def _keep_watching(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            request = pb.WatchSessionRequest(epoch=self._epoch, after_revision=self._revision if self._epoch else 0)
            call = self._reach.stub().WatchSession(request, metadata=_bearer(self._token))
            opened = False
            try:
                while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    opened = True
                    last = response.more[-1] if response.more else response
                    self._epoch, self._revision = last.epoch, last.revision
            except grpc.aio.AioRpcError as error:
                if self._user_id not in self._truth.users.values():
                    return  # left; the watch ends with it
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    self._truth.counts["watches begun anew"] += 1
                    self._epoch = ""
                elif error.code() not in _AWAY:
                    since = loop.time() - self._here
                    if error.code() is grpc.StatusCode.NOT_FOUND and since >= GRACE_S:
                        self._truth.counts["presence that could not be kept in time"] += 1
                        self._truth.users.pop(self._name, None)
                        return
                    self._truth.violations.append(
                        f"{self._name} ({self._user_id}), whose join was acknowledged and who was here {since:.1f} s ago: "
                        f"{error.code().name}: {error.details()}"
                    )
                    return
            finally:
                if opened:
                    self._here = loop.time()
                call.cancel()
            await asyncio.sleep(RETRY_S)


class Worker:
    """A service that registers, renews, and at times ends, in good order or not."""

    def __init__(self, number: int, reach: Reach, truth: Truth, choice: random.Random) -> None:
        self._number = number
        self._reach = reach
        self._truth = truth
        self._choice = choice
        self._lives = 0
        self._renewed = 0.0

    async def live(self, until: float) -> None:
        """Lives many lives until `until`; the last one goes on until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._lives += 1
            service_id = f"worker-{self._number}-{self._lives}"
            service = pb.Service(
                id=service_id, kind="worker", endpoints=[pb.Endpoint(protocol="grpc", host="127.0.0.1", port=1)]
            )
            request = pb.RegisterServiceRequest(service=service)
            lease = await self._reach.call(
                lambda stub, request=request: stub.RegisterService(request, timeout=CALL_LIMIT_S)  # type: ignore[misc]
            )
            self._truth.counts["registration"] += 1
            self._truth.services.add(service_id)
            self._renewed = loop.time()
            die_at = loop.time() + self._choice.expovariate(1 / 15)
            held = True
            while held and (loop.time() < die_at or loop.time() >= until):
                held = await self._renew(lease.lease_id, service_id)
                await asyncio.sleep(SERVICE_LEASE_S / 4)
            self._truth.services.discard(service_id)
            if not held:
                continue
            if self._choice.random() < 0.5:
                deregister = pb.DeregisterServiceRequest(lease_id=lease.lease_id)
                await self._reach.call(
                    lambda stub, request=deregister: stub.DeregisterService(request, timeout=CALL_LIMIT_S)  # type: ignore[misc]
                )
            else:
                self._truth.counts["service death"] += 1

    async def _renew(self, lease_id: str, service_id: str) -> bool:
        """Whether the lease is still held; it may have lapsed only if it could not be renewed in time."""
        request = pb.RenewLeaseRequest(lease_id=lease_id, occupancy=float(self._choice.randrange(3)))
        loop = asyncio.get_running_loop()
        try:
            began = await self._reach.call(lambda stub: _timed(stub.RenewLease(request, timeout=1.0)))
        except grpc.aio.AioRpcError as error:
            since = loop.time() - self._renewed
            if error.code() is grpc.StatusCode.NOT_FOUND and since >= SERVICE_LEASE_S:
                self._truth.counts["lease that could not be renewed in time"] += 1
            else:
                self._truth.violations.append(
                    f"{service_id}, last renewed {since:.1f} s ago: {error.code().name}: {error.details()}"
                )
            return False
        self._renewed = began
        return True


class Auditor:
    """Follows the session without being in it, and resumes where it was at whichever lobby answers."""

    def __init__(self, number: int, reach: Reach, truth: Truth) -> None:
        self._name = f"auditor {number}"
        self._reach = reach
        self._truth = truth
        self._epoch = ""
        self.revision = 0
        self.users: dict[str, str] = {}
        self.services: set[str] = set()

    async def follow(self) -> None:
        while True:
            request = pb.WatchSessionRequest(epoch=self._epoch, after_revision=self.revision if self._epoch else 0)
            call = self._reach.stub().WatchSession(request)
            try:
                while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    for event in (response, *response.more):
                        self._take(event)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY:
                    self._truth.violations.append(f"{self._name}: {error.code().name}: {error.details()}")
                    self._epoch = ""
            finally:
                call.cancel()
            await asyncio.sleep(RETRY_S)

    def _take(self, event: pb.WatchSessionResponse) -> None:
        kind = event.WhichOneof("event")
        if kind == "snapshot":
            self.users = {user.id: user.name for user in event.snapshot.users}
            self.services = {service.id for service in event.snapshot.services}
        elif event.epoch != self._epoch or event.revision != self.revision + 1:
            self._wrong(f"revision {event.revision} came after {self.revision}")
        self._epoch, self.revision = event.epoch, event.revision
        self._truth.counts["events audited"] += 1
        if kind == "user_joined":
            user = event.user_joined
            if user.id in self.users:
                self._wrong(f"{user.id} ({user.name}) joined twice")
            self.users[user.id] = user.name
        elif kind == "user_left":
            if self.users.pop(event.user_left.id, None) is None:
                self._wrong(f"{event.user_left.id} left and was not there")
        elif kind == "service_changed":
            self.services.add(event.service_changed.id)
        elif kind == "service_removed":
            if event.service_removed.id not in self.services:
                self._wrong(f"{event.service_removed.id} was removed and was not there")
            self.services.discard(event.service_removed.id)

    def _wrong(self, text: str) -> None:
        self._truth.violations.append(f"{self._name}: {text}")


async def churned(
    store: str,
    *,
    people: int = 500,
    services: int = 20,
    seconds: float = 120.0,
    kills: int = 0,
    mean_stay_s: float = 30.0,
    seed: int = 1,
) -> Truth:
    """What happened, violations included; nothing of it is left running."""
    truth = Truth()
    choice = random.Random(seed)
    flags = [
        "--service-lease-s",
        str(SERVICE_LEASE_S),
        "--rejoin-grace-s",
        str(GRACE_S),
        "--max-users",
        str(3 * people),
    ]
    with tempfile.TemporaryDirectory() as folder:
        async with lobbies(store, Path(folder), flags) as running, channels(running, CONNECTIONS) as connections:
            reach = Reach(connections, choice)
            crowd = [Person(number, reach, truth, choice, mean_stay_s) for number in range(people)]
            workers = [Worker(number, reach, truth, choice) for number in range(services)]
            auditors = [Auditor(number, reach, truth) for number in range(AUDITORS)]
            until = asyncio.get_running_loop().time() + seconds
            background = [asyncio.create_task(auditor.follow()) for auditor in auditors]
            background += [asyncio.create_task(worker.live(until)) for worker in workers]
            try:
                async with asyncio.TaskGroup() as group:
                    for person in crowd:
                        group.create_task(person.live(until, stays=choice.random() < 0.5))
                    group.create_task(killed(running, kills, until, truth, choice))
                await settled(running, auditors, truth)
            finally:
                await asyncio.gather(*(person.end() for person in crowd))
                for task in background:
                    task.cancel()
                for result in await asyncio.gather(*background, return_exceptions=True):
                    if isinstance(result, Exception):
                        truth.violations.append(f"a task failed: {result!r}")
            truth.counts["waits for the store"] = sum(lobby.store_troubles for lobby in running)
            truth.violations += [f"logged: {line[:500]}" for lobby in running for line in lobby.complaints]
    return truth


async def killed(running: list[LobbyProcess], kills: int, until: float, truth: Truth, choice: random.Random) -> None:
    """Some lobby is killed without notice, and started again, at `kills` random times."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for when in sorted(choice.uniform(begin + 1, until - 1) for _ in range(kills)):
        await asyncio.sleep(max(0.0, when - loop.time()))
        truth.outages.append(await choice.choice(running).kill_and_restart())


async def settled(running: list[LobbyProcess], auditors: list[Auditor], truth: Truth) -> None:
    """Every lobby and every auditor sees the truth, or the differences are violations."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_LIMIT_S
    while differences := await differing(running, auditors, truth):
        if loop.time() > deadline:
            truth.violations += differences
            return
        await asyncio.sleep(0.5)


async def differing(running: list[LobbyProcess], auditors: list[Auditor], truth: Truth) -> list[str]:
    users, services = set(truth.users.values()), truth.services
    views: list[tuple[str, set[str], set[str]]] = [
        (auditor._name, set(auditor.users), auditor.services) for auditor in auditors
    ]
    for lobby in running:
        async with grpc.aio.insecure_channel(lobby.address) as channel:
            stub = lobby_pb2_grpc.LobbyServiceStub(channel)  # type: ignore[no-untyped-call]
            session = await stub.GetSession(pb.GetSessionRequest(), timeout=CALL_LIMIT_S)
            listed = await stub.ListServices(pb.ListServicesRequest(), timeout=CALL_LIMIT_S)
        views.append(
            (f"lobby {lobby.port}", {user.id for user in session.users}, {each.id for each in listed.services})
        )
    return [
        f"{name} has {what} {sorted(seen - true)[:5]} too many and lacks {sorted(true - seen)[:5]}"
        for name, seen_users, seen_services in views
        for what, seen, true in (("users", seen_users, users), ("services", seen_services, services))
        if seen != true
    ]


async def _timed(call: Awaitable[Any]) -> float:
    """When a call that succeeded began."""
    began = asyncio.get_running_loop().time()
    await call
    return began


def _bearer(token: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {token}"),)


def described(store: str, truth: Truth) -> str:
    """One line for people."""
    times = sorted(truth.join_times)
    outages = f"; longest time without the killed lobby {max(truth.outages):.2f} s" if truth.outages else ""
    return (
        f"lobby_churn: {store}: {dict(truth.counts)}; at the end {len(truth.users)} people and {len(truth.services)} services; "
        f"{len(truth.outages)} kills{outages}; join median {1000 * statistics.median(times):.0f} ms, "
        f"p99 {1000 * times[int(0.99 * (len(times) - 1))]:.0f} ms; {len(truth.violations)} violations"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("memory", "sqlite", "redis"), default="sqlite")
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mean-stay", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    truth = asyncio.run(
        churned(
            options.store,
            people=options.people,
            services=options.services,
            seconds=options.seconds,
            kills=0 if options.store == "memory" else options.kills,
            mean_stay_s=options.mean_stay,
            seed=options.seed,
        )
    )
    print(described(options.store, truth))
    for violation in truth.violations[:50]:
        print(f"  violation: {violation}")
    return 1 if truth.violations else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
