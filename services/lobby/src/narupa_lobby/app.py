"""The lobby's parts, put together."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence

import grpc.aio

from narupa_lobby.access import Access
from narupa_lobby.config import LobbyConfig
from narupa_lobby.lobby import Lobby
from narupa_lobby.servicer import PUBLIC_METHODS, SERVICE_NAME, LobbyServicer
from narupa_lobby.session import Limits
from narupa_shared.auth import Clock, TokenSigner, TokenVerifier
from narupa_shared.daemon import Bound
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.lobby.v1 import lobby_pb2_grpc

SWEEP_INTERVAL_S = 0.1
SIGNING_KEY_FILE = "signing-key.pem"


class LobbyApp:
    """The lobby, for the harness."""

    service_names: Sequence[str] = (SERVICE_NAME,)
    public_methods = PUBLIC_METHODS

    def __init__(self, config: LobbyConfig, clock: Clock = time.monotonic, wall_clock: Clock = time.time) -> None:
        """A lobby with the session that `config` names; leases run on `clock`, tokens expire by `wall_clock` (s).

        Raises:
            InvalidArgumentError: `state_dir` holds something else than a signing key, or cannot be written.
        """
        self.lobby = Lobby(
            _signer(config, wall_clock),
            Access(config.open, config.join_code, config.service_key),
            Limits(
                user_lease_s=config.user_lease_s,
                rejoin_grace_s=config.rejoin_grace_s,
                service_lease_s=config.service_lease_s,
                max_users=config.max_users,
                max_services=config.max_services,
                max_watchers=config.max_watchers,
                history_events=config.history_events,
            ),
            session_id=config.session_id,
            token_ttl_s=config.token_ttl_s,
            clock=clock,
            wall_clock=wall_clock,
            new_id=lambda: uuid.uuid4().hex,
        )
        self.verifier: TokenVerifier | None = TokenVerifier(None, wall_clock)
        self.verifier.trust([self.lobby.signer.public_key])

    def add_to(self, server: grpc.aio.Server) -> None:
        lobby_pb2_grpc.add_LobbyServiceServicer_to_server(LobbyServicer(self.lobby), server)  # type: ignore[no-untyped-call]

    @contextlib.asynccontextmanager
    async def running(self, bound: Bound) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(self._sweep(), name="lobby sweep")
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def drain(self) -> None:
        self.lobby.drain()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self.lobby.expire()


def _signer(config: LobbyConfig, clock: Clock) -> TokenSigner:
    if config.state_dir is None:
        return TokenSigner.generate(clock)
    try:
        return TokenSigner.load_or_create(config.state_dir / SIGNING_KEY_FILE, clock)
    except OSError as error:
        raise InvalidArgumentError("state_dir", str(config.state_dir), f"cannot keep the key there: {error}") from error
