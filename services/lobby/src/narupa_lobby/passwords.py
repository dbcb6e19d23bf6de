"""Passwords, hashed with argon2id off the loop, few at a time."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import argon2
from argon2.exceptions import VerificationError

from narupa_shared.errors import InvalidArgumentError, QuotaError

MAX_CHARACTERS: Final = 256
# Hashes at once: each holds a core and 19 MiB for some 20 ms.
AT_ONCE: Final = 2
MAX_WAITING: Final = 200

Result = TypeVar("Result")


class Passwords:
    """Hashes and verifies, each in a thread of its own; at most `AT_ONCE` run."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None, max_waiting: int = MAX_WAITING) -> None:
        """
        Args:
            hasher: argon2 with its parameters; OWASP's for argon2id (19 MiB, 2 passes, 1 lane) when left out.
            max_waiting: Calls that may wait for their turn.
        """
        self._hasher = hasher or argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._max_waiting = max_waiting
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """What to keep in place of `password`: parameters, salt and hash in one text.

        Raises:
            InvalidArgumentError: it is empty, too long, or no text. The message never quotes it.
            QuotaError: too many others wait for the same.
        """
        given = _bytes(password)
        return await self._in_thread(lambda: self._hasher.hash(given))

    async def verify(self, hashed: str, password: str, before: Callable[[], None] | None = None) -> bool:
        """Whether `password` is the one that `hashed` was made of.

        Args:
            hashed: What `hash` gave.
            password: As the caller said it.
            before: Called when the turn comes, and may raise: for a limit on failures, so that attempts that came in at
                the same time count as if they had come one after the other.

        Raises:
            InvalidArgumentError: `password` is empty, too long, or no text. The message never quotes it.
            QuotaError: too many others wait for the same.
            argon2.exceptions.InvalidHashError: `hashed` is no hash.
        """
        given = _bytes(password)

        def matches() -> bool:
            try:
                return self._hasher.verify(hashed, given)
            except VerificationError:
                return False

        return await self._in_thread(matches, before)

    async def _in_thread(self, work: Callable[[], Result], before: Callable[[], None] | None = None) -> Result:
        if self._waiting >= self._max_waiting:
            raise QuotaError(f"{self._waiting} passwords are being checked already; try again in a few seconds")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            if before is not None:
                before()
            # An executor for one call leaves no idle thread behind.
            executor = ThreadPoolExecutor(1, thread_name_prefix="password")
            running = asyncio.get_running_loop().run_in_executor(executor, work)
            executor.shutdown(wait=False)
        except BaseException:
            self._free.release()
            raise
        # Shielded, because a cancelled caller leaves the thread running, which has to count until it is done. The caller
        # hears of the outcome before the next one's turn comes.
        outcome = asyncio.shield(running)
        running.add_done_callback(self._freed)
        return await outcome

    def _freed(self, running: asyncio.Future[Result]) -> None:
        if not running.cancelled():
            running.exception()  # looked at, in case that the caller has gone
        self._free.release()


def _bytes(password: str) -> bytes:
    """The text in the one form in which all keyboards agree, as bytes."""
    if not password:
        raise InvalidArgumentError("password", "", "it must not be empty")
    if len(password) > MAX_CHARACTERS:
        reason = f"it has more than the {MAX_CHARACTERS} characters that are read"
        raise InvalidArgumentError("password", f"{len(password)} characters", reason)
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("password", f"{len(password)} characters", "it is no Unicode text") from error
