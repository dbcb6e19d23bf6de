"""A store in Redis, which several services share: commits are atomic scripts, leases are judged by Redis's clock.

It is as durable as Redis is: give it `appendonly yes` and `appendfsync always`. Redis 6.2 or newer.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError
from narupa_shared.stores import redis_scripts as scripts
from narupa_shared.stores.leases import checked_times, held_text
from narupa_shared.stores.log import KEPT_COMMITS, behind_text, checked, checked_kept, not_kept_text, read_commit
from narupa_shared.stores.store import (
    NO_LEASES,
    BehindError,
    Commit,
    Contents,
    Key,
    LeaseChanges,
    LeaseHeldError,
    StoreError,
    StoreReplacedError,
)

log = structlog.get_logger(__name__)

VERSION: Final = 1
CONNECTIONS: Final = 8
OPEN_TIMEOUT_S: Final = 10.0
# A follower looks this often whether the store is still the same one; commits wake it at once.
FOLLOW_S: Final = 2.0
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_LONGEST_LEASE_S: Final = 1e9
_BATCH: Final = 256


class RedisStore:
    """See `Store`. Every key begins with `{prefix}:`; the braces keep them together in a cluster.

    A call is answered, or fails with StoreError, within `timeout_s`; a connection that was lost meanwhile is made anew.
    """

    def __init__(
        self, url: str, prefix: str = "narupa", *, timeout_s: float = 1.0, kept_commits: int = KEPT_COMMITS
    ) -> None:
        self._address, self._secrets = _address_of(url)
        self._url = url
        self._keys = [f"{{{prefix}}}:{name}" for name in scripts.KEYS]
        self._timeout_s = timeout_s
        self._kept = checked_kept(kept_commits)
        self._epoch = ""
        self._client: Redis | None = None
        self._followers: Redis | None = None
        self._closing = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def shared(self) -> bool:
        return True

    async def open(self) -> Contents:
        if self._client is not None:
            raise StoreError(f"the store in Redis at {self._address} is open already; it serves one owner at a time")
        self._closing = asyncio.Event()
        self._client = self._connected(BlockingConnectionPool, self._timeout_s, max_connections=CONNECTIONS)
        self._followers = self._connected(ConnectionPool, self._timeout_s + FOLLOW_S)
        try:
            answer = await self._run(scripts.OPEN, secrets.token_hex(8), VERSION, timeout_s=OPEN_TIMEOUT_S)
            contents = self._contents(answer)
            await self._warn_if_forgetful()
        except BaseException:
            await self.close()
            raise
        self._epoch = contents.epoch
        return contents

    async def commit(self, commit: Commit, leases: LeaseChanges = NO_LEASES) -> None:
        body = checked(commit, leases)
        put = [(_field(key), value) for key, value in commit.changes.items() if value is not None]
        gone = [_field(key) for key, value in commit.changes.items() if value is None]
        answer = await self._ask(
            scripts.COMMIT,
            *(commit.number, commit.id, body, self._kept),
            *(len(put), len(gone), len(leases.hold), len(leases.release), len(leases.only_if_lapsed)),
            *(item for pair in put for item in pair),
            *gone,
            *_times(leases.hold),
            *sorted(leases.release),
            *sorted(leases.only_if_lapsed),
        )
        match answer:
            case ["behind", last] if int(last) < commit.number - 1:
                raise self._replaced()
            case ["behind", last]:
                raise BehindError(behind_text(commit.number, int(last)))
            case ["held", name]:
                raise LeaseHeldError(held_text(name))

    async def since(self, number: int) -> AsyncIterator[Commit]:
        failures, checks = 0, True
        while self._client is not None:
            try:
                if checks:
                    await self._check_kept(number)
                entries = await self._entries(number)
            except StoreReplacedError:
                raise
            except StoreError as error:
                if not failures and not self._closing.is_set():
                    log.warning("the store's log cannot be followed just now", error=str(error))
                await _wait(self._closing, _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures, checks = failures + 1, True
                continue
            if failures:
                log.info("the store's log is followed again", store=self._address)
            failures, checks = 0, not entries
            for commit in entries:
                if commit.number != number + 1:
                    raise NoLongerKeptError(not_kept_text(number, commit.number, entries[-1].number))
                yield commit
                number = commit.number
        raise self._error("it is not open, or has been closed")

    async def renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        checked_times(leases)
        _, *missing = await self._ask(scripts.RENEW, *_times(leases))
        return frozenset(missing)

    async def lapsed(self, at_most: int = 1000) -> tuple[str, ...]:
        _, *names = await self._ask(scripts.LAPSED, at_most)
        return tuple(names)

    async def close(self) -> None:
        self._closing.set()
        clients = [client for client in (self._client, self._followers) if client is not None]
        self._client = self._followers = None
        # A call that goes on would connect anew, and nobody would close that connection.
        while self._calls:
            for call in self._calls:
                call.cancel()
            await asyncio.wait(self._calls)
        for client in clients:
            with suppress(RedisError, OSError):
                await client.aclose()

    def _connected(self, pool: type[ConnectionPool], timeout_s: float, **options: Any) -> Redis:
        return Redis.from_pool(
            pool.from_url(
                self._url,
                **options,
                protocol=2,
                decode_responses=True,
                socket_timeout=timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),
                client_name="narupa",
            )
        )

    async def _ask(self, script: str, *arguments: str | int) -> Any:
        """The answer of a script that is for the store that was opened."""
        answer = await self._run(script, self._epoch, *arguments, timeout_s=self._timeout_s)
        if answer == ["replaced"]:
            raise self._replaced()
        return answer

    async def _run(self, script: str, *arguments: str | int, timeout_s: float) -> Any:
        """The answer of a script; asked again when a connection turns out to be lost, which every script bears."""
        return await self._call(
            self._client, lambda client: client.register_script(script)(self._keys, arguments), timeout_s
        )

    async def _entries(self, number: int) -> list[Commit]:
        """The next commits after `number`, or none when there is none for a while."""
        streams: Any = {self._keys[2]: f"{number}-0"}
        answer = await self._call(
            self._followers,
            lambda client: client.xread(streams, count=_BATCH, block=int(FOLLOW_S * 1000)),
            self._timeout_s + FOLLOW_S,
        )
        entries = answer[0][1] if answer else []
        if any(fields.get("epoch") != self._epoch for _, fields in entries):
            raise self._replaced()
        return [self._commit_of(id, fields) for id, fields in entries]

    async def _call(self, client: Redis | None, ask: Callable[[Redis], Awaitable[Any]], timeout_s: float) -> Any:
        """What `ask` gets from Redis within `timeout_s`, and before the store is closed."""
        if client is None:
            raise self._error("it is not open")

        async def answer() -> Any:
            async with asyncio.timeout(timeout_s):
                try:
                    return await ask(client)
                except RedisConnectionError:
                    return await ask(client)

        call = asyncio.create_task(answer())
        self._calls.add(call)
        call.add_done_callback(self._ended)
        try:
            # Not `await call`: redis-py waits with `wait_for`, which in Python 3.11 may overlook that it is cancelled.
            await asyncio.wait((call,))
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.cancelled():
            raise self._error("it has been closed")
        try:
            return call.result()
        except TimeoutError:
            raise self._error(f"no answer within {timeout_s:g} s") from None
        except (RedisError, OSError) as error:
            raise self._error(str(error)) from None

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # whoever asked may have been cancelled and not look any more

    async def _check_kept(self, number: int) -> None:
        """Every commit after `number` is in the log, and `number` has come."""
        _, first, last = await self._ask(scripts.STATE)
        if not int(first) - 1 <= number <= int(last):
            raise NoLongerKeptError(not_kept_text(number, int(first), int(last)))

    def _contents(self, answer: Any) -> Contents:
        match answer:
            case ["open", epoch, number, records, entries, leases]:
                pass
            case ["version", version]:
                raise self._error(
                    f"{self._keys[0]} was written by another Narupa (layout {version}; this one knows {VERSION}): "
                    "run one version at a time, or use another database number"
                )
            case ["foreign", key]:
                raise self._error(f"{key} is there, but no store: use another database number, or remove that key")
            case _:
                raise self._error(f"{self._keys[0]} is not a store of ours: use another database number")
        try:
            fields = [json.loads(field) for field in records[::2]]
            kept = {(collection, key): value for (collection, key), value in zip(fields, records[1::2], strict=True)}
        except (ValueError, TypeError):
            raise self._error(f"{self._keys[1]} is damaged: restore it from a backup, or remove it") from None
        commits = tuple(
            self._commit_of(id, dict(zip(fields[::2], fields[1::2], strict=True))) for id, fields in entries
        )
        if [commit.number for commit in commits] != list(range(int(number) - len(commits) + 1, int(number) + 1)) or (
            not commits and int(number)
        ):
            raise self._error(
                f"{self._keys[2]} is damaged, commits are missing: restore it from a backup, or remove it"
            )
        return Contents(epoch, int(number), kept, commits, frozenset(leases))

    def _commit_of(self, id: str, fields: Mapping[str, str]) -> Commit:
        try:
            return read_commit(int(id.partition("-")[0]), fields["body"])
        except (ValueError, KeyError):
            raise self._error(f"entry {id} of {self._keys[2]} is damaged: restore it from a backup") from None

    async def _warn_if_forgetful(self) -> None:
        """Redis's own settings make it as durable as the store promises, or the log says which do not."""
        wanted = {"appendonly": ("yes",), "appendfsync": ("always",), "maxmemory-policy": ("noeviction",)}
        assert self._client is not None
        for name, good in wanted.items():
            try:
                value = (await self._client.config_get(name)).get(name)
            except (RedisError, OSError):  # hosted Redis often does not tell
                return
            if value is not None and value not in good:
                log.warning("Redis may forget commits", store=self._address, setting=name, value=value, wanted=good[0])

    def _error(self, reason: str) -> StoreError:
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        return StoreError(f"the store in Redis at {self._address} cannot be used: {reason}")

    def _replaced(self) -> StoreReplacedError:
        return StoreReplacedError(
            f"the store in Redis at {self._address} has been emptied or has lost commits while in use; restart the service"
        )


def _address_of(url: str) -> tuple[str, tuple[str, ...]]:
    """The URL without its secrets, and these, as they may appear in messages.

    Raises:
        InvalidArgumentError: it is no URL of a Redis; the text repeats no part of it that could be secret.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError
        ConnectionPool.from_url(url)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        address = f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path.rstrip('/')}"
    except (ValueError, TypeError):
        shown = f"{url.partition('://')[0][:10]}://..."
        raise InvalidArgumentError(
            "store", shown, "must be redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS"
        ) from None
    given = [value for name, value in parse_qsl(parts.query) if "password" in name]
    found = {text for part in (parts.password, *given) if part for text in (part, unquote(part))}
    return address, tuple(sorted(found, key=len, reverse=True))


def _field(key: Key) -> str:
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def _times(leases: Mapping[str, float]) -> Iterable[str | int]:
    for name, seconds in leases.items():
        yield name
        yield int(min(seconds, _LONGEST_LEASE_S) * 1e6)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """`event` has been set, or `seconds` have passed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
