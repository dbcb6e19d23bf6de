"""Replicas on machines of their own, whose cables are pulled: nobody is ever shown two leaders' frames as one simulation."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from ase.build import molecule
from ase.io import write

from narupa_trajectory.leadership import SAFETY
from narupa_trajectory.succession import UNSURE
from tests.integration.cables import Network
from tests.integration.frame_log import Line

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LIMIT_S: Final = 90.0
LEASE_S: Final = 3.0  # so long that a busy machine does not make it lapse
LOBBY_PORT: Final = 38810
PORT: Final = 38811
IMD_PORT: Final = 38812
REPLICAS: Final = ("ash", "elm", "oak")
# Of each stream, before and after what happens to it.
ENOUGH: Final = 20


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.02)


class Written:
    """The lines of JSON in a file that others append to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far; what is no JSON is left out."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        for line in whole[0].splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                self._lines.append(json.loads(line))
        return self._lines


class Audience:
    """Viewers at every replica, each on the replica's own machine or on one that is theirs."""

    def __init__(self, written: Sequence[Written]) -> None:
        self._written = written

    def streams(self, at: str = "", elsewhere_than: str = "") -> list[list[Line]]:
        """What each viewer has had, of those at this address, or at others."""
        found: dict[str, list[Line]] = {}
        for line in (Line(**each) for written in self._written for each in written.lines()):
            address = line.viewer.partition(":")[0]
            if at in ("", address) and address != elsewhere_than:
                found.setdefault(line.viewer, []).append(line)
        return list(found.values())

    def everyone(self, count: int, holds: Callable[[list[Line]], object], what: str, **where: str) -> None:
        """Returns once `holds` of all `count` viewers of `where`, each with what it has had."""

        def met() -> bool:
            streams = self.streams(**where)
            assert all(stream[-1].digest for stream in streams), [stream[-1] for stream in streams]
            return len(streams) == count and all(holds(stream) for stream in streams)

        until(met, what)

    @property
    def epoch(self) -> int:
        """The highest that anybody has seen."""
        return max(line.epoch for stream in self.streams() for line in stream)

    def moving(self) -> list[Line]:
        """The frames that showed anything new, each once, in the order in which they were made."""
        made = {(line.epoch, line.made_at): line for stream in self.streams() for line in stream}
        return sorted(made.values(), key=lambda line: (line.epoch, line.made_at))


