"""Pulls of every kind and accounts of ended ones, with the client against small services that come, go and refuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import narupa_client
from narupa_client.blocking import LoopThread
from narupa_client.testing import FakeImd, FakeTrajectory
from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError, NotFoundError
from narupa_shared.frames import Frame
from narupa_shared.structs import from_struct
from narupa_shared.testing.waiting import until


@dataclass
class Fakes:
    trajectory: FakeTrajectory
    imd: FakeImd
    session: narupa_client.Session


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with (
        FakeTrajectory() as trajectory,
        FakeImd() as imd,
        narupa_client.open(trajectory.address, imd.address) as session,
    ):
        yield Fakes(trajectory, imd, session)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("gaussian", {"parameters": {"width": 0.5}}),
    ("constant", {}),
    ("steered", {"parameters": {"velocity": (0, 0, 0.01)}}),
    ("wall", {"parameters": {"normal": np.array([0, 1, 0])}}),
    ("rotation", {"parameters": {"rotation": [0, 0, 0, 1]}}),
    ("distance", {"parameters": {"target": 1}, "groups": [[0], [1, 2]]}),
    ("angle", {"parameters": {"target": 1}, "groups": [[0], [1], [2]]}),
    ("dihedral", {"parameters": {"target": 1}, "groups": [[0], [1], [2], [3]]}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
async def test_every_kind_is_made_as_asked_for(fakes: Fakes, kind: str, options: dict[str, Any]) -> None:
    particles = [] if "groups" in options else [0]
    async with fakes.session.pull(particles, (1, 2, 3), kind=kind, **options) as pull:
        [listed] = await fakes.session.interactions()
        assert (listed["id"], listed["kind"], listed["scale"]) == (pull.id, kind, pull.scale)
        assert listed["groups"] == options.get("groups", [])
        for name, value in options.get("parameters", {}).items():
            assert np.array_equal(listed["parameters"][name], value) and name in pull.parameters


async def test_strengths_are_those_of_their_kind(fakes: Fakes) -> None:
    scales = [
        fakes.session.pull([0], kind="spring").scale,
        fakes.session.pull([0], kind="steered", parameters={"velocity": (0, 0, 1)}).scale,
        fakes.session.pull([0], kind="spring", scale=3).scale,
    ]
    assert scales == [100.0, 1.0, 3.0]


async def test_a_potential_that_only_the_service_has_is_left_to_it(fakes: Fakes) -> None:
    pull = fakes.session.pull(groups=[[3], [1, 2]], kind="magnet", parameters={"field": [1, 2]})
    with pytest.raises(InvalidArgumentError, match="interaction_type is 'magnet'"):
        async with pull:
            pass
    assert (pull.kind, pull.parameters) == ("magnet", {"field": [1, 2]})


async def test_what_only_the_service_has_is_made_moved_and_changed(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narupa_client.pulls.known_kinds", lambda: ("spring",))
    options: dict[str, Any] = {"groups": [[3], [2, 1]], "kind": "distance", "parameters": {"target": np.float32(0.5)}}
    async with fakes.session.pull(**options) as pull:
        await pull.move((0, 0, 1))
        await pull.change(parameters={"target": 0.25})
        made = fakes.imd.interactions[pull.id]
        assert (made.potential, from_struct(made.parameters), list(made.particles)) == (
            "distance", {"target": 0.25}, [1, 2, 3],
        )  # fmt: skip
        assert [list(group.particles) for group in made.groups] == [[3], [2, 1]]
        with pytest.raises(InvalidArgumentError, match="needs it"):
            await pull.change(parameters={"target": None})
        assert pull.parameters == {"target": 0.25}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"parameters": {"stifness": 1}}, "parameters.stifness is 1"),
        ({"kind": "steered"}, "parameters.velocity"),
        ({"kind": "steered", "parameters": {"velocity": (0, 0, 0)}}, "parameters.velocity"),
        ({"kind": "distance", "parameters": {"target": 1}}, "groups"),
        ({"groups": [[1], [2]]}, "groups"),
    ],
)
async def test_what_is_wrong_is_said_at_once(fakes: Fakes, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        fakes.session.pull([0], **options)


async def test_a_live_pull_changes_and_stays_the_same_interaction(fakes: Fakes) -> None:
    turned = (0.0, 0.0, 1.0, 0.0)
    async with fakes.session.pull([0, 1], kind="rotation", parameters={"stiffness": 50}, scale=2) as pull:
        await pull.change(parameters={"rotation": turned})
        made = fakes.imd.interactions[pull.id]
        assert from_struct(made.parameters)["rotation"] == list(turned)
        assert (from_struct(made.parameters)["stiffness"], made.scale) == (50.0, 2.0)
        await pull.change(scale=3, max_force=10.0, position=(1, 1, 1), parameters={"stiffness": None})
        made = fakes.imd.interactions[pull.id]
        assert (made.scale, made.max_force, list(made.position)) == (3.0, 10.0, [1, 1, 1])
        assert from_struct(made.parameters)["stiffness"] != 50.0
        with pytest.raises(InvalidArgumentError, match=r"parameters\.rotation"):
            await pull.change(parameters={"rotation": (0, 0, 0, 0)})
        with pytest.raises(InvalidArgumentError, match="scale"):
            await pull.change(scale=float("nan"))
        assert pull.scale == 3.0 and pull.active
    assert not fakes.imd.interactions


async def test_a_change_that_the_service_refuses_changes_nothing(fakes: Fakes) -> None:
    async with fakes.session.pull([5]) as pull:
        fakes.imd.particle_count = 3
        with pytest.raises(InvalidArgumentError, match="particles is 5"):
            await pull.change(scale=7)
        assert pull.scale == 100.0 and fakes.imd.interactions[pull.id].scale == 100.0


async def test_a_pull_comes_back_as_it_was_changed(fakes: Fakes) -> None:
    async with fakes.session.pull([0], kind="steered", parameters={"velocity": (0, 0, 1)}) as pull:
        await fakes.imd.stop()
        fakes.imd.forget()
        await until(lambda: not pull.active)
        await pull.change(parameters={"velocity": (1, 0, 0)}, scale=4)
        await fakes.imd.start()
        await until(lambda: pull.active)
        made = fakes.imd.interactions[pull.id]
        assert (from_struct(made.parameters)["velocity"], made.scale) == ([1.0, 0.0, 0.0], 4.0)


async def test_a_pull_that_the_service_ends_raises_why_at_once_and_does_not_come_back(fakes: Fakes) -> None:
    async with fakes.session.pull([0]) as pull, fakes.session.pull([1]) as other:
        holding = asyncio.create_task(pull.hold(30))
        await asyncio.sleep(0)
        fakes.imd.end(pull.id, "the simulation blew up")
        for act in (holding, pull.move((0, 0, 1)), pull.change(scale=2)):
            with pytest.raises(NotFoundError, match=f"'{pull.id}' was ended: the simulation blew up"):
                await act
        assert other.active and not pull.active
        assert set(fakes.imd.interactions) == {other.id}


async def test_accounts_come_once_and_in_order_and_go_on_after_a_lost_connection(fakes: Fakes) -> None:
    await fakes.trajectory.finish("past")
    async with fakes.session.finished_interactions() as finished:
        assert (await anext(finished)).id == "past"
        facts = {"owner": "user-1", "potential": "wall", "particles": [1, 2], "work": -2.5, "reason": "why"}
        await fakes.trajectory.finish("a", **facts, run_id="r", start_time_ps=1.0, end_time_ps=2.0, duration_s=3.0)
        told = await anext(finished)
        assert told == narupa_client.FinishedInteraction(
            "a", "user-1", "wall", (1, 2), 0.0, 3.0, 1.0, 2.0, -2.5, "r", "why"
        )
        await fakes.trajectory.stop()
        await fakes.trajectory.finish("meanwhile")
        await fakes.trajectory.start()
        assert (await anext(finished)).id == "meanwhile"
        assert fakes.trajectory.resumed == [("", 0), ("1", 2)]


async def test_accounts_go_on_at_a_service_that_counts_anew(fakes: Fakes) -> None:
    await fakes.trajectory.finish("a")
    async with fakes.session.finished_interactions() as finished:
        await anext(finished)
        await fakes.trajectory.stop()
        fakes.trajectory.epoch, fakes.trajectory.reports = "2", []
        await fakes.trajectory.finish("b")
        await fakes.trajectory.start()
        assert (await anext(finished)).id == "b"


async def test_lost_accounts_are_not_passed_over_in_silence(fakes: Fakes) -> None:
    await fakes.trajectory.finish("a")
    async with fakes.session.finished_interactions() as finished:
        await anext(finished)
        await fakes.trajectory.stop()
        fakes.trajectory.first_kept = 5
        await fakes.trajectory.start()
        with pytest.raises(NoLongerKeptError, match="are lost"):
            await anext(finished)


def frame(index: int, **arrays: Any) -> Frame:
    return Frame(index, {}, {"particle.positions": np.zeros((2, 3), np.float32), **arrays})


async def test_frames_have_the_account_of_each_interaction(fakes: Fakes) -> None:
    forces = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    arrays = {
        keys.INTERACTION_IDS: ["a", "b"],
        keys.INTERACTION_ENERGIES: np.array([1.5, 2.5], np.float32),
        keys.INTERACTION_WORK: np.array([-1, -2], np.float32),
        keys.INTERACTION_FORCES: forces,
    }
    fakes.trajectory.publish(frame(1, **arrays))
    got = (await fakes.session.get_frame()).interactions
    assert (got["a"].energy, got["b"].work) == (1.5, -2.0)
    assert np.array_equal(got["b"].force, forces[1])
    none: dict[str, Any] = {keys.INTERACTION_IDS: []} | {key: arrays[key][:0] for key in list(arrays)[1:]}  # type: ignore[index]
    fakes.trajectory.publish(frame(2, **none))
    assert (await fakes.session.get_frame()).interactions == {}
    fakes.trajectory.publish(frame(3, **{**arrays, keys.INTERACTION_WORK: np.zeros(1, np.float32)}))
    assert (await fakes.session.get_frame()).interactions == {}, "a service that contradicts itself"


class Threaded:
    """The small services, on a loop of their own."""

    def __init__(self) -> None:
        self.thread = LoopThread()
        self.thread.call(self._start())

    async def _start(self) -> None:
        self.trajectory, self.imd = FakeTrajectory(), FakeImd()
        await self.trajectory.start()
        await self.imd.start()

    async def stop(self) -> None:
        await self.trajectory.stop()
        await self.imd.stop()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    threaded = Threaded()
    yield threaded
    threaded.thread.call(threaded.stop())
    threaded.thread.close()


def test_the_same_verbs_block(threaded: Threaded) -> None:
    with narupa_client.connect(trajectory=threaded.trajectory.address, imd=threaded.imd.address) as session:
        with session.pull(groups=[[0], [1]], kind="distance", parameters={"target": 1.0}) as pull:
            pull.change(parameters={"target": 2.0})
            assert from_struct(threaded.imd.interactions[pull.id].parameters)["target"] == 2.0
        with session.finished_interactions() as finished:
            assert finished.wait(0.05) is None
            threaded.thread.call(threaded.trajectory.finish("a"))
            assert next(finished).id == "a"
            later = threading.Timer(0.1, lambda: threaded.thread.call(threaded.trajectory.finish("b")))
            later.start()
            assert [account.id for _, account in zip(range(1), finished, strict=False)] == ["b"]
            later.join()
        assert list(finished) == []
