"""Which part a replica takes: it leads while the lobby says so, halts when it cannot know, and relays otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.fanout import Broadcaster
from narupa_shared.sdk.narupa.lobby.v1 import Endpoint, LeadResponse, Service, ServiceStatus
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.leadership import Tenure
from narupa_trajectory.relay import Upstream, UpstreamChannel
from narupa_trajectory.replica import Replica

LEASE_S = 0.2
LIMIT_S = 20.0


class FakePlace:
    """A lobby that answers as the test says.

    Attributes:
        epoch: Of the replica's leadership; 0: it has none. None: there is no answer.
        standbys: How many others there are.
        answering: Whether it answers; cleared, whoever asks waits.
        services: What is listed.
        resigned: How often the replica has resigned.
        seen: The highest epoch that it said it had heard of.
    """

    def __init__(self) -> None:
        self.service_id = "self"
        self.epoch: int | None = 0
        self.leader_epoch = 0
        self.standbys = 1
        self.answering = asyncio.Event()
        self.answering.set()
        self.services: list[Service] = []
        self.resigned = 0
        self.seen = 0

    def find(self, kind: str) -> Sequence[Service]:
        return self.services

    async def changed(self) -> None:
        await asyncio.sleep(0.01)

    async def lead(self, seen_epoch: int, timeout_s: float, *, resign: bool = False) -> LeadResponse:
        self.seen = max(self.seen, seen_epoch)
        await self.answering.wait()
        if self.epoch is None:
            raise UnavailableError("no lobby")
        if resign:
            self.resigned += 1
            self.epoch = 0
            return LeadResponse()
        leader_epoch = max(self.epoch, self.leader_epoch)
        return LeadResponse(
            epoch=self.epoch, lease_ttl_s=LEASE_S, standbys=self.standbys, leader_id="?", leader_epoch=leader_epoch
        )


class FakePlayback:
    """Remembers what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.may_show: Callable[[], bool] = lambda: True
        self.on_saved: object = None
        self.on_status: Callable[[], None] = lambda: None
        self.broadcaster = Broadcaster(lambda: None)
        self.on_audience: list[Callable[[], None]] = []
        self.watched = True
        self.epoch = 0
        self.run_id = "r"
        self.failure: NarupaError | None = None
        self.work: list[str] = []

    async def lead(self, epoch: int, saved: object) -> None:
        if self.failure:
            raise self.failure
        assert len(self.work) % 2 == 0, "nothing is at work before there is an engine"
        self.epoch = epoch
        self.told.append(f"lead {epoch}")

    async def follow(self) -> None:
        self.told.append("follow")

    async def halt(self) -> None:
        assert not self.may_show()
        self.told.append("halt")

    async def go_on(self) -> None:
        assert self.may_show()
        self.told.append("go on")


class Setting:
    """A replica that runs, and what is around it."""

    def __init__(self, second_hand: bool = False) -> None:
        self.clock = FakeClock()
        self.place = FakePlace()
        self.playback = FakePlayback()
        self.work = self.playback.work
        playback: Any = self.playback
        self.replica = Replica(
            "g", playback, playback, self.place, self._channel, self._at_work,
            second_hand=second_hand, tenure=Tenure(self.clock),
        )  # fmt: skip

    def _channel(self, find: Callable[[], Sequence[Upstream]]) -> UpstreamChannel:
        return UpstreamChannel(find, "self", lambda: "")

    @contextlib.asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        self.work.append("begins")
        try:
            yield
        finally:
            self.work.append("ends")

    async def told(self, *what: str) -> None:
        """The playback has been told this, and nothing else."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while len(self.playback.told) < len(what):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        assert self.playback.told == list(what)

    async def works(self, *what: str) -> None:
        """What belongs to a leader has begun and ended so often."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while self.work != list(what):
                    await asyncio.sleep(0.01)
        assert self.work == list(what)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    """One whose replica leads in epoch 1."""
    setting = Setting()
    setting.place.epoch = 1
    async with asyncio.timeout(60), setting.replica.running():
        yield setting


