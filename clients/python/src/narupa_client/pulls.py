"""A pull: one interaction that lives as long as the block that holds it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Final, Self

from grpclib.client import Stream
from grpclib.const import Cardinality

from narupa_client.connection import CALL_TIMEOUT_S, Connection
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.route import Route, followed
from narupa_client.rpc import domain_errors, replies
from narupa_client.subscription import Deliver
from narupa_client.tasks import TaskScope, ended
from narupa_shared.errors import (
    AlreadyExistsError,
    NarupaError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as v1
from narupa_shared.interaction_messages import interaction_message
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.registry import known_kinds
from narupa_shared.rpc_errors import error_of

_PATH: Final = "/narupa.imd.v1.InteractionService/Interact"
_RELEASE_TIMEOUT_S: Final = 1.0
# How long the first attempts may take; whoever starts to pull wants to know soon whether it works.
_FIRST_LIMIT_S: Final = 5.0


# The kinds that were there first have strengths chosen for a scale of 100; others say theirs as a stiffness.
_SCALES: Final = {"spring": 100.0, "gaussian": 100.0, "constant": 100.0}


def wanted(id: str, *, kind: str, scale: float | None, **fields: Any) -> Interaction:
    """The interaction that these arguments of `Session.pull` describe. A potential that is not known here may be known to
    the service, which then checks its parameters and groups.

    Raises:
        InvalidArgumentError: naming the field and the value.
    """
    fields["scale"] = _SCALES.get(kind, 1.0) if scale is None else scale
    parameters = {name: _plain(value) for name, value in (fields.pop("parameters") or {}).items()}
    if kind in known_kinds():
        return Interaction.parse(id, kind=kind, parameters=parameters, **fields)
    groups = fields.pop("groups") or ()
    fields["particles"] = fields["particles"] or sorted({index for group in groups for index in group})
    plain = Interaction.parse(id, kind="spring", **fields)
    return replace(plain, kind=kind, parameters=parameters, groups=tuple(map(tuple, groups)))


def _plain(value: Any) -> Any:
    """`value` with lists in place of arrays."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


