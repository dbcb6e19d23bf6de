"""Tokens: the lobby signs who a caller is, every service verifies it locally, and handlers ask `caller(context)`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final, cast, get_args

import grpc
import grpc.aio
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from narupa_shared.access import METHODS, Access, Role, Standing, check_method, method_access
from narupa_shared.errors import InvalidArgumentError, UnauthenticatedError
from narupa_shared.open_streams import OpenStreams
from narupa_shared.rpc_handlers import Stream, Unary, rewrapped

Clock = Callable[[], float]

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "narupa"
MAX_TOKEN_CHARACTERS: Final = 4096
# A key that the lobby no longer lists still verifies for this long, so that users of a restarted lobby can join anew.
RETIRED_KEY_S: Final = 60.0
# What the lobby last said about who is present counts for this long after contact with it was lost: it may be restarting.
VOUCH_GRACE_S: Final = 60.0
# The longest life that a lobby may be told to give to tokens; taken for granted until tokens have been seen.
LONGEST_TOKEN_LIFE_S: Final = 7 * 86400.0
CLOCK_SKEW_S: Final = 60.0
MAX_GENERATION: Final = 2**32 - 1
OPERATOR_KEY: Final = "narupa-operator-key"
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
        generation: Revoking a user's generation voids their tokens of it and of all before; tokens without one have 0.
        issued_at: When the token was signed, s since the Unix epoch; set by the verifier.
        key_id: Which key signed it; set by the verifier.
    """

    user_id: str
    name: str
    session_id: str
    role: Role
    expires_at: float
    generation: int = 0
    issued_at: float = field(default=0.0, compare=False, repr=False)
    key_id: str = field(default="", compare=False, repr=False)


class TokenSigner:
    """Signs tokens with one Ed25519 key."""

    def __init__(self, private_key: Ed25519PrivateKey, key_id: str, clock: Clock = time.time) -> None:
        self._private_key = private_key
        self._key_id = key_id
        self._clock = clock

    @classmethod
    def generate(cls, clock: Clock = time.time) -> TokenSigner:
        """A signer with a new key that lives as long as the process."""
        key = Ed25519PrivateKey.generate()
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
            "gen": identity.generation,
            "iat": self._clock(),
            "exp": identity.expires_at,
            "aud": AUDIENCE,
        }
        return jwt.encode(claims, self._private_key, algorithm=ALGORITHM, headers={"kid": self._key_id})


