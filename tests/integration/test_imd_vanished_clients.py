"""Clients that are killed while they pull: nothing of theirs is left after 2 s, however they spoke."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc

OWNED = {"interaction.doomed", "avatar.doomed", "doomed"}

# Each holds an interaction and an avatar, says so, and waits for its end. It is a process of its own.
PREAMBLE = """
import sys, threading, grpc
from narupa_shared.structs import to_struct
PULL = {"position": [0, 0, 0], "particles": [0], "interaction_type": "spring"}
BOTH = {"interaction.doomed": PULL, "avatar.doomed": {"name": "doomed"}}
channel = grpc.insecure_channel(sys.argv[1])
"""
TYPED = """
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb, imd_pb2_grpc as stubs
state = stubs.StateServiceStub(channel)
watch = state.WatchState(pb.WatchStateRequest())
next(watch)
held = threading.Event()
def requests():
    yield pb.InteractRequest(set=pb.Interaction(id="doomed", position=[0, 0, 0], particles=[0]))
    held.wait()
responses = stubs.InteractionServiceStub(channel).Interact(requests())
assert next(responses).code == 0
state.UpdateState(pb.UpdateStateRequest(updates=to_struct({"avatar.doomed": {}})))
"""
SUBSCRIBED = """
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as pb, state_service_pb2_grpc as stubs
state = stubs.StateStub(channel)
watch = state.SubscribeStateUpdates(pb.SubscribeStateUpdatesRequest(update_interval=0.03))
next(watch)
assert state.UpdateState(pb.UpdateStateRequest(update=pb.StateUpdate(changed_keys=to_struct(BOTH)))).success
"""
UNARY_ONLY = """
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as pb, state_service_pb2_grpc as stubs
state = stubs.StateStub(channel)
request = pb.UpdateStateRequest(access_token="t", update=pb.StateUpdate(changed_keys=to_struct(BOTH)))
assert state.UpdateState(request).success
"""
# It has no avatar, and never watched; what it wrote before over its connection is over too.
WRITING = """
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb, imd_pb2_grpc as stubs
held = threading.Event()
def requests():
    yield pb.WriteStateRequest(updates=to_struct({"interaction.doomed": PULL}))
    held.wait()
answers = stubs.StateServiceStub(channel).WriteState(requests())
assert next(answers).code == 0
provided = threading.Event()
def registered():
    yield pb.ProvideCommandsRequest(register=pb.Command(name="doomed"))
    provided.wait()
told = stubs.CommandServiceStub(channel).ProvideCommands(registered())
assert next(told).registered
"""
# Its subscription fills up, so that the service is in the middle of sending when it dies.
NEVER_READS = """
from narupa_shared.gen.narupa.protocol.state import state_service_pb2 as pb, state_service_pb2_grpc as stubs
state = stubs.StateStub(channel)
watch = state.SubscribeStateUpdates(pb.SubscribeStateUpdatesRequest(update_interval=0.001))
next(watch)
def update(values):
    return state.UpdateState(pb.UpdateStateRequest(update=pb.StateUpdate(changed_keys=to_struct(values)))).success
assert update(BOTH)
for number in range(100):
    assert update({"large": str(number) * 30_000})
"""
WAITING = """
print("holding", flush=True)
threading.Event().wait()
"""


@pytest.fixture(params=["127.0.0.1", "::1"])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    config = ImdConfig(host=request.param, port=0, lobby="127.0.0.1:1", drain_grace_s=0.5)
    async with serving("imd", config, ImdApp(config)) as bound:
        yield bound.address


async def keys(channel: grpc.aio.Channel) -> set[str]:
    """Of the state; and names of commands."""
    state = await imd_pb2_grpc.StateServiceStub(channel).GetState(pb.GetStateRequest())
    listed = await imd_pb2_grpc.CommandServiceStub(channel).ListCommands(pb.ListCommandsRequest())
    return {*state.state.fields, *(command.name for command in listed.commands)}


@pytest.mark.parametrize(
    "script",
    [TYPED, SUBSCRIBED, UNARY_ONLY, WRITING, NEVER_READS],
    ids=["typed", "subscribed", "unary_only", "writing", "never_reads"],
)
async def test_a_killed_client_leaves_nothing_behind(address: str, script: str) -> None:
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PREAMBLE + script + WAITING, address, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert client.stdout is not None
        assert await client.stdout.readline() == b"holding\n"
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.sleep(1.2)  # longer than one look at the connections: the living are left alone
            assert (await keys(channel)) & OWNED == (
                OWNED - {"avatar.doomed"} if script is WRITING else OWNED - {"doomed"}
            )
            client.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            while await keys(channel) & OWNED:
                assert time.monotonic() - killed < 2.0, await keys(channel)
                await asyncio.sleep(0.02)
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()
