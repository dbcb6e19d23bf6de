"""The lobby for notebooks and plain scripts: the verbs of `Lobby`, blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

from narupa_client.lobby import Lobby, LobbyEvent, open_lobby
from narupa_client.loop_thread import LoopThread
from narupa_client.records import (
    Catalogue,
    CreatedSession,
    Invite,
    Service,
    SessionDetails,
    SessionFacts,
    User,
)
from narupa_client.subscription import Subscription
from narupa_shared.errors import UnavailableError


class BlockingLobby:
    """A lobby; `connect_lobby` and `BlockingSession.lobby` make one. Arguments and errors as for `Lobby`."""

    def __init__(self, thread: LoopThread, lobby: Lobby, close: Callable[[], None] = lambda: None) -> None:
        self._thread = thread
        self._lobby = lobby
        self._close = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The connection is closed, and nothing runs any more. Idempotent. One of a session closes with its session."""
        self._close()

    def link(self, session_id: str = "", *, invite: str = "", join_code: str = "") -> str:
        """As `Lobby.link`."""
        return self._lobby.link(session_id, invite=invite, join_code=join_code)

    def sessions(self) -> list[SessionFacts]:
        """As `Lobby.sessions`."""
        return self._thread.call(self._lobby.sessions())

    def session(self, session_id: str = "") -> SessionDetails:
        """As `Lobby.session`."""
        return self._thread.call(self._lobby.session(session_id))

    def users(self, session_id: str = "") -> list[User]:
        """As `Lobby.users`."""
        return self._thread.call(self._lobby.users(session_id))

    def create_session(self, name: str = "", **spec: Any) -> CreatedSession:
        """As `Lobby.create_session`."""
        return self._thread.call(self._lobby.create_session(name, **spec))

    def end_session(self, session_id: str) -> None:
        """As `Lobby.end_session`."""
        self._thread.call(self._lobby.end_session(session_id))

    def kick(self, user_id: str, reason: str = "", session_id: str = "") -> None:
        """As `Lobby.kick`."""
        self._thread.call(self._lobby.kick(user_id, reason, session_id))

    def set_role(self, user_id: str, role: str, session_id: str = "") -> User:
        """As `Lobby.set_role`."""
        return self._thread.call(self._lobby.set_role(user_id, role, session_id))

    def set_guest_role(self, role: str | None, session_id: str = "") -> SessionFacts:
        """As `Lobby.set_guest_role`."""
        return self._thread.call(self._lobby.set_guest_role(role, session_id))

    def create_invite(
        self, role: str = "", *, uses: int = 0, expires_in_s: float = 0.0, session_id: str = ""
    ) -> Invite:
        """As `Lobby.create_invite`."""
        making = self._lobby.create_invite(role, uses=uses, expires_in_s=expires_in_s, session_id=session_id)
        return self._thread.call(making)

    def invites(self, session_id: str = "") -> list[Invite]:
        """As `Lobby.invites`."""
        return self._thread.call(self._lobby.invites(session_id))

    def revoke_invite(self, invite_id: str, session_id: str = "") -> None:
        """As `Lobby.revoke_invite`."""
        self._thread.call(self._lobby.revoke_invite(invite_id, session_id))

    def services(self, kind: str = "", session_id: str = "") -> list[Service]:
        """As `Lobby.services`."""
        return self._thread.call(self._lobby.services(kind, session_id))

    def simulations(self, session_id: str = "") -> Catalogue:
        """As `Lobby.simulations`."""
        return self._thread.call(self._lobby.simulations(session_id))

    def start(self, simulation: str, session_id: str = "") -> Service:
        """As `Lobby.start`."""
        return self._thread.call(self._lobby.start(simulation, session_id))

    def started(self, simulation: str, *, within_s: float = 120.0, session_id: str = "") -> Service:
        """As `Lobby.started`."""
        return self._thread.call(self._lobby.started(simulation, within_s=within_s, session_id=session_id))

    def stop(self, service_id: str, session_id: str = "") -> Service:
        """As `Lobby.stop`."""
        return self._thread.call(self._lobby.stop(service_id, session_id))

    def drain(self, service_id: str, session_id: str = "") -> Service:
        """As `Lobby.drain`."""
        return self._thread.call(self._lobby.drain(service_id, session_id))

    def log(self, service_id: str, lines: int = 0, session_id: str = "") -> Sequence[str]:
        """As `Lobby.log`."""
        return self._thread.call(self._lobby.log(service_id, lines, session_id))

    def rotate_keys(self, *, revoke: bool = False) -> list[str]:
        """As `Lobby.rotate_keys`."""
        return self._thread.call(self._lobby.rotate_keys(revoke=revoke))

    def watch(self, session_id: str = "") -> Iterator[LobbyEvent]:
        """As `Lobby.watch`; each step blocks until there is news."""

        async def begin() -> Subscription[LobbyEvent]:
            return self._lobby.watch(session_id)

        async def following(events: Subscription[LobbyEvent]) -> LobbyEvent | None:
            return await anext(events, None)

        events = self._thread.call(begin())
        try:
            while (event := self._thread.call(following(events))) is not None:
                yield event
        finally:
            with suppress(UnavailableError):  # closed meanwhile
                self._thread.call(events.aclose())


def connect_lobby(address: str, name: str = "narupa", **options: Any) -> BlockingLobby:
    """A lobby, blocking. Arguments and errors as for `open_lobby`; close it, or use it in `with`."""
    thread, stack = LoopThread(), AsyncExitStack()
    try:
        lobby = thread.call(stack.enter_async_context(open_lobby(address, name, **options)))
    except BaseException:
        thread.close()
        raise

    def close() -> None:
        with suppress(UnavailableError):
            thread.call(stack.aclose())
        thread.close()

    return BlockingLobby(thread, lobby, close)
