"""A session as one program sees it: its frames, its state, its people, and what one may do in it."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from narupa_client.address import SessionAddress
from narupa_client.collecting import DEFAULT_LIMIT_BYTES, collect
from narupa_client.commands import COMMAND_TIMEOUT_S, SessionCommands
from narupa_client.connection import Endpoint
from narupa_client.directory import Directory, FixedDirectory, SessionEndedError
from narupa_client.finished import FinishedInteraction, watch_finished
from narupa_client.frames import CurrentFrame, Fence, follow_everywhere, get_frame, publish_request, wanted_view
from narupa_client.lobby import Lobby
from narupa_client.membership import LobbyMembership
from narupa_client.place import Admission, Place
from narupa_client.provided_commands import CommandProvider, Handler, ProvidedCommand
from narupa_client.pulls import Pull, wanted
from narupa_client.recorder import Recorder, recording
from narupa_client.records import Service, User
from narupa_client.retry import RetryPolicy
from narupa_client.route import Route
from narupa_client.series import FrameSeries
from narupa_client.state import SharedState
from narupa_client.subscription import Deliver, Mode, Subscription
from narupa_client.tasks import TaskScope
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2
from narupa_shared.interaction_messages import kind_of
from narupa_shared.interactions import DEFAULT_MAX_FORCE
from narupa_shared.sdk.narupa.trajectory import v1 as trajectory_sdk
from narupa_shared.structs import from_struct
from narupa_shared.tls import TlsConfig

if TYPE_CHECKING:
    from narupa_client.notebook.widget import SessionView

DEFAULT_LOBBY: Final = "127.0.0.1:38810"
_TRAJECTORY: Final = "/narupa.trajectory.v1.TrajectoryService/"


class Session:
    """An open session; `join` and `open` make one. Everything it started ends when it is closed."""

    def __init__(self, directory: Directory, policy: RetryPolicy, tls: TlsConfig | None = None) -> None:
        self._directory = directory
        self._policy = policy
        self._tls = tls
        self._scope = TaskScope()
        self._routes: dict[
            str, Route
        ] = {}  # made when they are first used: a gateway has many sessions that only watch

    @cached_property
    def state(self) -> SharedState:
        """The shared key-value state."""
        return SharedState(self._imd, self._scope, self._policy)

    @property
    def _trajectory(self) -> Route:
        return self._route("trajectory")

    @property
    def _imd(self) -> Route:
        return self._route("imd")

    @property
    def _commands(self) -> SessionCommands:
        return SessionCommands(self._trajectory, self._imd)

    def _route(self, kind: str) -> Route:
        if kind not in self._routes:
            self._routes[kind] = Route(kind, self._directory, self._tls)
        return self._routes[kind]

    @property
    def user_id(self) -> str | None:
        """Our id; None without a lobby. It changes only when the lobby has lost its memory."""
        return self._directory.user_id

    @property
    def role(self) -> str | None:
        """What we may do at present: "viewer", "participant" or "host"; None without a lobby."""
        return self._directory.role

    @property
    def ended(self) -> SessionEndedError | None:
        """Why the session is over for us, which every call and stream raises from then on; None while it is not."""
        return self._directory.ended

    @property
    def rejoin_token(self) -> str | None:
        """With which `join` makes us the same user again, should this program end; a secret. None without a lobby."""
        return self._directory.token

    @property
    def session_id(self) -> str:
        """Which session this is; empty without a lobby."""
        return self._directory.session_id if isinstance(self._directory, Place) else ""

    @property
    def lobby(self) -> Lobby:
        """What our role lets us do at the lobby, for this session.

        Raises:
            FailedPreconditionError: the session was opened without a lobby.
        """
        place = self._place()
        return Lobby(place.lobby, self._scope, place.session_id)

    @property
    def users(self) -> Sequence[User]:
        """Everybody in the session, ourselves included."""
        return list(self._directory.users.values())

    @property
    def services(self) -> Sequence[Service]:
        """What runs, by kind and then the one to use first at the front."""
        return self._directory.services

    def use(self, service: Service) -> None:
        """Frames, or interactions and state, come from this service from now on, for as long as it runs.

        Raises:
            InvalidArgumentError: it is no trajectory or imd service.
        """
        if service.kind not in ("trajectory", "imd"):
            raise InvalidArgumentError("service.kind", service.kind, "use a trajectory or imd service")
        self._route(service.kind).use(service)

    def frames(
        self,
        interval_s: float = 1 / 30,
        mode: Mode = "latest",
        *,
        fields: Collection[str] | None = None,
        selection: str | None = None,
        particles: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        precision: float | None = None,
        reconnect: bool | None = None,
        give_up_after_s: float | None = None,
    ) -> Subscription[CurrentFrame]:
        """Whole frames as they come, as an async iterator; close it (or use `async with`) to stop early.

        Who needs less than everything gets it faster: some of the fields, some of the particles, positions to a precision.
        Particles are then counted among those asked for, in the order of their indices, in bonds and forces as well;
        `CurrentFrame.particle_indices` tells the index of each in the whole system.

        Args:
            interval_s: At most one frame per interval, s; 0 for the service's default.
            mode: "latest" skips what the reader is too slow for; "all" brings every frame.
            fields: Keys of frames, or what they begin with (`energy`), or `topology`; unset: all.
            selection: Which particles, in MDAnalysis' selection language, such as "protein"; evaluated once for each load.
            particles: Which particles, by index, in place of `selection`.
            precision: Positions may be off by half of this, nm; at 0.001 they take a sixth. Unset: as they are.
            reconnect: Whether to go on after the connection was lost; unset is what the session was opened with.
            give_up_after_s: Longest time without a connection, s; unset is what the session was opened with.

        The iterator raises:
            UnavailableError: no connection for too long.
            SessionEndedError: the session ended, or we were removed from it.
            QuotaError: in mode "all", the reader fell too far behind; or too many different views are watched.
            InvalidArgumentError: negative or non-finite interval, particles that there are not, or a selection that is none
                or matches nothing.

        Raises:
            InvalidArgumentError: fields, selection, particles or precision are malformed or out of range.
        """
        if mode not in ("latest", "all"):
            raise InvalidArgumentError("mode", mode, "use latest or all")
        view = wanted_view(fields, selection, particles, precision)
        policy = self._patience(reconnect, give_up_after_s)

        fence = Fence()  # holds from one connection to the next

        async def follow(deliver: Deliver[CurrentFrame]) -> None:
            await follow_everywhere(self._trajectory, interval_s, mode, fence.before(deliver), view)

        return Subscription(
            self._scope, "narupa-frames", follow, mode=mode, policy=policy, renew=self._trajectory.renew_token
        )

    async def collect(
        self,
        frames: int | None = None,
        seconds: float | None = None,
        *,
        every: int = 1,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        fields: Collection[str] | None = None,
        selection: str | None = None,
        particles: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        precision: float | None = None,
    ) -> FrameSeries:
        """The present frame and those that come after it, none left out: `frames` of them, or those within `seconds`.

        With both, whichever is reached first ends it. While the simulation is paused no frames come.

        Args:
            frames: How many to collect.
            seconds: For how long at most, s of the clock on the wall, from the call on.
            every: Take one frame of every so many.
            limit_bytes: Of the memory that they may take, about.
            fields, selection, particles, precision: What of each frame to collect, as `frames`.

        Raises:
            CollectingStoppedError: another run began (a reset, or a load), the particles or their topology changed, there is no
                room for more, or the frames ended; its `collected` has the series until then. Where nothing was collected yet,
                the error itself, as of `frames`.
            InvalidArgumentError: a number that is not positive, neither `frames` nor `seconds`, or a view that cannot be.
            QuotaError: there is no room for so many frames.
        """
        return await collect(
            lambda: self.frames(
                mode="all", fields=fields, selection=selection, particles=particles, precision=precision
            ),
            frames=frames,
            seconds=seconds,
            every=every,
            limit_bytes=limit_bytes,
        )

    async def get_frame(
        self,
        index: int | None = None,
        *,
        fields: Collection[str] | None = None,
        selection: str | None = None,
        particles: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        precision: float | None = None,
    ) -> CurrentFrame:
        """One whole frame: the newest, or that of `index` where the source still has it; of it what is asked for, as `frames`.

        Raises:
            InvalidArgumentError: something that cannot be asked for, as `frames`.
            NoLongerKeptError: no such frame, or no longer kept.
            UnavailableError: the service cannot be reached, or there is no frame yet.
        """
        return await get_frame(self._trajectory, index, wanted_view(fields, selection, particles, precision))

    async def publish_frame(
        self,
        values: Mapping[str, float | str | bool] | None = None,
        arrays: Mapping[str, ArrayLike] | None = None,
        *,
        index: int = 1,
    ) -> int:
        """Everybody has this frame, which needs the role host; returns the index under which they get it.

        With `index` 0 it is shown in place of the simulation, which pauses, until somebody plays, steps, resets or loads. With
        any other its keys overlay what is shown; positions, energies and other keys of the simulation only while that is paused.

        Args:
            values: Numbers, texts and truth values by key (docs/frames.md).
            arrays: By key: floats of any shape, unsigned integers, or lists of texts.
            index: 0, or any other.

        Raises:
            InvalidArgumentError: an array of the wrong type or shape, or one that does not fit what is shown.
            FailedPreconditionError: it has keys of the simulation, which runs.
            PermissionDeniedError: we are no host.
            QuotaError: too many frames per second, or too large a one.
            UnavailableError: the service cannot be reached, or has no frame yet.
        """
        request = publish_request(values or {}, arrays or {}, index)
        reply = await self._trajectory.call(
            f"{_TRAJECTORY}PublishFrame", request, trajectory_pb2.PublishFrameResponse, COMMAND_TIMEOUT_S
        )
        return reply.index

    def pull(
        self,
        particles: Sequence[int] = (),
        to: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        kind: str = "spring",
        scale: float | None = None,
        parameters: Mapping[str, Any] | None = None,
        groups: Sequence[Sequence[int]] = (),
        mass_weighted: bool = True,
        reset_velocities: bool = False,
        max_force: float = DEFAULT_MAX_FORCE,
        id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        reestablish: bool = True,
    ) -> Pull:
        """A pull on `particles` towards `to`, or another bias between `groups`; `async with` makes it, and leaving releases it.

        Args:
            particles: Indices, no duplicates; not needed where `groups` are given.
            to: Handle x, y, z, nm; of no effect on potentials between groups.
            kind: The bias potential: "spring", "gaussian", "constant", "force", "steered", "wall", "rotation", "distance",
                "angle", "dihedral", or one that the service has as a plug-in. docs/physics.md has their formulas.
            scale: Strength; multiplies energy and force. Unset: 100 for spring, gaussian and constant, 1 for all others.
            parameters: Of the potential, by name; those left out have their defaults.
            groups: Lists of indices, for potentials between groups: two for a distance, three for an angle, ...
            mass_weighted: Whether each particle's share of the force, and its part in a centre, is proportional to its mass.
            reset_velocities: Whether velocities are redrawn on release.
            max_force: Cap on |F| on each particle, kJ/(mol nm); infinity for none.
            id: Unique in the session; unset makes one.
            properties: Free facts for other clients, such as `label`.
            reestablish: Whether to make it anew when the service comes back while it is held.

        Raises:
            InvalidArgumentError: naming what is wrong. What only the service knows, such as the number of particles, is
                checked on entering.
        """
        interaction = wanted(
            uuid.uuid4().hex[:12] if id is None else id,
            position=[float(item) for item in to],
            particles=[int(item) for item in particles],
            kind=kind,
            scale=scale,
            parameters=parameters,
            groups=[[int(item) for item in group] for group in groups] or None,
            mass_weighted=mass_weighted,
            reset_velocities=reset_velocities,
            max_force=max_force,
            properties={"owner.id": self.user_id, **(properties or {})} if self.user_id else properties,
        )
        return Pull(self._imd, self._scope, self._policy, interaction, reestablish)

    async def interactions(self) -> list[dict[str, Any]]:
        """Who pulls what now: id, owner, kind, particles, groups, position (nm), scale, parameters.

        Raises:
            UnavailableError: the imd service cannot be reached.
        """
        reply = await self._imd.call(
            "/narupa.imd.v1.InteractionService/ListInteractions",
            imd_pb2.ListInteractionsRequest(),
            imd_pb2.ListInteractionsResponse,
        )
        return [
            {
                "id": item.interaction.id,
                "owner": item.owner,
                "kind": str(kind_of(item.interaction)),
                "particles": list(item.interaction.particles),
                "groups": [list(group.particles) for group in item.interaction.groups],
                "position": list(item.interaction.position),
                "scale": item.interaction.scale if item.interaction.HasField("scale") else 1.0,
                "parameters": from_struct(item.interaction.parameters, "parameters"),
            }
            for item in reply.interactions
        ]

    def finished_interactions(
        self, *, reconnect: bool | None = None, give_up_after_s: float | None = None
    ) -> Subscription[FinishedInteraction]:
        """The account of each interaction that has ended, whoever's it was: those that the service still has, then each as
        it comes, once and in order. An async iterator; close it (or use `async with`) to stop early.

        A watch whose connection was lost resumes where it was.

        Args:
            reconnect: Whether to go on after the connection was lost; unset is what the session was opened with.
            give_up_after_s: Longest time without a connection, s; unset is what the session was opened with.

        The iterator raises:
            UnavailableError: no connection for too long.
            SessionEndedError: the session ended, or we were removed from it.
            NoLongerKeptError: the reader fell too far behind, and reports between are lost.
        """
        return watch_finished(self._trajectory, self._scope, self._patience(reconnect, give_up_after_s))

    def _patience(self, reconnect: bool | None, give_up_after_s: float | None) -> RetryPolicy:
        return RetryPolicy(
            reconnect=self._policy.reconnect if reconnect is None else reconnect,
            give_up_after_s=self._policy.give_up_after_s if give_up_after_s is None else give_up_after_s,
        )

    async def commands(self) -> dict[str, dict[str, Any]]:
        """Every command by name, with its default arguments: of the simulation, of the imd service, and of other clients.

        Raises:
            UnavailableError: the trajectory service cannot be reached.
        """
        return await self._commands.listing()

    async def run_command(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> dict[str, Any]:
        """Runs a command, such as "playback/pause", wherever it is provided, and returns its result.

        Raises:
            InvalidArgumentError: no such command or argument, or a bad value.
            FailedPreconditionError: this source cannot do it.
            PermissionDeniedError: it is for others than us.
            CommandFailedError: the client that provides it reports a failure.
            UnavailableError: the engine is starting, the service cannot be reached, or the client that provides the command
                is gone or silent.
        """
        return await self._commands.run(name, arguments or {}, timeout_s)

    def provide_command(
        self,
        name: str,
        handler: Handler,
        *,
        arguments: Mapping[str, Any] | None = None,
        label: str = "",
        icon: str = "",
    ) -> ProvidedCommand:
        """A command for all participants of the session, for as long as its `async with` is open.

        It is there again after the imd service was away. Calls are answered side by side where the handler is a coroutine
        function; a plain function holds up everything else until it returns.

        Args:
            name: 1 to 128 printable characters, and no service's own.
            handler: Takes the arguments as keywords and returns a dict or None. What it raises is told to the caller.
            arguments: The defaults; a caller's may be others besides.
            label: For people.
            icon: For people, such as an emoji.

        Entering raises:
            FailedPreconditionError: the service refuses the command, because its name is taken, or for what it says.
            PermissionDeniedError: our role may not provide commands.
            UnavailableError: the imd service cannot be reached.
        """
        return ProvidedCommand(self._imd, self._scope, self._policy, name, handler, dict(arguments or {}), label, icon)

    def command_provider(self) -> CommandProvider:
        """Several commands over one stream, and their calls as they come, for who answers them in a way of their own."""
        return CommandProvider(self._imd, self._scope)

    async def status(self) -> trajectory_sdk.GetStatusResponse:
        """What runs, how fast, and why not.

        Raises:
            UnavailableError: the trajectory service cannot be reached.
        """
        return await self._trajectory.call(
            f"{_TRAJECTORY}GetStatus",
            trajectory_sdk.GetStatusRequest(),
            trajectory_sdk.GetStatusResponse,
        )

    @asynccontextmanager
    async def record(
        self, path: str | Path, *, overwrite: bool = False, precision: float | None = None
    ) -> AsyncIterator[Recorder]:
        """Every frame, the shared state and its changes are recorded in `path`, a `.nanover.zip`, until the end of the block.

        The file is a whole archive at every instant: whatever ends this program, at most the last second is missing from it.
        After a lost connection the recording goes on; another run in it begins with a frame of index 0.

        `Recorder.wait` returns once the session has ended, or tells why the recording has. With `precision` (nm), positions are
        off by half of it, and less is transferred; the file is as large.

        Raises:
            InvalidArgumentError: the precision is out of its range.
            AlreadyExistsError: there is such a file, and it is not to be overwritten.
            RecordingStoppedError: the file cannot be written; at the end of the block, it could not be any more.
            NarupaError: at the end of the block: frames were not to be had for too long.
        """
        async with recording(self, Path(path), overwrite, precision) as recorder:
            yield recorder

    def view(self, **traits: Any) -> SessionView:
        """The viewer of this session for a notebook: the value of a cell that ends with it.

        It shows what the viewer in a browser shows, with this session's rights and as its user, for as long as both are there.
        Several may be shown at once.

        Args:
            **traits: Of the view, as `narupa_client.notebook.widget.SessionView` has them: `representation`, `colors`,
                `selection`, `camera`, `height`.

        Raises:
            FailedPreconditionError: anywidget is not installed.
            traitlets.TraitError: an attribute has a value that it cannot have.
        """
        return shown(self, asyncio.get_running_loop(), traits)

    async def aclose(self) -> None:
        """Every pull is released, every stream has ended, every task is over. Idempotent."""
        await self._scope.aclose()
        for route in self._routes.values():
            route.close()

    def _place(self) -> Place:
        if not isinstance(self._directory, Place):
            raise FailedPreconditionError("this session was opened without a lobby; join it through one")
        return self._directory


def shown(session: Session, loop: asyncio.AbstractEventLoop, traits: Mapping[str, Any]) -> SessionView:
    """As `Session.view`, of a session that lives on `loop`."""
    try:
        from narupa_client.notebook.widget import SessionView
    except ImportError as error:
        reason = f"a view in a notebook needs anywidget, which is not installed ({error})"
        raise FailedPreconditionError(f"{reason}; pip install 'narupa-client[notebook]'") from None
    return SessionView(session, loop, **traits)


@asynccontextmanager
async def join(
    address: str = DEFAULT_LOBBY,
    name: str | None = None,
    *,
    session: str = "",
    join_code: str | None = None,
    password: str | None = None,
    invite: str | None = None,
    operator_key: str | None = None,
    rejoin_token: str | None = None,
    tls: TlsConfig | None = None,
    wait_s: float = 2.0,
    reconnect: bool = True,
    give_up_after_s: float | None = 60.0,
) -> AsyncIterator[Session]:
    """A session that we are a user of, through its lobby.

    Args:
        address: HOST:PORT of the lobby, or of several with commas between, or an invite link.
        name: What others see; unset is the name of the account.
        session: Its id; unset is that of the link, the invite or the join code, or else the lobby's default session.
        join_code: One of join code, password and invite is needed where the lobby is closed.
        operator_key: The lobby's own, with which one joins as a host.
        rejoin_token: Of the user that one wants to be again, as `Session.rejoin_token` or `Lobby.create_session` gave it.
        tls: Certificates; given, the lobby is spoken to over TLS. A service says itself whether it wants TLS.
        wait_s: How long to keep trying while no lobby can be reached, s.
        reconnect: Whether streams and pulls go on after a service was away.
        give_up_after_s: Longest time they try to, s; None for ever.

    Raises:
        UnavailableError: the lobby cannot be reached.
        PermissionDeniedError: wrong or missing join code, password or invite.
        NotFoundError: no such session.
        QuotaError: the session is full, or too many wrong attempts were made from here.
        InvalidArgumentError: a bad address or name.
    """
    place = SessionAddress.parse(address)
    place = replace(place, session_id=session or place.session_id)
    admission = Admission(
        user_name=name or account_name(),
        join_code=join_code or "",
        password=password or "",
        invite=invite or "",
        operator_key=operator_key or "",
        rejoin_token=rejoin_token or "",
    )
    policy = RetryPolicy(reconnect=reconnect, give_up_after_s=give_up_after_s)
    async with joined(LobbyMembership(place, admission, tls), policy, tls, wait_s) as opened:
        yield opened


@asynccontextmanager
async def joined(
    place: Place, policy: RetryPolicy, tls: TlsConfig | None = None, wait_s: float = 2.0
) -> AsyncIterator[Session]:
    """The session that `place` is in, joined and, at the end, left; arguments and errors as of `join`."""
    opened = Session(place, policy, tls)
    try:
        await place.join(wait_s)
        place.start(opened._scope)
        yield opened
    finally:
        try:
            await opened.aclose()
        finally:
            await place.leave()


@asynccontextmanager
async def open(
    trajectory: str | Sequence[str] = (),
    imd: str | Sequence[str] = (),
    *,
    tls: TlsConfig | None = None,
    reconnect: bool = True,
    give_up_after_s: float | None = 60.0,
) -> AsyncIterator[Session]:
    """A session without a lobby, by the addresses of its services (HOST:PORT, or several to try in order).

    Raises:
        InvalidArgumentError: a bad address.
    """
    directory = FixedDirectory(
        {
            "trajectory": _endpoints(trajectory, "trajectory", tls is not None),
            "imd": _endpoints(imd, "imd", tls is not None),
        }
    )
    session = Session(directory, RetryPolicy(reconnect=reconnect, give_up_after_s=give_up_after_s), tls)
    try:
        yield session
    finally:
        await session.aclose()


def account_name() -> str:
    """The name of the account that this program runs as, or "somebody"."""
    try:
        return getpass.getuser()[:64] or "somebody"
    except (OSError, KeyError):
        return "somebody"


def _endpoints(addresses: str | Sequence[str], field: str, tls: bool) -> tuple[Endpoint, ...]:
    texts = (addresses,) if isinstance(addresses, str) else addresses
    return tuple(replace(Endpoint.parse(text, field), tls=tls) for text in texts)
