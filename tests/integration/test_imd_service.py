"""The imd service on a real socket, called through both generated SDKs at once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest
from grpclib.client import Channel

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.auth import Identity, Role, TokenSigner
from narupa_shared.daemon import Bound, serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc as stubs
from narupa_shared.sdk.narupa.imd import v1 as sdk
from narupa_shared.structs import from_struct, to_struct

RESET = "imd.velocity_reset_available"


def config(**settings: Any) -> ImdConfig:
    # Nothing listens at the lobby's address; the service must work all the same.
    return ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5, **settings)


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    settings = config()
    async with serving("imd", settings, ImdApp(settings)) as bound:
        yield bound


@pytest.fixture
async def channel(bound: Bound) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(bound.address) as channel:
        yield channel


def own_channel(bound: Bound) -> grpc.aio.Channel:
    """A channel with a TCP connection of its own: another client."""
    return grpc.aio.insecure_channel(bound.address, [("grpc.use_local_subchannel_pool", 1)])


def pull(id: str, particles: Iterable[int] = (0,), **fields: Any) -> pb.Interaction:
    return pb.Interaction(id=id, position=[0, 0, 0], particles=particles, kind=pb.POTENTIAL_KIND_SPRING, **fields)


class Interacting:
    """An open Interact stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = stubs.InteractionServiceStub(channel).Interact()
        self.sequence = 0
        self.ended: dict[str, str] = {}

    async def send(self, **action: Any) -> pb.InteractResponse:
        self.sequence += 1
        await self.call.write(pb.InteractRequest(sequence=self.sequence, **action))
        while (response := await self.read()).ended:
            pass
        assert response.sequence == self.sequence
        return response

    async def read(self) -> pb.InteractResponse:
        """The next response; of one that nobody asked for, `ended` keeps the id and the reason."""
        response = await self.call.read()
        assert isinstance(response, pb.InteractResponse)
        if response.ended:
            assert response.sequence == 0 and response.code == grpc.StatusCode.NOT_FOUND.value[0]
            self.ended[response.ended] = response.error
        return response


async def values(channel: grpc.aio.Channel, prefix: str = "") -> dict[str, Any]:
    response = await stubs.StateServiceStub(channel).GetState(pb.GetStateRequest(prefix=prefix))
    return from_struct(response.state)


async def there(channel: grpc.aio.Channel, key: str, within_s: float = 2.0) -> None:
    """Returns once `key` is in the state."""
    watch = stubs.StateServiceStub(channel).WatchState(pb.WatchStateRequest(prefix=key))
    async with asyncio.timeout(within_s):
        while key not in (await watch.read()).updates.fields:
            pass
    watch.cancel()


async def gone(channel: grpc.aio.Channel, key: str, within_s: float = 2.0) -> float:
    """How long until `key` is gone, s."""
    started = time.monotonic()
    while key in await values(channel):
        assert time.monotonic() - started < within_s, f"{key} is still there"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_an_interaction_lives_as_long_as_its_stream(channel: grpc.aio.Channel) -> None:
    stub = stubs.InteractionServiceStub(channel)
    stream = Interacting(channel)
    accepted = await stream.send(set=pull("a", [3, 1], max_force=math.inf, properties=to_struct({"label": "x"})))
    assert accepted.code == 0 and accepted.error == "" and accepted.revision > 0
    assert (await values(channel, "interaction."))["interaction.a"] == {
        "position": [0.0, 0.0, 0.0],
        "particles": [3.0, 1.0],
        "interaction_type": "spring",
        "scale": 1.0,
        "mass_weighted": True,
        "reset_velocities": False,
        "max_force": math.inf,
        "label": "x",
    }
    moved = await stream.send(move=pb.Move(id="a", position=[1, 2, 3]))
    assert moved.revision == accepted.revision + 1
    [owned] = (await stub.ListInteractions(pb.ListInteractionsRequest())).interactions
    assert list(owned.interaction.position) == [1, 2, 3] and list(owned.interaction.particles) == [1, 3]
    assert owned.interaction.max_force == math.inf and from_struct(owned.interaction.properties) == {"label": "x"}
    assert owned.owner.startswith("ipv4:127.0.0.1:")
    await stream.call.done_writing()
    assert await stream.call.read() is grpc.aio.EOF
    assert await gone(channel, "interaction.a") < 1


