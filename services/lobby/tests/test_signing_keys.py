"""The ring of signing keys, on a clock that the test moves."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from narupa_lobby.signing_keys import Changes, KeyRecord, KeyRing
from narupa_shared.auth import Identity, TokenVerifier
from narupa_shared.errors import InvalidArgumentError, UnauthenticatedError, UnavailableError
from narupa_shared.testing.clock import FakeClock

TTL_S = 100.0
ROTATION_S = 1000.0
SETTLE_S = 3.0


class Kept:
    """Records as a store keeps them."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.texts: dict[str, str] = {}

    @property
    def ring(self) -> KeyRing:
        records = [KeyRecord.from_json(text) for text in self.texts.values()]
        return KeyRing(records, self.clock, TTL_S, ROTATION_S, SETTLE_S)

    def apply(self, changes: Changes) -> None:
        self.texts |= {record.key_id: record.to_json() for record in changes.put}
        for key_id in changes.delete:
            del self.texts[key_id]

    def token(self) -> str:
        return self.ring.signer.sign(Identity("u", "Ada", "default", "host", self.clock() + TTL_S))

    def verifies(self, token: str) -> bool:
        """Whether somebody who has just got the public keys takes the token."""
        verifier = TokenVerifier("default", self.clock)
        verifier.trust(self.ring.public_keys)
        try:
            verifier.verify(token)
        except UnauthenticatedError:
            return False
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kept(clock: FakeClock) -> Kept:
    """Records with the first key."""
    kept = Kept(clock)
    kept.apply(kept.ring.due())
    return kept


def test_an_empty_ring_wants_a_key_and_cannot_sign(clock: FakeClock) -> None:
    ring = Kept(clock).ring
    assert ring.public_keys == ()
    with pytest.raises(UnavailableError, match="no signing key yet"):
        _ = ring.signer
    put, delete = ring.due()
    assert len(put) == 1 and delete == ()


def test_the_first_key_signs_at_once_and_nothing_more_is_due(kept: Kept) -> None:
    assert kept.verifies(kept.token())
    assert kept.ring.due() == Changes()


def test_a_new_key_is_listed_before_it_signs(kept: Kept, clock: FakeClock) -> None:
    first = kept.ring.signer.public_key
    clock.advance(ROTATION_S - 0.1)
    assert kept.ring.due() == Changes()
    clock.advance(0.1)
    kept.apply(kept.ring.due())
    assert len(kept.ring.public_keys) == 2
    assert kept.ring.signer.public_key == first
    clock.advance(SETTLE_S)
    assert kept.ring.signer.public_key != first
    assert kept.ring.due() == Changes()


def test_a_retired_key_goes_when_its_last_token_has_expired(kept: Kept, clock: FakeClock) -> None:
    clock.advance(ROTATION_S)
    kept.apply(kept.ring.due())
    clock.advance(SETTLE_S - 0.1)
    last = kept.token()
    clock.advance(TTL_S - 0.1)
    kept.apply(kept.ring.due())
    assert kept.verifies(last)
    clock.advance(0.3)
    assert len(kept.ring.public_keys) == 1, "not listed any more, even before the record has gone"
    kept.apply(kept.ring.due())
    assert len(kept.texts) == 1


def test_tokens_are_good_through_many_rotations(kept: Kept, clock: FakeClock) -> None:
    tokens: list[tuple[float, str]] = []
    for _ in range(300):
        clock.advance(17.0)
        kept.apply(kept.ring.due())
        tokens.append((clock() + TTL_S, kept.token()))
        tokens = [(until, token) for until, token in tokens if until > clock()]
        assert all(kept.verifies(token) for _, token in tokens)
        assert len(kept.texts) <= 2


def test_a_rotation_on_demand_may_void_all_tokens(kept: Kept, clock: FakeClock) -> None:
    old = kept.token()
    kept.apply(kept.ring.rotation())
    assert kept.verifies(old)
    kept.apply(kept.ring.rotation(revoke=True))
    assert not kept.verifies(old)
    assert kept.verifies(kept.token()) and len(kept.texts) == 1


def test_of_two_first_keys_all_lobbies_keep_the_same_one(clock: FakeClock) -> None:
    kept = Kept(clock)
    kept.apply(kept.ring.due())
    kept.apply(Changes((KeyRecord.new(clock() + 1),)))
    clock.advance(SETTLE_S + 1)
    kept.apply(kept.ring.due())
    assert [record.retired_at is None for record in kept.ring.records] == [False, True]
    assert kept.ring.due() == Changes()


def test_a_record_survives_as_text_and_never_shows_its_key(clock: FakeClock) -> None:
    record = KeyRecord.new(clock())
    assert KeyRecord.from_json(record.to_json()) == record
    assert "PRIVATE" not in repr(record)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key_id": "a", "private_pem": "b", "created_at": "soon"}'])
def test_a_malformed_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="signing key record"):
        KeyRecord.from_json(text)


def test_a_key_of_another_kind_is_refused(clock: FakeClock) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for text, why in ((pem.decode(), "not an Ed25519"), ("nothing", "holds no private key")):
        with pytest.raises(InvalidArgumentError, match=why):
            KeyRing([KeyRecord("k", text, clock())], clock, TTL_S, ROTATION_S)
