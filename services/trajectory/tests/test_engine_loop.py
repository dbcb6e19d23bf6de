"""The engine's loop and its channel, with a source that needs no engine, over a real socket pair and real shared memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from engine_fakes import FakeSource
from engine_service import Service

from narupa_shared import freed_memory
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.channel import jsoned, unjsoned
from narupa_trajectory.engine.loop import interaction_of
from narupa_trajectory.sources.checkpoints import Checkpoint

PULL = Interaction.parse("a", particles=[0])


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def service(source: FakeSource) -> Iterator[Service]:
    service = Service(source)
    yield service
    service.close()


def test_makes_no_snapshot_that_nobody_wants(service: Service, source: FakeSource) -> None:
    service.next("statistics")
    assert source.step > 0
    assert source.snapshots == 1
    service.send(do="want", at=0.0)
    service.frame()
    service.next("statistics")
    assert source.snapshots == 2


def test_every_frame_when_asked_and_never_more_than_the_slots_unacknowledged(
    service: Service, source: FakeSource
) -> None:
    service.send(do="every", on=True)
    steps = [service.frame().step for _ in range(20)]
    assert np.diff(steps).tolist() == [2] * 19
    headers = [service.next("frame") for _ in range(4)]
    assert len({header["slot"] for header in headers}) == 4
    made = source.snapshots
    time.sleep(0.05)
    assert source.snapshots == made
    for header in headers:
        service.send(do="ack", slot=header["slot"])
    service.frame()


def test_pause_shows_where_it_stands_and_step_moves_one_frame(service: Service) -> None:
    assert "error" not in service.command("pause")
    stands = service.frame().step
    assert "error" not in service.command("step")
    assert service.frame().step == stands + 2
    service.command("play")
    service.send(do="want", at=0.0)
    assert service.frame().step > stands + 2


def test_reset_announces_itself_and_shows_the_first_frame(service: Service) -> None:
    service.command("pause")
    service.frame()
    service.send(do="reset", id=2)
    service.next("reset")
    assert service.frame().step == 0


def test_frames_cross_with_everything_in_them() -> None:
    service = Service(FakeSource(), velocities=True, playing=False)
    pulls = [Interaction.parse(id, particles=[1, 2], kind="spring", max_force=float("inf")) for id in "ab"]
    service.pull(*pulls)
    service.next("interactions_applied")
    service.send(do="show", id=0)
    snapshot = service.frame()
    assert snapshot.velocities is not None
    np.testing.assert_array_equal(snapshot.velocities, np.ones((3, 3)))
    np.testing.assert_array_equal(snapshot.user_index, [1, 2])
    np.testing.assert_array_equal(snapshot.user_forces, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(snapshot.box, np.eye(3))
    assert snapshot.user_energy == 2.5
    assert snapshot.interaction_ids == ("a", "b")
    np.testing.assert_array_equal(snapshot.interaction_energies, [1.25, 1.25])
    np.testing.assert_array_equal(snapshot.interaction_work, [0, 0])
    np.testing.assert_array_equal(snapshot.interaction_forces, [[0, 1, 2], [3, 4, 5]])
    assert snapshot.potential_energy is None
    service.close()


def test_wall_clock_pace() -> None:
    service = Service(FakeSource(), frame_interval_s=0.02)
    service.send(do="every", on=True)
    service.frame()
    start = time.monotonic()
    for _ in range(10):
        service.frame()
    assert 0.15 < time.monotonic() - start < 1.0
    service.close()


def test_checkpoints_come_by_themselves() -> None:
    service = Service(FakeSource(), checkpoint_interval_s=0.01)
    checkpoint = service.next("checkpoint")
    assert Checkpoint.from_bytes(checkpoint["block"], 3).step > 0
    assert checkpoint["time_ps"] is not None
    service.close()


@pytest.mark.parametrize(("interval_s", "again"), [(0.0, True), (1e6, False)])
def test_what_is_free_is_given_back_once_in_an_interval(
    monkeypatch: pytest.MonkeyPatch, interval_s: float, again: bool
) -> None:
    given: list[None] = []
    monkeypatch.setattr(freed_memory, "give_back", lambda: given.append(None))
    monkeypatch.setattr(freed_memory, "INTERVAL_S", interval_s)
    service = Service(FakeSource(), checkpoint_interval_s=0.01)
    for _ in range(3):
        service.next("checkpoint")
    service.close()
    assert (len(given) > 1) == again
    assert given


def test_recording_loops_seeks_and_looks_up_without_moving() -> None:
    service = Service(FakeSource(live=False))
    service.send(do="every", on=True)
    steps = [service.frame().step for _ in range(25)]
    assert set(steps) == set(range(10))
    service.command("pause")
    service.send(do="every", on=False)
    service.command("seek", index=7)
    assert "error" not in service.command("frame_at", index=3)
    items = unjsoned(service.command("frame_at", index=3)["block"])
    np.testing.assert_array_equal(items["positions"][:, 0], [3, 3, 3])
    assert service.command("frame_at", index=10)["error"]["kind"] == "NoLongerKeptError"
    service.send(do="show", id=0)
    while service.frame().step != 7:
        pass
    service.close()


def test_who_wants_every_frame_misses_none_however_late_the_service_is() -> None:
    service = Service(FakeSource(live=False))
    service.command("stand", index=3)
    service.send(do="every", on=True)
    service.command("play")
    time.sleep(0.02)  # all slots are full by now
    for at in range(5):
        service.send(do="want", at=float(at))
        time.sleep(0.002)
    steps = [service.frame().step for _ in range(20)]
    first = steps.index(3)
    assert steps[first:] == [(3 + count) % 10 for count in range(20 - first)]
    service.close()


def test_a_frame_stood_at_comes_before_the_answer_and_once() -> None:
    service = Service(FakeSource(live=False), playing=False)
    service.send(do="every", on=True)
    service.send(do="stand", index=7, id=5)
    assert service.frame().step == 7
    assert service.next("reply")["id"] == 5
    service.command("play")
    assert service.frame().step == 8
    service.close()


def test_refused_command_says_why_and_the_engine_goes_on(service: Service) -> None:
    assert service.command("frame_at", index=0)["error"]["kind"] == "FailedPreconditionError"
    assert service.command("dance")["error"]["kind"] == "InvalidArgumentError"
    assert "error" not in service.command("pause")


def test_divergence_ends_the_loop() -> None:
    service = Service(FakeSource(diverges_at=50))
    service.thread.join(5)
    assert "diverged" in str(service.error)
    service.close()


def test_loop_ends_when_the_service_is_gone(service: Service) -> None:
    service.close()
    assert isinstance(service.error, EOFError | BrokenPipeError | ConnectionResetError)


def test_topologies_cross_as_text() -> None:
    items = {"particle.elements": np.array([[1, 2]], np.uint32), "names": ["a"], "particle.count": 2.0}
    read = unjsoned(jsoned(items))
    np.testing.assert_array_equal(read["particle.elements"], [[1, 2]])
    assert read["particle.elements"].dtype == np.uint32
    assert read["names"] == ["a"]


def test_pulls_outlive_a_reset(service: Service, source: FakeSource) -> None:
    service.pull(PULL)
    service.next("interactions_applied")
    source.interactions = ()  # as real sources do on a reset
    service.command("reset")
    assert [item.id for item in source.interactions] == ["a"]


def test_flat_out_goes_in_long_blocks_until_somebody_wants_something(service: Service, source: FakeSource) -> None:
    service.next("statistics")
    assert source.longest_block > 2  # more than a frame's steps at once
    service.pull(PULL)
    service.next("interactions_applied")
    service.send(do="want", at=0.0)
    service.frame()
    source.longest_block = 0
    service.next("statistics")
    assert source.longest_block == 2


def test_an_interaction_that_only_moves_is_what_it_would_be_made_anew() -> None:
    first = Interaction.parse(
        "a", particles=[0, 2], kind="spring", owner="ann", parameters={"stiffness": 3.0}
    ).to_json()
    known = (first, Interaction.from_json(first))
    moved, changed = {**first, "position": [1.0, 2.0, 3.0]}, {**first, "position": [1.0, 2.0, 3.0], "scale": 7.0}
    assert interaction_of(dict(first), known) is known[1]
    for item in (moved, changed):
        assert interaction_of(item, known) == interaction_of(item, None) == Interaction.from_json(item)
    with pytest.raises(InvalidArgumentError, match="position"):
        interaction_of({**first, "position": [float("nan"), 0, 0]}, known)


def test_a_slow_source_keeps_a_command_waiting_for_one_frame_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource()
    frames = []

    def slowly(steps: int) -> bool:
        frames.append(steps)
        time.sleep(0.05)
        source.step += steps
        return True

    monkeypatch.setattr(source, "advance", slowly)
    service = Service(source)
    service.next("statistics")
    before = len(frames)
    assert "error" not in service.command("pause")
    assert len(frames) <= before + 4  # the one it was in, and those that began before the command was sent
    assert max(frames) == 2
    service.close()
