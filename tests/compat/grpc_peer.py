"""A client of the Narupa or NanoVer gRPC protocol, made of the proto files alone: no code of this project is in it.

The files are compiled anew, into a pool of their own, so that generated code that is loaded beside it plays no part.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, Self, TypeVar

import grpc.aio
import numpy as np
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from grpc_tools import protoc
from numpy.typing import NDArray

PROTOS: Final = Path(__file__).resolve().parents[2] / "protos"
INCLUDED: Final = Path(protoc.__file__).parent / "_proto"
Family = Literal["narupa", "nanover"]
CALL_LIMIT_S: Final = 30.0
Item = TypeVar("Item")


class Protocol:
    """The messages and methods of one family."""

    def __init__(self, family: Family, folder: Path) -> None:
        """Compiles into `folder`."""
        self.family = family
        output = folder / f"{family}.binpb"
        files = sorted((PROTOS / family / "protocol").rglob("*.proto"))
        flags = [f"-I{PROTOS}", f"-I{INCLUDED}", "--include_imports", f"--descriptor_set_out={output}"]
        assert protoc.main(["protoc", *flags, *map(str, files)]) == 0
        self._pool = descriptor_pool.DescriptorPool()
        for file in FileDescriptorSet.FromString(output.read_bytes()).file:
            self._pool.Add(file)

    def message(self, name: str) -> Any:
        """The class of the message `<family>.protocol.<name>`."""
        return message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(f"{self.family}.protocol.{name}")  # type: ignore[no-untyped-call]
        )

    def method(self, service: str, name: str, channel: grpc.aio.Channel) -> Any:
        """The call of the method `<family>.protocol.<service>/<name>`."""
        described: Any = self._pool.FindServiceByName(f"{self.family}.protocol.{service}")  # type: ignore[no-untyped-call]
        method = described.methods_by_name[name]
        reply: type[Message] = message_factory.GetMessageClass(method.output_type)
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        return kind(
            f"/{described.full_name}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=reply.FromString,
        )


@dataclass(frozen=True, slots=True)
class GrpcFrame:
    """A frame as such a client has it: whole, under the index that came with the last change."""

    index: int
    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any] | list[str]]

    @classmethod
    def after(cls, before: GrpcFrame | None, reply: Any) -> Self:
        """The whole frame once `reply` has come."""
        values = {key: plain(value) for key, value in reply.frame.values.items()}
        arrays = {key: array_of(array) for key, array in reply.frame.arrays.items()}
        if before is not None and reply.frame_index:
            values, arrays = {**before.values, **values}, {**before.arrays, **arrays}
        return cls(reply.frame_index, values, arrays)

    @property
    def positions(self) -> NDArray[np.float32]:
        """(N, 3) float32, nm."""
        flat = self.arrays["particle.positions"]
        assert isinstance(flat, np.ndarray)
        return flat.reshape(-1, 3)

    @property
    def users(self) -> list[int]:
        """The particles that feel users' forces."""
        return [int(i) for i in self.arrays["forces.user.index"]]


class Stream(Generic[Item]):
    """What comes on a stream of the server's, made of all that came before; `async with` ends it."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.last: Item | None = None

    def merged(self, reply: Any) -> Item:
        """What there is once `reply` has come."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self._call.code()

    async def next(self, within_s: float = CALL_LIMIT_S) -> Item:
        """The next one."""
        async with asyncio.timeout(within_s):
            reply = await self._call.read()
        assert reply is not grpc.aio.EOF, await self._call.code()
        self.last = self.merged(reply)
        return self.last

    async def first(self, condition: Callable[[Item], object], within_s: float = CALL_LIMIT_S) -> Item:
        """The first one that meets the condition."""
        try:
            async with asyncio.timeout(within_s):
                while not condition(item := await self.next()):
                    pass
                return item
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s; the last was {self.last}") from None


class FrameStream(Stream[GrpcFrame]):
    """Frames."""

    def merged(self, reply: Any) -> GrpcFrame:
        return GrpcFrame.after(self.last, reply)


class StateStream(Stream[dict[str, Any]]):
    """The shared state."""

    def merged(self, reply: Any) -> dict[str, Any]:
        changed = plain(reply.changed_keys)
        return {key: value for key, value in ((self.last or {}) | changed).items() if value is not None}