class Pull:
    """One interaction, in force between entering and leaving its `async with`.

    It has a stream of its own to the imd service: when that ends, for whatever reason, the service ends the force. If
    the service comes back while the pull is still held, the pull is made anew as it was last, unless `reestablish` is
    false: then it ends. It also ends when the service ends it, because the simulation cannot go on with it, or another one
    was loaded. From then on `move`, `change` and `hold` raise the reason.
    """

    def __init__(
        self, route: Route, scope: TaskScope, policy: RetryPolicy, interaction: Interaction, reestablish: bool
    ) -> None:
        self._route = route
        self._scope = scope
        self._policy = policy
        self._interaction = interaction
        self._reestablish = reestablish
        self._stream: Stream[v1.InteractRequest, v1.InteractResponse] | None = None
        self._sequence = itertools.count(1)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._made = asyncio.Event()
        self._over = asyncio.Event()
        self._error: NarupaError | None = None

    @property
    def id(self) -> str:
        """The interaction's id; its key in the shared state is `interaction.<id>`."""
        return self._interaction.id

    @property
    def kind(self) -> str:
        """The potential's name."""
        return self._interaction.kind

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The potential's parameters, those that were not given with their defaults."""
        return self._interaction.parameters

    @property
    def scale(self) -> float:
        """Strength; multiplies energy and force."""
        return self._interaction.scale

    @property
    def position(self) -> tuple[float, float, float]:
        """Where the handle is, nm."""
        return self._interaction.position

    @property
    def active(self) -> bool:
        """Whether the service has the interaction at present, as far as is known."""
        return self._stream is not None

    async def __aenter__(self) -> Self:
        self._task = self._scope.spawn(self._run(), f"narupa-pull-{self.id}")
        self._task.add_done_callback(lambda _: self._over.set())
        try:
            await self._made_or_over()
        except BaseException:
            await ended(self._task)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def move(self, position: Any) -> None:
        """The handle is at `position` (x, y, z in nm). While the service is away, it will be once the service is back.

        Raises:
            InvalidArgumentError: not three finite numbers.
            NotFoundError: the service has ended the interaction; it says why.
            NarupaError: the pull has ended, or the service refuses.
        """
        moved = self._interaction.moved(_coordinates(position))
        await self._become(moved, v1.InteractRequest(move=v1.Move(id=self.id, position=moved.position)))

    async def change(
        self,
        *,
        scale: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        position: Any = None,
        max_force: float | None = None,
    ) -> None:
        """What is given here holds from now on, and the rest as before; it stays the same interaction, with its account.

        Args:
            scale: Strength; multiplies energy and force.
            parameters: Of the potential; those not named stay, and None is the default again.
            position: Handle x, y, z, nm.
            max_force: Cap on |F| on each particle, kJ/(mol nm).

        Raises:
            InvalidArgumentError: naming what is wrong; all is as it was then.
            NotFoundError, NarupaError: as `move`.
        """
        now = self._interaction
        merged = {**now.parameters, **(parameters or {})}
        changed = wanted(
            now.id,
            kind=now.kind,
            scale=now.scale if scale is None else scale,
            position=now.position if position is None else _coordinates(position),
            particles=now.particles,
            parameters={name: value for name, value in merged.items() if value is not None},
            groups=now.groups or None,
            mass_weighted=now.mass_weighted,
            reset_velocities=now.reset_velocities,
            max_force=now.max_force if max_force is None else max_force,
            properties=now.properties,
        )
        await self._become(changed, v1.InteractRequest(change=interaction_message(changed)))

    async def _become(self, wanted: Interaction, request: v1.InteractRequest) -> None:
        """The interaction is `wanted`; the service hears of it by `request`, now or when it is back."""
        self._raise_if_over()
        before, self._interaction = self._interaction, wanted
        if self._stream is None:
            return
        try:
            await self._ask(self._stream, request)
        except UnavailableError:
            if not self._reestablish:
                raise
        except NarupaError:
            if self._interaction is wanted:
                self._interaction = before
            raise

    async def hold(self, seconds: float) -> None:
        """Returns after `seconds`.

        Raises:
            NarupaError: as soon as the pull ends before its time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        self._raise_if_over()

    async def release(self) -> None:
        """The service no longer has the interaction. Idempotent."""
        if self._task is None:
            return
        stream = self._stream
        try:
            if stream is not None:
                with suppress(NarupaError, TimeoutError):
                    async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                        await self._ask(stream, v1.InteractRequest(remove=self.id))
        finally:
            await ended(self._task)

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error
        if self._task is None or self._task.done():
            raise UnavailableError(f"the pull {self.id} has been released")

    async def _made_or_over(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._made, self._over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._made.is_set():
            self._raise_if_over()

    async def _run(self) -> None:
        limit = self._policy.give_up_after_s
        first_limit = _FIRST_LIMIT_S if limit is None else min(limit, _FIRST_LIMIT_S)
        attempts = Attempts(replace(self._policy, give_up_after_s=first_limit))

        async def made(_: bool) -> None:
            attempts.succeeded()
            self._made.set()

        async def at_once(made: bool) -> tuple[bool]:
            return (made,)

        try:
            while True:
                attempts.started()
                made_before = self._made.is_set()
                try:
                    await followed(self._route, self._once, made, lambda *_: at_once)
                    problem: NarupaError = UnavailableError("the imd service ended the stream of the interaction")
                except NarupaError as error:
                    problem = error
                if self._made.is_set() and not self._reestablish:
                    raise problem
                if self._made.is_set() and not made_before:
                    attempts = Attempts(self._policy)
                if made_before and isinstance(problem, PermissionDeniedError | AlreadyExistsError):
                    # The service has yet to notice that our earlier stream, which owns the id, is dead.
                    problem = UnavailableError(str(problem))
                if isinstance(problem, UnauthenticatedError):
                    await self._route.renew_token()
                await attempts.pause_after(problem)
        except NarupaError as error:
            self._error = error

    async def _once(self, connection: Connection, made: Deliver[bool]) -> None:
        """Makes the interaction, and takes answers until the stream ends."""
        mine: Stream[v1.InteractRequest, v1.InteractResponse] | None = None
        try:
            async with (
                connection.stream(_PATH, Cardinality.STREAM_STREAM, v1.InteractRequest, v1.InteractResponse) as stream,
                aclosing(replies(stream)) as answers,
            ):
                sent = self._interaction
                request = v1.InteractRequest(sequence=next(self._sequence), set=interaction_message(sent))
                await stream.send_message(request)
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    first = await anext(answers, None)
                if first is None:
                    return
                if first.code:
                    raise error_of(first.code, first.error)
                self._answer_all(None)  # what was asked of an earlier service is part of what was just made
                self._stream = mine = stream
                await made(True)
                if self._interaction is not sent:  # moved or changed meanwhile
                    now = interaction_message(self._interaction)
                    await stream.send_message(v1.InteractRequest(sequence=next(self._sequence), change=now))
                async for reply in answers:
                    if reply.ended == self.id:
                        problem = error_of(reply.code, reply.error)
                        self._error = problem
                        self._answer_all(problem)
                        raise problem
                    self._take_answer(reply)
        finally:
            if self._stream is mine:  # otherwise the next service has it, where it was moved last
                self._stream = None
                self._answer_all(UnavailableError("lost the imd service"))

    async def _ask(self, stream: Stream[v1.InteractRequest, v1.InteractResponse], request: v1.InteractRequest) -> int:
        """The revision of the state once `request` is applied; raises why it was refused, or that nobody answers."""
        request.sequence = next(self._sequence)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers[request.sequence] = answer
        try:
            with domain_errors(self._route.service, self._route.address):
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await stream.send_message(request)
                    return await answer
        finally:
            self._answers.pop(request.sequence, None)

    def _answer_all(self, problem: NarupaError | None) -> None:
        for answer in self._answers.values():
            if not answer.done():
                if problem is None:
                    answer.set_result(0)
                else:
                    answer.set_exception(problem)
        self._answers.clear()

    def _take_answer(self, reply: v1.InteractResponse) -> None:
        answer = self._answers.pop(reply.sequence, None)
        if answer is None or answer.done():
            return
        if reply.code:
            answer.set_exception(error_of(reply.code, reply.error))
        else:
            answer.set_result(reply.revision)


def _coordinates(position: Any) -> tuple[float, float, float]:
    x, y, z = position
    return float(x), float(y), float(z)
