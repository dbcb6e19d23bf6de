"""Bad input of every kind: the one who sends it is told what is wrong, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import narupa_client
from narupa_client import CurrentFrame
from narupa_shared.auth import Identity, Role, TokenSigner
from narupa_shared.errors import NarupaError, QuotaError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2, imd_pb2_grpc
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2, lobby_pb2_grpc
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2, trajectory_pb2_grpc
from narupa_shared.testing.faults import GARBAGE
from tests.e2e.sessions import (
    KINDS,
    LIMIT_S,
    START_LIMIT_S,
    Running,
    RunningSession,
    at_rest,
    complaint,
    first,
    narupa,
    narupa_soon,
    real_input,
    session,
)

pytestmark = pytest.mark.e2e

STUTTER_S: Final = 1.5
SERVICES: Final = ("lobby", "trajectory", "imd")
NO_LOBBY: Final = "127.0.0.1:1"


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's lobby keeps its key."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def helix(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[RunningSession]:
    arguments = (real_input("17-ala.xml"), "--state-dir", str(state_dir))
    with session(tmp_path_factory.mktemp("helix"), *arguments) as running:
        yield running


@contextlib.asynccontextmanager
async def undisturbed(running: RunningSession) -> AsyncIterator[None]:
    """Within, somebody else watches: frames never pause or start anew, nobody's force appears, no process is lost."""
    pids = {process.pid for process in running.processes()}
    async with narupa_client.join(running.lobby, "Ada") as client, client.frames(reconnect=False) as frames:
        before = await first(frames)
        seen: list[CurrentFrame] = []
        longest_s = 0.0

        async def read() -> None:
            nonlocal longest_s
            last = time.monotonic()
            async for frame in frames:
                longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
                seen.append(frame)

        reading = asyncio.create_task(read())
        try:
            yield
            count = len(seen)
            async with asyncio.timeout(STUTTER_S):
                while len(seen) < count + 3:
                    await asyncio.sleep(0.01)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
    assert longest_s < STUTTER_S
    assert seen[0].index > before.index
    assert all(after.index > earlier.index for earlier, after in itertools.pairwise(seen))
    assert all(at_rest(frame) and not frame.exception for frame in seen)
    assert {process.pid for process in running.processes()} == pids
    assert "Traceback" not in running.written()


# What a user types, and what the answer must name.
PULL: Final = ("pull", "--seconds", "1")
COMMANDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "no particles": ((*PULL, "--particles", "", "--to", "0,0,0"), ("--particles", "''")),
    "a duplicate": ((*PULL, "--particles", "7,7", "--to", "0,0,0"), ("--particles", "7", "twice")),
    "a negative index": ((*PULL, "--particles=-1", "--to", "0,0,0"), ("--particles", "-1")),
    "too large an index": ((*PULL, "--particles", "173", "--to", "0,0,0"), ("particles", "173", "172")),
    "not an index": ((*PULL, "--particles", "0.5", "--to", "0,0,0"), ("--particles", "0.5")),
    "NaN": ((*PULL, "--particles", "0", "--to", "nan,0,0"), ("--to", "nan", "finite")),
    "infinity": ((*PULL, "--particles", "0", "--to", "0,inf,0"), ("--to", "inf", "finite")),
    "two coordinates": ((*PULL, "--particles", "0", "--to", "0,0"), ("--to", "0,0")),
    "a NaN scale": ((*PULL, "--particles", "0", "--to", "0,0,0", "--scale", "nan"), ("--scale", "nan")),
    "an unknown type": (
        (*PULL, "--particles", "0", "--to", "0,0,0", "--kind", "magnet"),
        ("--kind", "magnet", "spring", "steered"),
    ),
    "an unknown parameter": (
        (*PULL, "--particles", "0", "--to", "0,0,0", "--parameter", "stifness=1"),
        ("--parameter stifness is 1", "stiffness"),
    ),
    "a missing group": (
        (*PULL, "--kind", "distance", "--group", "0", "--parameter", "target=1"),
        ("--group is given 1 times", "2 groups"),
    ),
    "an unknown command": (("command", "playback/fly"), ("playback/fly", "playback/play")),
    "a missing argument": (("command", "playback/load"), ("playback/load.index", "must be given")),
    "an unknown argument": (("command", "playback/pause", "now=1"), ("playback/pause.now", "1")),
    "a wrong type": (("command", "playback/load", "index=x"), ("playback/load.index", "'x'", "number")),
    "out of range": (("command", "playback/load", "index=7"), ("index", "7")),
    "no pair": (("command", "playback/load", "index"), ("index", "key=value")),
    "a bad interaction": (("state", "set", "interaction.x=3"), ("interaction.x", "3")),
    "a bad lobby": (("services", "--lobby", "nonsense"), ("lobby", "nonsense", "HOST:PORT")),
    "no lobby to watch": (("watch", "--json", "--frames", "1", "--lobby", NO_LOBBY), (NO_LOBBY, "narupa session")),
    "no lobby to ask": (("services", "--json", "--lobby", NO_LOBBY), (NO_LOBBY, "narupa session")),
}


