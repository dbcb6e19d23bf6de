"""A session as its users have it: real inputs, frames for all, pulls that move atoms, and existing clients among them."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame
from narupa_shared.gen.nanover.protocol.state import state_service_pb2 as nanover_state
from narupa_shared.gen.nanover.protocol.trajectory import trajectory_service_pb2 as nanover_trajectory
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as narupa_state
from narupa_shared.gen.narupa.protocol.trajectory import trajectory_service_pb2 as narupa_trajectory
from narupa_shared.structs import from_struct, to_struct
from tests.e2e.helix import ATOM, away, check_spring, distance
from tests.e2e.sessions import (
    KINDS,
    LIMIT_S,
    RunningSession,
    at_rest,
    first,
    narupa,
    narupa_soon,
    pulled,
    real_input,
    session,
    watched,
)

pytestmark = pytest.mark.e2e

PROMISED = {
    "frame_index": int,
    "time_ps": float,
    "particle_count": int,
    "potential_kj_mol": float,
    "kinetic_kj_mol": float,
    "temperature_k": float,
    "user_energy_kj_mol": float,
    "user_force_particles": int,
}


@pytest.fixture(scope="module")
def helix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSession]:
    """The 17-alanine helix, for tests that leave it as it was."""
    source = f"{real_input('17-ala.xml')}?steps_per_frame=20"
    with session(tmp_path_factory.mktemp("helix"), source) as running:
        yield running


def check_lines(lines: list[dict[str, Any]], particles: int | None, temperature_k: tuple[float, float]) -> None:
    """What `narupa watch --json` printed is what was promised, and is physics."""
    for line in lines:
        assert {key: type(line[key]) for key in PROMISED} == PROMISED
        assert all(math.isfinite(line[key]) for key in PROMISED)
        assert particles is None or line["particle_count"] == particles
        assert line["particle_count"] > 0
        assert temperature_k[0] < line["temperature_k"] < temperature_k[1]
        assert line["kinetic_kj_mol"] > 0
        assert line["user_energy_kj_mol"] == line["user_force_particles"] == 0
    for before, after in itertools.pairwise(lines):
        assert after["frame_index"] > before["frame_index"]
        assert after["time_ps"] > before["time_ps"]


def test_the_helix_is_watched(helix: RunningSession) -> None:
    lines = watched(helix, 15)
    assert len(lines) == 15
    check_lines(lines, 173, (150, 450))
    # 173 atoms have 3 N degrees of freedom less constraints and the centre of mass; equipartition ties the two together.
    gas_constant = 8.31446e-3
    degrees = [2 * line["kinetic_kj_mol"] / (gas_constant * line["temperature_k"]) for line in lines]
    assert max(degrees) - min(degrees) < 0.01
    assert 173 < degrees[0] <= 3 * 173


def test_the_nanotube_is_watched(tmp_path: Path) -> None:
    with session(tmp_path, real_input("nanotube.xml")) as running:
        lines = watched(running, 15)
        check_lines(lines, 65, (0, 5000))
        # The published structure is strained and its integrator has no thermostat: it gets hot, and energy is conserved.
        total = [line["potential_kj_mol"] + line["kinetic_kj_mol"] for line in lines]
        assert max(total) - min(total) < 0.02 * abs(total[0])


def test_without_an_input_there_are_demos(tmp_path: Path) -> None:
    with session(tmp_path) as running:
        check_lines(watched(running, 5), None, (50, 1000))
        listed = narupa("command", "playback/list", lobby=running.lobby)
        names = json.loads(listed.stdout)["simulations"]
        assert len(names) >= 2
        count = watched(running, 1)[0]["particle_count"]
        done = narupa("command", "playback/load", f"index={len(names) - 1}", lobby=running.lobby, within_s=90)
        assert done.returncode == 0, done.stderr
        (line,) = watched(running, 1)
        assert line["simulation"] == names[-1]
        assert line["particle_count"] != count


def test_services_are_listed(helix: RunningSession) -> None:
    done = narupa("services", "--json", lobby=helix.lobby)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert {service["kind"]: service["status"] for service in listed} == dict.fromkeys(KINDS, "running")
    for service in listed:
        assert service["id"]
        assert service["load"] >= 0
        assert all(address.startswith("127.0.0.1:") for address in service["endpoints"])


async def test_two_clients_see_the_same_frames(helix: RunningSession) -> None:
    async with narupa_client.join(helix.lobby, "Ada") as ada, narupa_client.join(helix.lobby, "Grace") as grace:

        async def seen(client: narupa_client.Session) -> dict[int, CurrentFrame]:
            async with client.frames(mode="all") as frames:
                return {frame.index: frame async for frame, _ in _zipped(frames, range(40))}

        hers, others = await asyncio.gather(seen(ada), seen(grace))
        common = hers.keys() & others.keys()
        assert len(common) >= 30
        for index in common:
            np.testing.assert_array_equal(hers[index].positions, others[index].positions)
            assert hers[index].values == others[index].values
        assert len({frame.positions.tobytes() for frame in hers.values()}) == len(hers)  # and it moves
        names = {user.name for user in ada.users}
        assert {"Ada", "Grace"} <= names


async def _zipped(frames: AsyncIterator[CurrentFrame], numbers: range) -> AsyncIterator[tuple[CurrentFrame, int]]:
    for number in numbers:
        async with asyncio.timeout(LIMIT_S):
            yield await anext(frames), number


async def test_an_atom_is_pulled_half_a_nanometre_and_both_clients_see_it(helix: RunningSession) -> None:
    scale = 1000.0
    async with narupa_client.join(helix.lobby, "Ada") as ada, narupa_client.join(helix.lobby, "Grace") as grace:
        await ada.run_command("playback/reset")
        async with ada.frames() as hers, grace.frames() as others:
            before = await first(hers, at_rest)
            handle = away(before, ATOM, 0.5)
            async with ada.pull([ATOM], handle, kind="spring", scale=scale, mass_weighted=False):
                async with asyncio.TaskGroup() as group:
                    for frames in (hers, others):
                        group.create_task(first(frames, pulled, 2.0))
                last: deque[CurrentFrame] = deque(maxlen=20)  # it swings about the handle before it settles

                def settled(frame: CurrentFrame) -> bool:
                    last.append(frame)
                    return len(last) == 20 and np.mean([distance(each, handle) for each in last]) < 0.1

                both: list[CurrentFrame] = [await first(hers, settled), await first(others, pulled)]
                for frame in both:
                    check_spring(frame, handle, scale)
                (listed,) = await grace.interactions()
                assert (listed["owner"], listed["particles"]) == (ada.user_id, [ATOM])
            async with asyncio.TaskGroup() as group:
                for frames in (hers, others):
                    group.create_task(first(frames, at_rest, 2.0))


async def test_the_pull_command_pulls_and_releases(helix: RunningSession) -> None:
    async with narupa_client.join(helix.lobby, "Ada") as ada, ada.frames() as frames:
        await first(frames, at_rest)
        arguments = ("--particles", "0,1", "--to", "0,0,0.5", "--relative", "--type", "gaussian", "--seconds", "1")
        pulling = asyncio.create_task(narupa_soon("pull", *arguments, lobby=helix.lobby))
        frame = await first(frames, pulled)
        assert frame.user_forces.indices.tolist() == [0, 1]
        done = await pulling
        assert done.returncode == 0, done.stderr
        await first(frames, at_rest, 2.0)


class ExistingClient:
    """A client of one of the existing families, written from their protos alone: two addresses and no token."""

    def __init__(self, family: str, trajectory: str, imd: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.family = family
        self.frame_messages = {"narupa": narupa_trajectory, "nanover": nanover_trajectory}[family]
        self.state_messages = {"narupa": narupa_state, "nanover": nanover_state}[family]
        self.channels = [grpc.aio.insecure_channel(address, options) for address in (trajectory, imd)]

    async def __aenter__(self) -> ExistingClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self.channels:
            await channel.close(None)

    def frames(self) -> Any:
        return self.channels[0].unary_stream(
            f"/{self.family}.protocol.trajectory.TrajectoryService/SubscribeLatestFrames",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self.frame_messages.GetFrameResponse.FromString,
        )(self.frame_messages.GetFrameRequest(frame_interval=1 / 30))

    def states(self) -> Any:
        return self.channels[1].unary_stream(
            f"/{self.family}.protocol.state.State/SubscribeStateUpdates",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self.state_messages.StateUpdate.FromString,
        )(self.state_messages.SubscribeStateUpdatesRequest(update_interval=1 / 30))

    async def update(self, changes: dict[str, Any]) -> bool:
        request = self.state_messages.UpdateStateRequest(
            access_token="chosen by the client",
            update=self.state_messages.StateUpdate(changed_keys=to_struct(changes)),
        )
        reply = await self.channels[1].unary_unary(
            f"/{self.family}.protocol.state.State/UpdateState",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self.state_messages.UpdateStateResponse.FromString,
        )(request)
        return bool(reply.success)


async def first_reply(stream: Any, condition: Any, within_s: float = LIMIT_S) -> Any:
    """The first frame of an existing client's stream that meets the condition."""
    async with asyncio.timeout(within_s):
        while True:
            reply = await stream.read()
            assert reply is not grpc.aio.EOF, await stream.code()  # type: ignore[attr-defined]
            if condition(reply):
                return reply