class GrpcPeer:
    """A client that is connected; it has no token, and says nothing of who it is."""

    def __init__(self, protocol: Protocol, trajectory: str, imd: str) -> None:
        """Frames and playback are at one address, state and all other commands at another or the same."""
        self.protocol = protocol
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._trajectory = grpc.aio.insecure_channel(trajectory, options)
        self._imd = self._trajectory if imd == trajectory else grpc.aio.insecure_channel(imd, options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """The connection is closed."""
        for channel in {self._trajectory, self._imd}:
            await channel.close(None)

    # Frames.

    def frames(self, every: bool = False, interval_s: float = 0.0) -> FrameStream:
        """Whole frames as they come: the latest ones, or every one."""
        name = "SubscribeFrames" if every else "SubscribeLatestFrames"
        request = self.protocol.message("trajectory.GetFrameRequest")(frame_interval=interval_s)
        return FrameStream(self.protocol.method("trajectory.TrajectoryService", name, self._trajectory)(request))

    async def get_frame(self, index: int | None = None) -> GrpcFrame:
        """One frame."""
        request = self.protocol.message("trajectory.GetFrameRequest")()
        if index is not None:
            request.data.update({"index": index})
        call = self.protocol.method("trajectory.TrajectoryService", "GetFrame", self._trajectory)
        reply = await call(request, timeout=CALL_LIMIT_S)
        return GrpcFrame.after(None, reply)

    # The shared state.

    def states(self) -> StateStream:
        """The state after each change."""
        request = self.protocol.message("state.SubscribeStateUpdatesRequest")(update_interval=1 / 30)
        return StateStream(self.protocol.method("state.State", "SubscribeStateUpdates", self._imd)(request))

    async def update(self, changes: Mapping[str, Any]) -> bool:
        """Whether the keys have these values now, and those with None are gone."""
        request = self.protocol.message("state.UpdateStateRequest")()
        request.update.changed_keys.update(changes)
        reply = await self.protocol.method("state.State", "UpdateState", self._imd)(request, timeout=CALL_LIMIT_S)
        return bool(reply.success)

    async def lock(self, locks: Mapping[str, float | None]) -> bool:
        """Whether each of these keys is locked for so many s, or released."""
        request = self.protocol.message("state.UpdateLocksRequest")()
        request.lock_keys.update(locks)
        reply = await self.protocol.method("state.State", "UpdateLocks", self._imd)(request, timeout=CALL_LIMIT_S)
        return bool(reply.success)

    # Commands.

    async def commands(self) -> dict[str, dict[str, Any]]:
        """Every command with its default arguments, wherever it is."""
        found: dict[str, dict[str, Any]] = {}
        for channel in {self._imd, self._trajectory}:
            found |= await self._listed(channel)
        return found

    async def _listed(self, channel: grpc.aio.Channel) -> dict[str, dict[str, Any]]:
        request = self.protocol.message("command.GetCommandsRequest")()
        call = self.protocol.method("command.Command", "GetCommands", channel)
        reply = await call(request, timeout=CALL_LIMIT_S)
        return {command.name: plain(command.arguments) for command in reply.commands}

    async def run(self, name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the command answers, run where it is listed."""
        request = self.protocol.message("command.CommandMessage")(name=name)
        request.arguments.update(arguments or {})
        channel = self._trajectory if name in await self._listed(self._trajectory) else self._imd
        reply = await self.protocol.method("command.Command", "RunCommand", channel)(request, timeout=CALL_LIMIT_S)
        return dict(plain(reply.result))


def plain(item: Any) -> Any:
    """What a `Struct` or a `Value` of `google.protobuf` holds."""
    if item.DESCRIPTOR.name == "Struct":
        return {key: plain(value) for key, value in item.fields.items()}
    kind = item.WhichOneof("kind")
    if kind == "struct_value":
        return plain(item.struct_value)
    if kind == "list_value":
        return [plain(value) for value in item.list_value.values]
    value = None if kind in (None, "null_value") else getattr(item, kind)
    assert not (isinstance(value, float) and math.isnan(value))
    return value


def array_of(array: Any) -> NDArray[np.float32] | NDArray[np.uint32] | list[str]:
    """What a `ValueArray` holds, flat."""
    kind = array.WhichOneof("values")
    values = getattr(array, kind).values
    if kind == "string_values":
        return list(values)
    return np.array(values, np.float32 if kind == "float_values" else np.uint32)
