"""How often an address may try: wrong secrets are slowed down soon, joins in all only when somebody floods."""

from __future__ import annotations

import ipaddress
import math
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from narupa_shared.errors import InvalidArgumentError, QuotaError

FAILURES_IN_A_BURST: Final = 5
FAILURES_PER_S: Final = 0.1
MAX_ADDRESSES: Final = 10_000
# Whoever has an IPv6 address has at least such a network of them.
IPV6_PREFIX: Final = 64
# The longest text of an IPv6 address, with a zone.
MAX_CLIENT_ADDRESS: Final = 64


class Buckets:
    """Token buckets by key, at most `max_keys` of them: beyond that the one used least recently is forgotten."""

    def __init__(self, clock: Callable[[], float], per_s: float, burst: float, max_keys: int = MAX_ADDRESSES) -> None:
        """Every key starts with `burst` tokens and regains `per_s` each second of `clock`."""
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._max_keys = max_keys
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # key: tokens, at this time

    def __len__(self) -> int:
        return len(self._levels)

    def wait_s(self, key: Hashable) -> float:
        """How long until `key` has a whole token, s; 0 when it has one."""
        return max(0.0, (1.0 - self._level(key)) / self._per_s)

    def take(self, key: Hashable) -> None:
        """`key` has one token less, and never less than none."""
        level = max(0.0, self._level(key) - 1.0)
        self._levels[key] = (level, self._clock())
        self._levels.move_to_end(key)
        self._forget()

    def _level(self, key: Hashable) -> float:
        if (held := self._levels.get(key)) is None:
            return self._burst
        level, since = held
        return min(self._burst, level + (self._clock() - since) * self._per_s)

    def _forget(self) -> None:
        """Full buckets at the old end go, as they say nothing; then whatever is over the limit."""
        while self._levels:
            key = next(iter(self._levels))
            if len(self._levels) <= self._max_keys and self._level(key) < self._burst:
                return
            del self._levels[key]


class Attempts:
    """Limits by address, on an injected clock. An address is what `address_of` gives."""

    def __init__(
        self,
        clock: Callable[[], float],
        joins_per_s: float = 200.0,
        burst: float = 400.0,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """
        Args:
            clock: Monotonic, s.
            joins_per_s: Joins that an address may make on and on.
            burst: Joins that it may make at once.
            max_addresses: Addresses that are remembered; the longest silent ones are forgotten first.
        """
        self._failures = Buckets(clock, FAILURES_PER_S, FAILURES_IN_A_BURST, max_addresses)
        self._joins = Buckets(clock, joins_per_s, burst, max_addresses)

    def check(self, kind: str, address: str) -> None:
        """Returns when `address` may try a secret of `kind` (such as "join code").

        Raises:
            QuotaError: it has been wrong too often; the message says when to try again.
        """
        if wait_s := self._failures.wait_s((kind, address)):
            raise QuotaError(f"too many wrong attempts ({kind}) from this address; try again in {math.ceil(wait_s)} s")

    def failed(self, kind: str, address: str) -> None:
        """The secret was wrong. Right ones cost nothing."""
        self._failures.take((kind, address))

    def joining(self, address: str) -> None:
        """One more join comes from `address`.

        Raises:
            QuotaError: there are too many; the message says when to try again.
        """
        if wait_s := self._joins.wait_s(address):
            raise QuotaError(f"too many joins from this address; try again in {math.ceil(wait_s)} s")
        self._joins.take(address)


def address_of(peer: str) -> str:
    """Whom a gRPC peer string (`ipv4:1.2.3.4:5`, `ipv6:%5B::1%5D:5`, `unix:...`) stands for, as far as limits go.

    The host without its port; of an IPv6 address its /64 network, unless it holds an IPv4 address.
    """
    family, _, rest = urllib.parse.unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return family if family == "unix" else "unknown"
    return _network(rest.rpartition(":")[0].strip("[]")) or "unknown"


def client_address_of(text: str) -> str:
    """Whom a client's address stands for that a gateway tells: as `address_of`, and other names for themselves.

    Raises:
        InvalidArgumentError: it is too long, or not printable.
    """
    if len(text) > MAX_CLIENT_ADDRESS or not text.isprintable():
        raise InvalidArgumentError(
            "client_address",
            text,
            f"takes at most {MAX_CLIENT_ADDRESS} printable characters: an IP address without a port",
        )
    return _network(text) or text


def _network(host: str) -> str | None:
    """The network of an IP address that is one party; None when `host` is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
