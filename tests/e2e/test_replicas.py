"""Replicas of the trajectory service as real processes: their leader is killed, stopped, cut off, or asked to leave."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule
from ase.io import write

import narupa_client
from benchmarks.failover import Group, Viewer, resumed, watch
from narupa_client import TlsConfig
from narupa_shared.certificates import Authority
from narupa_shared.testing.faults import FaultyLink
from narupa_shared.testing.s3_server import S3Server
from narupa_trajectory.checkpoint_store import Saved
from tests.e2e.sessions import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LIMIT_S = 90.0
# What may be seen twice of the simulated time: an interval of checkpoints, and on a busy machine what came before it was written.
REPEATED_S = 3.0

Watching = list[tuple[Viewer, "asyncio.Task[None]"]]


@contextlib.asynccontextmanager
async def watched(group: Group, viewers: int, at_leader: int = 0) -> AsyncIterator[list[Viewer]]:
    """Viewers that have had frames, and go on having them while this is open."""
    watching = await watch(group, viewers, at_leader)
    try:
        yield [viewer for viewer, _ in watching]
    finally:
        for _, task in watching:
            task.cancel()
        await asyncio.gather(*(task for _, task in watching), return_exceptions=True)


async def led_by(group: Group, other_than: str) -> str:
    """The id of the new leader."""
    async with asyncio.timeout(LIMIT_S):
        while (leader := await group.leader()) in ("", other_than):
            await asyncio.sleep(0.05)
    return leader


def in_order(viewer: Viewer) -> None:
    """One run, no index twice or back, and no frame of a leader after one of its successor's."""
    for before, after in itertools.pairwise(viewer.frames):
        assert after.run == before.run
        assert after.index > before.index, (before, after)
        assert after.epoch >= before.epoch, (before, after)


def repeats_little(viewer: Viewer) -> None:
    """The later leader went on about where the earlier one was."""
    frames = viewer.frames
    pace = (frames[29].time_ps - frames[0].time_ps) / (frames[29].at - frames[0].at)
    for before, after in itertools.pairwise(frames):
        if after.epoch > before.epoch:
            assert before.time_ps - after.time_ps <= REPEATED_S * pace, (before, after)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Group]]:
    @contextlib.asynccontextmanager
    async def starting(replicas: int = 3, **through: str) -> AsyncIterator[Group]:
        group = Group(tmp_path, replicas, ["demo:nanotube", "demo:peptide"], through)
        async with group.running():
            yield group

    return starting


async def test_viewers_at_relays_do_not_notice_the_death_of_the_leader(start: Any) -> None:
    async with start() as group, watched(group, 8) as viewers:
        leading = await group.leader()
        assert {viewer.service for viewer in viewers} == {"replica-0", "replica-1", "replica-2"} - {leading}
        group.processes[leading].send_signal(signal.SIGKILL)
        await resumed(viewers)
        for viewer in viewers:
            assert not viewer.ended
            in_order(viewer)
            repeats_little(viewer)
            assert viewer.frames[-1].epoch > viewer.frames[0].epoch


async def test_the_next_leader_goes_on_from_the_checkpoint_at_a_url(tmp_path: Path) -> None:
    group = Group(tmp_path, 2, ["demo:nanotube"], {})
    place = tmp_path / "kept elsewhere"
    group.checkpoints = place.as_uri()
    async with group.running(), watched(group, 2) as viewers:
        leading = await group.leader()
        await until(lambda: list(place.glob("*/*/*.checkpoint")), "a checkpoint in the folder of the URL")
        group.processes[leading].send_signal(signal.SIGKILL)
        await resumed(viewers)
        for viewer in viewers:
            assert not viewer.ended
            in_order(viewer)  # in the same run, which another than the checkpoint's would not be
            repeats_little(viewer)


@pytest.fixture
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """One that whatever is started finds, and may use."""
    with S3Server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


