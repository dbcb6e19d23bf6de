"""The shared state as existing clients speak it: hand-made stubs under both families' names, no token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.gen.nanover.protocol.command import command_service_pb2 as nanover_command
from narupa_shared.gen.nanover.protocol.state import state_service_pb2 as nanover_state
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as narupa_command
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as narupa_state
from narupa_shared.structs import from_struct, to_struct

RESET = "imd.velocity_reset_available"
# As the XR client sends it.
XR_PULL = {
    "position": [0.1, 0.2, 0.3],
    "particles": [1.0, 2.0],
    "interaction_type": "spring",
    "scale": 100.0,
    "mass_weighted": True,
    "reset_velocities": True,
    "max_force": math.inf,
    "owner.id": "somebody",
}


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    config = ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5)
    async with serving("imd", config, ImdApp(config)) as bound:
        yield bound


class Client:
    """An existing client of one family, on a connection of its own."""

    def __init__(self, family: str, bound: Bound, access_token: str = "") -> None:
        self.state, self.command = {
            "narupa": (narupa_state, narupa_command),
            "nanover": (nanover_state, nanover_command),
        }[family]
        self.channel = grpc.aio.insecure_channel(bound.address, [("grpc.use_local_subchannel_pool", 1)])
        self.family = family
        self.access_token = access_token

    def unary(self, path: str, reply: type[Message]) -> Any:
        return self.channel.unary_unary(
            f"/{self.family}.protocol.{path}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=reply.FromString,
        )

    async def update(self, changes: dict[str, Any]) -> bool:
        request = self.state.UpdateStateRequest(
            access_token=self.access_token, update=self.state.StateUpdate(changed_keys=to_struct(changes))
        )
        reply = await self.unary("state.State/UpdateState", self.state.UpdateStateResponse)(request)
        return bool(reply.success)

    async def lock(self, locks: dict[str, float | None]) -> bool:
        request = self.state.UpdateLocksRequest(access_token=self.access_token, lock_keys=to_struct(locks))
        reply = await self.unary("state.State/UpdateLocks", self.state.UpdateLocksResponse)(request)
        return bool(reply.success)

    def subscribe(self, interval: float = 0.0) -> Any:
        return self.channel.unary_stream(
            f"/{self.family}.protocol.state.State/SubscribeStateUpdates",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self.state.StateUpdate.FromString,
        )(self.state.SubscribeStateUpdatesRequest(update_interval=interval))

    async def whole(self) -> dict[str, Any]:
        stream = self.subscribe()
        first = from_struct((await stream.read()).changed_keys)
        stream.cancel()
        return first

    async def run(self, name: str, **arguments: Any) -> dict[str, Any]:
        request = self.command.CommandMessage(name=name, arguments=to_struct(arguments))
        reply = await self.unary("command.Command/RunCommand", self.command.CommandReply)(request)
        return from_struct(reply.result)


@pytest.fixture(params=["narupa", "nanover"])
async def client(request: pytest.FixtureRequest, bound: Bound) -> AsyncIterator[Client]:
    client = Client(request.param, bound)
    async with client.channel:
        yield client


@pytest.fixture(params=["", "a token of its own"])
async def other(request: pytest.FixtureRequest, bound: Bound) -> AsyncIterator[Client]:
    other = Client("nanover", bound, request.param)
    async with other.channel:
        yield other


async def test_a_subscriber_gets_the_whole_state_and_then_changes_with_null_for_gone(client: Client) -> None:
    assert await client.update({"scene": [0.0] * 10, "x": 1.0})
    stream = client.subscribe(0.02)
    copy = from_struct((await stream.read()).changed_keys)
    assert copy == {"scene": [0.0] * 10, "x": 1.0, RESET: False}
    assert await client.update({"x": None, "y": {"a": [True, "b", None]}})
    assert from_struct((await stream.read()).changed_keys) == {"x": None, "y": {"a": [True, "b", None]}}
    stream.cancel()


async def test_changes_are_merged_per_interval(client: Client) -> None:
    stream = client.subscribe(0.2)
    await stream.read()
    messages: list[dict[str, Any]] = []
    for value in range(20):
        await client.update({"x": float(value)})
    while not messages or messages[-1]["x"] < 19:
        messages.append(from_struct((await stream.read()).changed_keys))
    assert len(messages) <= 3
    stream.cancel()


async def test_an_interaction_key_and_the_typed_stream_are_one_store(client: Client, bound: Bound) -> None:
    stream = client.subscribe()
    await stream.read()
    assert await client.update({"interaction.xr": XR_PULL})
    async with grpc.aio.insecure_channel(bound.address) as channel:
        stub = imd_pb2_grpc.InteractionServiceStub(channel)
        [owned] = (await stub.ListInteractions(pb.ListInteractionsRequest())).interactions
        assert owned.interaction.id == "xr" and owned.interaction.kind == pb.POTENTIAL_KIND_SPRING
        assert owned.interaction.max_force == math.inf and owned.interaction.reset_velocities
        typed = stub.Interact()
        await typed.write(pb.InteractRequest(set=pb.Interaction(id="v1", position=[0, 0, 0], particles=[4])))
        assert (await typed.read()).code == 0
        seen: dict[str, Any] = {}
        while "interaction.v1" not in seen:
            seen |= from_struct((await stream.read()).changed_keys)
        assert seen["interaction.xr"] == XR_PULL and seen["interaction.v1"]["interaction_type"] == "gaussian"
        assert not await client.update({"interaction.v1": None})
        await typed.done_writing()
        while seen["interaction.v1"] is not None:
            seen |= from_struct((await stream.read()).changed_keys)
        assert await client.update({"interaction.xr": None})
        assert not (await stub.ListInteractions(pb.ListInteractionsRequest())).interactions
    stream.cancel()


async def test_locks_and_ownership_are_refused_without_success(client: Client, other: Client) -> None:
    assert await client.lock({"scene": 30.0})
    assert await client.update({"scene": [1.0], "avatar.me": {"name": "me"}})
    assert not await other.update({"scene": [2.0], "z": 1.0})
    assert not await other.update({"avatar.me": None})
    assert not await other.lock({"z": 30.0, "scene": 30.0})
    assert await client.update({"z": 2.0})
    assert await client.lock({"scene": None})
    assert await other.update({"scene": [2.0], "user-origin.me": {"position": [0.0, 0.0, 0.0]}})
    assert not await other.update({RESET: True})


async def test_an_access_token_makes_two_connections_one_owner(bound: Bound) -> None:
    first, second, stranger = (Client("narupa", bound, token) for token in ("mine", "mine", "other"))
    async with first.channel, second.channel, stranger.channel:
        assert await first.update({"avatar.me": {}})
        assert not await stranger.update({"avatar.me": {}})
        assert await second.update({"avatar.me": {"name": "again"}})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"interaction.a": XR_PULL | {"particles": []}}, "interaction.a.particles"),
        ({"interaction.a": XR_PULL | {"interaction_type": "magic"}}, "'magic'"),
        ({"interaction.a": 3.0}, "interaction.a is 3.0"),
        ({"x": math.nan}, "x is nan"),
        ({"": 1.0}, "key is ''"),
    ],
)
async def test_bad_content_is_an_error_and_changes_nothing(client: Client, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
        await client.update({"good": 1.0} | changes)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await client.whole() == {RESET: False}


async def test_a_bad_interval_or_lock_is_an_error(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="update_interval is -1"):
        await client.subscribe(-1.0).read()
    with pytest.raises(grpc.aio.AioRpcError, match="lock on a is -1"):
        await client.lock({"a": -1.0})


async def test_commands(client: Client) -> None:
    listing = await client.unary("command.Command/GetCommands", client.command.GetCommandsReply)(
        client.command.GetCommandsRequest()
    )
    defaults = {item.name: from_struct(item.arguments) for item in listing.commands}
    assert defaults == {"commands/list": {}, "multiuser/radially-orient-origins": {"radius": 1.0}}
    assert (await client.run("commands/list"))["list"] == defaults
    await client.update({"avatar.a": {}, "avatar.b": {}})
    assert await client.run("multiuser/radially-orient-origins", radius=2) == {}
    whole = await client.whole()
    assert whole["user-origin.b"]["position"] == pytest.approx([-2.0, 0.0, 0.0])
    for name, arguments, says in (
        ("playback/fly", {}, "command is 'playback/fly'"),
        ("multiuser/radially-orient-origins", {"radius": "wide"}, "radius is 'wide'"),
        ("multiuser/radially-orient-origins", {"speed": 1.0}, "unknown argument"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
            await client.run(name, **arguments)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_departed_subscriber_takes_its_avatar_along(client: Client, other: Client) -> None:
    leaving = client.subscribe()
    await leaving.read()
    await client.update({"avatar.me": {}, "update.index.me": 1.0, "selection.mine": {}})
    leaving.cancel()
    watch = other.subscribe()
    seen: dict[str, Any] = {}
    async with asyncio.timeout(2):
        while seen.get("avatar.me", {}) is not None:
            seen |= from_struct((await watch.read()).changed_keys)
    assert seen["selection.mine"] == {}
    watch.cancel()


async def test_both_names_are_healthy(bound: Bound) -> None:
    async with grpc.aio.insecure_channel(bound.address) as channel:
        for name in ("narupa.protocol.state.State", "nanover.protocol.state.State", "nanover.protocol.command.Command"):
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_the_two_families_are_the_same_on_the_wire() -> None:
    request = narupa_state.UpdateStateRequest(
        access_token="x", update=narupa_state.StateUpdate(changed_keys=to_struct({"a": None, "b": [1.0]}))
    )
    twin = nanover_state.UpdateStateRequest.FromString(request.SerializeToString())
    assert isinstance(twin.update.changed_keys, Struct)
    assert twin.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)
