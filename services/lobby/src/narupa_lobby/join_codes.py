"""Secrets that people read to each other (join codes) or pass on (invites, keys), and how they are looked up."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from typing import Final

# No 0 and O, no 1, I and L, no U that is heard as V: 30 signs, so 8 of them are 39 bits.
ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH: Final = 8
# Random bytes in a secret that nobody has to type.
SECRET_BYTES: Final = 24


def new_join_code() -> str:
    """A code that cannot be guessed, such as `7KQM-2XRD`."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def normalised(code: str) -> str:
    """`code` without what people add or lose when they pass it on: case, spaces and hyphens of any kind."""
    kept = (sign for sign in unicodedata.normalize("NFKC", code) if unicodedata.category(sign) not in _IGNORED)
    return "".join(kept).upper()


# Spaces of all widths, line ends and other controls, invisible marks, and dashes, by their Unicode categories.
_IGNORED: Final = {"Zs", "Zl", "Zp", "Cc", "Cf", "Pd"}


def new_secret() -> str:
    """A secret of 192 random bits that fits into a link."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> str:
    """SHA-256 of `secret` in hex, under which it is kept and found.

    A look-up by digest tells nothing by the time it takes: who guesses a secret cannot choose how its digest begins.
    For secrets that cannot be guessed; passwords need `passwords.Passwords`.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
