"""The keys that tokens are signed with: which one signs now, which still verify, and what is due to change.

Nothing here is stored or made on its own: a `KeyRing` is a view of the records there are, and says which records to put
and which to delete. Whoever keeps the records does that, and makes a new ring.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narupa_shared.auth import Clock, TokenSigner
from narupa_shared.errors import InvalidArgumentError, UnavailableError


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One signing key as it is kept; a secret.

    Attributes:
        key_id: Names the key in tokens and in the lists that services get.
        private_pem: The Ed25519 private key, PKCS #8, not encrypted.
        created_at: s since the Unix epoch.
        retired_at: From when on it signs no more, s since the Unix epoch; None while it does.
    """

    key_id: str
    private_pem: str
    created_at: float
    retired_at: float | None = None

    def __repr__(self) -> str:  # never the key, wherever it is logged
        return f"KeyRecord({self.key_id!r}, created_at={self.created_at}, retired_at={self.retired_at})"

    @classmethod
    def new(cls, created_at: float) -> Self:
        """A new key."""
        key = Ed25519PrivateKey.generate()
        key_id = base64.urlsafe_b64encode(hashlib.sha256(key.public_key().public_bytes_raw()).digest()[:12]).decode()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(key_id, pem.decode(), created_at)

    def to_json(self) -> str:
        """The record as text, for a store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote.

        Raises:
            InvalidArgumentError: the text is no such record.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            retired_at = values.get("retired_at")
            return cls(
                str(values["key_id"]),
                str(values["private_pem"]),
                float(values["created_at"]),
                None if retired_at is None else float(retired_at),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"it is not one that this version wrote ({type(error).__name__})"
            raise InvalidArgumentError("signing key record", f"{len(text)} characters", reason) from error

    def private_key(self) -> Ed25519PrivateKey:
        """The key itself.

        Raises:
            InvalidArgumentError: `private_pem` holds something else.
        """
        try:
            key = serialization.load_pem_private_key(self.private_pem.encode(), password=None)
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError("signing key", self.key_id, "it holds no private key; delete it") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidArgumentError("signing key", self.key_id, "it is not an Ed25519 key; delete it")
        return key


class Changes(NamedTuple):
    """Records to put in place of those with the same ids, and ids of those to delete."""

    put: tuple[KeyRecord, ...] = ()
    delete: tuple[str, ...] = ()


class KeyRing:
    """The keys there are, and what to do with them at the present time."""

    def __init__(
        self,
        records: Iterable[KeyRecord],
        wall_clock: Clock,
        token_ttl_s: float,
        rotation_s: float,
        settle_s: float = 3.0,
    ) -> None:
        """
        Args:
            records: All there are, in any order.
            wall_clock: s since the Unix epoch.
            token_ttl_s: How long a token is good for, s: a retired key verifies for that long.
            rotation_s: How long a key signs, s.
            settle_s: How long a new key is only listed before it signs, s, so that services know it by then. It counts
                only while there is an older key that can sign.

        Raises:
            InvalidArgumentError: a record holds no Ed25519 key.
        """
        self._wall_clock = wall_clock
        self._token_ttl_s = token_ttl_s
        self._rotation_s = rotation_s
        self._settle_s = settle_s
        # The order is the same at every lobby, even if two keys were made in the same instant.
        self.records = tuple(sorted(records, key=lambda record: (record.created_at, record.key_id)))
        keys = {record.key_id: record.private_key() for record in self.records}
        self._signers = {key_id: TokenSigner(key, key_id, wall_clock) for key_id, key in keys.items()}

    @property
    def signer(self) -> TokenSigner:
        """Signs tokens now.

        Raises:
            UnavailableError: there is no key yet; `due` says which to put.
        """
        if not self.records:
            raise UnavailableError("the lobby has no signing key yet; try again")
        settled = self._wall_clock() - self._settle_s
        able = [record for record in self.records if record.retired_at is None or record.retired_at > settled]
        known = [record for record in able if record.created_at <= settled]
        newest = (known or able or self.records)[-1]
        return self._signers[newest.key_id]

    @property
    def public_keys(self) -> tuple[tuple[str, bytes], ...]:
        """Id and raw bytes of every key whose tokens may still be good, for `TokenVerifier.trust`."""
        worn_out = self._worn_out()
        return tuple(signer.public_key for key_id, signer in self._signers.items() if key_id not in worn_out)

    def due(self) -> Changes:
        """What has to change now: the first key, the next one in place of one that has signed long enough, and old ones
        whose tokens have all expired. Nothing most of the time.
        """
        now = self._wall_clock()
        active = [record for record in self.records if record.retired_at is None]
        if not active or now - active[-1].created_at >= self._rotation_s:
            return self.rotation()
        # Whatever else still signs, because two lobbies made the first key at once, is superseded.
        return Changes(tuple(replace(record, retired_at=now) for record in active[:-1]), self._worn_out())

    def rotation(self, revoke: bool = False) -> Changes:
        """A new key, and the others retired; with `revoke` deleted, so that all tokens there are become void."""
        now = self._wall_clock()
        fresh = KeyRecord.new(now)
        if revoke:
            return Changes((fresh,), tuple(record.key_id for record in self.records))
        retired = (replace(record, retired_at=now) for record in self.records if record.retired_at is None)
        return Changes((fresh, *retired), self._worn_out())

    def _worn_out(self) -> tuple[str, ...]:
        """The keys whose tokens have all expired. A retired key signs for `settle_s` more."""
        longest_s = self._settle_s + self._token_ttl_s
        now = self._wall_clock()
        return tuple(
            record.key_id
            for record in self.records
            if record.retired_at is not None and now - record.retired_at > longest_s
        )