class Session:
    """A lobby, replicas, and imd, each on a machine of its own.

    Attributes:
        network: Of those machines, and of one for viewers.
    """

    def __init__(self, folder: Path, network: Network) -> None:
        self.network = network
        self._folder = folder
        self._lobby = f"{network.address('lobby')}:{LOBBY_PORT}"
        self._started = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All of them run, and take viewers, while this is open."""
        write(self._folder / "ethanol.xyz", molecule("CH3CH2OH"))
        source = f"{self._folder / 'ethanol.xyz'}?calculator=lj&calculator.sigma=0.3&calculator.epsilon=0.001"
        flags = (
            *("--lobby", self._lobby, "--group", "trajectory", "--sources", json.dumps([source])),
            *("--checkpoint-dir", str(self._folder / "checkpoints"), "--checkpoint-interval-s", "0.3"),
        )
        with contextlib.ExitStack() as stack:
            kept = ("--state-dir", str(self._folder / "lobby"))
            self._start(stack, "lobby", "lobby", LOBBY_PORT, *kept, "--leader-lease-s", str(LEASE_S))
            for name in REPLICAS:
                self._start(stack, name, "trajectory", PORT, "--service-id", name, *flags)
            self._start(stack, "imd", "imd", IMD_PORT, "--store", "memory", "--lobby", self._lobby)
            for name in REPLICAS:
                until(partial(self.logs, name, "service_ready"), f"{name} is ready")
            yield

    def _start(self, stack: contextlib.ExitStack, machine: str, service: str, port: int, *flags: str) -> None:
        command = (sys.executable, "-m", f"narupa_{service}", "--host", self.network.address(machine))
        options = ("--port", str(port), "--open-access", "--log-format", "json", *flags)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NARUPA_")}
        with (self._folder / f"{machine}.log").open("wb") as log:
            process = self.network.start(machine, *command, *options, stderr=log, env=environment)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def log(self, replica: str) -> list[dict[str, Any]]:
        """What the replica has logged."""
        return Written(self._folder / f"{replica}.log").lines()

    def logs(self, replica: str, event: str) -> bool:
        """Whether the replica has logged this."""
        return any(line["event"] == event for line in self.log(replica))

    def reigns(self) -> dict[int, list[str]]:
        """Who has been given the lead, by epoch."""
        found: dict[int, list[str]] = {}
        for name in REPLICAS:
            for line in self.log(name):
                if line["event"] == "leadership" and line["leads"]:
                    found.setdefault(line["epoch"], []).append(name)
        return found

    @contextlib.contextmanager
    def watched(self) -> Iterator[tuple[str, Audience]]:
        """Who leads, and viewers at all replicas, who all have frames of its; those at the leader are on its machine."""
        until(self.reigns, "somebody leads")
        (leading,) = self.reigns()[max(self.reigns())]
        others = [name for name in REPLICAS if name != leading]
        with contextlib.ExitStack() as stack:
            written = [self._watch(stack, leading, [leading]), self._watch(stack, "viewers", others)]
            audience = Audience(written)
            audience.everyone(6, lambda stream: len(stream) >= ENOUGH, "frames at every replica")
            assert {stream[-1].epoch for stream in audience.streams()} == {audience.epoch}
            yield leading, audience

    def _watch(self, stack: contextlib.ExitStack, machine: str, replicas: Sequence[str]) -> Written:
        self._started += 1
        path = self._folder / f"viewers-{self._started}"
        command = (sys.executable, "-m", "tests.integration.frame_log")
        addresses = [f"{self.network.address(name)}:{PORT}" for name in replicas]
        with path.open("wb") as file:
            process = self.network.start(machine, *command, *addresses, stdin=subprocess.PIPE, stdout=file)
        stack.callback(process.communicate)
        return Written(path)

    def check(self, audience: Audience) -> None:
        """Nobody has lost a stream or been shown anything twice, and no two leaders have been at it at once."""
        for stream in audience.streams():
            for before, after in itertools.pairwise(stream):
                assert after.digest, after.exception
                assert after.run == before.run
                assert after.epoch >= before.epoch, (before, after)
                assert after.index > before.index, (before, after)
                assert after.epoch > before.epoch or after.time_ps >= before.time_ps, (before, after)
        shown: dict[tuple[int, int], str] = {}
        for line in (line for stream in audience.streams() for line in stream):
            assert shown.setdefault((line.epoch, line.index), line.digest) == line.digest, "two frames of one place"
        for before, after in itertools.pairwise(audience.moving()):
            assert after.made_at > before.made_at, "a leader made a frame after its successor's first"
        assert all(len(names) == 1 for names in self.reigns().values()), self.reigns()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    network = Network(("lobby", "imd", *REPLICAS, "viewers"))
    with network.made():
        session = Session(tmp_path_factory.mktemp("session"), network)
        with session.running():
            yield session


def waits(stream: Sequence[Line]) -> bool:
    """Whether a viewer reads that the simulation waits for the lobby."""
    return stream[-1].exception == UNSURE


def fails_over(session: Session, audience: Audience, cut_off: str, cut: AbstractContextManager[None]) -> None:
    """While `cut` is open the leader is `cut_off`: another leads, and the old one has stopped by then and says why."""
    network, epoch = session.network, audience.epoch
    address = network.address(cut_off)
    with cut:
        audience.everyone(4, lambda stream: stream[-1].epoch > epoch, "another leads", elsewhere_than=address)
        audience.everyone(2, waits, "those at the old leader read why it waits", at=address)
        assert all(stream[-1].epoch == epoch for stream in audience.streams(at=address))
    later = audience.epoch
    audience.everyone(
        6,
        lambda stream: sum(line.epoch >= later for line in stream) >= ENOUGH and not stream[-1].exception,
        "all are shown the new leader's frames, and read that all is well",
    )
    assert cut_off not in session.reigns()[later]
    *_, last = (line["event"] for line in session.log(cut_off) if line["event"] in ("leads", "relay_follows"))
    assert last == "relay_follows"
    session.check(audience)


@contextlib.contextmanager
def pulled(network: Network, machine: str) -> Iterator[None]:
    network.pull(machine)
    try:
        yield
    finally:
        network.plug(machine)


def test_a_leader_whose_cable_is_pulled_relays_its_successor_once_it_is_back(session: Session) -> None:
    with session.watched() as (leading, audience):
        fails_over(session, audience, leading, pulled(session.network, leading))


@pytest.mark.parametrize(
    ("to", "back"),
    [(True, True), (True, False), (False, True)],
    ids=["both ways", "what it asks", "what it is answered"],
)
def test_a_leader_cut_off_from_the_lobby_only_has_stopped_before_another_begins(
    session: Session, to: bool, back: bool
) -> None:
    with session.watched() as (leading, audience):
        fails_over(session, audience, leading, session.network.dropping(leading, "lobby", to=to, back=back))


def test_a_leader_of_others_waits_while_nobody_reaches_the_lobby_and_says_so(session: Session) -> None:
    with session.watched() as (leading, audience):
        with pulled(session.network, "lobby"):
            pulled_at = time.monotonic()
            audience.everyone(6, waits, "everybody reads why the simulation waits")
            said = [line for line in session.log(leading) if line["event"] == "leadership_unsure"]
            assert (said[-1]["reason"], said[-1]["epoch"]) == (UNSURE, audience.epoch)
            # It has asked for the lease that it has before the cable was out, and shown nothing since that ended.
            assert audience.moving()[-1].made_at < pulled_at + LEASE_S * (1 - SAFETY)
            epoch = audience.epoch
        audience.everyone(
            6,
            lambda stream: sum(line.epoch > epoch for line in stream) >= ENOUGH and not stream[-1].exception,
            "all are shown frames, and read that all is well",
        )
        session.check(audience)
