"""Tokens: what verifies, what is refused and why, and how calls learn who makes them."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narupa_shared.auth import (
    MAX_TOKEN_CHARACTERS,
    RETIRED_KEY_S,
    AuthInterceptor,
    Caller,
    Identity,
    TokenSigner,
    TokenVerifier,
    bearer_token,
    caller,
)
from narupa_shared.errors import InvalidArgumentError, UnauthenticatedError
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
        {"aud": "elsewhere"}, {"exp": None}, {"iat": None},
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
    verifier.trust([successor.public_key])  # as every renewal does: it does not prolong the old key's life
    clock.advance(1)
    with pytest.raises(UnauthenticatedError, match="does not know"):
        verifier.verify(token)


def test_a_key_that_is_none_changes_nothing(signer: TokenSigner, verifier: TokenVerifier, ada: Identity) -> None:
    with pytest.raises(InvalidArgumentError, match="32 bytes"):
        verifier.trust([("short", b"abc")])
    verifier.verify(signer.sign(ada))


def test_the_key_file_is_private_and_kept(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "state" / "key.pem"
    first = TokenSigner.load_or_create(path, clock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key.pem"]
    assert TokenSigner.load_or_create(path, clock).public_key == first.public_key


def test_a_file_that_is_no_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("nonsense")
    with pytest.raises(InvalidArgumentError, match=r"key\.pem"):
        TokenSigner.load_or_create(path)


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


@pytest.fixture(params=[True, False], ids=["open", "closed"])
async def echo(request: pytest.FixtureRequest, verifier: TokenVerifier) -> AsyncIterator[tuple[int, bool]]:
    interceptors = [ErrorInterceptor(), AuthInterceptor(request.param, verifier, frozenset({"/test.Echo/Public"}))]
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


def test_without_a_verifier_no_token_is_good() -> None:
    interceptor = AuthInterceptor(True, None, frozenset())
    assert interceptor.identify("/test.Echo/UnaryUnary", []) is None
    with pytest.raises(UnauthenticatedError, match="leave it out"):
        interceptor.identify("/test.Echo/UnaryUnary", [("authorization", "Bearer a.b.c")])
