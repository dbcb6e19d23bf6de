"""Tokens: the lobby signs who a caller is, every service verifies it locally, and handlers ask `caller(context)`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

import grpc
import grpc.aio
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from narupa_shared.errors import InvalidArgumentError, UnauthenticatedError
from narupa_shared.rpc_handlers import Stream, Unary, rewrapped

Role = Literal["viewer", "participant", "host", "service"]
Clock = Callable[[], float]

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "narupa"
MAX_TOKEN_CHARACTERS: Final = 4096
# A key that the lobby no longer lists still verifies for this long, so that users of a restarted lobby can join anew.
RETIRED_KEY_S: Final = 60.0
# Probes and tools must reach these without a token.
ALWAYS_PUBLIC: Final = ("/grpc.health.v1.", "/grpc.reflection.")

_CLAIMS: Final = ["sub", "name", "sid", "role", "iat", "exp", "aud"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a verified token speaks for.

    Attributes:
        user_id: Id of the user, or of the service when `role` is "service".
        name: What others see.
        session_id: The session that the token is good for.
        role: What the caller may be.
        expires_at: When the token ends, s since the Unix epoch.
    """

    user_id: str
    name: str
    session_id: str
    role: Role
    expires_at: float


class TokenSigner:
    """Signs tokens with one Ed25519 key."""

    def __init__(self, private_key: Ed25519PrivateKey, key_id: str, clock: Clock = time.time) -> None:
        self._private_key = private_key
        self._key_id = key_id
        self._clock = clock

    @classmethod
    def generate(cls, clock: Clock = time.time) -> TokenSigner:
        """A signer with a new key that lives as long as the process."""
        return cls._of(Ed25519PrivateKey.generate(), clock)

    @classmethod
    def load_or_create(cls, path: Path, clock: Clock = time.time) -> TokenSigner:
        """The signer of the PEM key in `path`; the file is made, readable by its owner only, when there is none.

        Raises:
            InvalidArgumentError: the file holds something else than an unencrypted Ed25519 private key.
            OSError: the file can be neither read nor made.
        """
        if not path.exists():
            _create_key_file(path)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError("signing key", str(path), f"the file holds no private key: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidArgumentError(
                "signing key", str(path), "the key is not Ed25519; remove the file for a new one"
            )
        return cls._of(key, clock)

    @classmethod
    def _of(cls, key: Ed25519PrivateKey, clock: Clock) -> TokenSigner:
        digest = hashlib.sha256(key.public_key().public_bytes_raw()).digest()
        return cls(key, base64.urlsafe_b64encode(digest[:12]).decode(), clock)

    @property
    def public_key(self) -> tuple[str, bytes]:
        """The key's id and its 32 raw bytes, for `TokenVerifier.trust`."""
        return self._key_id, self._private_key.public_key().public_bytes_raw()

    def sign(self, identity: Identity) -> str:
        """A token that speaks for `identity` until `identity.expires_at`."""
        claims = {
            "sub": identity.user_id,
            "name": identity.name,
            "sid": identity.session_id,
            "role": identity.role,
            "iat": self._clock(),
            "exp": identity.expires_at,
            "aud": AUDIENCE,
        }
        return jwt.encode(claims, self._private_key, algorithm=ALGORITHM, headers={"kid": self._key_id})


