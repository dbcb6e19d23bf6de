"""The WebSocket listener: who may connect, how many, and where a browser is led that only asks for a page."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from narupa_gateway.config import GatewayConfig
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.guests import Credentials, Guest, Guests
from narupa_gateway.pages import Answer, Pages, refused
from narupa_gateway.shared_state import SharedStateCopy
from narupa_gateway.websocket_client import GOING_AWAY, REFUSED, TRY_LATER, WebSocketClient, close
from narupa_gateway.websocket_outlet import FrameConnection
from narupa_shared.config import is_loopback
from narupa_shared.daemon import StartError
from narupa_shared.errors import NarupaError, QuotaError, UnavailableError
from narupa_shared.rates import RateLimit
from narupa_shared.tls import server_context

log = structlog.get_logger(__name__)

FAMILY: Final = "NanoVer"
# How long a connection may take to become a WebSocket, s.
OPENING_LIMIT_S: Final = 5.0
# How long a browser may take to load one file, s.
PAGE_LIMIT_S: Final = 30.0
# A client that has vanished without a word is noticed within their sum, s.
PING_EVERY_S: Final = 4.0
PING_LIMIT_S: Final = 4.0
CLOSING_LIMIT_S: Final = 1.0
# Connections that are no WebSocket yet; with another the one that has taken the longest goes.
MAX_OPENING: Final = 256
# Connections beyond the clients that are let in: those that open, and those that are told why they may not stay.
MAX_OTHERS: Final = 512


class WebSocketServer:
    """Serves NanoVer clients while `running` is open."""

    def __init__(
        self,
        config: GatewayConfig,
        guests: Guests,
        feed: FrameFeed,
        state: SharedStateCopy,
        pages: Pages,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pages` answers browsers, which ask for pages at the same address."""
        self._config = config
        self._guests = guests
        self._feed = feed
        self._state = state
        self._pages = pages
        self._rates = RateLimit(clock, config.messages_per_s, config.message_burst, "messages")
        self._volumes = RateLimit(clock, config.bytes_per_s, config.byte_burst, "bytes")
        self._clients: set[WebSocketClient] = set()
        self._connections = 0
        self._opening: dict[ServerConnection, None] = {}
        self.port = 0

    @property
    def clients(self) -> int:
        """How many are served now."""
        return len(self._clients)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens on the configured port.

        Raises:
            StartError: the port is in use, or the address is not this machine's.
            InvalidArgumentError: a file for TLS is missing or holds something else.
        """
        config, limits = self._config, self

        class Connection(FrameConnection):
            """One that counts from its first byte, before it is known to be a WebSocket."""

            counted = False
            opening: asyncio.TimerHandle | None = None

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.counted = True
                self.opening = self.loop.call_later(OPENING_LIMIT_S, self.transport.abort)
                limits._connections += 1
                limits._opening[self] = None
                if limits._connections > config.max_clients + MAX_OTHERS:
                    self.transport.abort()
                elif len(limits._opening) > MAX_OPENING:
                    next(iter(limits._opening)).transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                if self.counted:
                    self.counted = False
                    self.asked()
                    limits._connections -= 1
                    limits._opening.pop(self, None)
                super().connection_lost(exc)

            def asked(self) -> None:
                """Its request is whole."""
                if self.opening is not None:
                    self.opening.cancel()

        def looked_at(connection: Connection, request: Request) -> Response | None:
            connection.asked()
            return self._looked_at(connection, request)

        try:
            server = await serve(
                self._handle,
                config.host.strip("[]"),
                config.websocket_port,
                create_connection=Connection,
                process_request=looked_at,  # type: ignore[arg-type]  # all connections are of this class
                compression=None,  # coordinates hardly get smaller, and each client's would be compressed anew
                server_header=None,
                open_timeout=PAGE_LIMIT_S,  # for the answer; `opening` is for the request
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_LIMIT_S,
                close_timeout=CLOSING_LIMIT_S,
                max_size=config.max_message_bytes,
                max_queue=2,  # of up to max_message_bytes each
                logger=_quiet(),
                ssl=server_context(config) if config.tls_cert else None,
                ssl_handshake_timeout=OPENING_LIMIT_S if config.tls_cert else None,
                start_serving=True,
                reuse_port=config.processes > 1,
            )
        except OSError as error:
            raise StartError(
                f"cannot listen on {config.host}:{config.websocket_port} for WebSockets: {error.strerror or error}; stop what "
                "uses it, or choose another with --websocket-port (NARUPA_GATEWAY_WEBSOCKET_PORT)"
            ) from error
        self.port = _port(server)
        log.info("websocket_ready", host=config.host, port=self.port, tls=config.tls_cert is not None)
        try:
            yield
        finally:
            server.close(close_connections=False)
            for connection in list(self._opening):
                connection.transport.abort()
            await self.end_all("the gateway is stopping; connect again in a moment")
            server.close()
            await server.wait_closed()

    async def end_all(self, reason: str) -> None:
        """Every client has been told to go, and why."""
        await asyncio.gather(
            *(client.end(GOING_AWAY, reason) for client in list(self._clients)), return_exceptions=True
        )

    # One connection.

    def _looked_at(self, connection: ServerConnection, request: Request) -> Response | None:
        """None lets the connection become a WebSocket; anything else answers it."""
        headers = request.headers
        if "websocket" not in headers.get("Upgrade", "").lower():
            connection.close_timeout = PAGE_LIMIT_S
            host, encodings = headers.get("Host", ""), ", ".join(headers.get_all("Accept-Encoding"))
            return _response(self._pages.answer(request.method, request.path, host, encodings))
        if problem := origin_problem(headers, self._config):
            log.info("origin_refused", origin=headers.get("Origin", "")[:200], address=_address(connection))
            return _response(refused(http.HTTPStatus.FORBIDDEN, problem))
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert isinstance(connection, FrameConnection) and connection.request is not None
        self._opening.pop(connection, None)
        client: WebSocketClient | None = None
        guest: Guest | None = None

        def look() -> None:
            """The client goes when its session has ended for it."""
            if guest is not None and client is not None and (ended := guest.ended):
                ending.append(asyncio.ensure_future(client.end(REFUSED, str(ended))))

        ending: list[asyncio.Future[None]] = []
        try:
            credentials = Credentials.of_path(connection.request.path)
            async with self._guests.joined(FAMILY, _address(connection), credentials, look) as guest:
                client = WebSocketClient(
                    connection, guest, self._feed, self._state, self._rates, self._volumes, self._config
                )
                self._clients.add(client)
                try:
                    look()
                    await client.serve()
                finally:
                    self._clients.discard(client)
        except ConnectionClosed:
            return
        except (UnavailableError, QuotaError) as error:
            await close(connection, TRY_LATER, str(error))
        except NarupaError as error:
            await close(connection, REFUSED, str(error))
        except Exception:
            log.exception("client_failed", guest=guest.number if guest else None)
            raise
        finally:
            await asyncio.gather(*ending, return_exceptions=True)


def origin_problem(headers: Headers, config: GatewayConfig) -> str:
    """Why a web page may not connect from where it is; empty when it may, and for programs that are no web page.

    A page of another site must not act for whoever happens to look at it. So a page may connect to where it came from, or
    if the settings name it. A gateway on loopback asks that it be called by a name of loopback, too: other names may be
    made to lead there by anybody.
    """
    origins = headers.get_all("Origin")
    if not origins:
        return ""
    host = headers.get("Host", "")
    if len(origins) == 1 and origins[0] in config.allow_origins:
        return ""
    try:
        same = bool(host) and len(origins) == 1 and urlsplit(origins[0]).netloc.lower() == host.lower()
        local = not is_loopback(config.host) or is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        same = local = False
    if same and local:
        return ""
    return (
        "This web page may not connect here. Whoever runs the gateway can allow it with --allow-origins "
        "(NARUPA_GATEWAY_ALLOW_ORIGINS).\n"
    )


def _response(answer: Answer) -> Response:
    return Response(answer.status.value, answer.status.phrase, Headers(answer.headers), answer.body)


def _address(connection: ServerConnection) -> str:
    remote: Any = connection.remote_address
    return str(remote[0]).partition("%")[0] if remote else ""


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


def _quiet() -> logging.Logger:
    """Handshakes that fail are the other side's affair, and are counted by us."""
    logger = logging.getLogger("narupa_gateway.websockets")
    logger.setLevel(logging.CRITICAL)
    logger.propagate = False
    return logger
