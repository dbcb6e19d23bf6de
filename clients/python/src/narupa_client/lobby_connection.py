"""The connection to whichever of a session's lobbies answers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Final, TypeVar

from grpclib.const import Cardinality

from narupa_client.connection import CALL_TIMEOUT_S, Connection, Endpoint
from narupa_client.rpc import replies
from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2 as v1
from narupa_shared.tls import TlsConfig

_SERVICE: Final = "/narupa.lobby.v1.LobbyService/"
_OPERATOR_HEADER: Final = "narupa-operator-key"

Reply = TypeVar("Reply")


class LobbyConnection:
    """Calls to one of several lobbies that share a store: the next one is asked when one fails."""

    def __init__(
        self,
        addresses: Sequence[Endpoint],
        token: Callable[[], str | None],
        operator_key: str | None = None,
        tls: TlsConfig | None = None,
    ) -> None:
        """
        Args:
            addresses: In the order in which to try them.
            token: What to present with calls; None for nothing.
            operator_key: The lobby's own; whoever shows it may do everything.
            tls: Certificates; None where lobbies do without TLS.

        Raises:
            InvalidArgumentError: the key has characters that cannot be sent.
        """
        if operator_key and not (operator_key.isascii() and operator_key.isprintable()):
            raise InvalidArgumentError("operator_key", "***", "use printable ASCII characters")
        self._addresses = deque(replace(item, tls=item.tls or tls is not None) for item in addresses)
        headers = {_OPERATOR_HEADER: operator_key} if operator_key else None
        self._token = token
        addresses = self._addresses  # the same for all who present another token over this connection
        self._connection = Connection("lobby", lambda: tuple(addresses), lambda: None, headers=headers, tls=tls)

    def presenting(self, token: Callable[[], str | None]) -> LobbyConnection:
        """The same connection, for somebody with another token; its closing concerns everybody who uses it."""
        other = copy(self)
        other._token = token
        return other

    @property
    def address(self) -> str:
        """Of the lobby that answered last."""
        return self._connection.address

    @property
    def addresses(self) -> Sequence[Endpoint]:
        """All of them, the one that is asked first at the front."""
        return tuple(self._addresses)

    async def call(
        self,
        method: str,
        request: Any,
        reply_type: type[Reply],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        anonymous: bool = False,
        token: str = "",
        repeat: bool = True,
    ) -> Reply:
        """The reply to one call; another lobby is asked when one goes away before it answers.

        Args:
            anonymous: Whether to present no token.
            token: To present instead of the usual one.
            repeat: Whether the call may be made twice.

        Raises:
            UnavailableError: no lobby answers.
            NarupaError: as the lobby answered.
        """
        path = f"{_SERVICE}{method}"
        token = token or ("" if anonymous else self._token() or "")
        first = self._addresses[0]
        try:
            return await self._connection.call(path, request, reply_type, timeout_s, anonymous, token)
        except UnavailableError:
            # Of many calls that failed together, the first has turned.
            if not (self._addresses[0] is not first or self.turn()) or not repeat:
                raise
        return await self._connection.call(path, request, reply_type, timeout_s, anonymous, token)

    @asynccontextmanager
    async def watch(self, request: v1.WatchSessionRequest) -> AsyncIterator[AsyncIterator[v1.WatchSessionResponse]]:
        """The events of a session, until the lobby ends the stream; errors as for `call`."""
        async with self._connection.stream(
            f"{_SERVICE}WatchSession",
            Cardinality.UNARY_STREAM,
            v1.WatchSessionRequest,
            v1.WatchSessionResponse,
            self._token() or "",
        ) as stream:
            await stream.send_message(request, end=True)
            async with aclosing(_one_by_one(replies(stream))) as events:
                yield events

    def turn(self) -> bool:
        """The lobby that was asked last is asked after all others; false where there are no others."""
        if len(self._addresses) < 2:
            return False
        failed = next((item for item in self._addresses if str(item) == self.address), self._addresses[0])
        self._addresses.remove(failed)
        self._addresses.append(failed)
        self._connection.close()
        return True

    def close(self) -> None:
        """The connection is closed. Idempotent."""
        self._connection.close()


async def _one_by_one(
    responses: AsyncGenerator[v1.WatchSessionResponse, None],
) -> AsyncGenerator[v1.WatchSessionResponse, None]:
    """Each event by itself, also those that were sent together."""
    async with aclosing(responses):
        async for response in responses:
            yield response
            for later in response.more:
                yield later
