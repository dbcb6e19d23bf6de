"""Tokens: what verifies, what is refused and why, and how calls learn who makes them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narupa_shared.access import Access
from narupa_shared.auth import (
    LONGEST_TOKEN_LIFE_S,
    MAX_TOKEN_CHARACTERS,
    OPERATOR_KEY,
    RETIRED_KEY_S,
    VOUCH_GRACE_S,
    AuthInterceptor,
    Caller,
    Identity,
    TokenSigner,
    TokenVerifier,
    bearer_token,
    caller,
    same_secret,
)
from narupa_shared.errors import InvalidArgumentError, QuotaError, UnauthenticatedError
from narupa_shared.rpc_errors import ErrorInterceptor
from narupa_shared.testing.clock import FakeClock


@pytest.fixture
def signer(clock: FakeClock) -> TokenSigner:
    return TokenSigner.generate(clock)


@pytest.fixture
def verifier(clock: FakeClock, signer: TokenSigner) -> TokenVerifier:
    verifier = TokenVerifier("default", clock)
    verifier.trust([signer.public_key])
    return verifier


@pytest.fixture
def ada(clock: FakeClock) -> Identity:
    return Identity("user-1", "Ada", "default", "participant", clock() + 60)


def test_a_token_speaks_for_its_identity(signer: TokenSigner, verifier: TokenVerifier, ada: Identity) -> None:
    assert verifier.verify(signer.sign(ada)) == ada


def test_a_token_ends_at_its_expiry(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    token = signer.sign(ada)
    clock.advance(59.9)
    verifier.verify(token)
    clock.advance(0.1)
    with pytest.raises(UnauthenticatedError, match="expired"):
        verifier.verify(token)


def test_a_token_of_another_session_is_refused(signer: TokenSigner, clock: FakeClock, ada: Identity) -> None:
    other = TokenVerifier("other", clock)
    other.trust([signer.public_key])
    with pytest.raises(UnauthenticatedError, match=r"'default'.*'other'"):
        other.verify(signer.sign(ada))


def test_the_lobby_verifies_tokens_of_any_session(signer: TokenSigner, clock: FakeClock, ada: Identity) -> None:
    lobby = TokenVerifier(None, clock)
    lobby.trust([signer.public_key])
    assert lobby.verify(signer.sign(ada)).session_id == "default"


def test_a_forged_token_is_refused(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    key_id, _ = signer.public_key
    forger = TokenSigner(Ed25519PrivateKey.generate(), key_id, clock)
    with pytest.raises(UnauthenticatedError, match="Signature"):
        verifier.verify(forger.sign(ada))


def test_a_changed_claim_breaks_the_signature(signer: TokenSigner, verifier: TokenVerifier, ada: Identity) -> None:
    header, claims, signature = signer.sign(ada).split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"role": "host"}
    claims = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    with pytest.raises(UnauthenticatedError, match="Signature"):
        verifier.verify(f"{header}.{claims}.{signature}")


def test_an_unknown_key_is_refused(verifier: TokenVerifier, ada: Identity, clock: FakeClock) -> None:
    with pytest.raises(UnauthenticatedError, match="does not know"):
        verifier.verify(TokenSigner.generate(clock).sign(ada))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "not a token", "é" * 10, "\x00" * 10, "a" * (MAX_TOKEN_CHARACTERS + 1)]
)
def test_malformed_tokens_are_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        verifier.verify(token)


def test_only_ed25519_is_accepted(signer: TokenSigner, verifier: TokenVerifier, clock: FakeClock) -> None:
    key_id, raw = signer.public_key
    claims = {
        "sub": "u", "name": "n", "sid": "default", "role": "host", "iat": clock(), "exp": clock() + 60, "aud": "narupa",
    }  # fmt: skip
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": key_id})
    keyed_with_the_public_key = jwt.encode(claims, raw, algorithm="HS256", headers={"kid": key_id})
    for token in (unsigned, keyed_with_the_public_key):
        with pytest.raises(UnauthenticatedError):
            verifier.verify(token)


@pytest.mark.parametrize(
    "change",
    [
        {"sub": 7}, {"name": None}, {"sid": ["default"]}, {"role": "root"}, {"role": None}, {"exp": "soon"}, {"exp": True},
        {"aud": "elsewhere"}, {"exp": None}, {"iat": None}, {"role": "operator"}, {"role": ["host"]}, {"role": {}},
        {"gen": "1"}, {"gen": 1.0}, {"gen": -1}, {"gen": True}, {"gen": None}, {"gen": 2**32}, {"iat": "now"},
        {"iat": True}, {"exp": 10**400}, {"exp": float("inf")}, {"exp": float("nan")}, {"aud": None}, {"aud": ["a", "b"]},
    ],
)  # fmt: skip
def test_every_claim_is_checked(change: dict[str, Any], clock: FakeClock) -> None:
    key = Ed25519PrivateKey.generate()
    verifier = TokenVerifier("default", clock)
    verifier.trust([("key", key.public_key().public_bytes_raw())])
    claims = {
        "sub": "u", "name": "n", "sid": "default", "role": "host", "iat": clock(), "exp": clock() + 60, "aud": "narupa",
    }  # fmt: skip
    verifier.verify(jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": "key"}))
    with pytest.raises(UnauthenticatedError):
        verifier.verify(jwt.encode(claims | change, key, algorithm="EdDSA", headers={"kid": "key"}))


def test_a_retired_key_is_good_for_a_while(
    signer: TokenSigner, verifier: TokenVerifier, clock: FakeClock, ada: Identity
) -> None:
    successor = TokenSigner.generate(clock)
    token = signer.sign(Identity("user-1", "Ada", "default", "participant", clock() + 10 * RETIRED_KEY_S))
    verifier.trust([successor.public_key])
    clock.advance(RETIRED_KEY_S - 1)
    verifier.verify(token)
    verifier.trust(
        [successor.public_key], retired_key_s=0
    )  # as every renewal does: the old key's time stays what it was
    verifier.verify(token)
    clock.advance(1)
    with pytest.raises(UnauthenticatedError, match="does not know"):
        verifier.verify(token)


def test_a_key_that_is_none_changes_nothing(signer: TokenSigner, verifier: TokenVerifier, ada: Identity) -> None:
    with pytest.raises(InvalidArgumentError, match="32 bytes"):
        verifier.trust([("short", b"abc")])
    verifier.verify(signer.sign(ada))


def test_a_key_that_a_lobby_drops_as_it_goes_on_is_void_at_once(
    signer: TokenSigner, verifier: TokenVerifier, clock: FakeClock, ada: Identity
) -> None:
    held = verifier.verify(signer.sign(ada))
    verifier.trust([TokenSigner.generate(clock).public_key], retired_key_s=0)
    assert verifier.lapsed(held) is not None
    with pytest.raises(UnauthenticatedError, match="does not know"):
        verifier.verify(signer.sign(ada))


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        (None, None),
        ([("user-agent", "x")], None),
        ([("authorization", "Bearer abc")], "abc"),
        ([("authorization", "bearer  abc ")], "abc"),
    ],
)
def test_the_bearer_token_is_found(metadata: Any, token: str | None) -> None:
    assert bearer_token(metadata) == token


@pytest.mark.parametrize(
    "values", [["Basic abc"], ["Bearer"], ["Bearer "], [""], ["abc"], ["Bearer abc", "Bearer def"]]
)
def test_other_authorization_is_refused(values: list[str]) -> None:
    with pytest.raises(UnauthenticatedError, match="Bearer <token>"):
        bearer_token([("authorization", value) for value in values])


def test_owners_outlive_connections_only_with_a_token(ada: Identity) -> None:
    assert Caller("ipv4:127.0.0.1:1", ada).owner == "user:user-1"
    assert Caller("ipv4:127.0.0.1:1", None).owner == "peer:ipv4:127.0.0.1:1"


class Echo(grpc.GenericRpcHandler):
    """Answers each call, of all four shapes, with who made it."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def unary(_request: Any, context: Any) -> bytes:
            return repr(caller(context).identity).encode()

        async def stream(_request: Any, context: Any) -> AsyncIterator[bytes]:
            for _ in range(2):
                yield repr(caller(context).identity).encode()

        shapes: dict[str, Callable[..., Any]] = {
            "UnaryUnary": lambda: grpc.unary_unary_rpc_method_handler(unary),
            "UnaryStream": lambda: grpc.unary_stream_rpc_method_handler(stream),
            "StreamUnary": lambda: grpc.stream_unary_rpc_method_handler(unary),
            "StreamStream": lambda: grpc.stream_stream_rpc_method_handler(stream),
            "Public": lambda: grpc.unary_unary_rpc_method_handler(unary),
            "Hosts": lambda: grpc.unary_unary_rpc_method_handler(unary),
            "Unlisted": lambda: grpc.unary_unary_rpc_method_handler(unary),
        }
        name = details.method.rpartition("/")[2]
        return shapes[name]() if name in shapes else None


