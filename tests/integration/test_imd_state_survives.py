"""The shared state of an imd process that is killed: what was acknowledged is there again, and nobody's hands are."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import serving
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.gen.narupa.imd.v1 import imd_pb2_grpc as stubs
from narupa_shared.structs import from_struct, to_struct

START_LIMIT_S = 30.0
KILLS = 5


class ImdProcess:
    """`narupa-imd`, which a test kills and starts again on the same port and state directory."""

    def __init__(self, port: int, state_dir: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._arguments = ["--port", str(port), "--state-dir", str(state_dir), "--store", "sqlite"]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "narupa_imd",
            *self._arguments,
            "--lobby",
            "127.0.0.1:1",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


def channel_to(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
    )


async def values(channel: grpc.aio.Channel) -> dict[str, Any]:
    request = stubs.StateServiceStub(channel).GetState(pb.GetStateRequest(), wait_for_ready=True, timeout=START_LIMIT_S)
    return from_struct((await request).state)


async def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path, free_port: Callable[[], int]) -> None:
    imd = ImdProcess(free_port(), tmp_path)
    unanswered: set[str] = set()
    acknowledged: dict[str, float | None] = {}
    answers = 0
    stopped = asyncio.Event()

    async def write(worker: int) -> None:
        """Sets and removes keys one after another, as fast as they are acknowledged."""
        nonlocal answers
        number = 0
        async with channel_to(imd.address) as channel:
            stub = stubs.StateServiceStub(channel)
            while not stopped.is_set():
                number += 1
                key = f"custom.{worker}.{number % 23}"
                value = None if number % 7 == 0 else float(number)
                unanswered.add(key)
                request = (
                    pb.UpdateStateRequest(removals=[key])
                    if value is None
                    else pb.UpdateStateRequest(updates=to_struct({key: value, f"avatar.{worker}": 1.0}))
                )
                try:
                    await stub.UpdateState(request, timeout=5.0)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
                    await asyncio.sleep(0.02)
                    continue
                acknowledged[key] = value
                unanswered.discard(key)
                answers += 1

    random_s = random.Random(7)
    await imd.start()
    writers = [asyncio.create_task(write(worker)) for worker in range(4)]
    try:
        async with channel_to(imd.address) as channel:
            await values(channel)
            interact = stubs.InteractionServiceStub(channel).Interact()
            pull = pb.Interaction(id="a", position=[0, 0, 0], particles=[0], kind=pb.POTENTIAL_KIND_SPRING)
            await interact.write(pb.InteractRequest(sequence=1, set=pull))
            assert (await interact.read()).error == ""
            assert "interaction.a" in await values(channel)
            interact.cancel()
        for _ in range(KILLS):
            before = answers
            async with asyncio.timeout(START_LIMIT_S):
                while answers < before + 30:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random_s.uniform(0.0, 0.2))
            await imd.kill()
            await imd.start()
        stopped.set()
        await asyncio.gather(*writers)
        await imd.kill()
        await imd.start()
        async with channel_to(imd.address) as channel:
            state = await values(channel)
    finally:
        stopped.set()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await imd.kill()
    # What nobody has heard of since may have been done or not; anything else is as it was acknowledged.
    sure = {key: value for key, value in acknowledged.items() if key not in unanswered}
    expected = {key: value for key, value in sure.items() if value is not None}
    assert len(expected) > 20
    assert {key: value for key, value in state.items() if key in sure} == expected
    assert not [key for key in state if key.startswith(("avatar.", "interaction."))]


async def test_each_session_has_a_file_of_its_own(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("NARUPA_IMD_STORE")
    for session_id in ("default", "../up and/away"):
        config = ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5, state_dir=tmp_path, session_id=session_id)
        for life in range(2):
            async with serving("imd", config, ImdApp(config)) as bound, channel_to(bound.address) as channel:
                stub = stubs.StateServiceStub(channel)
                if life == 0:
                    await stub.UpdateState(pb.UpdateStateRequest(updates=to_struct({"scene": session_id})))
                assert (await values(channel))["scene"] == session_id
    files = {path.name for path in tmp_path.rglob("*") if path.name.endswith(".sqlite")}
    assert files == {"imd-default.sqlite", "imd-..%2Fup%20and%2Faway.sqlite"}