async def test_a_wrong_command_line_is_explained(helix: RunningSession) -> None:
    two_at_a_time = asyncio.Semaphore(2)

    async def check(name: str, arguments: tuple[str, ...], words: tuple[str, ...]) -> str | None:
        async with two_at_a_time:
            done = await narupa_soon(*arguments, lobby=helix.lobby)
        try:
            complaint(done, *words)
            assert not done.stdout
        except AssertionError as error:
            return f"{name}: {error}"
        return None

    async with undisturbed(helix):
        problems = await asyncio.gather(*(check(name, *case) for name, case in COMMANDS.items()))
    assert not [problem for problem in problems if problem]


BROKEN_XML: Final = '<?xml version="1.0"?>\n<OpenMMSimulation>\n  <pdbx>\n'


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


INPUTS: Final[dict[str, tuple[Callable[[Path], str], tuple[str, ...]]]] = {
    "an unknown file": (lambda _: "nowhere.xml", ("input", "nowhere.xml", "no such file")),
    "broken XML": (lambda folder: written(folder, "broken.xml", BROKEN_XML), ("broken.xml", "XML")),
    "an empty file": (lambda folder: written(folder, "empty.xml", ""), ("empty.xml", "empty")),
    "an unknown demo": (lambda _: "demo:dragon", ("demo:dragon", "demo:nanotube")),
    "an unknown calculator": (
        lambda folder: written(folder, "ar.xyz", "1\n\nAr 0 0 0\n") + "?calculator=nope",
        ("calculator", "nope", "emt"),
    ),
    "a calculator that is not installed": (
        lambda folder: written(folder, "ar.xyz", "1\n\nAr 0 0 0\n") + "?calculator=mace_mp",
        ("calculator", "mace_mp", "install mace-torch"),
    ),
    "no calculator": (lambda folder: written(folder, "ar.xyz", "1\n\nAr 0 0 0\n"), ("ar.xyz", "calculator=emt")),
    "an unknown option": (lambda _: "demo:nanotube?steps=5", ("steps", "steps_per_frame")),
}


def check_ended(starting: Running, words: tuple[str, ...], prefix: str) -> None:
    """It ends as for a wrong input, having said why in one line."""
    try:
        assert starting.ended(START_LIMIT_S) == 2, starting.written()
        starting.gone(5.0)
        said = [line for line in starting.written().splitlines() if line.startswith(prefix)]
        assert len(said) == 1, starting.written()
        assert not [word for word in words if word not in said[0]], said[0]
        assert "Traceback" not in starting.written()
    finally:
        starting.end()


@pytest.mark.parametrize("case", ["an unknown file", "broken XML", "a calculator that is not installed"])
def test_a_wrong_input_ends_the_session_at_its_start(tmp_path: Path, case: str) -> None:
    make, words = INPUTS[case]
    check_ended(RunningSession(tmp_path / "session.log", make(tmp_path)), words, "error:")


@pytest.mark.parametrize("case", INPUTS)
def test_a_wrong_input_ends_the_service(tmp_path: Path, case: str) -> None:
    make, words = INPUTS[case]
    flags = ("--port", "0", "--lobby", NO_LOBBY, "--sources", json.dumps([make(tmp_path)]))
    command = (sys.executable, "-m", "narupa_trajectory", *flags)
    check_ended(Running(command, tmp_path / "service.log"), words, "narupa-trajectory:")


