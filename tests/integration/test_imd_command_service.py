"""Commands at a real imd service: its own and its clients', listed and run under every name, by whoever may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from grpclib.client import Channel

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_imd.provided_commands import MAX_CALLS_PER_PROVIDER, MAX_COMMANDS_PER_OWNER
from narupa_shared.auth import Identity, Role, TokenSigner
from narupa_shared.daemon import Bound, serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc as stubs
from narupa_shared.gen.narupa.protocol.command import command_service_pb2 as compat
from narupa_shared.sdk.google.protobuf import Struct as SdkStruct
from narupa_shared.sdk.narupa.imd import v1 as sdk
from narupa_shared.structs import from_struct, to_struct
from narupa_shared.testing.waiting import until

ORIENT = "multiuser/radially-orient-origins"
FAMILIES = ("narupa", "nanover")


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


Metadata = list[tuple[str, str]] | None


class Providing:
    """An open stream of a client that provides commands."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata = None) -> None:
        self.call = stubs.CommandServiceStub(channel).ProvideCommands(metadata=metadata)

    async def send(self, **action: Any) -> None:
        await self.call.write(pb.ProvideCommandsRequest(**action))

    async def event(self) -> pb.ProvideCommandsResponse:
        event = await self.call.read()
        assert isinstance(event, pb.ProvideCommandsResponse), event
        return event

    async def register(self, name: str, arguments: dict[str, Any] | None = None, **facts: str) -> str:
        """Why it was refused; empty where it was not."""
        await self.send(register=pb.Command(name=name, arguments=to_struct(arguments or {}), **facts))
        event = await self.event()
        assert name in (event.registered, event.refused.name)
        return event.refused.error

    async def next_call(self) -> pb.CommandCall:
        event = await self.event()
        assert event.WhichOneof("event") == "call", event
        return event.call

    async def answer(self, call: pb.CommandCall, result: dict[str, Any] | None = None, error: str = "") -> None:
        await self.send(result=pb.CommandResult(call=call.call, result=to_struct(result or {}), error=error))


async def listed(channel: grpc.aio.Channel, metadata: Metadata = None) -> dict[str, pb.Command]:
    response = await stubs.CommandServiceStub(channel).ListCommands(pb.ListCommandsRequest(), metadata=metadata)
    return {command.name: command for command in response.commands}


def run(
    channel: grpc.aio.Channel, name: str, arguments: dict[str, Any] | None = None, metadata: Metadata = None
) -> asyncio.Task[dict[str, Any]]:
    async def result() -> dict[str, Any]:
        request = pb.RunCommandRequest(name=name, arguments=to_struct(arguments or {}))
        return from_struct((await stubs.CommandServiceStub(channel).RunCommand(request, metadata=metadata)).result)

    return asyncio.create_task(result())


def run_compat(
    channel: grpc.aio.Channel, family: str, name: str, arguments: dict[str, Any] | None = None
) -> asyncio.Task[dict[str, Any]]:
    call: Any = channel.unary_unary(
        f"/{family}.protocol.command.Command/RunCommand",
        request_serializer=compat.CommandMessage.SerializeToString,
        response_deserializer=compat.CommandReply.FromString,
    )

    async def result() -> dict[str, Any]:
        reply = await call(compat.CommandMessage(name=name, arguments=to_struct(arguments or {})))
        return from_struct(reply.result)

    return asyncio.create_task(result())


