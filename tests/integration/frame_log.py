"""Watches services and writes down what came: `python -m tests.integration.frame_log HOST:PORT ...`.

Each is watched twice, for every frame and for the latest. For each frame there is a line of JSON on standard output, see `Line`,
and one without a digest when a stream ends. Standard input ends it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np

from narupa_shared import frame_keys as keys
from narupa_shared.frames import decode_frame_response_v1
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb

_SUBSCRIBE = "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames"


@dataclass(frozen=True)
class Line:
    """One frame as a viewer had it.

    Attributes:
        viewer: Where it watches, and how.
        epoch: In which a leader made it.
        index: Within the run.
        run: Which that is.
        time_ps: Of the simulation.
        made_at: When, by the clock of the service that made it, s; on one machine all have the same.
        digest: Of the positions; empty when the stream has ended.
        exception: What a viewer reads by now of why the simulation does not go on, or why the stream has ended.
    """

    viewer: str
    epoch: int = 0
    index: int = -1
    run: str = ""
    time_ps: float = 0.0
    made_at: float = 0.0
    digest: str = ""
    exception: str = ""


def _tell(line: Line) -> None:
    print(json.dumps(asdict(line)), flush=True)


async def _watch(address: str, mode: Any) -> None:
    viewer = f"{address} {pb.FrameMode.Name(mode)}"
    values: dict[str, Any] = {}
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: Any = channel.unary_stream(_SUBSCRIBE, pb.SubscribeFramesRequest.SerializeToString, None)(
            pb.SubscribeFramesRequest(mode=mode)
        )
        try:
            async for response in call:
                frame = decode_frame_response_v1(response)
                if frame.index == 0:
                    values.clear()
                values.update(frame.values)
                positions = np.asarray(frame.arrays[keys.POSITIONS], np.float32).tobytes()
                _tell(
                    Line(
                        viewer,
                        int(values.get(keys.EPOCH, 0)),
                        frame.index,
                        str(values.get(keys.RUN, "")),
                        float(values.get(keys.TIME, 0.0)),
                        float(values.get(keys.TIMESTAMP, 0.0)),
                        hashlib.blake2b(positions, digest_size=8).hexdigest(),
                        str(values.get(keys.EXCEPTION, "")),
                    )
                )
            _tell(Line(viewer, exception="the stream has ended"))
        except grpc.aio.AioRpcError as error:
            _tell(Line(viewer, exception=error.details() or error.code().name))


async def _main(addresses: list[str]) -> None:
    modes = (pb.FRAME_MODE_ALL, pb.FRAME_MODE_LATEST)
    watching = [asyncio.create_task(_watch(address, mode)) for address in addresses for mode in modes]
    await asyncio.to_thread(sys.stdin.read)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