@pytest.mark.parametrize("family", ["narupa", "nanover"])
async def test_an_existing_client_pulls_with_two_addresses_and_no_token(helix: RunningSession, family: str) -> None:
    addresses = [await helix.address(kind) for kind in ("trajectory", "imd")]
    async with (
        narupa_client.join(helix.lobby, "Ada") as ada,
        ada.frames() as frames,
        ada.state.watch("interaction.") as changes,
        ExistingClient(family, *addresses) as client,
    ):
        await ada.run_command("playback/reset")
        before = await first(frames, lambda frame: frame.index < 30 and at_rest(frame))
        assert (await anext(changes)).whole
        stream, states = client.frames(), client.states()
        newest = await first_reply(stream, lambda _: True)
        assert newest.frame.values["particle.count"].number_value == 173
        assert len(newest.frame.arrays["particle.elements"].index_values.values) == 173  # a late joiner's topology
        assert len(newest.frame.arrays["particle.positions"].float_values.values) == 3 * 173
        assert "imd.velocity_reset_available" in from_struct((await states.read()).changed_keys)

        handle = away(before, ATOM, 0.5)
        pull = {"position": handle, "particles": [ATOM], "interaction_type": "spring", "scale": 1000.0}
        assert await client.update({"interaction.x": {**pull, "mass_weighted": False, "max_force": math.inf}})
        own = await first_reply(stream, lambda reply: _user_index(reply) == [ATOM], 2.0)
        assert own.frame.values["energy.user.total"].number_value > 0
        assert len(own.frame.arrays["forces.user.sparse"].float_values.values) == 3
        check_spring(await first(frames, pulled, 2.0), handle, 1000.0)
        await first(frames, lambda frame: distance(frame, handle) < 0.1)
        change = await asyncio.wait_for(anext(changes), 2.0)
        assert change.updates["interaction.x"]["particles"] == [ATOM]

        assert await client.update({"interaction.x": None})
        released = await first_reply(stream, lambda reply: _user_index(reply) == [], 2.0)
        assert released.frame.values["energy.user.total"].number_value == 0
        assert not released.frame.arrays["forces.user.sparse"].float_values.values
        await first(frames, at_rest, 2.0)
        for call in (stream, states):
            call.cancel()


def _user_index(reply: Any) -> list[int] | None:
    """The particles that feel users' forces; None where the frame does not say."""
    arrays = reply.frame.arrays
    return list(arrays["forces.user.index"].index_values.values) if "forces.user.index" in arrays else None


async def test_pause_and_play_reach_everybody(helix: RunningSession) -> None:
    async with narupa_client.join(helix.lobby, "Ada") as ada, ada.frames() as frames:
        await first(frames)
        assert (await narupa_soon("command", "playback/pause", lobby=helix.lobby)).returncode == 0
        await asyncio.sleep(0.3)
        paused = (await ada.get_frame()).time_ps
        await asyncio.sleep(0.3)
        assert (await ada.get_frame()).time_ps == paused
        assert (await narupa_soon("command", "playback/play", lobby=helix.lobby)).returncode == 0
        await first(frames, lambda frame: (frame.time_ps or 0) > (paused or 0))