async def refusal(task: asyncio.Task[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await task
    return refused.value.code(), refused.value.details() or ""


async def test_the_services_own_commands_are_listed_and_run(app: ImdApp, channel: grpc.aio.Channel) -> None:
    own = await listed(channel)
    assert set(own) == {"commands/list", ORIENT} and not any(command.provider for command in own.values())
    assert from_struct(own[ORIENT].arguments) == {"radius": 1.0}
    assert await run(channel, ORIENT, {"radius": 2.0}) == {}
    for name, arguments, says in (
        (ORIENT, {"radius": "far"}, "radius is 'far'"),
        (ORIENT, {"size": 1.0}, "unknown argument"),
        ("playback/dance", {}, "command is 'playback/dance': unknown"),
        ("", {}, "command is ''"),
    ):
        code, text = await refusal(run(channel, name, arguments))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and says in text


async def test_a_provided_command_is_there_under_every_name(bound: Bound, channel: grpc.aio.Channel) -> None:
    async with own_channel(bound) as other:
        providing = Providing(other)
        assert not await providing.register("greet", {"name": "you", "n": None}, label="Greet", icon="👋")
        command = (await listed(channel))["greet"]
        assert (command.label, command.icon) == ("Greet", "👋") and command.provider.startswith("ipv4:127.0.0.1:")
        assert from_struct(command.arguments) == {"name": "you", "n": None}
        for task in (
            run(channel, "greet", {"name": "Ada", "more": [1.0]}),
            *(run_compat(channel, family, "greet", {"name": "Ada", "more": [1.0]}) for family in FAMILIES),
        ):
            call = await providing.next_call()
            assert call.name == "greet" and call.caller.startswith("ipv4:127.0.0.1:")
            assert from_struct(call.arguments) == {"name": "Ada", "n": None, "more": [1.0]}
            await providing.answer(call, {"said": "Hello"})
            assert await task == {"said": "Hello"}
        for family in FAMILIES:
            get: Any = channel.unary_unary(f"/{family}.protocol.command.Command/GetCommands")
            commands = compat.GetCommandsReply.FromString(await get(b"")).commands
            assert {command.name for command in commands} == {"commands/list", ORIENT, "greet"}
            everything = await run_compat(channel, family, "commands/list")
            assert everything["list"]["greet"] == {"name": "you", "n": None}
            assert [item for item in everything["commands"] if item["name"] == "greet"] == [
                {"name": "greet", "arguments": {"name": "you", "n": None}, "label": "Greet", "icon": "👋"}
            ]
        await providing.call.done_writing()
        assert await providing.call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        assert "greet" not in await listed(channel)


async def test_the_typed_sdk_provides_and_runs(bound: Bound, channel: grpc.aio.Channel) -> None:
    typed = Channel(bound.host, bound.port)
    requests: asyncio.Queue[sdk.ProvideCommandsRequest | None] = asyncio.Queue()

    async def sent() -> AsyncIterator[sdk.ProvideCommandsRequest]:
        while request := await requests.get():
            yield request

    events = sdk.CommandServiceStub(typed).provide_commands(sent())
    requests.put_nowait(sdk.ProvideCommandsRequest(register=sdk.Command(name="twice")))
    assert (await anext(events)).registered == "twice"
    task = run(channel, "twice", {"x": 2.0})
    call = (await anext(events)).call
    assert call is not None and call.name == "twice"
    result = SdkStruct.parse(to_struct({"y": 4.0}).SerializeToString())
    requests.put_nowait(sdk.ProvideCommandsRequest(result=sdk.CommandResult(call=call.call, result=result)))
    assert await task == {"y": 4.0}
    requests.put_nowait(sdk.ProvideCommandsRequest(register=sdk.Command(name="playback/x")))
    refused = (await anext(events)).refused
    assert refused is not None and refused.name == "playback/x" and "service's own" in refused.error
    requests.put_nowait(None)
    assert await anext(events, None) is None
    typed.close()


async def test_what_is_wrong_with_an_answer_is_told_to_the_caller(channel: grpc.aio.Channel) -> None:
    providing = Providing(channel)
    await providing.register("x")
    task = run(channel, "x")
    await providing.answer(await providing.next_call(), error="out of\nluck")
    assert await refusal(task) == (grpc.StatusCode.ABORTED, "the command 'x' failed: out of luck")
    task = run_compat(channel, "nanover", "x")
    await providing.answer(await providing.next_call(), {"large": "x" * 2_000_000})
    code, text = await refusal(task)
    assert code is grpc.StatusCode.ABORTED and "at most 1048576" in text
    task = run(channel, "x")
    call = await providing.next_call()
    deep = Struct()
    at = deep.fields["x"].struct_value
    for _ in range(20):
        at = at.fields["x"].struct_value
    at.fields["x"].bool_value = True
    await providing.send(result=pb.CommandResult(call=call.call, result=deep))
    code, text = await refusal(task)
    assert code is grpc.StatusCode.ABORTED and "nested too deeply" in text


async def test_a_provider_that_is_gone_fails_its_calls(bound: Bound, channel: grpc.aio.Channel) -> None:
    async with own_channel(bound) as other:
        providing = Providing(other)
        await providing.register("x")
        tasks = [run(channel, "x") for _ in range(3)]
        for _ in tasks:
            await providing.next_call()
    for task in tasks:
        code, text = await refusal(task)
        assert code is grpc.StatusCode.UNAVAILABLE and "is gone" in text
    code, _ = await refusal(run(channel, "x"))
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE)


async def test_a_silent_provider_is_not_waited_for_for_ever() -> None:
    settings = config(command_answer_s=0.2)
    app = ImdApp(settings)
    async with serving("imd", settings, app) as bound, own_channel(bound) as channel:
        providing = Providing(channel)
        await providing.register("x")
        code, text = await refusal(run(channel, "x"))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED and "did not answer within 0.2 s" in text
        await providing.answer(await providing.next_call(), {"too": "late"})
        assert not await providing.register("y")


async def test_a_provider_has_so_many_calls_to_answer_and_no_more(app: ImdApp, channel: grpc.aio.Channel) -> None:
    providing = Providing(channel)
    await providing.register("x")
    tasks = [run(channel, "x") for _ in range(MAX_CALLS_PER_PROVIDER)]
    calls = [await providing.next_call() for _ in tasks]
    code, text = await refusal(run(channel, "x"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "64 calls" in text
    for call in calls:
        await providing.answer(call, {"id": float(call.call)})
    assert {(await task)["id"] for task in tasks} == {float(call.call) for call in calls}
    gone = run(channel, "x")
    await providing.next_call()
    gone.cancel()
    after = run(channel, "x")
    await providing.answer(await providing.next_call(), {"fine": True})
    assert await after == {"fine": True}


async def test_what_may_not_be_registered_leaves_the_stream_open(bound: Bound, channel: grpc.aio.Channel) -> None:
    providing = Providing(channel)
    async with own_channel(bound) as other:
        await Providing(other).register("taken")
        for name, facts, says in (
            (ORIENT, {}, "service's own"),
            ("commands/list", {}, "service's own"),
            ("imd/x", {}, "service's own"),
            ("", {}, "1 to 128"),
            ("x" * 200, {}, "1 to 128"),
            ("a\x00b", {}, "1 to 128"),
            ("x", {"label": "l" * 1000}, "label"),
            ("x", {"icon": "i" * 1000}, "icon"),
            ("x", {"arguments": {"a": "x" * 100_000}}, "at most 16384"),
        ):
            assert says in await providing.register(name, **facts)  # type: ignore[arg-type]
    for number in range(MAX_COMMANDS_PER_OWNER):
        assert not await providing.register(f"c{number}")
    assert "64 that a client may provide" in await providing.register("more")
    await providing.send(withdraw="c0")
    await providing.send(withdraw="taken")
    await providing.send(withdraw="never")
    await providing.send(result=pb.CommandResult(call=12345))
    assert not await providing.register("more")
    assert len(await listed(channel)) >= MAX_COMMANDS_PER_OWNER + 2


@pytest.mark.parametrize("said", [b"", b"\xff\xff\xff\xff"])
async def test_what_is_no_request_ends_the_stream_and_nothing_else(
    app: ImdApp, bound: Bound, channel: grpc.aio.Channel, said: bytes
) -> None:
    providing = Providing(channel)
    await providing.register("x")
    async with own_channel(bound) as other:
        raw: Any = other.stream_stream("/narupa.imd.v1.CommandService/ProvideCommands")()
        await raw.write(pb.ProvideCommandsRequest(register=pb.Command(name="y")).SerializeToString())
        await raw.read()
        await raw.write(said)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await raw.read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: "y" not in app.commands.provided)
    task = run(channel, "x")
    await providing.answer(await providing.next_call())
    assert await task == {}


async def test_who_may_run_and_provide_what() -> None:
    settings = config(open_access=False)
    app = ImdApp(settings)
    signer = TokenSigner.generate()
    app.verifier.trust([signer.public_key])

    def bearer(role: Role, user: str = "") -> list[tuple[str, str]]:
        identity = Identity(user or role, user or role, "default", role, time.time() + 60)
        return [("authorization", f"Bearer {signer.sign(identity)}")]

    async with serving("imd", settings, app) as bound, own_channel(bound) as channel:
        denied = grpc.StatusCode.PERMISSION_DENIED
        assert await Providing(channel, bearer("viewer")).call.code() is denied
        assert await Providing(channel, bearer("service")).call.code() is denied
        providing = Providing(channel, bearer("participant", "anna"))
        for name in ("greet", "tools/get-x"):  # which a service's own of that name would let viewers run
            assert not await providing.register(name)
            assert (await listed(channel, bearer("viewer")))[name].provider == "anna"
            for role in ("viewer", "service"):
                code, text = await refusal(run(channel, name, metadata=bearer(role)))  # type: ignore[arg-type]
                assert code is denied and "needs the role participant" in text
            for role in ("participant", "host"):
                task = run(channel, name, metadata=bearer(role))  # type: ignore[arg-type]
                call = await providing.next_call()
                assert call.caller == role
                await providing.answer(call)
                assert await task == {}
        assert (await refusal(run(channel, ORIENT, metadata=bearer("participant"))))[0] is denied
        assert await run(channel, ORIENT, metadata=bearer("host")) == {}
        # The same user may provide it anew from elsewhere, and another may not.
        assert "somebody else" in await Providing(channel, bearer("host", "bert")).register("greet")
        again = Providing(channel, bearer("participant", "anna"))
        assert not await again.register("greet")
        providing.call.cancel()
        await until(lambda: "tools/get-x" not in app.commands.provided)
        task = run(channel, "greet", metadata=bearer("host"))
        await again.answer(await again.next_call(), {"again": True})
        assert await task == {"again": True}