async def test_ports_in_use_are_named(helix: RunningSession) -> None:
    ports = {kind: str((await helix.address(kind)).rpartition(":")[2]) for kind in KINDS}
    async with undisturbed(helix):
        done = await narupa_soon("session", "demo:nanotube", "--lobby", helix.lobby)
        complaint(done, "lobby", helix.lobby, "in use", "--lobby")
        for kind, port in ports.items():
            flags = ("--lobby", "127.0.0.1:0", f"--{kind}-port", port)
            complaint(await narupa_soon("session", *flags), kind, port, "in use", f"--{kind}-port")


async def stubs(running: RunningSession, stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    """A stub of each service, each on a connection of its own."""
    channels = {}
    for kind in SERVICES:
        address = running.lobby if kind == "lobby" else await running.address(kind)
        channel = grpc.aio.insecure_channel(
            address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        )
        channels[kind] = await stack.enter_async_context(channel)
    return {
        "lobby": lobby_pb2_grpc.LobbyServiceStub(channels["lobby"]),  # type: ignore[no-untyped-call]
        "trajectory": trajectory_pb2_grpc.TrajectoryServiceStub(channels["trajectory"]),  # type: ignore[no-untyped-call]
        "imd": imd_pb2_grpc.StateServiceStub(channels["imd"]),  # type: ignore[no-untyped-call]
        "interactions": imd_pb2_grpc.InteractionServiceStub(channels["imd"]),  # type: ignore[no-untyped-call]
    }


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """Why the call is refused."""
    try:
        async with asyncio.timeout(LIMIT_S):
            reply = await call
    except grpc.aio.AioRpcError as error:
        return error.with_traceback(None)  # which would keep the call, and its connection, until the next collection
    raise AssertionError(f"not refused: {reply}")


def signer_of(store: Path, folder: Path) -> TokenSigner:
    """What signs a running lobby's tokens, from a copy in `folder` of its store, which the lobby keeps for itself."""
    for file in store.parent.glob(f"{store.name}*"):
        shutil.copy(file, folder)
    with contextlib.closing(sqlite3.connect(folder / store.name)) as copy:
        rows = copy.execute("SELECT value FROM records WHERE collection = 'keys'").fetchall()
    record = next(record for (text,) in rows if not (record := json.loads(text))["retired_at"])
    key = serialization.load_pem_private_key(record["private_pem"].encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return TokenSigner(key, record["key_id"])


async def test_tokens_that_are_expired_forged_or_of_another_session_are_refused(
    helix: RunningSession, state_dir: Path, tmp_path: Path
) -> None:
    signer, stranger = signer_of(state_dir / "lobby.sqlite", tmp_path), TokenSigner.generate()

    def identity(session_id: str = "default", life_s: float = 600.0, role: Role = "participant") -> Identity:
        return Identity("somebody", "Somebody", session_id, role, time.time() + life_s)

    good = signer.sign(identity())
    head, body, signature = good.split(".")
    own_head = stranger.sign(identity()).split(".")
    bad = {
        "expired": (signer.sign(identity(life_s=-5.0)), "expired"),
        "of another session": (signer.sign(identity("elsewhere")), "'elsewhere'"),
        "of another lobby": (stranger.sign(identity()), "does not know"),
        "with another's signature": (f"{head}.{body}.{own_head[2]}", "not valid"),
        "with a changed body": (f"{head}.{own_head[1]}.{signature}", "not valid"),
        "no token": ("nonsense", "malformed"),
    }
    async with undisturbed(helix), contextlib.AsyncExitStack() as stack:
        stub = await stubs(helix, stack)
        calls: dict[str, Callable[[list[tuple[str, str]]], Any]] = {
            "trajectory": lambda metadata: stub["trajectory"].GetStatus(
                trajectory_pb2.GetStatusRequest(), metadata=metadata
            ),
            "imd": lambda metadata: stub["imd"].GetState(imd_pb2.GetStateRequest(), metadata=metadata),
            "lobby": lambda metadata: stub["lobby"].ListServices(lobby_pb2.ListServicesRequest(), metadata=metadata),
        }
        for kind, call in calls.items():
            for name, (token, word) in bad.items():
                error = await refusal(call([("authorization", f"Bearer {token}")]))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED, (kind, name, error)
                if (kind, name) != ("lobby", "of another session"):  # which a lobby may not have
                    assert word in str(error.details()), (kind, name, error)
        for kind in ("trajectory", "imd"):
            await calls[kind]([("authorization", f"Bearer {good}")])


async def test_oversized_messages_are_refused(helix: RunningSession) -> None:
    large = "x" * 5 * 1024 * 1024
    async with undisturbed(helix):
        async with contextlib.AsyncExitStack() as stack:
            stub = await stubs(helix, stack)
            calls = (
                stub["lobby"].Join(lobby_pb2.JoinRequest(user_name=large)),
                stub["trajectory"].RunCommand(trajectory_pb2.RunCommandRequest(name=large)),
                stub["imd"].GetState(imd_pb2.GetStateRequest(prefix=large)),
            )
            for call in calls:
                assert (await refusal(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with narupa_client.join(helix.lobby, "Grace") as grace:
            with pytest.raises(QuotaError):
                await grace.state.update({"large": large})
            assert await grace.state.get("large") == {}
            many = list(range(173)) * 10_000
            with pytest.raises(NarupaError):
                async with grace.pull(many, [0.0, 0.0, 0.0]):
                    pass


async def test_bad_interactions_are_refused_one_by_one_and_good_ones_beside_them_act(helix: RunningSession) -> None:
    bad: dict[str, imd_pb2.Interaction] = {
        "particles": imd_pb2.Interaction(id="a", position=[0, 0, 0]),
        "particles is 3": imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[3, 3]),
        "particles is 173": imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[0, 173]),
        "position": imd_pb2.Interaction(id="a", position=[0, float("nan"), 0], particles=[0]),
        "position[0] is inf": imd_pb2.Interaction(id="a", position=[float("inf"), 0, 0], particles=[0]),
        "interaction_type is 99": imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[0], kind=99),  # type: ignore[arg-type]
        "scale is nan": imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[0], scale=float("nan")),
        "max_force is -1": imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[0], max_force=-1),
    }
    async with contextlib.AsyncExitStack() as stack:
        async with undisturbed(helix):
            stub = await stubs(helix, stack)
            call = stub["interactions"].Interact()
            for word, interaction in bad.items():
                await call.write(imd_pb2.InteractRequest(set=interaction))
                answer = await asyncio.wait_for(call.read(), LIMIT_S)
                assert answer.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], word
                assert word in answer.error
        async with narupa_client.join(helix.lobby, "Ada") as ada, ada.frames() as frames:
            good = imd_pb2.Interaction(id="a", position=[0, 0, 0], particles=[5])
            await call.write(imd_pb2.InteractRequest(set=good))
            assert (await asyncio.wait_for(call.read(), LIMIT_S)).code == 0
            await first(frames, lambda frame: frame.user_forces.indices.tolist() == [5])
            call.cancel()
            await first(frames, at_rest, 2.0)


