"""`WriteState` on a real socket, through both generated SDKs: order, refusals, ends, and what it never waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from grpclib.client import Channel

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_imd.keeping import Keeping
from narupa_shared.auth import Identity, Role, TokenSigner
from narupa_shared.daemon import Bound, serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc as stubs
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as compat
from narupa_shared.sdk.google.protobuf import Struct as SdkStruct
from narupa_shared.sdk.narupa.imd import v1 as sdk
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.store import NO_LEASES, Commit, LeaseChanges
from narupa_shared.structs import to_struct
from narupa_shared.testing.waiting import until

PULL = {"position": [0.0, 1.0, 2.0], "particles": [3.0], "interaction_type": "spring"}
OK, INVALID, DENIED, EXHAUSTED = 0, 3, 7, 8


def config(**settings: Any) -> ImdConfig:
    return ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5, **{"store": "memory", **settings})


@pytest.fixture
async def app() -> ImdApp:
    return ImdApp(config())


@pytest.fixture
async def bound(app: ImdApp) -> AsyncIterator[Bound]:
    async with serving("imd", config(), app) as bound:
        yield bound


@pytest.fixture
async def channel(bound: Bound) -> AsyncIterator[grpc.aio.Channel]:
    async with own_channel(bound) as channel:
        yield channel


def own_channel(bound: Bound) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(bound.address, [("grpc.use_local_subchannel_pool", 1)])


class Writing:
    """An open stream; what its requests are answered with."""

    def __init__(self, channel: grpc.aio.Channel, metadata: list[tuple[str, str]] | None = None) -> None:
        self.call = stubs.StateServiceStub(channel).WriteState(metadata=metadata)
        self.sequence = 0

    async def send(self, updates: Mapping[str, Any] | None = None, *removals: str) -> int:
        self.sequence += 1
        values = updates if isinstance(updates, Struct) else to_struct(updates or {})
        await self.call.write(pb.WriteStateRequest(sequence=self.sequence, updates=values, removals=removals))
        return self.sequence

    async def answer(self) -> pb.WriteStateResponse:
        answer = await self.call.read()
        assert isinstance(answer, pb.WriteStateResponse)
        return answer

    async def write(self, updates: Mapping[str, Any] | None = None, *removals: str) -> pb.WriteStateResponse:
        sequence = await self.send(updates, *removals)
        answer = await self.answer()
        assert answer.sequence == sequence
        return answer


async def test_requests_are_answered_in_order_refused_or_not(app: ImdApp, channel: grpc.aio.Channel) -> None:
    writing = Writing(channel)
    await writing.call.initial_metadata()  # comes before anything is written
    deep = Struct()
    at = deep.fields["x"].list_value.values.add()
    for _ in range(40):
        at = at.list_value.values.add()
    at.bool_value = True
    wanted = [
        ({"avatar.a": {"name": "Ada"}}, (), OK),
        ({"imd.x": 1.0, "y": 1.0}, (), DENIED),
        ({"simulation.name": "mine"}, (), DENIED),
        ({}, ("simulation.name",), DENIED),
        (deep, (), INVALID),
        ({"z": math.nan}, (), INVALID),
        ({"z": None}, (), INVALID),
        ({"z": 1.0}, ("z",), INVALID),
        ({"interaction.a": PULL | {"particles": []}}, (), INVALID),
        ({"interaction.a": PULL, "big": "x" * 100_000}, (), EXHAUSTED),
        ({"interaction.a": PULL, "note": "x"}, (), OK),
        ({}, (), OK),
        ({}, ("never",), OK),
        ({}, ("note",), OK),
    ]
    for updates, removals, _ in wanted:
        await writing.send(updates, *removals)  # type: ignore[arg-type]
    answers = [await writing.answer() for _ in wanted]
    assert [answer.sequence for answer in answers] == list(range(1, len(wanted) + 1))
    assert [answer.code for answer in answers] == [code for *_, code in wanted]
    assert all(bool(answer.error) == bool(answer.code) for answer in answers)
    assert "imd.x is written by the service only" in answers[1].error
    assert set(app.session.state.values()) == {"imd.velocity_reset_available", "avatar.a", "interaction.a"}
    assert answers[-1].revision == app.session.state.revision
    await writing.call.done_writing()
    assert await writing.call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    await until(lambda: set(app.session.state.values()) == {"imd.velocity_reset_available"})


async def test_the_typed_sdk_writes_the_same(app: ImdApp, bound: Bound) -> None:
    channel = Channel(bound.host, bound.port)
    over = asyncio.Event()

    async def requests() -> AsyncIterator[sdk.WriteStateRequest]:
        values = SdkStruct.parse(to_struct({"interaction.b": PULL, "avatar.b": 1.0}).SerializeToString())
        yield sdk.WriteStateRequest(sequence=7, updates=values)
        yield sdk.WriteStateRequest(sequence=8, removals=["imd.velocity_reset_available"])
        await over.wait()

    answers = sdk.StateServiceStub(channel).write_state(requests())
    first, second = await anext(answers), await anext(answers)
    assert (first.sequence, first.code) == (7, OK) and (second.sequence, second.code) == (8, DENIED)
    assert [item.id for item, _ in app.session.interactions()] == ["b"]
    over.set()
    assert await anext(answers, None) is None
    channel.close()
    await until(lambda: not app.session.interactions())


class SlowStore(MemoryStore):
    """Commits wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.free = asyncio.Event()
        self.asked = 0

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        self.asked += 1
        await self.free.wait()
        await super().commit(commit, leases)