async def test_a_refused_message_leaves_the_stream_and_its_interactions(
    bound: Bound, channel: grpc.aio.Channel
) -> None:
    stream = Interacting(channel)
    await stream.send(set=pull("a"))
    async with own_channel(bound) as other_channel:
        other = Interacting(other_channel)
        assert (await other.send(set=pull("b"))).code == 0
        for action, code, says in (
            ({"set": pull("a")}, grpc.StatusCode.PERMISSION_DENIED, "interaction.a belongs to peer:"),
            ({"remove": "a"}, grpc.StatusCode.PERMISSION_DENIED, "interaction.a"),
            ({"move": pb.Move(id="x", position=[0, 0, 0])}, grpc.StatusCode.NOT_FOUND, "'x'"),
            ({"move": pb.Move(id="b", position=[0, 0])}, grpc.StatusCode.INVALID_ARGUMENT, "interaction.b.position"),
            ({"move": pb.Move(id="b", position=[0, 0, math.nan])}, grpc.StatusCode.INVALID_ARGUMENT, "nan"),
            ({"set": pull("")}, grpc.StatusCode.INVALID_ARGUMENT, "interaction id"),
            ({"set": pull("c", [])}, grpc.StatusCode.INVALID_ARGUMENT, "interaction.c.particles"),
            ({"set": pull("c", [1, 1])}, grpc.StatusCode.INVALID_ARGUMENT, "named twice"),
            ({"set": pull("c", scale=math.inf)}, grpc.StatusCode.INVALID_ARGUMENT, "scale is inf"),
            ({"set": pb.Interaction(id="c", particles=[0])}, grpc.StatusCode.INVALID_ARGUMENT, "position"),
            (
                {"set": pb.Interaction(id="c", position=[0, 0, 0], particles=[0], kind=9)},
                grpc.StatusCode.INVALID_ARGUMENT,
                "9",
            ),
            ({"set": pull("c", properties=to_struct({"a": math.nan}))}, grpc.StatusCode.INVALID_ARGUMENT, "NaN"),
            ({}, grpc.StatusCode.INVALID_ARGUMENT, "action"),
        ):
            response = await other.send(**action)
            assert response.code == code.value[0] and says in response.error, (action, response)
        assert (await other.send(remove="gone")).code == 0
        assert set(await values(channel, "interaction.")) == {"interaction.a", "interaction.b"}
    await gone(channel, "interaction.b")
    assert "interaction.a" in await values(channel)
    stream.call.cancel()


async def test_too_many_messages_per_second_end_the_stream() -> None:
    settings = config(updates_per_s=1, update_burst=3)
    async with serving("imd", settings, ImdApp(settings)) as bound, grpc.aio.insecure_channel(bound.address) as channel:
        stream = Interacting(channel)
        for _ in range(3):
            await stream.send(set=pull("a"))
        await stream.call.write(pb.InteractRequest(set=pull("a")))
        with pytest.raises(grpc.aio.AioRpcError, match="more than 1 updates per second") as refused:
            await stream.call.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await values(channel) == {RESET: False}


async def test_a_follower_gets_all_and_then_changes_and_heartbeats(channel: grpc.aio.Channel) -> None:
    stream = Interacting(channel)
    await stream.send(set=pull("a", [7]))
    follower = stubs.InteractionServiceStub(channel).FollowInteractions()
    await follower.write(pb.FollowInteractionsRequest())
    first = await follower.read()
    assert first.whole and [item.id for item in first.set] == ["a"] and first.heartbeat_s == 0.5
    assert first.set[0].kind == pb.POTENTIAL_KIND_SPRING and not first.set[0].HasField("properties")
    assert first.set[0].owner.startswith("ipv4:127.0.0.1:")
    await stream.send(set=pull("b", [1]))
    changed = await follower.read()
    assert not changed.whole and [item.id for item in changed.set] == ["b"] and not changed.removed
    started = time.monotonic()
    silent = await follower.read()
    assert 0.3 < time.monotonic() - started < 1.0 and not silent.set and not silent.removed
    await follower.write(
        pb.FollowInteractionsRequest(particle_count=5, velocity_reset_available=True, simulation_counter=1)
    )
    while not (dropped := await follower.read()).removed:
        pass
    assert list(dropped.removed) == ["a"]
    assert (await values(channel))[RESET] is True
    assert (await stream.send(move=pb.Move(id="a", position=[0, 0, 0]))).code == grpc.StatusCode.NOT_FOUND.value[0]
    assert "the system has 5 particles" in (await stream.send(set=pull("c", [5]))).error
    await follower.write(
        pb.FollowInteractionsRequest(particle_count=5, velocity_reset_available=True, simulation_counter=2)
    )
    while not (dropped := await follower.read()).removed:
        pass
    assert list(dropped.removed) == ["b"]
    while "b" not in stream.ended:
        await stream.read()
    assert stream.ended == {
        "a": "interaction 'a' was ended: the system has only 5 particles",
        "b": "interaction 'b' was ended: another simulation was loaded",
    }
    follower.cancel()
    stream.call.cancel()