UNREADABLE: Final = (
    "/narupa.lobby.v1.LobbyService/Join",
    "/narupa.trajectory.v1.TrajectoryService/GetFrame",
    "/narupa.protocol.state.State/UpdateState",
)


async def test_garbage_on_every_port_disturbs_nobody(helix: RunningSession) -> None:
    addresses = [helix.lobby, await helix.address("trajectory"), await helix.address("imd")]
    async with undisturbed(helix):
        for address in addresses:
            host, _, port = address.rpartition(":")
            for garbage in (*GARBAGE, b"\x16\x03\x01" + b"\xff" * 64, b""):
                with contextlib.suppress(ConnectionError), socket.create_connection((host, int(port)), 5.0) as stranger:
                    stranger.sendall(garbage)
                    stranger.shutdown(socket.SHUT_WR)
        # Right frames around bytes that are no message.
        async with contextlib.AsyncExitStack() as stack:
            for address, path in zip(addresses, UNREADABLE, strict=True):
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
                unary: Any = channel.unary_unary
                error = await refusal(unary(path)(b"\xff" * 100))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "request is '100 bytes'" in str(error.details())
                error = await refusal(unary("/narupa.nothing.v1.Nothing/Nothing")(b""))
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert narupa("services", lobby=helix.lobby).returncode == 0