async def test_it_leads_when_the_lobby_says_so_with_all_that_belongs_to_it(setting: Setting) -> None:
    await setting.told("lead 1")
    assert setting.replica.leads
    assert setting.playback.may_show()
    assert setting.replica.settled
    await setting.works("begins")


async def test_it_halts_when_its_lease_runs_out_unanswered_and_goes_on_with_an_answer(setting: Setting) -> None:
    setting.place.epoch = None
    setting.clock.advance(LEASE_S)
    assert not setting.playback.may_show()  # at once, before any task has looked
    await setting.told("lead 1", "halt")
    await setting.works("begins")  # nothing has ended yet
    setting.place.epoch = 1
    await setting.told("lead 1", "halt", "go on")


async def test_it_halts_in_time_though_it_waits_for_an_answer(setting: Setting) -> None:
    setting.place.answering.clear()
    setting.clock.advance(LEASE_S)
    await setting.told("lead 1", "halt")
    setting.place.answering.set()
    await setting.told("lead 1", "halt", "go on")


async def test_it_goes_on_in_the_next_epoch_when_nobody_else_led(setting: Setting) -> None:
    setting.place.epoch = None
    setting.clock.advance(LEASE_S)
    await setting.told("lead 1", "halt")
    setting.place.epoch = 2
    await setting.told("lead 1", "halt", "go on")
    assert setting.playback.epoch == 2
    await setting.works("begins")


async def test_it_begins_anew_from_the_checkpoint_when_somebody_else_led_meanwhile(setting: Setting) -> None:
    setting.place.epoch = None
    setting.clock.advance(LEASE_S)
    await setting.told("lead 1", "halt")
    setting.place.epoch = 3
    await setting.told("lead 1", "halt", "follow", "lead 3")
    await setting.works("begins", "ends", "begins")


async def test_it_relays_when_another_leads(setting: Setting) -> None:
    setting.place.epoch, setting.place.leader_epoch = 0, 2
    await setting.told("lead 1", "follow")
    assert not setting.replica.leads
    await setting.works("begins", "ends")


async def test_without_standbys_it_goes_on_unanswered(setting: Setting) -> None:
    setting.place.standbys = 0
    async with asyncio.timeout(LIMIT_S):
        while setting.replica.tenure.standbys:
            await asyncio.sleep(0.01)
    setting.place.epoch = None
    setting.clock.advance(1000.0)
    assert setting.playback.may_show()
    await setting.told("lead 1")


async def test_imd_that_knows_of_a_later_leader_ends_it(setting: Setting) -> None:
    setting.place.epoch = None
    setting.replica.superseded()
    assert not setting.playback.may_show()
    await setting.told("lead 1", "follow")


async def test_who_resigns_asks_no_more(setting: Setting) -> None:
    await setting.replica.resign()
    await setting.replica.resign()
    assert setting.place.resigned == 1
    setting.place.epoch = 1
    await setting.told("lead 1", "follow")
    await asyncio.sleep(2 * LEASE_S)
    assert not setting.replica.leads


async def test_who_cannot_load_what_it_is_to_go_on_with_leaves_it_to_others(setting: Setting) -> None:
    setting.playback.failure = UnavailableError("no GPU")
    setting.place.epoch, setting.place.leader_epoch = 0, 2
    await setting.told("lead 1", "follow")
    setting.place.epoch = 3
    await setting.told("lead 1", "follow", "follow")
    assert setting.place.resigned == 1
    setting.place.epoch = 4
    await asyncio.sleep(2 * LEASE_S)
    assert not setting.replica.tenure.granted  # for some seconds it does not even ask


async def test_who_has_never_had_anything_to_show_says_why_it_cannot_lead() -> None:
    setting = Setting()
    setting.place.epoch = 1
    setting.playback.failure = UnavailableError("no such file")
    with pytest.raises(UnavailableError, match="no such file"):
        async with asyncio.timeout(LIMIT_S), setting.replica.running():
            pass


