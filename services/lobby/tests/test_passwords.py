"""Passwords: right and wrong ones, and how many are hashed at once."""

from __future__ import annotations

import asyncio
import threading

import argon2
import pytest
from argon2.exceptions import InvalidHashError

from narupa_lobby.passwords import AT_ONCE, MAX_CHARACTERS, Passwords
from narupa_shared.errors import InvalidArgumentError, QuotaError

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Gate(argon2.PasswordHasher):
    """A hasher whose hashes end when told to."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.open = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.open.wait(10)
        with self._lock:
            self.running -= 1
        return "hashed"


async def test_only_the_right_password_matches() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("correct horse")
    assert hashed.startswith("$argon2id$") and "correct" not in hashed
    assert await passwords.verify(hashed, "correct horse")
    assert not await passwords.verify(hashed, "Correct horse")


async def test_the_same_password_never_has_the_same_hash() -> None:
    passwords = Passwords(CHEAP)
    assert await passwords.hash("a") != await passwords.hash("a")


async def test_keyboards_that_compose_letters_differently_agree() -> None:
    passwords = Passwords(CHEAP)
    assert await passwords.verify(await passwords.hash("caf\u00e9"), "cafe\u0301")


@pytest.mark.parametrize(
    ("password", "why"), [("", "empty"), ("x" * (MAX_CHARACTERS + 1), "more than"), ("\ud800", "text")]
)
async def test_bad_passwords_are_refused_without_quoting_them(password: str, why: str) -> None:
    passwords = Passwords(CHEAP)
    with pytest.raises(InvalidArgumentError, match=why) as refused:
        await passwords.hash(password)
    assert "xxx" not in str(refused.value)
    with pytest.raises(InvalidArgumentError, match=why):
        await passwords.verify("hashed", password)


async def test_what_is_no_hash_is_a_fault_and_not_a_wrong_password() -> None:
    with pytest.raises(InvalidHashError):
        await Passwords(CHEAP).verify("not a hash", "a")


async def test_few_are_hashed_at_once_even_when_callers_give_up() -> None:
    gate = Gate()
    passwords = Passwords(gate)
    calls = [asyncio.create_task(passwords.hash("a")) for _ in range(6)]
    while gate.running < AT_ONCE:
        await asyncio.sleep(0)
    for call in calls[:3]:
        call.cancel()
    await asyncio.sleep(0)
    assert gate.most == AT_ONCE
    gate.open.set()
    assert await asyncio.gather(*calls[3:]) == ["hashed"] * 3
    assert gate.most == AT_ONCE


async def test_a_queue_that_is_too_long_is_refused() -> None:
    gate = Gate()
    passwords = Passwords(gate, max_waiting=1)
    calls = [asyncio.create_task(passwords.hash("a")) for _ in range(AT_ONCE + 1)]
    await asyncio.sleep(0)
    with pytest.raises(QuotaError, match="try again"):
        await passwords.hash("a")
    gate.open.set()
    await asyncio.gather(*calls)
    await passwords.hash("a")


async def test_a_limit_is_asked_when_the_turn_comes() -> None:
    passwords = Passwords(CHEAP)
    hashed = await passwords.hash("right")
    failures = 0

    def limit() -> None:
        if failures >= 3:
            raise QuotaError("later")

    async def guess() -> None:
        nonlocal failures
        if not await passwords.verify(hashed, "wrong", before=limit):
            failures += 1

    outcomes = await asyncio.gather(*(guess() for _ in range(20)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) < 3 + AT_ONCE
    assert await passwords.verify(hashed, "right")