async def test_a_watch_begins_whole_goes_on_merged_and_resumes(channel: grpc.aio.Channel) -> None:
    stub = stubs.StateServiceStub(channel)
    await stub.UpdateState(pb.UpdateStateRequest(updates=to_struct({"scene": [1.0], "x": 1.0})))
    watch = stub.WatchState(pb.WatchStateRequest(update_interval_s=0.05))
    first = await watch.read()
    assert first.whole and from_struct(first.updates) == {"scene": [1.0], "x": 1.0, RESET: False}
    for value in range(5):
        await stub.UpdateState(pb.UpdateStateRequest(updates=to_struct({"x": float(value)})))
    reply = await stub.UpdateState(pb.UpdateStateRequest(removals=["scene"]))
    copy, removed, messages = from_struct(first.updates), [], 0
    while not removed:
        response = await watch.read()
        messages += 1
        copy |= from_struct(response.updates)
        removed += response.removals
    assert copy["x"] == 4.0 and removed == ["scene"] and response.revision == reply.revision and messages <= 3
    watch.cancel()
    resumed = stub.WatchState(pb.WatchStateRequest(epoch=first.epoch, after_revision=first.revision, prefix="x"))
    again = await resumed.read()
    assert not again.whole and from_struct(again.updates) == {"x": 4.0} and not again.removals
    resumed.cancel()


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.WatchStateRequest(epoch="old"), grpc.StatusCode.OUT_OF_RANGE, "epoch 'old'"),
        (pb.WatchStateRequest(after_revision=3), grpc.StatusCode.INVALID_ARGUMENT, "after_revision is 3"),
        (pb.WatchStateRequest(update_interval_s=-1), grpc.StatusCode.INVALID_ARGUMENT, "update_interval_s is -1"),
        (
            pb.WatchStateRequest(update_interval_s=math.nan),
            grpc.StatusCode.INVALID_ARGUMENT,
            "update_interval_s is nan",
        ),
    ],
)
async def test_a_bad_watch_is_refused(
    channel: grpc.aio.Channel, request_: pb.WatchStateRequest, code: grpc.StatusCode, says: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=says) as refused:
        await stubs.StateServiceStub(channel).WatchState(request_).read()
    assert refused.value.code() is code


async def test_locks_and_ownership_hold_between_connections(bound: Bound, channel: grpc.aio.Channel) -> None:
    anna = stubs.StateServiceStub(channel)
    await anna.UpdateLocks(pb.UpdateLocksRequest(acquire_s={"scene": 60.0}))
    await anna.UpdateState(pb.UpdateStateRequest(updates=to_struct({"avatar.anna": {}, "scene": [1.0]})))
    async with own_channel(bound) as other:
        bert = stubs.StateServiceStub(other)
        for refused in (
            bert.UpdateState(pb.UpdateStateRequest(updates=to_struct({"scene": [2.0], "y": 1.0}))),
            bert.UpdateState(pb.UpdateStateRequest(removals=["avatar.anna"])),
            bert.UpdateState(pb.UpdateStateRequest(updates=to_struct({RESET: True}))),
            bert.UpdateLocks(pb.UpdateLocksRequest(acquire_s={"y": 1.0, "scene": 1.0})),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await refused
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError, match="lock on y is nan") as bad:
            await bert.UpdateLocks(pb.UpdateLocksRequest(acquire_s={"y": math.nan}))
        assert bad.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert set(await values(other)) == {"avatar.anna", "scene", RESET}


async def test_the_typed_sdk_speaks_the_same(bound: Bound, channel: grpc.aio.Channel) -> None:
    sdk_channel = Channel(bound.host, bound.port)
    try:
        state = sdk.StateServiceStub(sdk_channel)
        reply = await state.get_state(sdk.GetStateRequest())
        assert reply.epoch and reply.state is not None and RESET in reply.state.fields
        interactions = sdk.InteractionServiceStub(sdk_channel)

        async def requests() -> AsyncIterator[sdk.InteractRequest]:
            yield sdk.InteractRequest(sequence=1, set=sdk.Interaction(id="a", position=[0.0, 0.0, 0.0], particles=[1]))
            yield sdk.InteractRequest(sequence=2, move=sdk.Move(id="b", position=[0.0, 0.0, 0.0]))
            await there(channel, "interaction.a")

        codes = [(item.sequence, item.code) async for item in interactions.interact(requests())]
        assert codes == [(1, 0), (2, 5)]
        async for response in state.watch_state(sdk.WatchStateRequest(prefix="imd.")):
            assert response.whole and response.updates is not None and set(response.updates.fields) == {RESET}
            break
        await gone(channel, "interaction.a")
    finally:
        sdk_channel.close()