def listed(id: str, epoch: int = 0, group: str = "g", running: bool = True, **metadata: str) -> Service:
    ends = [Endpoint(protocol="grpc", host="h", port=1), Endpoint(protocol="grpcs", host="::1", port=2)]
    status = ServiceStatus.RUNNING if running else ServiceStatus.UNHEALTHY
    return Service(id=id, kind="trajectory", group=group, epoch=epoch, endpoints=ends, status=status, metadata=metadata)


@pytest.mark.parametrize("second_hand", [False, True])
async def test_whom_it_relays(second_hand: bool) -> None:
    setting = Setting(second_hand)
    replica, found = setting.replica, setting.replica.relay._channel.find
    setting.place.services = [listed("b", 3, group="other"), listed("far", relay_from="relays")]
    assert not found()
    setting.place.services += [listed("c", 1), listed("d", 2)]
    assert found() == replica.channel.find() == (Upstream("d", 2, ("h:1", "grpcs://[::1]:2")),)
    replica.relay.frames.epoch = 3  # a later leader has been heard: the list is behind
    assert not found()
    setting.place.services.append(listed("self", 4))
    assert not found()


async def test_who_is_to_relay_relays_takes_those_that_have_frames_from_the_leader_and_then_the_leader() -> None:
    setting = Setting(second_hand=True)
    others = [listed(f"r{number}") for number in range(5)]
    setting.place.services = [
        listed("d", 2), listed("self"), *others, listed("far", relay_from="relays"),
        listed("else", group="other"), listed("cut off", running=False),
    ]  # fmt: skip
    found = setting.replica.relay._channel.find()
    assert sorted(each.id for each in found[:-1]) == [each.id for each in others]
    assert found[-1].id == "d"
    assert not any(each.epoch for each in found[:-1])
    assert [each.id for each in setting.replica.channel.find()] == ["d"]  # what only the leader can answer
    setting.place.services.reverse()
    assert setting.replica.relay._channel.find() == found


async def test_replicas_spread_over_those_that_they_may_relay_and_hardly_move_when_one_comes_or_goes() -> None:
    def first_of(number: int, relays: int) -> str:
        setting = Setting(second_hand=True)
        setting.place.service_id = f"far-{number}"
        setting.place.services = [listed(f"r{each}") for each in range(relays)]
        return setting.replica.relay._channel.find()[0].id

    before, after = ([first_of(number, relays) for number in range(120)] for relays in (4, 5))
    assert all(15 <= count <= 45 for count in Counter(before).values())
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {"r4"}


@pytest.mark.parametrize("second_hand", [False, True])
async def test_only_who_has_frames_from_the_leader_gives_them_on_to_replicas(second_hand: bool) -> None:
    replica = Setting(second_hand).replica
    replica.relay.connected = True
    assert not replica.feeds  # there is none yet
    replica._settled.set()
    assert replica.feeds is not second_hand


async def test_who_neither_leads_nor_has_frames_of_who_does_is_apart_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = Setting().replica
    monkeypatch.setattr("narupa_trajectory.replica.APART_S", -1.0)
    assert not replica.apart  # it has only just come
    replica._settled.set()
    assert replica.apart
    assert not replica.feeds
    monkeypatch.setattr("narupa_trajectory.replica.APART_S", 1e9)
    assert not replica.apart
    assert replica.feeds


async def test_calls_wait_a_while_for_somebody_to_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    monkeypatch.setattr("narupa_trajectory.replica.LED_LIMIT_S", 0.05)
    with pytest.raises(UnavailableError, match="no replica leads"):
        await setting.replica.until_led()
    monkeypatch.setattr("narupa_trajectory.replica.LED_LIMIT_S", LIMIT_S)
    waiting = asyncio.create_task(setting.replica.until_led())
    await asyncio.sleep(0.02)
    setting.place.services = [listed("a", 1)]
    await waiting
