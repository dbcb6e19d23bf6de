"""Limits on wrong secrets and on joins, by address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_lobby.attempts import Attempts, Buckets, address_of, client_address_of
from narupa_shared.errors import QuotaError
from narupa_shared.testing.clock import FakeClock


def test_five_wrong_ones_in_a_burst_then_one_every_ten_seconds() -> None:
    clock = FakeClock()
    attempts = Attempts(clock)
    for _ in range(5):
        attempts.check("join code", "10.0.0.1")
        attempts.failed("join code", "10.0.0.1")
    with pytest.raises(QuotaError, match=r"join code.*try again in 10 s"):
        attempts.check("join code", "10.0.0.1")
    clock.advance(4.5)
    with pytest.raises(QuotaError, match="try again in 6 s"):
        attempts.check("join code", "10.0.0.1")
    clock.advance(5.5)
    attempts.check("join code", "10.0.0.1")
    attempts.failed("join code", "10.0.0.1")
    with pytest.raises(QuotaError, match="try again in 10 s"):
        attempts.check("join code", "10.0.0.1")
    clock.advance(1000)
    for _ in range(5):
        attempts.check("join code", "10.0.0.1")
        attempts.failed("join code", "10.0.0.1")
    with pytest.raises(QuotaError):
        attempts.check("join code", "10.0.0.1")


def test_other_addresses_and_other_secrets_are_not_held_up() -> None:
    attempts = Attempts(FakeClock())
    for _ in range(9):
        attempts.failed("password", "10.0.0.1")
    attempts.check("password", "10.0.0.2")
    attempts.check("join code", "10.0.0.1")


def test_right_ones_are_not_counted() -> None:
    attempts = Attempts(FakeClock())
    for _ in range(100):
        attempts.check("password", "10.0.0.1")


def test_failures_that_were_under_way_together_do_not_run_up_a_debt() -> None:
    clock = FakeClock()
    attempts = Attempts(clock)
    for _ in range(1000):
        attempts.failed("password", "10.0.0.1")
    clock.advance(10)
    attempts.check("password", "10.0.0.1")


def test_joins_have_a_rate_and_a_burst() -> None:
    clock = FakeClock()
    attempts = Attempts(clock, joins_per_s=2, burst=3)
    for _ in range(3):
        attempts.joining("10.0.0.1")
    with pytest.raises(QuotaError, match="too many joins from this address; try again in 1 s"):
        attempts.joining("10.0.0.1")
    attempts.joining("10.0.0.2")
    clock.advance(1)
    attempts.joining("10.0.0.1")
    attempts.joining("10.0.0.1")
    with pytest.raises(QuotaError):
        attempts.joining("10.0.0.1")


def test_tables_are_bounded_and_forget_the_longest_silent() -> None:
    clock = FakeClock()
    buckets = Buckets(clock, per_s=0.1, burst=5, max_keys=100)
    for number in range(1000):
        buckets.take(number)
        assert len(buckets) <= 100
    assert buckets.wait_s(999) == 0
    clock.advance(10)
    buckets.take("next")
    assert len(buckets) == 1, "full buckets are not kept"


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 20)), max_size=60))
def test_no_key_ever_takes_more_than_burst_and_rate(takes: list[tuple[int, float]]) -> None:
    clock = FakeClock(0.0)
    buckets = Buckets(clock, per_s=0.5, burst=4)
    taken: dict[int, int] = {}
    for key, pause in takes:
        clock.advance(pause)
        if buckets.wait_s(key) == 0:
            buckets.take(key)
            taken[key] = taken.get(key, 0) + 1
        assert taken.get(key, 0) <= 4 + 0.5 * clock() + 1e-6


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:1.2.3.4:5", "1.2.3.4"),
        ("ipv6:%5B::1%5D:5", "::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:7", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::9%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:1.2.3.4%5D:5", "1.2.3.4"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", "fe80::/64"),
        ("unix:/run/socket", "unix"),
        ("ipv4:nonsense", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_is_the_host_of_a_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::/64"),
        ("headset 7", "headset 7"),
        ("", ""),
    ],
)
def test_an_address_that_a_gateway_tells_stands_for_as_much_as_a_peer(text: str, address: str) -> None:
    assert client_address_of(text) == address