async def call(port: int, method: str, token: str | None) -> list[bytes]:
    metadata = [("authorization", f"Bearer {token}")] if token is not None else None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        path = f"/test.Echo/{method}"
        if method == "StreamUnary":
            return [await channel.stream_unary(path)(iter([b""]), metadata=metadata, timeout=5)]
        if method == "UnaryStream":
            return [reply async for reply in channel.unary_stream(path)(b"", metadata=metadata, timeout=5)]
        if method == "StreamStream":
            return [reply async for reply in channel.stream_stream(path)(iter([b""]), metadata=metadata, timeout=5)]
        return [await channel.unary_unary(path)(b"", metadata=metadata, timeout=5)]


ECHO_TABLE = {
    f"/test.Echo/{method}": Access("viewer") for method in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
} | {"/test.Echo/Public": Access(None, public=True), "/test.Echo/Hosts": Access("host")}


@pytest.fixture(params=[True, False], ids=["open", "closed"])
async def echo(request: pytest.FixtureRequest, verifier: TokenVerifier) -> AsyncIterator[tuple[int, bool]]:
    interceptors = [ErrorInterceptor(), AuthInterceptor(request.param, verifier, ECHO_TABLE)]
    server = grpc.aio.server(interceptors=interceptors)
    server.add_generic_rpc_handlers([Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port, request.param
    await server.stop(None)


METHODS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream", "Public"]


@pytest.mark.parametrize("method", METHODS)
async def test_handlers_know_their_caller(
    echo: tuple[int, bool], method: str, signer: TokenSigner, ada: Identity
) -> None:
    assert set(await call(echo[0], method, signer.sign(ada))) == {repr(ada).encode()}


@pytest.mark.parametrize("method", METHODS)
async def test_a_missing_token_is_refused_where_one_is_needed(echo: tuple[int, bool], method: str) -> None:
    port, is_open = echo
    if is_open or method == "Public":
        assert set(await call(port, method, None)) == {b"None"}
        return
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(port, method, None)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", METHODS)
async def test_a_presented_token_is_always_verified(echo: tuple[int, bool], method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(echo[0], method, "a.b.c")
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_role_that_may_not_is_refused_open_or_not(
    echo: tuple[int, bool], signer: TokenSigner, ada: Identity
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="Hosts needs the role host, and yours is participant") as refusal:
        await call(echo[0], "Hosts", signer.sign(ada))
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_method_that_the_table_lacks_is_closed_to_all(echo: tuple[int, bool]) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="nobody may call") as refusal:
        await call(echo[0], "Unlisted", None)
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


PEER = "ipv4:127.0.0.1:1"


def test_without_a_verifier_no_token_is_good() -> None:
    interceptor = AuthInterceptor(True, None, ECHO_TABLE)
    assert interceptor.admit("/test.Echo/UnaryUnary", [], PEER) == Caller(PEER, None, "operator", anonymous=True)
    with pytest.raises(UnauthenticatedError, match="leave it out"):
        interceptor.admit("/test.Echo/UnaryUnary", [("authorization", "Bearer a.b.c")], PEER)


def test_the_operator_key_opens_everything(verifier: TokenVerifier, signer: TokenSigner, ada: Identity) -> None:
    interceptor = AuthInterceptor(False, verifier, ECHO_TABLE, lambda key, peer: same_secret(key, "right"))
    bearer = ("authorization", f"Bearer {signer.sign(ada)}")
    right, wrong = (OPERATOR_KEY, "right"), (OPERATOR_KEY, "wrong")
    assert interceptor.admit("/test.Echo/Hosts", [right], PEER) == Caller(PEER, None, "operator")
    assert interceptor.admit("/test.Echo/Hosts", [bearer, right], PEER) == Caller(PEER, ada, "operator")
    for given in ([wrong], [right, right], [bearer, wrong], [(OPERATOR_KEY, "")]):
        with pytest.raises(UnauthenticatedError, match="operator-key is wrong"):
            interceptor.admit("/test.Echo/Public", given, PEER)
    with pytest.raises(UnauthenticatedError):
        interceptor.admit("/test.Echo/Hosts", [right, ("authorization", "Bearer a.b.c")], PEER)


def test_an_operator_key_means_nothing_where_there_is_no_operator(verifier: TokenVerifier) -> None:
    interceptor = AuthInterceptor(False, verifier, ECHO_TABLE)
    with pytest.raises(UnauthenticatedError, match="closed"):
        interceptor.admit("/test.Echo/Hosts", [(OPERATOR_KEY, "right")], PEER)


def test_the_check_of_operator_keys_may_have_enough(verifier: TokenVerifier) -> None:
    def check(key: str, peer: str) -> bool:
        assert peer == PEER
        raise QuotaError("too many wrong keys; try again in 10 s")

    with pytest.raises(QuotaError, match="10 s"):
        AuthInterceptor(False, verifier, ECHO_TABLE, check).admit("/test.Echo/Hosts", [(OPERATOR_KEY, "x")], PEER)


def test_no_token_makes_an_operator(verifier: TokenVerifier, signer: TokenSigner, clock: FakeClock) -> None:
    claimed: Any = "operator"
    with pytest.raises(UnauthenticatedError, match="claims"):
        verifier.verify(signer.sign(Identity("user-1", "Ada", "default", claimed, clock() + 60)))


@pytest.mark.parametrize(
    ("given", "right", "same"), [("a", "a", True), ("a", "b", False), ("", "a", False), ("\ud800", "é", False)]
)
def test_secrets_are_compared_whole(given: str, right: str, same: bool) -> None:
    assert same_secret(given, right) is same


def test_revoking_voids_a_generation_and_all_before(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity
) -> None:
    old, present, new = (replace(ada, generation=number) for number in range(3))
    held = [verifier.verify(signer.sign(each)) for each in (old, present, new)]
    verifier.revoke(ada.user_id, 1)
    verifier.revoke(ada.user_id, 0)  # as the lobby's snapshots do: what is void stays void
    for each in held[:2]:
        assert "revoked" in (verifier.lapsed(each) or "")
        with pytest.raises(UnauthenticatedError, match=r"revoked.*join again"):
            verifier.verify(signer.sign(each))
    assert verifier.verify(signer.sign(new)) == new
    assert verifier.lapsed(held[2]) is None
    verifier.verify(signer.sign(replace(ada, user_id="user-2")))
    assert verifier.verify(signer.sign(old), revoked_too=True) == old


def test_a_token_without_a_generation_has_the_first(clock: FakeClock) -> None:
    key = Ed25519PrivateKey.generate()
    verifier = TokenVerifier("default", clock)
    verifier.trust([("key", key.public_key().public_bytes_raw())])
    claims = {
        "sub": "u", "name": "n", "sid": "default", "role": "host", "iat": clock(), "exp": clock() + 60, "aud": "narupa",
    }  # fmt: skip
    token = jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": "key"})
    assert verifier.verify(token).generation == 0
    verifier.revoke("u", 0)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        verifier.verify(token)


def test_the_end_of_a_session_voids_its_tokens_and_not_those_of_its_successor(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    before = signer.sign(ada)
    held = verifier.verify(before)
    verifier.revoke_session()
    assert "session has ended" in (verifier.lapsed(held) or "")
    with pytest.raises(UnauthenticatedError, match="session has ended"):
        verifier.verify(before)
    clock.advance(0.001)
    verifier.verify(signer.sign(ada))


def test_the_lobby_ends_one_session_of_several(signer: TokenSigner, clock: FakeClock, ada: Identity) -> None:
    lobby = TokenVerifier(None, clock)
    lobby.trust([signer.public_key])
    lobby.revoke_session("default")
    lobby.verify(signer.sign(replace(ada, session_id="other")))
    with pytest.raises(UnauthenticatedError, match="session has ended"):
        lobby.verify(signer.sign(ada))


def test_revocations_are_forgotten_once_their_tokens_have_expired(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    for number in range(1000):
        verifier.revoke(f"unseen-{number}", 0)
        verifier.revoke_session(f"unseen-{number}")
    clock.advance(LONGEST_TOKEN_LIFE_S - 1)
    verifier.revoke("other", 0)
    assert len(verifier._revoked) == 1001  # nothing has told how long tokens live
    verifier.verify(signer.sign(replace(ada, expires_at=clock() + 3600)))
    verifier.revoke("yet another", 0)
    assert list(verifier._revoked) == ["other", "yet another"] and not verifier._ended_sessions


def test_a_stream_outlives_its_token_only_while_the_lobby_vouches(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    held = verifier.verify(signer.sign(ada))
    present = {ada.user_id}
    assert verifier.lapsed(held) is None
    clock.advance(61)
    assert "expired" in (verifier.lapsed(held) or "")
    verifier.vouch(present)
    assert verifier.lapsed(held) is None
    present.clear()  # the set is a live one
    assert "expired" in (verifier.lapsed(held) or "")
    present.add(ada.user_id)
    verifier.revoke(ada.user_id, 0)
    assert "revoked" in (verifier.lapsed(held) or "")


def test_the_word_of_a_lost_lobby_counts_for_a_while(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    held = verifier.verify(signer.sign(ada))
    present = {ada.user_id}
    clock.advance(61)
    verifier.vouch(present)
    verifier.vouch(None)
    present.clear()  # whoever lost the contact starts anew
    clock.advance(VOUCH_GRACE_S - 1)
    verifier.vouch(None)
    assert verifier.lapsed(held) is None
    clock.advance(1)
    assert "expired" in (verifier.lapsed(held) or "")


def test_a_stream_ends_with_its_key_unless_vouched_for(
    signer: TokenSigner, verifier: TokenVerifier, ada: Identity, clock: FakeClock
) -> None:
    held = verifier.verify(signer.sign(replace(ada, expires_at=clock() + 1e5)))
    verifier.trust([TokenSigner.generate(clock).public_key])
    assert verifier.lapsed(held) is None
    clock.advance(RETIRED_KEY_S)
    assert verifier.lapsed(held) is not None
    verifier.vouch([ada.user_id])
    assert verifier.lapsed(held) is None


@pytest.mark.parametrize("part", [0, 1])
def test_a_token_that_nests_without_end_is_malformed(
    part: int, signer: TokenSigner, verifier: TokenVerifier, ada: Identity
) -> None:
    parts = signer.sign(ada).split(".")
    parts[part] = base64.urlsafe_b64encode(b"[" * 2500).rstrip(b"=").decode()
    with pytest.raises(UnauthenticatedError):
        verifier.verify(".".join(parts))