async def test_hands_move_while_another_key_is_still_being_kept(app: ImdApp) -> None:
    store = SlowStore()
    app.keeping = Keeping(app.session, store, commit_limit_s=60)
    async with serving("imd", config(), app) as bound, own_channel(bound) as channel:
        keeps, moves = Writing(channel), Writing(channel)
        await keeps.send({"scene": [1.0]})
        await until(lambda: store.asked)
        for step in range(20):
            await keeps.send({"interaction.a": PULL | {"position": [0.0, 0.0, float(step)]}})
            assert (await moves.write({"avatar.b": float(step)})).code == OK
        # The same stream's too, although their answers wait for their turn.
        await until(lambda: [item.position[2] for item, _ in app.session.interactions()] == [19.0])
        assert app.session.state.values("avatar.") == {"avatar.b": 19.0}
        store.free.set()
        answers = [await keeps.answer() for _ in range(21)]
        assert [answer.sequence for answer in answers] == list(range(1, 22))
        assert not any(answer.code for answer in answers)


async def test_a_stream_that_ends_while_its_keys_are_being_kept_leaves_nothing_waiting(app: ImdApp) -> None:
    store = SlowStore()
    app.keeping = Keeping(app.session, store, commit_limit_s=60)
    async with serving("imd", config(), app) as bound, own_channel(bound) as channel:
        writing = Writing(channel)
        await writing.send({"scene": [1.0], "avatar.a": 1.0})
        await until(lambda: store.asked)
        writing.call.cancel()
        await until(lambda: not app.session.state.values("avatar."))
        store.free.set()
        assert (await Writing(channel).write({"scene": [2.0]})).code == OK


async def test_one_that_does_not_read_its_answers_hurts_only_itself(app: ImdApp, bound: Bound) -> None:
    async with own_channel(bound) as channel, own_channel(bound) as another:
        writing = Writing(channel)
        stopped = asyncio.Event()

        async def flood() -> None:
            while not stopped.is_set():
                await writing.send({"note": "x" * 1000})

        flooding = asyncio.create_task(flood())
        try:
            other = Writing(another)
            for step in range(50):
                assert (await other.write({"avatar.b": float(step)})).code == OK
        finally:
            stopped.set()
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            writing.call.cancel()


async def test_who_writes_too_fast_is_cut_off(app: ImdApp) -> None:
    settings = config(updates_per_s=1, update_burst=10)
    app = ImdApp(settings)
    async with serving("imd", settings, app) as bound, own_channel(bound) as channel:
        fast, slow = Writing(channel), Writing(channel)
        assert (await slow.write({"avatar.slow": 1.0})).code == OK
        for number in range(10):
            assert (await fast.write({"avatar.fast": float(number)})).code == OK
        await fast.send({"avatar.fast": 10.0})
        with pytest.raises(grpc.aio.AioRpcError, match="more than 1 updates per second") as refused:
            await fast.call.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: "avatar.fast" not in app.session.state.values())
        assert (await slow.write({"avatar.slow": 2.0})).code == OK


async def test_who_writes_too_much_is_cut_off() -> None:
    settings = config(bytes_per_s=1024, byte_burst=60_000)
    app = ImdApp(settings)
    async with serving("imd", settings, app) as bound, own_channel(bound) as channel:
        large, small = Writing(channel), Writing(channel)
        assert (await large.write({"avatar.large": "x" * 40_000})).code == OK
        await large.send({"avatar.large": "y" * 40_000})
        with pytest.raises(grpc.aio.AioRpcError, match="more than 1024 bytes of updates per second") as refused:
            await large.call.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await small.write({"avatar.small": 1.0})).code == OK


async def test_garbage_ends_the_stream_and_nothing_else(app: ImdApp, bound: Bound, channel: grpc.aio.Channel) -> None:
    raw = channel.stream_stream("/narupa.imd.v1.StateService/WriteState")()
    await raw.write(b"\xff\xff\xff\xff")
    assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
    await until(lambda: app.connections.streams == 0)
    assert (await Writing(channel).write({"avatar.a": 1.0})).code == OK


