"""Guests at the lobby, and all that they share there.

One connection for what each says there, one copy of who is in the session, one stream that says which of its users are here, and
one timer for their tokens. A guest's own is what only they have: who they are, their token and their role.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from grpclib.client import Stream
from grpclib.const import Cardinality

from narupa_client.address import SessionAddress
from narupa_client.connection import Endpoint
from narupa_client.directory import Directory
from narupa_client.lobby_connection import LobbyConnection
from narupa_client.place import KICKED, RENEW_AGAIN_S, RENEW_AT, Admission, Place, removed, session_over
from narupa_client.records import Service, User, role_name
from narupa_client.retry import Attempts, RetryPolicy
from narupa_client.tasks import TaskScope
from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.sdk.narupa.lobby import v1 as sdk
from narupa_shared.tls import TlsConfig

_HOLD_USERS: Final = "/narupa.lobby.v1.LobbyService/HoldUsers"


class GuestBook:
    """Who is in the session, and who of them is here.

    Attributes:
        lobby: The connection that guests share.
        users: Everybody in the session, by id, as the gateway's own watch of it tells.
        directory: Where the session's services are; to be set before the first guest comes.
    """

    def __init__(
        self, address: SessionAddress, tls: TlsConfig | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives seconds."""
        self.lobby = LobbyConnection(address.lobbies, lambda: None, tls=tls)
        self.users: dict[str, User] = {}
        self.directory: Directory | None = None
        self._address = address
        self._clock = clock
        self._revision = 0  # of the last event
        self._places: dict[str, GuestPlace] = {}
        self._untold: dict[str, bool] = {}  # who has come and gone since the lobby was told last
        self._come_or_gone = asyncio.Event()
        self._token_aged = asyncio.Event()
        self._scope = TaskScope()
        self._over = False

    def __len__(self) -> int:
        """How many guests are here."""
        return len(self._places)

    def place(self, admission: Admission) -> GuestPlace:
        """A place for one more guest, who is here between its `start` and `leave`."""
        return GuestPlace(self, admission, self._address.session_id)

    # What guests' places tell.

    def enter(self, place: GuestPlace) -> None:
        """The guest is here, as its `user_id`. Idempotent."""
        user_id = place.user_id or ""
        self._places[user_id] = place
        self._tell(user_id, here=True)
        self.wake()
        if user := self.users.get(user_id):  # whose role may have changed while the answer to `Join` was on its way
            place.is_now(user.role)

    def leave(self, place: GuestPlace, user_id: str) -> None:
        """The guest is not here any more as this user. Idempotent."""
        if self._places.get(user_id) is place:
            del self._places[user_id]
            self._tell(user_id, here=False)

    def welcome(self, user: User, revision: int) -> None:
        """The lobby has let in this user, as of so many events of the session."""
        if revision > self._revision:  # otherwise the copy has them, or has heard that they left since
            self.users[user.id] = user

    def wake(self) -> None:
        """Some token is due at another time."""
        self._token_aged.set()

    def _tell(self, user_id: str, *, here: bool) -> None:
        self._untold[user_id] = here
        self._come_or_gone.set()

    # What the gateway's registration calls.

    def take(self, event: sdk.WatchSessionResponse) -> None:
        """The event has happened in the session. Of all guests it costs the one something whom it is about."""
        self._revision = event.revision
        if event.snapshot is not None:
            self.users = {user.id: _user_of(user) for user in event.snapshot.users}
            for place in list(self._places.values()):
                self._look_at(place)
        elif event.user_joined is not None:
            self.users[event.user_joined.id] = _user_of(event.user_joined)
        elif event.user_changed is not None:
            self.users[event.user_changed.id] = _user_of(event.user_changed)
            if changed := self._places.get(event.user_changed.id):
                self._look_at(changed)
        elif event.user_left is not None:
            self.users.pop(event.user_left.id, None)
            if left := self._places.get(event.user_left.id):
                if event.reason.startswith(KICKED):
                    left.end(removed(event.reason))
                else:
                    self._look_at(left)
        elif event.session_ended is not None:
            self.users.clear()
            for place in list(self._places.values()):
                place.end(session_over(event.reason))
        if event.snapshot is not None or event.service_changed is not None or event.service_removed is not None:
            for place in list(self._places.values()):
                place.services_changed()

    def _look_at(self, place: GuestPlace) -> None:
        user = self.users.get(place.user_id or "")
        if user is None:
            self._lost(place)
        else:
            place.is_now(user.role)

    async def hold(self, stub: sdk.LobbyServiceStub, metadata: Mapping[str, str]) -> None:
        """The lobby knows who is here, for as long as this goes on; returns or raises when the connection is over."""
        self._untold = dict.fromkeys(self._places, True)
        self._come_or_gone.set()
        try:
            async with stub.channel.request(
                _HOLD_USERS, Cardinality.STREAM_STREAM, v1.HoldUsersRequest, v1.HoldUsersResponse, metadata=metadata
            ) as stream:
                await stream.send_request()
                telling = asyncio.create_task(self._keep_telling(stream), name="who is here")
                try:
                    async for response in stream:
                        for user_id in response.missing:
                            if place := self._places.get(user_id):
                                self._lost(place)
                finally:
                    telling.cancel()
                    await asyncio.wait({telling})
                    if not telling.cancelled():
                        telling.exception()  # who reads meets the same
        finally:
            self.lobby.close()  # it leads to where no lobby is any more, perhaps; the next call opens another

    async def _keep_telling(self, stream: Stream[v1.HoldUsersRequest, v1.HoldUsersResponse]) -> None:
        while True:
            await self._come_or_gone.wait()
            self._come_or_gone.clear()
            untold, self._untold = self._untold, {}
            begin = [user_id for user_id, here in untold.items() if here]
            end = [user_id for user_id, here in untold.items() if not here]
            await stream.send_message(v1.HoldUsersRequest(begin=begin, end=end))

    # What the book does by itself.

    async def run(self) -> None:
        """Tokens are renewed, and who was lost comes back, until cancelled; then nobody does any more."""
        try:
            while True:
                self._token_aged.clear()
                now = self._clock()
                for place in list(self._places.values()):
                    if place.token_due <= now:
                        place.token_due = math.inf
                        self._scope.spawn(place.renew_token(), "guest's token")
                next_due = min((place.token_due for place in self._places.values()), default=math.inf)
                try:
                    async with asyncio.timeout(None if next_due == math.inf else next_due - now):
                        await self._token_aged.wait()
                except TimeoutError:
                    pass
        finally:
            self._over = True
            await self._scope.aclose()

    def close(self) -> None:
        """The connection to the lobby is closed. Idempotent."""
        self.lobby.close()

    def _lost(self, place: GuestPlace) -> None:
        """The lobby has let this guest go, or has lost its memory."""
        if not (place.coming_back or place.ended or self._over):
            place.coming_back = True
            self._scope.spawn(self._bring_back(place, place.token), "guest who was lost")

    async def _bring_back(self, place: GuestPlace, token: str | None) -> None:
        """The guest is in the session again, unless it left meanwhile, or may not."""
        attempts = Attempts(RetryPolicy(give_up_after_s=None, max_delay_s=2.0))
        try:
            while place.ended is None and self._places.get(place.user_id or "") is place:
                attempts.started()
                problem = await place.back(token)
                if problem is None:
                    return
                if place.ended is None:
                    await attempts.pause_after(UnavailableError(str(problem)))
        finally:
            place.coming_back = False


