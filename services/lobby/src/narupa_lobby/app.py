"""The lobby's parts, put together."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc.aio

from narupa_lobby.attempts import Attempts, address_of
from narupa_lobby.catalogue.folder import Catalogue
from narupa_lobby.config import LobbyConfig
from narupa_lobby.launchers.choice import all_launchers
from narupa_lobby.launches import Launches, LobbyFacts
from narupa_lobby.lobby import Lobby
from narupa_lobby.metrics import published_metrics
from narupa_lobby.rules import Rules
from narupa_lobby.servicer import SERVICE, SERVICE_NAME, LobbyServicer
from narupa_lobby.tokens import PresentVerifier
from narupa_shared.auth import Clock, TokenVerifier
from narupa_shared.config import is_loopback
from narupa_shared.daemon import Bound
from narupa_shared.rpc_services import generic_handler
from narupa_shared.stores.opening import store_of
from narupa_shared.stores.store import Store

SERVICE_LOGS: Final = "services"  # in the state folder


class LobbyApp:
    """The lobby, for the harness."""

    service_names: Sequence[str] = (SERVICE_NAME,)

    def __init__(
        self,
        config: LobbyConfig,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        store: Store | None = None,
    ) -> None:
        """A lobby with the session that `config` names.

        Args:
            config: Its settings.
            clock: Leases and limits run on it, s.
            wall_clock: Tokens and invites expire by it, s since the Unix epoch.
            store: Keeps its records; None takes the one that `config` names.

        Raises:
            InvalidArgumentError: `store` names none, or `state_dir` cannot be used.
        """
        self._config = config
        self.store = store or store_of(config.store, name="lobby", state_dir=config.state_folder(), clock=clock)
        rules = Rules(open=config.open, **{name: getattr(config, name) for name in config.rule_names()})
        self.lobby = Lobby(
            rules,
            self.store,
            clock=clock,
            wall_clock=wall_clock,
            new_id=lambda: uuid.uuid4().hex,
            attempts=Attempts(clock, config.joins_per_s, 2 * config.joins_per_s),
            join_code=config.join_code.get_secret_value() if config.join_code else "",
            service_key=config.service_key,
            operator_key=config.operator_key,
        )
        self.verifier: TokenVerifier | None = PresentVerifier(
            self.lobby.tokens, self.lobby.state, lambda: self.lobby.ready, wall_clock
        )
        self._launches = Launches(
            self.lobby,
            Catalogue(config.catalogue, clock),
            all_launchers(config.launchers, config.state_dir / SERVICE_LOGS),
            config.launchers,
            shared=self.store.shared,
            clock=clock,
            wall_clock=wall_clock,
        )

    def operator(self, key: str, peer: str) -> bool:
        """Whether `key`, sent by `peer`, is the operator's; QuotaError when there were too many wrong ones."""
        return self.lobby.door.is_operator(key, address_of(peer))

    def add_to(self, server: grpc.aio.Server) -> None:
        servicer = LobbyServicer(self.lobby, self._launches)
        server.add_generic_rpc_handlers((generic_handler(SERVICE, servicer),))

    @contextlib.asynccontextmanager
    async def running(self, bound: Bound) -> AsyncIterator[None]:
        async with self.lobby.running(), self._launches.running(_facts(self._config, bound)):
            with published_metrics(self.lobby.state, self.lobby.renewals, self._launches.phases):
                yield

    async def until_end(self, stop: asyncio.Event) -> None:
        """Returns once `stop` is set; raises when the lobby cannot go on, see `Lobby.until_lost`."""
        stopping, lost = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self.lobby.until_lost())
        try:
            await asyncio.wait((stopping, lost), return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                lost.result()
        finally:
            stopping.cancel()
            lost.cancel()

    async def drain(self) -> None:
        self.lobby.drain()


def _facts(config: LobbyConfig, bound: Bound) -> LobbyFacts:
    """What services that this lobby starts are told of it."""
    here = Bound("127.0.0.1", bound.port) if bound.host.strip("[]") in ("0.0.0.0", "::") else bound
    prefix = "NARUPA_TRAJECTORY_"
    files = {name: getattr(config, name) for name in ("tls_cert", "tls_key", "tls_client_ca", "tls_ca")}
    return LobbyFacts(
        address=",".join(config.advertise) or here.address,
        host=bound.host,
        service_key=config.service_key,
        open_access=config.open and not is_loopback(config.host),
        environment={f"{prefix}LOBBY_TLS": "true"} if config.tls_cert else {},
        local_environment={f"{prefix}{name.upper()}": str(path.absolute()) for name, path in files.items() if path},
    )
