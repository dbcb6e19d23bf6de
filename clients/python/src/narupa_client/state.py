"""The session's shared key-value state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grpclib.const import Cardinality

from narupa_client.connection import Connection
from narupa_client.retry import RetryPolicy
from narupa_client.route import Route, followed
from narupa_client.rpc import replies
from narupa_client.state_writer import StateWriter
from narupa_client.subscription import Deliver, Subscription
from narupa_client.tasks import TaskScope
from narupa_shared.errors import NoLongerKeptError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as v1
from narupa_shared.structs import from_struct, to_struct

_SERVICE: Final = "/narupa.imd.v1.StateService/"


@dataclass(frozen=True, slots=True)
class StateChange:
    """What changed since the change before.

    Attributes:
        whole: Whether `updates` is everything there is, and any other key is gone.
        updates: New values by key.
        removals: Keys that are gone.
        revision: Of the state; it grows with each write.
    """

    whole: bool
    updates: Mapping[str, Any]
    removals: tuple[str, ...]
    revision: int


class SharedState:
    """Values that everybody in the session reads and writes: avatars, scene, selections, anything of your own."""

    def __init__(self, route: Route, scope: TaskScope, policy: RetryPolicy) -> None:
        self._route = route
        self._scope = scope
        self._policy = policy

    async def get(self, prefix: str = "") -> dict[str, Any]:
        """The keys that begin with `prefix`, with their values.

        Raises:
            UnavailableError: the imd service cannot be reached.
        """
        reply = await self._route.call(f"{_SERVICE}GetState", v1.GetStateRequest(prefix=prefix), v1.GetStateResponse)
        return from_struct(reply.state, "state")

    async def update(self, updates: Mapping[str, Any] | None = None, *, remove: Iterable[str] = ()) -> int:
        """`updates` are set and the keys `remove` are gone, all or nothing; returns the state's new revision.

        Raises:
            InvalidArgumentError: bad key or value.
            PermissionDeniedError: a key is owned or locked by somebody else.
            QuotaError: the state would be too large.
            UnavailableError: the imd service cannot be reached.
        """
        request = v1.UpdateStateRequest(updates=to_struct(updates or {}, "updates"), removals=list(remove))
        return (await self._route.call(f"{_SERVICE}UpdateState", request, v1.UpdateStateResponse)).revision

    def writer(self) -> StateWriter:
        """Writes over one stream, for who writes often: `async with state.writer() as writer: await writer.write(...)`.

        Avatars, play areas and interactions that are written with it live as long as that block.
        """
        return StateWriter(self._route, self._scope)

    async def lock(self, key: str, seconds: float) -> None:
        """Nobody else may write `key` for `seconds`, or until `release`, or until this session ends.

        Raises:
            PermissionDeniedError: somebody else holds it.
            InvalidArgumentError: bad duration.
        """
        await self.update_locks({key: seconds})

    async def release(self, *names: str) -> None:
        """The locks on these keys are released, as far as they are ours.

        Raises:
            UnavailableError: the imd service cannot be reached.
        """
        await self.update_locks({}, names)

    async def update_locks(self, acquire_s: Mapping[str, float], release: Iterable[str] = ()) -> None:
        """Every lock in `acquire_s` (key: s) is ours, or none; those on the keys `release` are released in any case.

        Raises:
            PermissionDeniedError: somebody else holds one.
            InvalidArgumentError: bad key or duration.
            UnavailableError: the imd service cannot be reached.
        """
        request = v1.UpdateLocksRequest(acquire_s=acquire_s, release=list(release))
        await self._route.call(f"{_SERVICE}UpdateLocks", request, v1.UpdateLocksResponse)

    def watch(self, prefix: str = "", interval_s: float = 1 / 30) -> Subscription[StateChange]:
        """Every change of the keys that begin with `prefix`, the first one with everything there is.

        Close the iterator (or use it in `async with`) to stop early. A watch whose connection was lost
        resumes where it was; where that is no longer kept, a change with `whole` set follows.
        """
        epoch, revision = "", 0
        at: Connection | None = None

        async def follow(connection: Connection, deliver: Deliver[StateChange]) -> None:
            nonlocal epoch, revision, at
            if connection is not at:  # revisions are a service's own
                at, epoch, revision = connection, "", 0
            request = v1.WatchStateRequest(
                update_interval_s=interval_s, epoch=epoch, after_revision=revision, prefix=prefix
            )
            path = f"{_SERVICE}WatchState"
            try:
                async with connection.stream(
                    path, Cardinality.UNARY_STREAM, v1.WatchStateRequest, v1.WatchStateResponse
                ) as stream:
                    await stream.send_message(request, end=True)
                    async for reply in replies(stream):
                        updates = from_struct(reply.updates, "state")
                        await deliver(StateChange(reply.whole, updates, tuple(reply.removals), reply.revision))
                        if connection is at:
                            epoch, revision = reply.epoch, reply.revision
            except NoLongerKeptError:
                if not epoch:
                    raise
                epoch, revision = "", 0
                await follow(connection, deliver)

        async def everything(change: StateChange) -> Sequence[StateChange]:
            return [change]

        async def follow_everywhere(deliver: Deliver[StateChange]) -> None:
            await followed(self._route, follow, deliver, lambda *_: everything)

        return Subscription(
            self._scope,
            "narupa-state-watch",
            follow_everywhere,
            mode="all",
            policy=self._policy,
            renew=self._route.renew_token,
        )