async def test_the_next_leader_goes_on_from_an_object_store_whose_death_nobody_notices(
    tmp_path: Path, object_store: S3Server
) -> None:
    group = Group(tmp_path, 2, ["demo:nanotube"], {})
    group.checkpoints = f"s3://{await asyncio.to_thread(object_store.bucket)}/narupa"
    async with group.running(), watched(group, 2) as viewers:
        leading = await group.leader()
        # Only when something is kept for a second time has a first been kept, and removed.
        await until(lambda: "DELETE" in (tmp_path / "s3.log").read_text(), "checkpoints in the store")
        group.processes[leading].send_signal(signal.SIGKILL)
        await resumed(viewers)
        for viewer in viewers:
            in_order(viewer)  # in the same run, which another than the checkpoint's would not be
            repeats_little(viewer)
        object_store.kill()
        led = await led_by(group, leading)
        await group.logged(led, "checkpoint_not_written")
        counts = [len(viewer.frames) for viewer in viewers]
        await until(
            lambda: all(len(viewer.frames) > count + 60 for viewer, count in zip(viewers, counts, strict=True)),
            "frames without the store",
        )
        assert not any(viewer.ended for viewer in viewers)
    logs = "".join(path.read_text() for path in tmp_path.glob("replica-*.log"))
    assert logs.count("checkpoint_not_written") == 1
    assert not any(object_store.environment[name] in logs for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


async def test_replicas_whose_store_is_away_go_on_showing_frames(tmp_path: Path) -> None:
    group = Group(tmp_path, 2, ["demo:nanotube"], {})
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    group.checkpoints = blocked.as_uri()
    async with group.running(), watched(group, 1, at_leader=1) as viewers:
        leading = await group.leader()
        await group.logged(leading, "checkpoint_not_written")
        counts = [len(viewer.frames) for viewer in viewers]
        await until(
            lambda: all(len(viewer.frames) > count + 60 for viewer, count in zip(viewers, counts, strict=True)),
            "frames without a place for checkpoints",
        )
        blocked.unlink()
        await group.logged(leading, "checkpoints_written_again")
        assert (tmp_path / f"{leading}.log").read_text().count("checkpoint_not_written") == 1
        for viewer in viewers:
            in_order(viewer)


async def test_a_client_at_the_leader_finds_another_and_goes_on(start: Any) -> None:
    async with start(2) as group:
        leading = await group.leader()
        async with narupa_client.join(group.lobby, "Ada") as session:
            service = next(each for each in session.services if each.id == leading)
            session.use(service)
            run, first, epoch, index = "", 0, 0, -1
            killed = False
            async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
                async for frame in frames:
                    run = run or frame.run_id
                    assert frame.run_id == run
                    assert (frame.epoch, frame.index) > (epoch, index), (epoch, index, frame.epoch, frame.index)
                    assert frame.index > index
                    epoch, index = frame.epoch, frame.index
                    if index > 30 and not killed:
                        killed, first = True, epoch
                        group.processes[leading].send_signal(signal.SIGKILL)
                    if killed and epoch > first:
                        break
            assert killed


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """What services are told of TLS, each setting's file: theirs are good for callers, too, of whom they ask for one."""
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.new(now)
    issued = authority.server(["127.0.0.1"], now, 90)
    files = {"ca": authority.issued.certificate, "cert": issued.certificate, "key": issued.key}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    return {**{f"tls-{name}": tmp_path / f"{name}.pem" for name in files}, "tls-client-ca": tmp_path / "ca.pem"}


async def test_replicas_lead_relay_and_fail_over_over_mutual_tls(tmp_path: Path, certificates: dict[str, Path]) -> None:
    flags = [text for name, path in certificates.items() for text in (f"--{name}", str(path))]
    tls = TlsConfig(certificates["tls-ca"], certificates["tls-cert"], certificates["tls-key"])
    group = Group(tmp_path, 2, ["demo:nanotube"], {}, flags, tls)
    async with group.running():
        leading = await group.leader()
        async with narupa_client.join(group.lobby, "Ada", tls=tls) as session:
            relay = next(each for each in session.services if each.kind == "trajectory" and each.id != leading)
            assert all(end.tls for end in relay.endpoints)
            session.use(relay)
            async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
                first = await anext(frames)
                # Only the leader can say: the relay has asked it.
                assert (await session.run_command("playback/list"))["simulations"] == ["nanotube"]
                group.processes[leading].send_signal(signal.SIGKILL)
                before = first
                async for frame in frames:
                    assert (frame.run_id, frame.index > before.index) == (first.run_id, True)
                    before = frame
                    if frame.epoch > first.epoch:
                        break
            assert await group.leader() == relay.id


async def test_a_leader_that_was_stopped_and_goes_on_mixes_nothing_in(start: Any) -> None:
    async with start() as group, watched(group, 4, at_leader=2) as viewers:
        stale = await group.leader()
        at_stale = [viewer for viewer in viewers if viewer.service == stale]
        elsewhere = [viewer for viewer in viewers if viewer.service != stale]
        group.processes[stale].send_signal(signal.SIGSTOP)
        await resumed(elsewhere)
        group.processes[stale].send_signal(signal.SIGCONT)
        await resumed(at_stale)  # which relays by now
        for viewer in viewers:
            assert not viewer.ended
            in_order(viewer)


async def test_a_leader_that_is_cut_off_from_the_lobby_stops_before_another_begins(start: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        links = {}
        group = await stack.enter_async_context(start(0))
        for name in ("replica-0", "replica-1"):
            links[name] = await stack.enter_async_context(FaultyLink(int(group.lobby.rpartition(":")[2])))
            group.through[name] = f"127.0.0.1:{links[name].port}"
            await group.start_replica(name)
        group.replicas = 2
        async with watched(group, 2, at_leader=2) as viewers:
            cut_off = await group.leader()
            links[cut_off].stall()
            at_leader = [viewer for viewer in viewers if viewer.service == cut_off]
            await resumed([viewer for viewer in viewers if viewer.service != cut_off])
            cut_in = at_leader[0].frames[-1].epoch
            began_at = min(seen.at for viewer in viewers for seen in viewer.frames if seen.epoch > cut_in)
            for frames in ([seen for seen in viewer.frames if seen.epoch <= cut_in] for viewer in at_leader):
                # The last instant is shown twice, the second time with the reason why no other is.
                assert next(seen.at for seen in frames if seen.time_ps == frames[-1].time_ps) < began_at
            links[cut_off].resume()
            await links[cut_off].cut()
            await resumed(at_leader)
            for viewer in viewers:
                assert not viewer.ended
                in_order(viewer)


async def test_a_lone_leader_and_its_viewers_do_not_notice_the_death_of_the_lobby(start: Any) -> None:
    async with start(1) as group, watched(group, 0, at_leader=2) as viewers:
        await group.kill_lobby()
        counts = [len(viewer.frames) for viewer in viewers]
        await asyncio.sleep(3.0)  # twice the lease
        await until(
            lambda: all(len(viewer.frames) > count + 30 for viewer, count in zip(viewers, counts, strict=True)),
            "frames without a lobby",
        )
        for viewer in viewers:
            in_order(viewer)


async def test_a_leader_with_standbys_waits_for_a_lobby_that_comes_back(start: Any) -> None:
    async with start(2) as group, watched(group, 2, at_leader=1) as viewers:
        leading = await group.leader()
        await group.kill_lobby()
        await group.logged(leading, "leadership_unsure")
        await group.start_lobby()
        counts = [len(viewer.frames) for viewer in viewers]
        await until(
            lambda: all(len(viewer.frames) > count + 30 for viewer, count in zip(viewers, counts, strict=True)),
            "frames once the lobby is back",
        )
        for viewer in viewers:
            assert not viewer.ended
            in_order(viewer)
        steps = [seen.time_ps for seen in viewers[0].frames]
        assert steps == sorted(steps)  # the same engine went on: nothing was repeated


async def test_a_leader_that_is_asked_to_leave_hands_over_without_repeating_anything(start: Any) -> None:
    async with start(2) as group, watched(group, 2) as viewers:
        leading = await group.leader()
        group.processes[leading].send_signal(signal.SIGTERM)
        await resumed(viewers)
        assert await group.processes[leading].wait() == 0
        for viewer in viewers:
            assert not viewer.ended
            in_order(viewer)
            times = [seen.time_ps for seen in viewer.frames]
            assert times == sorted(times)


def kept_source(group: Group) -> str:
    """Of the newest checkpoint in the group's folder."""
    names = sorted(Path(group.checkpoints).rglob("*.checkpoint"), key=lambda path: path.name)
    try:
        return Saved.from_bytes(names[-1].read_bytes()).source if names else ""
    except FileNotFoundError:  # a newer one has taken its place
        return ""


async def test_what_only_the_leader_can_do_is_asked_of_any_replica(start: Any) -> None:
    async with start(2) as group:
        leading = await group.leader()
        async with narupa_client.join(group.lobby, "Ada") as session:
            relay = next(each for each in session.services if each.kind == "trajectory" and each.id != leading)
            session.use(relay)
            async with asyncio.timeout(LIMIT_S), session.frames() as frames:
                first = await anext(frames)
                assert "playback/list" in await session.commands()
                listed = await session.run_command("playback/list")
                assert len(listed["simulations"]) == 2
                await session.run_command("playback/load", {"index": 1})
                async for frame in frames:
                    if frame.run_id != first.run_id:
                        break
                assert frame.index == 0
                assert frame.particle_count != first.particle_count
                await session.run_command("playback/pause")
                newest = await session.get_frame()
                assert newest.run_id == frame.run_id
            await until(lambda: "peptide" in kept_source(group), "a checkpoint of what was loaded")
            group.processes[leading].send_signal(signal.SIGKILL)
            await led_by(group, leading)
            async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
                async for frame in frames:
                    if frame.epoch > newest.epoch:
                        break
            assert frame.simulation_name == "peptide"  # and not what the group began with


async def test_a_recording_goes_on_where_it_was_shown_last(tmp_path: Path) -> None:
    count = 3000
    atoms = molecule("H2O")
    write(tmp_path / "water.traj", [atoms] * count)
    group = Group(tmp_path, 2, [str(tmp_path / "water.traj")], {})
    async with group.running(), narupa_client.join(group.lobby, "Ada") as session:
        leading = await group.leader()
        session.use(next(each for each in session.services if each.kind == "trajectory" and each.id != leading))
        last = None
        async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
            async for frame in frames:
                if last is not None and frame.epoch > last.epoch:
                    break
                last = frame
                if (frame.step or 0) == 40:
                    group.processes[leading].send_signal(signal.SIGKILL)
        assert last is not None
        assert last.step is not None
        assert frame.run_id == last.run_id
        assert frame.index == 0  # a recording's frames are counted anew with each load
        assert frame.step == last.step + 1


async def test_whoever_pulls_goes_on_pulling_with_the_next_leaders_engine(start: Any) -> None:
    async with start(2) as group, narupa_client.join(group.lobby, "Ada") as session:
        leading = await group.leader()
        session.use(next(each for each in session.services if each.kind == "trajectory" and each.id != leading))
        async with asyncio.timeout(LIMIT_S), session.frames(mode="all") as frames:
            first = await anext(frames)
            x, y, z = first.positions[0]
            async with session.pull([0], to=(x, y, z + 0.5), kind="spring", scale=100):
                async for frame in frames:
                    if frame.epoch == first.epoch and len(frame.user_forces.indices):
                        group.processes[leading].send_signal(signal.SIGKILL)
                        break
                async for frame in frames:
                    if frame.epoch > first.epoch and len(frame.user_forces.indices):
                        break
            async for frame in frames:
                if not len(frame.user_forces.indices):
                    break
