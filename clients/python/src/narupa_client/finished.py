"""What became of interactions that have ended: who pulled what, for how long, and the work done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from grpclib.const import Cardinality

from narupa_client.connection import Connection
from narupa_client.retry import RetryPolicy
from narupa_client.route import Route, followed
from narupa_client.rpc import replies
from narupa_client.subscription import Deliver, Subscription
from narupa_client.tasks import TaskScope
from narupa_shared.errors import NoLongerKeptError
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as v1

_PATH: Final = "/narupa.trajectory.v1.TrajectoryService/WatchFinishedInteractions"


@dataclass(frozen=True, slots=True)
class FinishedInteraction:
    """The account of one interaction, from when it began to act to its end.

    Attributes:
        id: The interaction's.
        owner: User id, or the address of a client without a token.
        kind: Which bias potential.
        particles: Indices.
        started_at: Seconds since 1970.
        duration_s: By the clock on the wall, s.
        start_time_ps: Simulated time when it began to act.
        end_time_ps: Simulated time when it ended.
        work: Work that it did on the particles, kJ/mol.
        run_id: `CurrentFrame.run_id` of the simulation that it acted on.
        reason: Why it ended where that was not its owner's doing; empty otherwise.
    """

    id: str
    owner: str
    kind: str
    particles: tuple[int, ...]
    started_at: float
    duration_s: float
    start_time_ps: float
    end_time_ps: float
    work: float
    run_id: str
    reason: str

    @classmethod
    def of(cls, message: v1.FinishedInteraction) -> Self:
        """The account that the service tells of."""
        return cls(
            id=message.id,
            owner=message.owner,
            kind=message.potential,
            particles=tuple(message.particles),
            started_at=message.started_at,
            duration_s=message.duration_s,
            start_time_ps=message.start_time_ps,
            end_time_ps=message.end_time_ps,
            work=message.work,
            run_id=message.run_id,
            reason=message.reason,
        )


def watch_finished(route: Route, scope: TaskScope, policy: RetryPolicy) -> Subscription[FinishedInteraction]:
    """As `Session.finished_interactions`."""
    epoch, sequence = "", 0
    at: Connection | None = None

    async def follow(connection: Connection, deliver: Deliver[FinishedInteraction]) -> None:
        nonlocal epoch, sequence, at
        if connection is not at:  # sequences are a service's own
            at, epoch, sequence = connection, "", 0
        before, heard = epoch, False
        request = v1.WatchFinishedInteractionsRequest(epoch=epoch, after_sequence=sequence)
        try:
            async with connection.stream(
                _PATH,
                Cardinality.UNARY_STREAM,
                v1.WatchFinishedInteractionsRequest,
                v1.WatchFinishedInteractionsResponse,
            ) as stream:
                await stream.send_message(request, end=True)
                async for reply in replies(stream):
                    heard = True
                    if connection is at and reply.epoch != epoch:
                        epoch, sequence = reply.epoch, 0
                    for message in reply.finished:
                        await deliver(FinishedInteraction.of(message))
                        if connection is at:
                            sequence = message.sequence
        except NoLongerKeptError as error:
            if heard or not before or not await another_epoch(connection, before):
                raise NoLongerKeptError(f"reports of finished interactions are lost: {error}") from error
            epoch, sequence = "", 0
            await follow(connection, deliver)

    async def another_epoch(connection: Connection, than: str) -> bool:
        """Whether the service has begun to count anew, so that nothing is missing that it ever told."""
        async with connection.stream(
            _PATH,
            Cardinality.UNARY_STREAM,
            v1.WatchFinishedInteractionsRequest,
            v1.WatchFinishedInteractionsResponse,
        ) as stream:
            await stream.send_message(v1.WatchFinishedInteractionsRequest(), end=True)
            first = await stream.recv_message()
        return first is not None and first.epoch != than

    async def everything(item: FinishedInteraction) -> Sequence[FinishedInteraction]:
        return [item]

    async def follow_everywhere(deliver: Deliver[FinishedInteraction]) -> None:
        await followed(route, follow, deliver, lambda *_: everything)

    return Subscription(
        scope,
        "narupa-finished-interactions",
        follow_everywhere,
        mode="all",
        policy=policy,
        renew=route.renew_token,
    )
