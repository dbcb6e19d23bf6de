"""The session for notebooks and plain scripts: the same verbs, blocking, over one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from numpy.typing import ArrayLike

from narupa_client.blocking_commands import BlockingCommand, BlockingHandler
from narupa_client.blocking_lobby import BlockingLobby
from narupa_client.directory import SessionEndedError
from narupa_client.finished import FinishedInteraction
from narupa_client.frames import CurrentFrame
from narupa_client.loop_thread import LoopThread
from narupa_client.pulls import Pull
from narupa_client.records import Service, User
from narupa_client.series import FrameSeries
from narupa_client.session import DEFAULT_LOBBY, Session, join, open, shown
from narupa_client.subscription import Mode, Subscription
from narupa_shared.errors import NarupaError, UnavailableError

if TYPE_CHECKING:
    from narupa_client.notebook.widget import SessionView

__all__ = [
    "BlockingCommand",
    "BlockingPull",
    "BlockingSession",
    "BlockingState",
    "BlockingStream",
    "LoopThread",
    "connect",
]

Item = TypeVar("Item")


class BlockingPull:
    """A pull in force until `release`, or until its `with` block is left."""

    def __init__(self, thread: LoopThread, pull: Pull) -> None:
        self._thread = thread
        self._pull = pull

    @property
    def id(self) -> str:
        """As `Pull.id`."""
        return self._pull.id

    @property
    def position(self) -> tuple[float, float, float]:
        """Where the handle is, nm."""
        return self._pull.position

    def __enter__(self) -> Self:
        self._thread.call(self._pull.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def move(self, position: Sequence[float]) -> None:
        """As `Pull.move`."""
        self._thread.call(self._pull.move(position))

    def change(self, **changes: Any) -> None:
        """As `Pull.change`."""
        self._thread.call(self._pull.change(**changes))

    def hold(self, seconds: float) -> None:
        """As `Pull.hold`."""
        self._thread.call(self._pull.hold(seconds))

    def release(self) -> None:
        """As `Pull.release`."""
        self._thread.call(self._pull.release())


class BlockingStream(Generic[Item]):
    """Items as they come, as a plain iterator; close it, or use `with`, to stop early."""

    def __init__(self, thread: LoopThread, subscription: Subscription[Item]) -> None:
        self._thread = thread
        self._subscription = subscription

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        item = self.wait(None)
        if item is None:
            raise StopIteration
        return item

    def wait(self, timeout_s: float | None = None) -> Item | None:
        """The next one; None where none came within `timeout_s`, or the stream is closed."""

        async def wait() -> Item | None:
            try:
                async with asyncio.timeout(timeout_s):
                    return await anext(self._subscription, None)
            except TimeoutError:
                return None

        return self._thread.call(wait())

    def close(self) -> None:
        """The stream is over. Idempotent."""
        with suppress(UnavailableError):
            self._thread.call(self._subscription.aclose())


class BlockingState:
    """The session's shared key-value state; as `SharedState`."""

    def __init__(self, thread: LoopThread, session: Session) -> None:
        self._thread = thread
        self._state = session.state

    def get(self, prefix: str = "") -> dict[str, Any]:
        """As `SharedState.get`."""
        return self._thread.call(self._state.get(prefix))

    def update(self, updates: Mapping[str, Any] | None = None, *, remove: Iterable[str] = ()) -> int:
        """As `SharedState.update`."""
        return self._thread.call(self._state.update(updates, remove=remove))

    def lock(self, key: str, seconds: float) -> None:
        """As `SharedState.lock`."""
        self._thread.call(self._state.lock(key, seconds))

    def release(self, *names: str) -> None:
        """As `SharedState.release`."""
        self._thread.call(self._state.release(*names))


