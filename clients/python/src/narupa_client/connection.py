"""One connection to one service that may be at several addresses and may come back at another."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from narupa_client.http2 import LargeMessageChannel
from narupa_client.rpc import domain_errors
from narupa_shared.errors import InvalidArgumentError, NarupaError, UnauthenticatedError, UnavailableError
from narupa_shared.tls import TlsConfig
from narupa_shared.tls_diagnosis import refusal, why_cut

CONNECT_TIMEOUT_S: Final = 3.0
CALL_TIMEOUT_S: Final = 10.0
# How long a call is repeated with new tokens while its service refuses them, s.
TOKEN_PATIENCE_S: Final = 5.0
# A peer that vanished without a word (a cable, a sleeping laptop) is noticed within their sum.
_KEEPALIVE_S: Final = 10.0
_KEEPALIVE_TIMEOUT_S: Final = 5.0


Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens.

    Attributes:
        host: Name or address.
        port: 1 to 65535.
        tls: Whether it wants TLS.
    """

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str, field: str = "address") -> Self:
        """The endpoint that `HOST:PORT` names; an IPv6 address stands in brackets.

        Raises:
            InvalidArgumentError: not of that form.
        """
        host, _, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise InvalidArgumentError(field, text, "write HOST:PORT, such as 127.0.0.1:38810")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """A channel to a service, made on first use and made anew, wherever the service is by then, after it was lost.

    There is one TCP connection at a time, so what a service ties to a connection (interactions, locks, avatars) lives
    as long as this object keeps it.
    """

    def __init__(
        self,
        service: str,
        endpoints: Callable[[], Sequence[Endpoint]],
        token: Callable[[], str | None],
        renew: Callable[[str | None], Awaitable[None]] | None = None,
        headers: Mapping[str, str] | None = None,
        tls: TlsConfig | None = None,
    ) -> None:
        """
        Args:
            service: The service's kind, for error messages.
            endpoints: Where to try, in order; asked at each new connection.
            token: What to present with calls; None for nothing.
            renew: Gets another token than the one given, which was refused.
            headers: Metadata of every call, anonymous ones too.
            tls: Certificates for endpoints that want TLS; None trusts the system's authorities.
        """
        self.service = service
        self._endpoints = endpoints
        self._token = token
        self._renew = renew
        self._headers = dict(headers or {})
        self._tls = tls or TlsConfig()
        self._presented: str | None = None
        self._channel: Channel | None = None
        self._handler: object = None
        self._endpoint: Endpoint | None = None
        self._proven = False  # whether a call over the present connection was answered
        self._lock = asyncio.Lock()
        self.address = ""

    def metadata(self) -> Mapping[str, str]:
        """The headers that tell a service who calls."""
        token = self._presented = self._token()
        return self._presenting(token) if token else self._headers

    def _presenting(self, token: str) -> Mapping[str, str]:
        return {**self._headers, "authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """A connected channel; errors of calls made within leave as domain errors.

        Raises:
            UnavailableError: no endpoint answers, or the connection was lost within.
            NarupaError: as the service answered.
        """
        channel = await self._connected()
        try:
            with domain_errors(self.service, self.address):
                yield channel
        except UnavailableError as error:
            if channel is self._channel and (why := await self._why_cut(error)):
                raise UnavailableError(f"cannot use the {self.service} service at {self.address}: {why}") from error
            raise
        except NarupaError:
            self._proven |= channel is self._channel
            raise
        self._proven |= channel is self._channel

    async def renew_token(self) -> None:
        """There is another token than the one last presented, where somebody gives tokens for this service.

        Raises:
            NarupaError: there is no other token to be had.
        """
        if self._renew is not None:
            try:
                await self._renew(self._presented)
            except UnavailableError:  # the lobby is away; who called tries again later
                return

    async def call(
        self,
        path: str,
        request: Any,
        reply_type: type[Reply],
        timeout_s: float = CALL_TIMEOUT_S,
        anonymous: bool = False,
        token: str = "",
    ) -> Reply:
        """The reply to one unary call. A refused token is renewed, and the call repeated. Raises as `channel`.

        Args:
            anonymous: Whether to present no token.
            token: To present instead of the usual one.
        """
        give_up = time.monotonic() + TOKEN_PATIENCE_S
        while True:
            try:
                return await self._call(path, request, reply_type, timeout_s, anonymous, token)
            except UnauthenticatedError:
                if self._renew is None or time.monotonic() > give_up:
                    raise
                await self.renew_token()
                # The service may have yet to hear of the lobby's new key.
                await asyncio.sleep(0.2)

    async def _call(
        self, path: str, request: Any, reply_type: type[Reply], timeout_s: float, anonymous: bool, token: str
    ) -> Reply:
        if token:
            metadata = self._presenting(token)
        else:
            metadata = self._headers if anonymous else self.metadata()
        async with (
            self.channel() as channel,
            channel.request(
                path, Cardinality.UNARY_UNARY, type(request), reply_type, timeout=timeout_s, metadata=metadata
            ) as stream,
        ):
            await stream.send_message(request, end=True)
            reply = await stream.recv_message()
        if reply is None:
            raise UnavailableError(f"the {self.service} service at {self.address} ended the call without an answer")
        return reply

    @asynccontextmanager
    async def stream(
        self, path: str, cardinality: Cardinality, request_type: type[Any], reply_type: type[Reply], token: str = ""
    ) -> AsyncIterator[Stream[Any, Reply]]:
        """An open streaming call; leaving ends it. Raises as `channel`; `token` is presented instead of the usual one."""
        metadata = self._presenting(token) if token else self.metadata()
        async with (
            self.channel() as channel,
            channel.request(path, cardinality, request_type, reply_type, metadata=metadata) as stream,
        ):
            try:
                yield stream
            finally:
                await _cancelled(stream)

    def close(self) -> None:
        """The connection is closed; the next call would open another. Idempotent."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    async def _connected(self) -> Channel:
        async with self._lock:
            if self._channel is not None and not getattr(self._handler, "connection_lost", True):
                return self._channel
            self.close()
            problems: list[str] = []
            endpoints = list(dict.fromkeys(self._endpoints()))
            for endpoint in endpoints:
                context = self._tls.context() if endpoint.tls else None
                channel = LargeMessageChannel(endpoint.host, endpoint.port, config=_CONFIGURATION, ssl=context)
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        protocol = await channel.__connect__()
                except TimeoutError:
                    problems.append(f"{endpoint} (no answer)")
                except OSError as error:
                    problems.append(f"{endpoint} ({reason(error)})")
                else:
                    self._channel = channel
                    self._handler = protocol.handler
                    self._endpoint = endpoint
                    self._proven = False
                    self.address = str(endpoint)
                    return channel
            if not problems:
                raise UnavailableError(f"no {self.service} service is known here; `narupa services` lists what runs")
            raise UnavailableError(f"cannot reach the {self.service} service at {', '.join(problems)}")

    async def _why_cut(self, error: UnavailableError) -> str:
        """Why a connection that never answered was cut, where TLS is the reason; empty otherwise."""
        answered = isinstance(error.__cause__, (GRPCError, TimeoutError))
        if self._proven or answered or (endpoint := self._endpoint) is None:
            return ""
        context = self._tls.context() if endpoint.tls else None
        return await why_cut(endpoint.host, endpoint.port, context, self._tls.cert is not None)


_CONFIGURATION: Final = Configuration(
    _keepalive_time=_KEEPALIVE_S,
    _keepalive_timeout=_KEEPALIVE_TIMEOUT_S,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=1.0,
)


def reason(error: OSError) -> str:
    """Why a connection failed, in a few words without the address."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return refusal(error)
    text = error.strerror or str(error)
    return text.split("]")[-1].strip().lower()


async def _cancelled(stream: Stream[Any, Any]) -> None:
    """The server is told that nobody listens any more, unless the call is over already."""
    if stream.trailing_metadata is None and stream.peer is not None:
        try:
            await stream.cancel()
        except Exception:  # the connection is gone, and the call with it
            return
