"""Wiring of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc.aio

from narupa_client.retry import RetryPolicy
from narupa_client.session import Session
from narupa_gateway import grpc_clients
from narupa_gateway.config import GatewayConfig
from narupa_gateway.directory import ServiceDirectory
from narupa_gateway.discovery import Discovery, gateway_ports
from narupa_gateway.frame_feed import FrameFeed
from narupa_gateway.grpc_guests import GrpcGuests
from narupa_gateway.guests import Guests
from narupa_gateway.imd_server import ImdServer, imd_server
from narupa_gateway.landing import landing_page
from narupa_gateway.metrics import published_metrics
from narupa_gateway.pages import Pages, packaged_files
from narupa_gateway.shared_state import SharedStateCopy, follow_state
from narupa_gateway.websocket_server import OPENING_LIMIT_S, WebSocketServer
from narupa_shared.access import Access
from narupa_shared.auth import TokenVerifier
from narupa_shared.daemon import Bound, served_methods
from narupa_shared.errors import UnavailableError
from narupa_shared.rates import RateLimit
from narupa_shared.registration import LobbyRegistration
from narupa_shared.tls import tls_config

# Calls that one gRPC connection may have at a time; more wait at the client.
MAX_CALLS = 32
# Connections besides those of clients, such as for the health of the service.
MAX_OTHERS = 64
STOPPING = "the gateway is stopping; connect again in a moment"


class GatewayApp:
    """One gateway: its own view of the session, and the doors through which clients come."""

    def __init__(self, config: GatewayConfig, number: int = 1) -> None:
        """`number`, from 1, tells this process from the others with which it shares its ports."""
        self._config = config
        self.verifier = TokenVerifier(config.session_id)
        self.service_names: Sequence[str] = grpc_clients.SERVICE_NAMES
        # Whoever calls is looked at by the lobby, when they join as a guest.
        self.access: Mapping[str, Access] = {
            method: Access(None, public=True) for method in served_methods(grpc_clients.SERVICE_NAMES)
        }
        # gRPC holds a message that is on its way whole, before anybody looks at who sends it.
        self.server_options: Sequence[tuple[str, int]] = (
            ("grpc.so_reuseport", int(config.processes > 1)),
            ("grpc.max_concurrent_streams", MAX_CALLS),
            ("grpc.max_allowed_incoming_connections", config.max_clients + MAX_OTHERS),
            ("grpc.server_handshake_timeout_ms", round(1000 * OPENING_LIMIT_S)),
            ("grpc.http2.settings_timeout", round(1000 * OPENING_LIMIT_S)),
        )
        self.guests = Guests(config, number)
        self.feed = FrameFeed(config.frame_interval_s, config.minimum_frame_interval_s, config.idle_linger_s)
        self.state = SharedStateCopy()
        calls = RateLimit(time.monotonic, config.messages_per_s, config.message_burst, "calls")
        volumes = RateLimit(time.monotonic, config.bytes_per_s, config.byte_burst, "bytes")
        self.grpc_guests = GrpcGuests(self.guests, calls, volumes)
        self._pages = Pages(packaged_files(), self._about)
        self.websockets = WebSocketServer(config, self.guests, self.feed, self.state, self._pages)
        self._registration: LobbyRegistration | None = None
        self._grpc_port = 0
        self._imd: ImdServer | None = None
        self._work: list[asyncio.Task[None]] = []

    def add_to(self, server: grpc.aio.Server) -> None:
        grpc_clients.add_to(server, self.feed, self.state, self.grpc_guests, self._config)

    @contextlib.asynccontextmanager
    async def running(self, bound: Bound) -> AsyncIterator[None]:
        config, self._grpc_port = self._config, bound.port
        registration = LobbyRegistration(
            config,
            "gateway",
            bound,
            self.verifier,
            load=lambda: float(len(self.guests.present)),
            metadata=self._metadata,
            capacity=config.max_clients,
            heard=self.guests.book.take,
            beside=self.guests.book.hold,
        )
        self._registration = self.guests.registration = registration
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.guests.book.close)
            stack.enter_context(published_metrics(self.guests, self.feed, self.state))
            await stack.enter_async_context(self.websockets.running())
            if config.imd_port is not None:
                self._imd = imd_server(config, self.guests, self.feed, config.imd_port)
                await stack.enter_async_context(self._imd)
            await stack.enter_async_context(registration)
            await stack.enter_async_context(self._discovery(bound))
            directory = ServiceDirectory(registration)
            session = Session(directory, RetryPolicy(give_up_after_s=None), tls_config(config))
            stack.push_async_callback(session.aclose)

            def use_a_relay() -> None:
                """Its streams go on there without a gap."""
                if (replica := directory.replica_to_use()) is not None:
                    session.use(replica)

            directory.on_change(use_a_relay)
            work = {
                "directory": directory.run(),
                "frame-feed": self.feed.run(session),
                "state-copy": follow_state(session, self.state, config.state_interval_s),
                "grpc-guests": self.grpc_guests.run(),
                "guest-book": self.guests.book.run(),
            }
            self._work = tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]
            try:
                yield
            finally:
                # Clients are gone before what they came through is.
                await self.websockets.end_all(STOPPING)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def until_end(self, stop: asyncio.Event) -> None:
        """Returns once a signal, or the lobby, asks the gateway to go: its clients know no way to move but to connect anew."""
        assert self._registration is not None, "the app runs"
        waiting = [asyncio.ensure_future(each.wait()) for each in (stop, self._registration.drain_asked)]
        try:
            await asyncio.wait((*waiting, *self._work), return_when=asyncio.FIRST_COMPLETED)
            for task in self._work:
                if task.done():
                    task.result()  # a gateway that lacks a part is none; whoever runs it starts another
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def drain(self) -> None:
        error = UnavailableError(STOPPING)
        self.feed.broadcaster.drain(error)
        self.state.end(error)
        await self.websockets.end_all(STOPPING)

    def _discovery(self, bound: Bound) -> Discovery:
        config = self._config
        tls = config.tls_cert is not None
        return Discovery(
            config.discovery_name,
            config.host,
            gateway_ports(bound.port, self.websockets.port, tls=tls),
            session=config.session_id,
            lobbies=config.lobby_addresses,
            tls=bool(config.lobby_tls),
            broadcast=config.discovery,
            mdns=config.mdns if config.discovery else False,
            port=config.discovery_port,
        )

    def _metadata(self) -> dict[str, str]:
        scheme = "wss" if self._config.tls_cert else "ws"
        ports = {scheme: str(self.websockets.port)}
        return ports | ({"imd": str(self._imd.port)} if self._imd else {})

    def _about(self, host: str) -> bytes:
        config = self._config
        return landing_page(
            config.session_id,
            host,
            websocket_port=self.websockets.port,
            grpc_port=self._grpc_port,
            imd_port=self._imd.port if self._imd else None,
            lobbies=config.lobby_addresses,
            tls=config.tls_cert is not None,
            viewer=self._pages.viewer,
        )