class BlockingSession:
    """An open session; `connect` makes one. Close it, or use it in `with`."""

    def __init__(
        self, opening: AbstractAsyncContextManager[Session], interval_s: float, view: Mapping[str, Any]
    ) -> None:
        self._thread = LoopThread()
        self._stack = AsyncExitStack()
        try:
            self._session = self._thread.call(self._stack.enter_async_context(opening))
        except BaseException:
            self._thread.close()
            raise
        self._interval_s = interval_s
        self._view = view
        self._frames: Subscription[CurrentFrame] | None = None
        self._frame: CurrentFrame | None = None
        self._problem: NarupaError | None = None
        self._news = threading.Condition()
        self._count = 0
        self.state = BlockingState(self._thread, self._session)
        self._thread.call(self._start())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def frame(self) -> CurrentFrame | None:
        """The newest frame; None before the first came."""
        return self._frame

    @property
    def user_id(self) -> str | None:
        """Our id; None without a lobby."""
        return self._session.user_id

    @property
    def role(self) -> str | None:
        """As `Session.role`."""
        return self._session.role

    @property
    def session_id(self) -> str:
        """As `Session.session_id`."""
        return self._session.session_id

    @property
    def ended(self) -> SessionEndedError | None:
        """As `Session.ended`."""
        return self._session.ended

    @property
    def lobby(self) -> BlockingLobby:
        """As `Session.lobby`."""
        return BlockingLobby(self._thread, self._session.lobby)

    @property
    def users(self) -> Sequence[User]:
        """Everybody in the session, ourselves included."""
        return self._session.users

    @property
    def services(self) -> Sequence[Service]:
        """What runs, by kind and then the one to use first at the front."""
        return self._session.services

    def use(self, service: Service) -> None:
        """As `Session.use`."""

        async def use() -> None:
            self._session.use(service)

        self._thread.call(use())

    def wait_frame(self, timeout_s: float = 30.0) -> CurrentFrame:
        """The next frame that comes.

        Raises:
            UnavailableError: none came within `timeout_s`, or the trajectory service has been away for too long.
        """
        with self._news:
            count = self._count
            if not self._news.wait_for(lambda: self._count > count or self._problem is not None, timeout_s):
                trouble = self._frames.trouble if self._frames else None
                raise UnavailableError(f"no frame came within {timeout_s:g} s" + (f": {trouble}" if trouble else ""))
            if self._count > count and self._frame is not None:
                return self._frame
        assert self._problem is not None
        raise self._problem

    def collect(self, frames: int | None = None, seconds: float | None = None, **options: Any) -> FrameSeries:
        """As `Session.collect`."""
        return self._thread.call(self._session.collect(frames, seconds, **options))

    def frames(self, interval_s: float = 1 / 30, mode: Mode = "latest", **options: Any) -> BlockingStream[CurrentFrame]:
        """As `Session.frames`, as a plain iterator; close it (or use `with`) to stop early."""

        async def subscribe() -> Subscription[CurrentFrame]:
            return self._session.frames(interval_s, mode, **options)

        return BlockingStream(self._thread, self._thread.call(subscribe()))

    def get_frame(self, index: int | None = None, **view: Any) -> CurrentFrame:
        """As `Session.get_frame`."""
        return self._thread.call(self._session.get_frame(index, **view))

    def publish_frame(
        self,
        values: Mapping[str, float | str | bool] | None = None,
        arrays: Mapping[str, ArrayLike] | None = None,
        *,
        index: int = 1,
    ) -> int:
        """As `Session.publish_frame`."""
        return self._thread.call(self._session.publish_frame(values, arrays, index=index))

    def pull(
        self, particles: Sequence[int] = (), to: Sequence[float] = (0.0, 0.0, 0.0), **options: Any
    ) -> BlockingPull:
        """A pull for a `with` block; arguments as for `Session.pull`."""
        return BlockingPull(self._thread, self._session.pull(particles, to, **options))

    def finished_interactions(self) -> BlockingStream[FinishedInteraction]:
        """As `Session.finished_interactions`, as a plain iterator; close it (or use `with`) to stop early."""

        async def watch() -> Subscription[FinishedInteraction]:
            return self._session.finished_interactions()

        return BlockingStream(self._thread, self._thread.call(watch()))

    def interactions(self) -> list[dict[str, Any]]:
        """As `Session.interactions`."""
        return self._thread.call(self._session.interactions())

    def commands(self) -> dict[str, dict[str, Any]]:
        """As `Session.commands`."""
        return self._thread.call(self._session.commands())

    def run_command(self, name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As `Session.run_command`."""
        return self._thread.call(self._session.run_command(name, arguments))

    def provide_command(self, name: str, handler: BlockingHandler, **facts: Any) -> BlockingCommand:
        """A command for all participants, for a `with` block; arguments as for `Session.provide_command`."""
        return BlockingCommand(self._thread, self._session, name, handler, facts)

    def view(self, **traits: Any) -> SessionView:
        """As `Session.view`."""
        return shown(self._session, self._thread.loop, traits)

    def close(self) -> None:
        """We have left, and nothing runs any more. Idempotent."""
        with suppress(UnavailableError):
            self._thread.call(self._stack.aclose())
        self._thread.close()

    async def _start(self) -> None:
        self._frames = self._session.frames(self._interval_s, **self._view)
        self._session._scope.spawn(self._keep_frame(self._frames), "narupa-latest-frame")

    async def _keep_frame(self, frames: Subscription[CurrentFrame]) -> None:
        try:
            async for frame in frames:
                with self._news:
                    self._frame = frame
                    self._count += 1
                    self._news.notify_all()
        except NarupaError as error:
            with self._news:
                self._problem = error
                self._news.notify_all()


def connect(
    address: str = DEFAULT_LOBBY,
    name: str | None = None,
    *,
    trajectory: str | Sequence[str] = (),
    imd: str | Sequence[str] = (),
    interval_s: float = 1 / 30,
    fields: Collection[str] | None = None,
    selection: str | None = None,
    particles: Sequence[int] | None = None,
    precision: float | None = None,
    reconnect: bool = True,
    give_up_after_s: float | None = 60.0,
    **joining: Any,
) -> BlockingSession:
    """A session, through its lobby, or by the addresses of its services where any is given.

    Arguments and errors as for `join` (which takes those not named here, such as `session`, `invite` and `wait_s`) and
    `open`; `interval_s` is the least time between two frames, s, and `fields`, `selection`, `particles` and `precision` are
    what `frame` and `wait_frame` have of them, as for `Session.frames`.
    """
    view = {"fields": fields, "selection": selection, "particles": particles, "precision": precision}
    if trajectory or imd:
        opening = open(trajectory, imd, reconnect=reconnect, give_up_after_s=give_up_after_s, **joining)
    else:
        opening = join(address, name, reconnect=reconnect, give_up_after_s=give_up_after_s, **joining)
    return BlockingSession(opening, interval_s, view)