def same_secret(given: str, right: str) -> bool:
    """Whether the two are equal; takes as long wherever they differ, and whatever their lengths."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, right))
    return hmac.compare_digest(*digests)


class TokenVerifier:
    """Verifies tokens of one session (None: of any) with the lobby's public keys, and knows which are void; asks nobody.

    Who is in contact with the lobby feeds it: `trust`, `revoke`, `revoke_session` and `vouch`.
    """

    def __init__(self, session_id: str | None, clock: Clock = time.time, vouch_grace_s: float = VOUCH_GRACE_S) -> None:
        """`clock` tells s since the Unix epoch; `vouch_grace_s` is for how long a lost lobby's word counts."""
        self._session_id = session_id
        self._clock = clock
        self._vouch_grace_s = vouch_grace_s
        self._keys: dict[str, tuple[bytes, Ed25519PublicKey, float]] = {}  # id: raw, key, trusted until
        self._revoked: dict[str, tuple[int, float]] = {}  # user: generation, since when; the oldest first
        self._ended_sessions: dict[str | None, float] = {}  # session: since when; the oldest first
        self._longest_life_s = 0.0
        self._vouched: Collection[str] = ()
        self._vouched_until = -float("inf")

    def trust(self, keys: Iterable[tuple[str, bytes]], retired_key_s: float = RETIRED_KEY_S) -> None:
        """These (id, 32 bytes) verify from now on; keys not among them do so for `retired_key_s` more.

        A lobby that goes on lists a key for as long as tokens of it are good, so one that it drops is void at once; a lobby
        that started anew may have lost its keys, and its users need time to join again.

        Raises:
            InvalidArgumentError: a key is not an Ed25519 public key. Nothing is changed then.
        """
        current: dict[str, tuple[bytes, Ed25519PublicKey, float]] = {}
        for key_id, raw in keys:
            try:
                current[key_id] = (raw, Ed25519PublicKey.from_public_bytes(raw), math.inf)
            except ValueError as error:
                raise InvalidArgumentError(f"public_keys[{key_id}]", raw, "needs the 32 bytes of Ed25519") from error
        now = self._clock()
        retired = {
            # One that was retired before keeps its time.
            key_id: (raw, key, min(until, now + retired_key_s) if until == math.inf else until)
            for key_id, (raw, key, until) in self._keys.items()
            if key_id not in current and until > now
        }
        self._keys = retired | current

    def revoke(self, user_id: str, generation: int) -> None:
        """The user's tokens of this generation and of all before are void, and streams opened with them end.

        Saying it again changes nothing. It is forgotten once every such token must have expired.
        """
        held = self._revoked.get(user_id)
        if held is not None and held[0] >= generation:
            return
        self._revoked.pop(user_id, None)  # to the end: the dict is in the order of time
        self._revoked[user_id] = (generation, self._clock())
        self._forget()

    def revoke_session(self, session_id: str | None = None) -> None:
        """Every token issued until now for the session (None: of whatever session) is void; streams opened with one end."""
        self._ended_sessions.pop(session_id, None)
        self._ended_sessions[session_id] = self._clock()
        self._forget()

    def vouch(self, user_ids: Collection[str] | None) -> None:
        """The users *and services* with these ids are in the session now: their streams outlive their tokens.

        The collection is kept, not copied, so a live one (such as a dict of all who are present) need be given once only.
        None: the lobby is out of contact, and what it said last counts for `vouch_grace_s` more. Without a word from the
        lobby no stream outlives its token.
        """
        if user_ids is not None:
            self._vouched, self._vouched_until = user_ids, float("inf")
        elif self._vouched_until == float("inf"):
            # A copy: who lost the contact may clear what it gave.
            self._vouched, self._vouched_until = frozenset(self._vouched), self._clock() + self._vouch_grace_s

    def verify(self, token: str, revoked_too: bool = False) -> Identity:
        """Who `token` speaks for.

        Raises:
            UnauthenticatedError: it is malformed, signed by an unknown key, forged, expired, for another session, or
                (unless `revoked_too`) revoked.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise UnauthenticatedError(
                f"the token has {len(token)} characters; at most {MAX_TOKEN_CHARACTERS} are read"
            )
        now = self._clock()
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
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
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise UnauthenticatedError(f"the token is not valid ({error}); join again") from error
        identity = _identity(claims, cast(str, key_id))
        if not identity.expires_at > now:  # a NaN has expired, too
            raise UnauthenticatedError(
                f"the token expired {now - identity.expires_at:.0f} s ago; renew it or join again"
            )
        if self._session_id is not None and identity.session_id != self._session_id:
            raise UnauthenticatedError(
                f"the token is for the session {identity.session_id!r}, and this service belongs to {self._session_id!r}"
            )
        self._longest_life_s = max(self._longest_life_s, identity.expires_at - identity.issued_at)
        if not revoked_too and (reason := self._void(identity)):
            raise UnauthenticatedError(reason)
        return identity

    def lapsed(self, identity: Identity) -> str | None:
        """Why a stream that was opened with `identity`'s token must end now; None while it may go on."""
        if reason := self._void(identity):
            return reason
        now = self._clock()
        key = self._keys.get(identity.key_id)
        if identity.expires_at > now and key is not None and key[2] > now:
            return None
        if now < self._vouched_until and identity.user_id in self._vouched:
            return None
        return "the token has expired and the lobby no longer knows you to be in the session; renew it or join again"

    def _void(self, identity: Identity) -> str | None:
        generation, _ = self._revoked.get(identity.user_id, (-1, 0.0))
        if identity.generation <= generation:
            return (
                "the token was revoked: its user left, was removed or has another role; renew the token at the lobby "
                "or join again"
            )
        ended = self._ended_sessions
        if ended and identity.issued_at <= max(ended.get(identity.session_id, 0.0), ended.get(None, 0.0)):
            return "the token was revoked: its session has ended; join another"
        return None

    def _forget(self) -> None:
        """What concerns only tokens that must have expired is dropped."""
        life_s = min(self._longest_life_s or LONGEST_TOKEN_LIFE_S, LONGEST_TOKEN_LIFE_S)
        horizon = self._clock() - life_s - CLOCK_SKEW_S
        for user_id in list(takewhile(lambda user: self._revoked[user][1] < horizon, self._revoked)):
            del self._revoked[user_id]
        for session in list(takewhile(lambda each: self._ended_sessions[each] < horizon, self._ended_sessions)):
            del self._ended_sessions[session]


def _identity(claims: dict[str, Any], key_id: str) -> Identity:
    texts = [claims["sub"], claims["name"], claims["sid"], claims["role"]]
    generation = claims.get("gen", 0)
    whole = (
        all(isinstance(text, str) for text in texts)
        and claims["role"] in get_args(Role)
        and isinstance(generation, int)
        and not isinstance(generation, bool)
        and 0 <= generation <= MAX_GENERATION
    )
    if not whole:
        raise UnauthenticatedError("the token's claims are not ones of Narupa; join again")
    return Identity(
        claims["sub"],
        claims["name"],
        claims["sid"],
        cast(Role, claims["role"]),
        expires_at=_time(claims["exp"]),
        generation=generation,
        issued_at=_time(claims["iat"]),
        key_id=key_id,
    )