async def test_garbage_and_oversized_messages_disturb_nobody(
    bound: Bound, channel: grpc.aio.Channel, garbage: tuple[bytes, ...]
) -> None:
    stream = Interacting(channel)
    await stream.send(set=pull("a"))
    for item in garbage:
        with socket.create_connection((bound.host, bound.port), timeout=5) as stranger:
            stranger.sendall(item)
    async with own_channel(bound) as other:
        raw = other.unary_unary("/narupa.imd.v1.StateService/UpdateState")
        with pytest.raises(grpc.aio.AioRpcError):
            await raw(b"\xff" * 100)
        with pytest.raises(grpc.aio.AioRpcError) as oversized:
            await raw(b"\x00" * (5 * 1024 * 1024))
        assert oversized.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        nested: Any = 1.0
        for _ in range(15):
            nested = [nested]
        deep = to_struct({"deep": nested})
        for _ in range(8):
            outer = to_struct({"deep": None})
            outer.fields["deep"].struct_value.CopyFrom(deep)
            deep = outer
        with pytest.raises(grpc.aio.AioRpcError, match="deep") as too_deep:
            await stubs.StateServiceStub(other).UpdateState(pb.UpdateStateRequest(updates=deep))
        assert too_deep.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await stream.send(move=pb.Move(id="a", position=[1, 1, 1]))).code == 0
    stream.call.cancel()


async def test_streams_end_with_unavailable_when_the_service_stops() -> None:
    settings = config()
    async with serving("imd", settings, ImdApp(settings)) as bound:
        channel = grpc.aio.insecure_channel(bound.address)
        stream = Interacting(channel)
        await stream.send(set=pull("a"))
        watch = stubs.StateServiceStub(channel).WatchState(pb.WatchStateRequest())
        follower = stubs.InteractionServiceStub(channel).FollowInteractions()
        await watch.read()
        await follower.read()
    for call in (stream.call, watch, follower):
        with pytest.raises(grpc.aio.AioRpcError, match="stopping") as ended:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()


def token(
    signer: TokenSigner, user: str, role: Role, session: str = "default", ttl_s: float = 60
) -> list[tuple[str, str]]:
    signed = signer.sign(Identity(user, user, session, role, time.time() + ttl_s))
    return [("authorization", f"Bearer {signed}")]


async def test_a_closed_service_knows_users_by_their_tokens() -> None:
    settings = config(open_access=False)
    app = ImdApp(settings)
    signer = TokenSigner.generate()
    app.verifier.trust([signer.public_key])
    async with serving("imd", settings, app) as bound, grpc.aio.insecure_channel(bound.address) as channel:
        state, interactions = stubs.StateServiceStub(channel), stubs.InteractionServiceStub(channel)
        for metadata in (
            None,
            token(TokenSigner.generate(), "anna", "participant"),
            token(signer, "anna", "participant", ttl_s=-1),
            token(signer, "anna", "participant", session="other"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await state.GetState(pb.GetStateRequest(), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        anna, bert = token(signer, "anna", "participant"), token(signer, "bert", "participant")
        await state.UpdateState(pb.UpdateStateRequest(updates=to_struct({"avatar.a": {}})), metadata=anna)
        with pytest.raises(grpc.aio.AioRpcError, match="belongs to user:anna"):
            await state.UpdateState(pb.UpdateStateRequest(removals=["avatar.a"]), metadata=bert)
        with pytest.raises(grpc.aio.AioRpcError, match="role service") as not_service:
            await interactions.FollowInteractions(metadata=anna).read()
        assert not_service.value.code() is grpc.StatusCode.PERMISSION_DENIED
        follower = interactions.FollowInteractions(metadata=token(signer, "trajectory-1", "service"))
        assert (await follower.read()).whole
        follower.cancel()


async def test_a_leader_that_another_has_followed_is_told_and_not_heard(
    channel: grpc.aio.Channel, bound: Bound
) -> None:
    stale = stubs.InteractionServiceStub(channel).FollowInteractions()
    await stale.write(pb.FollowInteractionsRequest(group="g", epoch=1, particle_count=9))
    assert isinstance(await stale.read(), pb.FollowInteractionsResponse)
    async with own_channel(bound) as another:
        user = Interacting(another)
        await user.send(set=pull("held"))
        leader = stubs.InteractionServiceStub(another).FollowInteractions()
        await leader.write(pb.FollowInteractionsRequest(group="g", epoch=2, particle_count=9))
        assert isinstance(await leader.read(), pb.FollowInteractionsResponse)
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # its stream may have ended already
            await stale.write(
                pb.FollowInteractionsRequest(group="g", epoch=1, ended=[pb.EndedInteraction(id="held", reason="stale")])
            )
        async with asyncio.timeout(20.0):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await stale.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    pass
                assert await stale.code() is grpc.StatusCode.OK, await stale.details()
                raise AssertionError("the stale leader's stream ended as if all were well")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        listed = await stubs.InteractionServiceStub(another).ListInteractions(pb.ListInteractionsRequest())
        assert [each.interaction.id for each in listed.interactions] == ["held"]
        leader.cancel()
