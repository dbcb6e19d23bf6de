"""Views of frames from a real service with a real engine process: a small peptide in water, of which clients want parts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame
from narupa_shared import fanout
from narupa_shared import frame_keys as keys
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError, NarupaError, QuotaError
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2_grpc as stubs
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig

PROTEIN = 20
WATERS = 60
LIVE = "calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01&temperature_k=300"
PRECISION = 0.001
BOUND = PRECISION / 2 * 1.001  # and the rounding of float32


def solvated(path: Path) -> Path:
    """Writes four alanines among waters, apart from each other, as a PDB file; the protein is in the middle of the file."""
    residues = [("HOH", "W", ("O", "H1", "H2"))] * (WATERS // 2)
    residues += [("ALA", "A", ("N", "CA", "C", "O", "CB"))] * 4
    residues += [("HOH", "W", ("O", "H1", "H2"))] * (WATERS // 2)
    places = itertools.product(range(10), repeat=3)
    lines, serial = [], itertools.count(1)
    for number, (residue, chain, names) in enumerate(residues, 1):
        for name in names:
            x, y, z = (4.0 * step for step in next(places))
            lines.append(
                f"ATOM  {next(serial):5} {name:>4} {residue} {chain}{number:4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
                f"          {name[0]:>2}"
            )
    path.write_text(
        "\n".join(["CRYST1   40.000   40.000   40.000  90.00  90.00  90.00 P 1           1", *lines, "END\n"])
    )
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("inputs")
    only_water = folder / "water.pdb"
    lines = solvated(folder / "solvated.pdb").read_text().splitlines()
    only_water.write_text("\n".join(line for line in lines if "ALA" not in line) + "\n")
    return f"{folder / 'solvated.pdb'}?{LIVE}", f"{only_water}?{LIVE}"


Start = Callable[..., Any]


@pytest.fixture
async def start(sources: tuple[str, ...]) -> AsyncIterator[Start]:
    """Starts services with these settings; they stop after the test."""
    stack: list[Any] = []

    async def starting(**settings: Any) -> tuple[TrajectoryApp, Bound]:
        given = {"sources": sources, "lobby": "127.0.0.1:1", "drain_grace_s": 0.2, **settings}
        app = TrajectoryApp(config := TrajectoryConfig(port=0, **given))
        context = serving("trajectory", config, app)
        bound = await context.__aenter__()
        stack.append(context)
        return app, bound

    yield starting
    for context in reversed(stack):
        await context.__aexit__(None, None, None)


async def until(frames: AsyncIterator[CurrentFrame], wanted: Callable[[CurrentFrame], bool]) -> CurrentFrame:
    """The first frame of which `wanted` is true."""
    async with asyncio.timeout(60):
        async for frame in frames:
            if wanted(frame):
                return frame
    raise AssertionError("the frames ended")


async def matched(
    left: AsyncIterator[CurrentFrame], right: AsyncIterator[CurrentFrame], count: int
) -> list[tuple[CurrentFrame, CurrentFrame]]:
    """Frames of the same index from two streams of every frame."""
    async with asyncio.timeout(60):
        one, other = await anext(left), await anext(right)
        pairs = []
        while len(pairs) < count:
            if one.index == other.index:
                pairs.append((one, other))
            if one.index <= other.index:
                one = await anext(left)
            else:
                other = await anext(right)
    return pairs


@pytest.mark.parametrize("precision", [None, PRECISION])
async def test_a_protein_in_water_is_the_slice_of_everything(start: Start, precision: float | None) -> None:
    _, bound = await start()
    async with (
        narupa_client.open(bound.address) as session,
        session.frames(mode="all", selection="protein", precision=precision) as protein,
        session.frames(mode="all") as everything,
    ):
        pairs = await matched(protein, everything, 20)
        assert pairs[0][0].positions.shape == (PROTEIN, 3)
        for part, whole in pairs:
            indices = part.particle_indices
            assert indices.tolist() == list(range(3 * WATERS // 2, 3 * WATERS // 2 + PROTEIN))
            assert (part.particle_count, whole.particle_count) == (PROTEIN, PROTEIN + 3 * WATERS)
            np.testing.assert_allclose(
                part.positions, whole.positions[indices], rtol=0, atol=BOUND if precision else 0.0
            )
            assert part.elements is not None
            assert whole.elements is not None
            np.testing.assert_array_equal(part.elements, whole.elements[indices])
            assert part.arrays[keys.NAMES] == [whole.arrays[keys.NAMES][index] for index in indices]
            assert part.arrays[keys.RESIDUE_NAMES] == ["ALA"] * 4
            assert part.arrays[keys.RESIDUES].tolist() == [n for n in range(4) for _ in range(5)]
            assert part.potential_energy == whole.potential_energy
        assert {whole.particle_indices.tolist() == list(range(PROTEIN + 3 * WATERS)) for _, whole in pairs} == {True}
        assert len({part.positions.tobytes() for part, _ in pairs}) > 10, "it moves"


async def test_positions_are_within_the_precision_for_readers_of_every_speed(start: Start) -> None:
    app, bound = await start(frame_interval_s=0.005)
    async with narupa_client.open(bound.address) as session:
        kept: dict[int, Any] = {}
        checked = {"slow": 0, "slower": 0, "late": 0}

        async def watch(name: str, pause_s: float, **view: Any) -> None:
            async with session.frames(0.005, precision=0.01, **view) as frames:
                async for frame in frames:
                    while kept and frame.index > next(reversed(kept)):  # that of the whole frames is still on its way
                        await asyncio.sleep(0.001)
                    if frame.index in kept:
                        rows = frame.particle_indices
                        np.testing.assert_allclose(frame.positions, kept[frame.index][rows], rtol=0, atol=0.00501)
                        checked[name] += 1
                        if checked[name] == 10:
                            return
                    await asyncio.sleep(pause_s)

        async with session.frames(mode="all") as everything, asyncio.TaskGroup() as group, asyncio.timeout(60):
            group.create_task(watch("slow", 0.05))
            group.create_task(watch("slower", 0.11, fields=[keys.POSITIONS]))
            async for frame in everything:
                if not kept:
                    group.create_task(watch("late", 0.0, particles=[0, 5, 199]))
                kept[frame.index] = frame.positions
                if set(checked.values()) == {10}:
                    break
        assert app.playback.broadcaster.sent


async def test_another_load_has_the_selection_evaluated_again(start: Start) -> None:
    _, bound = await start()
    async with (
        narupa_client.open(bound.address) as session,
        session.frames(selection="protein", precision=PRECISION) as protein,
        session.frames(selection="resname HOH and name O", fields=["topology", keys.POSITIONS]) as oxygens,
    ):
        first = await until(protein, lambda frame: True)
        assert len((await until(oxygens, lambda frame: True)).positions) == WATERS
        await session.run_command("playback/reset")
        again = await until(protein, lambda frame: frame.run_id != first.run_id)
        assert again.index == 0
        assert again.particle_indices.tolist() == first.particle_indices.tolist()
        await session.run_command("playback/load", {"index": 1})
        gone = await until(protein, lambda frame: not frame.particle_count)
        assert gone.positions.shape == (0, 3)
        assert gone.exception == f"view.selection is 'protein': matches none of {3 * WATERS} particles"
        other = await until(oxygens, lambda frame: frame.run_id == gone.run_id)
        assert (other.particle_indices % 3).tolist() == [0] * WATERS
        assert (other.exception, other.particle_indices[-1]) == (None, 3 * WATERS - 3)
        await session.run_command("playback/load", {"index": 0})
        back = await until(protein, lambda frame: frame.particle_count == PROTEIN)
        assert (back.exception, len(back.positions)) == (None, PROTEIN)
        with pytest.raises(InvalidArgumentError, match="matches none of"):
            await anext(session.frames(selection="resname XYZ"))


async def test_pulls_are_told_of_by_the_numbers_of_the_view(start: Start) -> None:
    """Forces on particles outside of it are left out; those within have its own numbers."""
    app, bound = await start()
    from narupa_shared.interactions import Interaction

    inside, outside = 3 * WATERS // 2 + 7, 0
    app.playback.set_interactions(
        [
            Interaction(id=f"pull {n}", owner="me", position=(0, 0, 9), particles=(n,), kind="constant", scale=5.0)
            for n in (inside, outside)
        ]
    )
    async with narupa_client.open(bound.address) as session, session.frames(selection="protein") as frames:
        frame = await until(frames, lambda frame: len(frame.interactions) == 2)
        assert frame.user_forces.indices.tolist() == [7]
        whole = await until(session.frames(), lambda frame: len(frame.interactions) == 2)
        assert sorted(whole.user_forces.indices.tolist()) == [outside, inside]


async def test_fields_alone(start: Start) -> None:
    _, bound = await start()
    async with narupa_client.open(bound.address) as session, session.frames(fields=["energy"]) as frames:
        frame = await until(frames, lambda frame: frame.index > 2)
        assert frame.potential_energy is not None
        assert frame.particle_count == PROTEIN + 3 * WATERS
        assert (frame.arrays, frame.time_ps) == ({}, None)
        one = await session.get_frame(fields=[keys.POSITIONS], selection="protein and name CA", precision=0.01)
        assert one.positions.shape == (4, 3)
        assert keys.NAMES not in one.arrays


async def test_views_of_a_recording_and_of_frames_looked_up(
    start: Start, tmp_path: Path, sources: tuple[str, ...]
) -> None:
    solvated(structure := tmp_path / "still.pdb")
    _, bound = await start(sources=(f"{structure}?calculator=none",))
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        view = pb.View(selection="name CB", fields=[keys.NAMES])
        reply = await stub.GetFrame(pb.GetFrameRequest(index=0, view=view))
        assert list(reply.frame.arrays[keys.NAMES].strings) == ["CB"] * 4
        replies = [reply async for reply in stub.GetFrames(pb.GetFramesRequest(start=0, view=view))]
        assert [list(reply.frame.arrays[keys.NAMES].strings) for reply in replies] == [["CB"] * 4]


@pytest.mark.parametrize(
    ("view", "code", "named"),
    [
        (pb.View(selection="frobnicate"), "INVALID_ARGUMENT", "frobnicate"),
        (pb.View(selection="x" * 1001), "INVALID_ARGUMENT", "1001"),
        (pb.View(selection="(" * 500), "INVALID_ARGUMENT", "view.selection"),
        (pb.View(selection="\x00\n\t"), "INVALID_ARGUMENT", "view.selection"),
        (pb.View(particles=[200]), "INVALID_ARGUMENT", "200"),
        (pb.View(particles=[1, 1]), "INVALID_ARGUMENT", "more than once"),
        (pb.View(particles=[2**32 - 1]), "INVALID_ARGUMENT", "there are 200"),
        (pb.View(particles=[1], selection="all"), "INVALID_ARGUMENT", "not both"),
        (pb.View(fields=["energy"] * 65), "INVALID_ARGUMENT", "65"),
        (pb.View(fields=["velocities"]), "INVALID_ARGUMENT", "particle.velocities"),
        (pb.View(precision_nm=float("nan")), "INVALID_ARGUMENT", "nan"),
        (pb.View(precision_nm=1e-9), "INVALID_ARGUMENT", "1e-09"),
    ],
)
async def test_views_that_cannot_be_are_refused_and_disturb_nobody(
    start: Start, view: pb.View, code: str, named: str
) -> None:
    _, bound = await start()
    async with (
        narupa_client.open(bound.address) as session,
        session.frames() as frames,
        grpc.aio.insecure_channel(bound.address) as channel,
        asyncio.timeout(60),
    ):
        await anext(frames)
        stub: Any = stubs.TrajectoryServiceStub(channel)  # type: ignore[no-untyped-call]
        for call in (
            stub.SubscribeFrames(pb.SubscribeFramesRequest(view=view)).read(),
            stub.GetFrame(pb.GetFrameRequest(view=view)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code().name == code
            assert named in str(refused.value.details())
        await anext(frames)


async def test_bytes_of_everything_are_the_same_with_and_without_the_word(start: Start) -> None:
    """A request of before there were views, one with an empty one, and the frame that both stand for."""
    app, bound = await start(paused=True)
    async with grpc.aio.insecure_channel(bound.address) as channel, asyncio.timeout(60):
        raw = channel.unary_stream("/narupa.trajectory.v1.TrajectoryService/SubscribeFrames")
        before = raw(b"\x08\x02")  # all frames
        with_view = raw(pb.SubscribeFramesRequest(mode=pb.FRAME_MODE_ALL, view=pb.View()).SerializeToString())
        one, other = await before.read(), await with_view.read()
        current = app.playback.broadcaster.current
        assert current is not None
        assert one == other == current.whole_response("v1", restart=False)
        before.cancel()
        with_view.cancel()


async def test_too_many_views_are_refused_and_those_there_are_go_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "MAX_VIEWS", 2)
    _, bound = await start()
    async with narupa_client.open(bound.address, reconnect=False) as session:
        first, second = session.frames(particles=[1]), session.frames(particles=[2])
        await anext(first)
        await anext(second)
        with pytest.raises(QuotaError, match="2 different views"):
            await anext(session.frames(particles=[3]))
        async with session.frames(particles=[2]) as again:
            assert (await anext(again)).particle_count == 1
        await anext(first)


async def test_everybody_goes_on_while_a_selection_takes_long(start: Start) -> None:
    _, bound = await start(selection_limit_s=1e-9)
    async with narupa_client.open(bound.address) as session, session.frames() as frames:
        refused = session.frames(selection="around 20 (around 20 (around 20 all)) or same resname as all")
        await anext(frames)
        with pytest.raises(InvalidArgumentError, match=r"takes longer than 1e-09 s"):
            await anext(refused)
        await anext(frames)


def test_the_blocking_client_has_views(sources: tuple[str, ...]) -> None:
    from narupa_client.blocking import LoopThread

    thread = LoopThread()
    config = TrajectoryConfig(port=0, sources=sources, lobby="127.0.0.1:1", drain_grace_s=0.2)
    context = serving("trajectory", config, TrajectoryApp(config))
    bound = thread.call(context.__aenter__())
    try:
        with narupa_client.connect(trajectory=bound.address, fields=["energy"]) as session:
            assert session.wait_frame().positions.shape == (0, 3)
            with session.frames(selection="name CA", precision=0.01) as frames:
                for frame in itertools.islice(frames, 3):
                    assert frame.positions.shape == (4, 3)
            with pytest.raises(NarupaError, match="nonsense"):
                next(session.frames(selection="nonsense"))
            assert session.get_frame(particles=[4]).particle_indices.tolist() == [4]
    finally:
        thread.call(context.__aexit__(None, None, None))
        thread.close()