def _time(claim: Any) -> float:
    if not isinstance(claim, int | float) or isinstance(claim, bool) or abs(claim) > 1e12:
        raise UnauthenticatedError("the token's times are not seconds since 1970; join again")
    return float(claim)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever made the present call.

    Attributes:
        peer: gRPC's name of the connection: one per TCP connection.
        identity: Who the token speaks for; None without a token.
        role: What the caller may be: the token's role; "operator" for whoever sends the operator key, and without a token
            at an open service; None without a token at a closed one, where only public methods are to be had.
        anonymous: Whether the caller was let in only because the service is open.
    """

    peer: str
    identity: Identity | None
    role: Standing | None = None
    anonymous: bool = False

    @property
    def owner(self) -> str:
        """The name under which the caller owns things: the same on every connection with a token, else the connection's."""
        return f"peer:{self.peer}" if self.identity is None else f"user:{self.identity.user_id}"


# gRPC runs each call in a task of its own, so the value cannot reach another call.
_caller_of_call: ContextVar[Caller | None] = ContextVar("narupa_caller_of_call", default=None)


def caller(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """Who is calling. To be asked in the handler itself, before it starts tasks of its own."""
    return _caller_of_call.get() or Caller(context.peer(), None)


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


# Whether a key, sent from an address (gRPC's name of the connection), is the operator's. May raise QuotaError.
OperatorCheck = Callable[[str, str], bool]


class AuthInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Lets in who may call, remembers who it is for `caller`, and ends streams whose token is void.

    A token that is presented is always verified, and its role checked against the table of access. Without one the call is
    refused, unless the service is open or the method is public. Health and reflection are never asked for a token.
    Refusals are raised inside the handler, so this belongs inside `ErrorInterceptor`, which turns them into statuses.
    """

    def __init__(
        self,
        open: bool,
        verifier: TokenVerifier | None,
        table: Mapping[str, Access] = METHODS,
        operator: OperatorCheck | None = None,
    ) -> None:
        """Nobody is let in yet.

        Args:
            open: Whether callers without a token are let in, to everything.
            verifier: Checks tokens, and says when streams outlive theirs; None refuses every token.
            table: Who may call which full method path.
            operator: Checks operator keys; None takes no notice of them.
        """
        self._open = open
        self._verifier = verifier
        self._table = table
        self._operator = operator
        self.streams = OpenStreams(verifier) if verifier else None

    def admit(self, method: str, metadata: Sequence[tuple[str, str | bytes]] | None, peer: str) -> Caller:
        """Who calls `method` with `metadata`, and may.

        Raises:
            UnauthenticatedError: the token is missing and needed, or not valid; or the operator key is wrong.
            PermissionDeniedError: the caller's role may not, or the table lacks the method.
            QuotaError: too many wrong operator keys.
        """
        access = method_access(method, self._table)
        caller = self._identified(access, metadata, peer)
        if caller.role is not None:
            check_method(method, access, caller.role)
        return caller

    def _identified(self, access: Access, metadata: Sequence[tuple[str, str | bytes]] | None, peer: str) -> Caller:
        token = bearer_token(metadata)
        identity = None if token is None else self._verified(token, access.revoked_too)
        if self._operator is not None and (keys := [value for name, value in metadata or () if name == OPERATOR_KEY]):
            if len(keys) > 1 or not self._operator(str(keys[0]), peer):
                raise UnauthenticatedError(
                    f"the {OPERATOR_KEY} is wrong; use the operator_key that this lobby was started with, or leave it out"
                )
            return Caller(peer, identity, "operator")
        if identity is not None:
            return Caller(peer, identity, identity.role)
        if self._open:
            return Caller(peer, None, "operator", anonymous=True)
        if access.public:
            return Caller(peer, None)
        raise UnauthenticatedError(
            "this service is closed: join the session at the lobby and send its token as 'authorization: Bearer <token>'"
        )

    def _verified(self, token: str, revoked_too: bool) -> Identity:
        if self._verifier is None:
            raise UnauthenticatedError("this service knows no session that could have issued the token; leave it out")
        return self._verifier.verify(token, revoked_too)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if method.startswith(ALWAYS_PUBLIC):
            return handler

        def admit(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
            metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
            admitted = self.admit(method, metadata, context.peer())
            _caller_of_call.set(admitted)
            return admitted

        def unary(behaviour: Unary) -> Unary:
            async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                admit(context)
                return await behaviour(request, context)

            return call

        def stream(behaviour: Stream) -> Stream:
            # Not a generator of its own: a stream's messages pass through one layer less.
            def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                identity = admit(context).identity
                if identity is not None and self.streams is not None:
                    self.streams.add(method, identity, context)
                return behaviour(request, context)

            return call

        return cast("grpc.RpcMethodHandler[Any, Any]", rewrapped(handler, unary, stream))