def _create_key_file(path: Path) -> None:
    """A new key is in `path`, whole and with mode 0600, or another process's is: whoever is first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp's mode is 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()


class TokenVerifier:
    """Verifies tokens of one session (None: of any) with the lobby's public keys; asks nobody."""

    def __init__(self, session_id: str | None, clock: Clock = time.time) -> None:
        self._session_id = session_id
        self._clock = clock
        self._keys: dict[str, tuple[bytes, Ed25519PublicKey, float]] = {}  # id: raw, key, trusted until

    def trust(self, keys: Iterable[tuple[str, bytes]]) -> None:
        """These (id, 32 bytes) verify from now on; keys not among them do so for `RETIRED_KEY_S` more.

        Raises:
            InvalidArgumentError: a key is not an Ed25519 public key. Nothing is changed then.
        """
        current: dict[str, tuple[bytes, Ed25519PublicKey, float]] = {}
        for key_id, raw in keys:
            try:
                current[key_id] = (raw, Ed25519PublicKey.from_public_bytes(raw), float("inf"))
            except ValueError as error:
                raise InvalidArgumentError(f"public_keys[{key_id}]", raw, "needs the 32 bytes of Ed25519") from error
        now = self._clock()
        retired = {
            key_id: (raw, key, min(until, now + RETIRED_KEY_S))
            for key_id, (raw, key, until) in self._keys.items()
            if key_id not in current and until > now
        }
        self._keys = retired | current

    def verify(self, token: str) -> Identity:
        """Who `token` speaks for.

        Raises:
            UnauthenticatedError: it is malformed, signed by an unknown key, forged, expired, or for another session.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise UnauthenticatedError(
                f"the token has {len(token)} characters; at most {MAX_TOKEN_CHARACTERS} are read"
            )
        now = self._clock()
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, ValueError) as error:
            raise UnauthenticatedError("the token is malformed; join the session to get one") from error
        held = self._keys.get(key_id) if isinstance(key_id, str) else None
        if held is None or held[2] <= now:
            raise UnauthenticatedError("the token is signed with a key that this service does not know; join again")
        try:
            # Times are checked below, against the injected clock.
            claims = jwt.decode(
                token,
                held[1],
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except (jwt.InvalidTokenError, ValueError) as error:
            raise UnauthenticatedError(f"the token is not valid ({error}); join again") from error
        identity = _identity(claims)
        if not identity.expires_at > now:  # a NaN has expired, too
            raise UnauthenticatedError(
                f"the token expired {now - identity.expires_at:.0f} s ago; renew it or join again"
            )
        if self._session_id is not None and identity.session_id != self._session_id:
            raise UnauthenticatedError(
                f"the token is for the session {identity.session_id!r}, and this service belongs to {self._session_id!r}"
            )
        return identity


def _identity(claims: dict[str, Any]) -> Identity:
    texts = [claims["sub"], claims["name"], claims["sid"], claims["role"]]
    expires_at = claims["exp"]
    whole = all(isinstance(text, str) for text in texts) and isinstance(expires_at, int | float)
    if not whole or isinstance(expires_at, bool) or claims["role"] not in get_args(Role):
        raise UnauthenticatedError("the token's claims are not ones of Narupa; join again")
    return Identity(claims["sub"], claims["name"], claims["sid"], cast(Role, claims["role"]), float(expires_at))


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever made the present call.

    Attributes:
        peer: gRPC's name of the connection: one per TCP connection.
        identity: Who the token speaks for; None without a token, which only an open service or a public method allows.
    """

    peer: str
    identity: Identity | None

    @property
    def owner(self) -> str:
        """The name under which the caller owns things: the same on every connection with a token, else the connection's."""
        return f"peer:{self.peer}" if self.identity is None else f"user:{self.identity.user_id}"


# gRPC runs each call in a task of its own, so the value cannot reach another call.
_identity_of_call: ContextVar[Identity | None] = ContextVar("narupa_identity_of_call", default=None)


def caller(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """Who is calling. To be asked in the handler itself, before it starts tasks of its own."""
    return Caller(context.peer(), _identity_of_call.get())


def bearer_token(metadata: Sequence[tuple[str, str | bytes]] | None) -> str | None:
    """The token in `authorization: Bearer <token>`; None when there is no such header.

    Raises:
        UnauthenticatedError: the header is given twice or is not of that form.
    """
    given = [value for key, value in metadata or () if key.lower() == "authorization"]
    if not given:
        return None
    scheme, _, token = str(given[0]).partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError("the authorization metadata must be one value of the form 'Bearer <token>'")
    return token.strip()


class AuthInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Lets in who may call, and remembers who it is for `caller`.

    A token that is presented is always verified. Without one the call is refused, unless the service is open or the
    method is public. Health and reflection are never asked for a token. Refusals are raised inside the handler, so this
    belongs inside `ErrorInterceptor`, which turns them into statuses.
    """

    def __init__(self, open: bool, verifier: TokenVerifier | None, public_methods: frozenset[str]) -> None:
        self._open = open
        self._verifier = verifier
        self._public_methods = public_methods

    def identify(self, method: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Identity | None:
        """Who calls `method` with `metadata`; None when nobody need say.

        Raises:
            UnauthenticatedError: the token is missing and needed, or not valid.
        """
        token = bearer_token(metadata)
        if token is not None:
            if self._verifier is None:
                raise UnauthenticatedError(
                    "this service knows no session that could have issued the token; leave it out"
                )
            return self._verifier.verify(token)
        if self._open or method in self._public_methods:
            return None
        raise UnauthenticatedError(
            "this service is closed: join the session at the lobby and send its token as 'authorization: Bearer <token>'"
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if method.startswith(ALWAYS_PUBLIC):
            return handler

        def admit(context: grpc.aio.ServicerContext[Any, Any]) -> None:
            metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
            _identity_of_call.set(self.identify(method, metadata))

        def unary(behaviour: Unary) -> Unary:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                admit(context)
                return await behaviour(request, context)

            return call

        def stream(behaviour: Stream) -> Stream:
            # Not a generator of its own: a stream's messages pass through one layer less.
            def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                admit(context)
                return behaviour(request, context)

            return call

        return cast("grpc.RpcMethodHandler[Any, Any]", rewrapped(handler, unary, stream))
