"""A real trajectory service for a measurement, and many subscribers that cost as little as they can."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2


@contextlib.contextmanager
def served(source: str, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a trajectory service process that serves `source` on a free port; it ends with the context."""
    command = [sys.executable, "-m", "narupa_trajectory", "--port", "0", "--sources", source, "--log-format", "json"]
    # A lobby that is not there: the service runs alone.
    command += ["--lobby", "127.0.0.1:1", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})})
    assert process.stderr
    try:
        for line in process.stderr:
            event = json.loads(line) if line.startswith(b"{") else {}
            if event.get("event") == "service_ready":
                break
        else:
            raise RuntimeError(f"the service ended with status {process.wait()}")
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        yield event["address"]
    finally:
        process.terminate()
        process.wait(timeout=15)


@dataclass
class Stream:
    """What one subscriber got."""

    count: int = 0
    newest: bytes = b""
    bytes: int = field(default=0)


@contextlib.contextmanager
def frame_streams(address: str, count: int, interval_s: float = 1 / 30) -> Iterator[list[Stream]]:
    """`count` subscribers on connections of their own, once each has had its first frame."""
    streams = [Stream() for _ in range(count)]
    first = threading.Barrier(count + 1)
    request = trajectory_pb2.SubscribeFramesRequest(frame_interval_s=interval_s)
    with contextlib.ExitStack() as stack:
        for stream in streams:
            channel = stack.enter_context(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
            call = channel.unary_stream(
                "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames",
                request_serializer=trajectory_pb2.SubscribeFramesRequest.SerializeToString,
            )(request)

            def read(stream: Stream = stream, call: grpc.Call = call) -> None:
                with contextlib.suppress(grpc.RpcError):
                    for response in call:
                        stream.newest = response
                        stream.count += 1
                        if stream.count == 1:
                            first.wait(30)

            threading.Thread(target=read, daemon=True).start()
            stack.callback(call.cancel)
        first.wait(30)
        yield streams
