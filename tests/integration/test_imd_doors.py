"""Interactions of any potential through every door of imd: typed stream, native and compatible state; and out to followers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from grpclib.client import Channel

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import NarupaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc as stubs
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as compat
from narupa_shared.interaction_messages import interaction_of
from narupa_shared.rpc_errors import error_of
from narupa_shared.sdk.google.protobuf import Struct as SdkStruct
from narupa_shared.sdk.narupa.imd import v1 as sdk
from narupa_shared.structs import from_struct, to_struct

DISTANCE: dict[str, Any] = {
    "position": [0.0, 0.0, 0.0],
    "particles": [],
    "interaction_type": "distance",
    "parameters": {"target": 0.5, "stiffness": 10.0},
    "groups": [[3, 1], [2]],
}
STEERED: dict[str, Any] = {
    "position": [0.0, 0.0, 0.0],
    "particles": [4, 0],
    "interaction_type": "steered",
    "parameters": {"velocity": [0.0, 0.0, 0.01]},
}
FAMILIES = ("narupa", "nanover")


@pytest.fixture
async def app() -> ImdApp:
    return ImdApp(ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5))


@pytest.fixture
async def bound(app: ImdApp) -> AsyncIterator[Bound]:
    async with serving("imd", app._config, app) as bound:
        yield bound


@pytest.fixture
async def channel(bound: Bound) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(bound.address) as channel:
        yield channel


def message_of(id: str, value: dict[str, Any]) -> pb.Interaction:
    """The typed form of a state value; what the type cannot hold is a TypeError or ValueError."""
    return pb.Interaction(
        id=id,
        position=value["position"],
        particles=value["particles"],
        potential=value["interaction_type"],
        parameters=to_struct(value.get("parameters", {})),
        groups=[pb.ParticleGroup(particles=group) for group in value.get("groups", [])],
    )


Door = Callable[[str, dict[str, Any]], Awaitable[None]]


class Doors:
    """Every way in. Each raises the domain error with which an interaction is refused."""

    def __init__(self, bound: Bound, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._interact = stubs.InteractionServiceStub(channel).Interact()
        self.typed = Channel(bound.host, bound.port)
        self._requests: asyncio.Queue[sdk.InteractRequest | None] = asyncio.Queue()
        self._answers = sdk.InteractionServiceStub(self.typed).interact(self._asked())

    async def interact(self, id: str, value: dict[str, Any]) -> None:
        await self._interact.write(pb.InteractRequest(set=message_of(id, value)))
        answer = await self._interact.read()
        assert isinstance(answer, pb.InteractResponse)
        if answer.code:
            raise error_of(answer.code, answer.error)

    async def sdk_interact(self, id: str, value: dict[str, Any]) -> None:
        data = pb.InteractRequest(set=message_of(id, value)).SerializeToString()
        self._requests.put_nowait(sdk.InteractRequest.parse(data))
        answer = await anext(self._answers)
        if answer.code:
            raise error_of(answer.code, answer.error)

    async def _asked(self) -> AsyncIterator[sdk.InteractRequest]:
        while request := await self._requests.get():
            yield request

    async def state(self, id: str, value: dict[str, Any]) -> None:
        request = pb.UpdateStateRequest(updates=to_struct({f"interaction.{id}": value}))
        await self._called(stubs.StateServiceStub(self._channel).UpdateState(request))

    async def sdk_state(self, id: str, value: dict[str, Any]) -> None:
        data = to_struct({f"interaction.{id}": value}).SerializeToString()
        request = sdk.UpdateStateRequest(updates=SdkStruct.parse(data))
        try:
            await sdk.StateServiceStub(self.typed).update_state(request)
        except Exception as error:
            raise error_of(error.status.value, error.message) from error  # type: ignore[attr-defined]

    async def narupa(self, id: str, value: dict[str, Any]) -> None:
        await self._compat("narupa", id, value)

    async def nanover(self, id: str, value: dict[str, Any]) -> None:
        await self._compat("nanover", id, value)

    async def _compat(self, family: str, id: str, value: dict[str, Any]) -> None:
        update = compat.StateUpdate(changed_keys=to_struct({f"interaction.{id}": value}))
        reply = await self._called(
            self._channel.unary_unary(
                f"/{family}.protocol.state.State/UpdateState",
                request_serializer=compat.UpdateStateRequest.SerializeToString,
                response_deserializer=compat.UpdateStateResponse.FromString,
            )(compat.UpdateStateRequest(update=update))
        )
        assert reply.success

    async def _called(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from error

    async def close(self) -> None:
        self._interact.cancel()
        self._requests.put_nowait(None)
        await anext(self._answers, None)
        self.typed.close()


@pytest.fixture
async def doors(bound: Bound, channel: grpc.aio.Channel) -> AsyncIterator[Doors]:
    doors = Doors(bound, channel)
    yield doors
    await doors.close()


DOORS = ("interact", "sdk_interact", "state", "sdk_state", "narupa", "nanover")


@pytest.mark.parametrize("door", DOORS)
async def test_any_potential_comes_in_and_reaches_followers_with_its_owner(
    doors: Doors, channel: grpc.aio.Channel, door: str
) -> None:
    follower = stubs.InteractionServiceStub(channel).FollowInteractions()
    await follower.read()
    enter: Door = getattr(doors, door)
    for name, value in (("d", DISTANCE), ("s", STEERED)):
        await enter(name, {**value, "label": "x"})
        while not (changed := await follower.read()).set:
            pass
        [message] = changed.set
        assert message.owner.startswith("ipv4:127.0.0.1:") and not message.HasField("properties")
        interaction = interaction_of(message)
        assert (interaction.id, interaction.kind) == (name, value["interaction_type"])
        assert interaction.groups == (((1, 3), (2,)) if name == "d" else ())
        assert interaction.particles == ((1, 2, 3) if name == "d" else (0, 4))
        for parameter, given in value["parameters"].items():
            found = interaction.parameters[parameter]
            assert (list(found) if isinstance(found, tuple) else found) == given
    listing = await stubs.InteractionServiceStub(channel).ListInteractions(pb.ListInteractionsRequest())
    by_id = {item.interaction.id: item for item in listing.interactions}
    assert by_id["d"].interaction.potential == "distance" and len(by_id["d"].interaction.groups) == 2
    assert by_id["d"].owner == by_id["d"].interaction.owner
    assert from_struct(by_id["s"].interaction.parameters)["velocity"] == [0.0, 0.0, 0.01]
    follower.cancel()


WRONG: list[tuple[dict[str, Any], str]] = [
    (STEERED | {"interaction_type": "rope"}, "interaction_type is 'rope'"),
    (STEERED | {"parameters": {}}, "interaction.x.parameters.velocity"),
    (STEERED | {"parameters": {"velocity": [0.0, math.nan, 0.0]}}, "interaction.x.parameters.velocity"),
    (STEERED | {"parameters": {"velocity": "fast"}}, "interaction.x.parameters.velocity is 'fast'"),
    (STEERED | {"parameters": {"velocity": [[1.0]] * 3}}, "interaction.x.parameters.velocity"),
    (STEERED | {"parameters": {"velocity": [1e300, 0.0, 0.0]}}, "interaction.x.parameters.velocity"),
    (STEERED | {"parameters": STEERED["parameters"] | {"speed": 1.0}}, "interaction.x.parameters.speed is 1.0"),
    (STEERED | {"groups": [[1], [2]]}, "interaction.x.groups"),
    (DISTANCE | {"groups": []}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[1], []]}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[1], [2, 1]]}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[1], [2], [3]]}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[1], [99]]}, "99"),
    (DISTANCE | {"particles": [1, 2, 3, 4]}, "interaction.x.particles"),
    (DISTANCE | {"parameters": {"target": -1.0}}, "interaction.x.parameters.target is -1"),
]
# What only a value of the state can be.
UNTYPED: list[tuple[dict[str, Any], str]] = [
    (STEERED | {"parameters": 3.0}, "interaction.x.parameters"),
    (STEERED | {"parameters": [1.0]}, "interaction.x.parameters"),
    (DISTANCE | {"groups": "all"}, "interaction.x.groups"),
    (DISTANCE | {"groups": [1.0, 2.0]}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[1.5], [2]]}, "interaction.x.groups"),
    (DISTANCE | {"groups": [[-1], [2]]}, "interaction.x.groups"),
    (DISTANCE | {"groups": {"a": [1]}}, "interaction.x.groups"),
    (DISTANCE | {"groups": None, "interaction_type": None}, "interaction.x"),
]


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_bad_is_refused_by_field_and_value_and_hurts_nobody(
    app: ImdApp, doors: Doors, channel: grpc.aio.Channel, door: str
) -> None:
    follower = stubs.InteractionServiceStub(channel).FollowInteractions()
    await follower.write(pb.FollowInteractionsRequest(particle_count=10, simulation_counter=1))
    while app.session.particle_count is None:
        await follower.read()
    follower.cancel()
    await doors.state("good", STEERED)
    enter: Door = getattr(doors, door)
    for value, says in WRONG if "interact" in door else [*WRONG, *UNTYPED]:
        with pytest.raises(NarupaError) as refused:
            await enter("x", value)
        assert says in str(refused.value), (value, str(refused.value))
        assert [item.id for item, _ in app.session.interactions()] == ["good"]
    await enter("fine", DISTANCE)


@pytest.mark.parametrize("family", FAMILIES)
async def test_who_held_what_blew_up_gets_on_with_the_rest(
    app: ImdApp, doors: Doors, bound: Bound, channel: grpc.aio.Channel, family: str
) -> None:
    """An existing client writes what it holds again and again, its avatar with it."""
    connection = grpc.aio.insecure_channel(bound.address, [("grpc.use_local_subchannel_pool", 1)])

    async def write(changes: dict[str, Any]) -> bool:
        reply: Any = await connection.unary_unary(
            f"/{family}.protocol.state.State/UpdateState",
            request_serializer=compat.UpdateStateRequest.SerializeToString,
            response_deserializer=compat.UpdateStateResponse.FromString,
        )(compat.UpdateStateRequest(update=compat.StateUpdate(changed_keys=to_struct(changes))))
        return bool(reply.success)

    held = {"interaction.held": STEERED}
    assert await write(held | {"avatar.me": 1.0, "interaction.other": STEERED})
    follower = stubs.InteractionServiceStub(channel).FollowInteractions()
    await follower.read()
    await follower.write(pb.FollowInteractionsRequest(ended=[pb.EndedInteraction(id="held", reason="it blew up")]))
    while "held" not in (await follower.read()).removed:
        pass
    assert await write(held | {"avatar.me": 2.0})
    assert app.session.state.values("avatar.") == {"avatar.me": 2.0}
    assert [item.id for item, _ in app.session.interactions()] == ["other"]
    assert await write({"interaction.held": None})
    assert await write(held)
    assert {item.id for item, _ in app.session.interactions()} == {"held", "other"}
    follower.cancel()
    await connection.close()


async def test_both_stacks_hear_of_an_ending_unasked(app: ImdApp, bound: Bound, channel: grpc.aio.Channel) -> None:
    async with AsyncExitStack() as stack:
        native = stubs.InteractionServiceStub(channel).Interact()
        stack.callback(native.cancel)
        await native.write(pb.InteractRequest(sequence=1, set=message_of("a", STEERED)))
        await native.read()
        typed = Channel(bound.host, bound.port)
        stack.callback(typed.close)
        over = asyncio.Event()

        async def requests() -> AsyncIterator[sdk.InteractRequest]:
            yield sdk.InteractRequest.parse(
                pb.InteractRequest(sequence=1, set=message_of("b", STEERED)).SerializeToString()
            )
            await over.wait()
            yield sdk.InteractRequest(sequence=2, move=sdk.Move(id="b", position=[0.0, 0.0, 0.0]))

        answers = sdk.InteractionServiceStub(typed).interact(requests())
        assert (await anext(answers)).code == 0
        follower = stubs.InteractionServiceStub(channel).FollowInteractions()
        stack.callback(follower.cancel)
        await follower.write(
            pb.FollowInteractionsRequest(
                ended=[
                    pb.EndedInteraction(id="a", reason="A\n\tfell"),
                    pb.EndedInteraction(id="b"),
                    pb.EndedInteraction(),
                ]
            )
        )
        told = await native.read()
        assert told == pb.InteractResponse(
            revision=told.revision, error="interaction 'a' was ended: A fell", code=5, ended="a"
        )
        unasked = await anext(answers)
        assert (unasked.sequence, unasked.ended, unasked.code) == (0, "b", 5) and "cannot go on" in unasked.error
        over.set()
        moved = await anext(answers)
        assert (moved.sequence, moved.code) == (2, 5) and "cannot go on" in moved.error
        await native.write(pb.InteractRequest(sequence=2, change=message_of("a", STEERED)))
        refused = await native.read()
        assert (refused.sequence, refused.code) == (2, 5) and "A fell" in refused.error
        await native.write(pb.InteractRequest(sequence=3, set=message_of("a", STEERED)))
        assert (await native.read()).code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert app.session.interactions() == []


def test_the_struct_of_the_typed_sdk_is_the_same_on_the_wire() -> None:
    data = to_struct({"interaction.a": DISTANCE}).SerializeToString()
    assert Struct.FromString(bytes(SdkStruct.parse(data))) == Struct.FromString(data)