class GuestPlace(Place):
    """One guest's place.

    Attributes:
        token_due: When the token is to be renewed, by the book's clock, s.
        coming_back: Whether the lobby is being asked to let the guest in again.
    """

    def __init__(self, book: GuestBook, admission: Admission, session_id: str) -> None:
        super().__init__(book.lobby.presenting(lambda: self.token), admission, session_id)
        self._book = book
        self._entered_as = ""
        self.token_due = math.inf
        self.coming_back = False

    @property
    def users(self) -> Mapping[str, User]:
        return self._book.users

    @property
    def services(self) -> Sequence[Service]:
        return self._book.directory.services if self._book.directory else ()

    def endpoints(self, kind: str) -> Sequence[Endpoint]:
        return self._book.directory.endpoints(kind) if self._book.directory else ()

    def start(self, scope: TaskScope) -> None:
        """The book keeps presence, news and token up from now on."""
        self._entered_as = self.user_id or ""
        self._book.enter(self)

    async def leave(self) -> None:
        self._book.leave(self, self._entered_as)
        self._entered_as = ""
        await super().leave()

    def end(self, reason: str) -> None:
        """The session is over for this guest."""
        self._end(reason)

    def is_now(self, role: str) -> None:
        """The guest has this role."""
        if role and role != self.role:
            self._another_role(role)
            self._changed()

    def services_changed(self) -> None:
        """The session's services are others, or elsewhere."""
        self._changed()

    async def back(self, token: str | None) -> NarupaError | None:
        """The guest has joined again, unless that happened since `token` was theirs; returns why that failed, if it did."""
        return await self._back(token)

    async def renew_token(self) -> None:
        """The token is another; otherwise it is due again in a while, well before it expires."""
        if self.ended is not None:
            return
        try:
            await self.renew(self.token)
        except NarupaError:
            left_s = self._token_life_s * (1 - RENEW_AT)
            self._due_in(RENEW_AGAIN_S if self._token_stale else max(left_s, RENEW_AGAIN_S))

    def _welcomed(self, reply: v1.JoinResponse) -> None:
        user = reply.user
        self._book.welcome(User(user.id, user.name, role_name(user.role)), reply.revision)
        if self._entered_as:
            if self._entered_as != user.id:
                self._book.leave(self, self._entered_as)
                self._entered_as = user.id
            self._book.enter(self)

    def _token_aged(self) -> None:
        self._due_in(0.0 if self._token_stale else RENEW_AT * self._token_life_s or math.inf)

    def _due_in(self, seconds: float) -> None:
        self.token_due = self._book._clock() + seconds
        self._book.wake()


def _user_of(message: sdk.User) -> User:
    return User(message.id, message.name, role_name(int(message.role)))