async def test_a_user_on_two_connections_is_one_owner() -> None:
    settings = config(open_access=False)
    app = ImdApp(settings)
    signer = TokenSigner.generate()
    app.verifier.trust([signer.public_key])

    def bearer(user: str, role: Role = "participant") -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {signer.sign(Identity(user, user, 'default', role, time.time() + 60))}")]

    async with serving("imd", settings, app) as bound, own_channel(bound) as here, own_channel(bound) as there:
        first, second = Writing(here, bearer("anna")), Writing(there, bearer("anna"))
        other = Writing(there, bearer("bert"))
        assert (await first.write({"avatar.anna": 1.0, "interaction.a": PULL})).code == OK
        assert (await second.write({"avatar.anna": 2.0})).code == OK
        refused = await other.write({"avatar.anna": 3.0})
        assert refused.code == DENIED and "belongs to user:anna" in refused.error
        app.session.state.update_locks(app.session.state.get("avatar.anna").writer, {"scene": 60.0})  # type: ignore[union-attr]
        assert (await other.write({"scene": 1.0})).code == DENIED
        assert (await first.write({"scene": 1.0})).code == OK
        first.call.cancel()
        await until(lambda: not app.session.interactions())
        assert app.session.state.values("avatar.") == {"avatar.anna": 2.0}
        second.call.cancel()
        await until(lambda: not app.session.state.values("avatar."))
        viewer = Writing(here, bearer("vera", "viewer"))
        assert await viewer.call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_where_a_user_stands_is_forgotten_with_the_user(app: ImdApp, channel: grpc.aio.Channel) -> None:
    writing = Writing(channel)
    await writing.write({"avatar.a": {}, "avatar.b": {}})
    run = stubs.CommandServiceStub(channel).RunCommand
    await run(pb.RunCommandRequest(name="multiuser/radially-orient-origins"))
    assert set(app.session.state.values("user-origin.")) == {"user-origin.a", "user-origin.b"}
    await writing.write({}, "avatar.a")
    assert set(app.session.state.values("user-origin.")) == {"user-origin.b"}
    writing.call.cancel()
    await until(lambda: not app.session.state.values("avatar."))
    assert not app.session.state.values("user-origin.")


@pytest.mark.parametrize("family", ["narupa", "nanover"])
async def test_existing_clients_are_told_that_they_may_not(app: ImdApp, channel: grpc.aio.Channel, family: str) -> None:
    update: Any = channel.unary_unary(
        f"/{family}.protocol.state.State/UpdateState",
        request_serializer=compat.UpdateStateRequest.SerializeToString,
        response_deserializer=compat.UpdateStateResponse.FromString,
    )
    for changes in ({"simulation.name": "mine"}, {"simulation.name": None}, {"imd.velocity_reset_available": True}):
        request = compat.UpdateStateRequest(update=compat.StateUpdate(changed_keys=to_struct({**changes, "note": 1.0})))
        assert not (await update(request)).success
    assert app.session.state.values() == {"imd.velocity_reset_available": False}


async def test_a_recordings_state_comes_from_the_follower_and_goes_with_it(
    app: ImdApp, channel: grpc.aio.Channel
) -> None:
    follower = stubs.InteractionServiceStub(channel).FollowInteractions()
    await follower.read()
    writing = Writing(channel)
    await writing.write({"avatar.live": 1.0})
    recorded = {"avatar.live": 0.0, "avatar.old": 0.0, "interaction.old": PULL, "scene": [1.0]}
    await follower.write(
        pb.FollowInteractionsRequest(
            particle_count=10,
            simulation_counter=1,
            simulation_name="recording",
            replayed=pb.ReplayedState(whole=True, updates=to_struct(recorded)),
        )
    )
    shown = recorded | {"avatar.live": 1.0}
    await until(lambda: app.session.state.values().items() >= shown.items())
    assert not app.session.interactions()
    deep = Struct()
    at = deep.fields["x"].struct_value
    for _ in range(20):
        at = at.fields["x"].struct_value
    await follower.write(pb.FollowInteractionsRequest(replayed=pb.ReplayedState(updates=deep)))
    await follower.write(
        pb.FollowInteractionsRequest(
            replayed=pb.ReplayedState(updates=to_struct({"scene": [2.0]}), removals=["avatar.old", "avatar.live"])
        )
    )
    await until(lambda: app.session.state.values("scene") == {"scene": [2.0]})
    assert app.session.state.values("avatar.") == {"avatar.live": 1.0}
    follower.cancel()
    await until(lambda: "scene" not in app.session.state.values())
    assert app.session.state.values("interaction.") == {} and "avatar.live" in app.session.state.values()
