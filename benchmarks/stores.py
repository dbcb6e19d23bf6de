"""How many commits a store makes in a second, and how long each takes.

`python -m benchmarks.stores [--committers N] [--seconds S] [STORE ...]`: each of many committers asks for a change and
waits until it is durable, then asks for the next. As in a service, what waits goes into one commit ("batched"); for
comparison, one commit for each change, one after the other ("single"). Redis runs on this machine, `appendfsync always`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from narupa_shared.stores.opening import store_of
from narupa_shared.stores.store import Commit, Key, LeaseChanges, Store
from narupa_shared.testing.redis_server import RedisServer

VALUE = '{"id": "6f9619ff", "name": "someone", "role": "participant", "generation": 1, "session": "default", "padding": "%s"}'


class Measured:
    """A store that is written by many, with the time that each waited."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._asked = asyncio.Event()
        self.waits_s: list[float] = []
        self.commits = 0

    async def committer(self, name: int) -> None:
        """Asks, waits, and asks again."""
        while True:
            started = time.perf_counter()
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((name, done))
            self._asked.set()
            await done
            self.waits_s.append(time.perf_counter() - started)

    async def commits_of(self, at_most: int) -> None:
        """Commits what waits, at most so many changes at a time."""
        while True:
            await self._asked.wait()
            batch, self._waiting = self._waiting[:at_most], self._waiting[at_most:]
            if not self._waiting:
                self._asked.clear()
            changes: dict[Key, str | None] = {("users", str(name)): VALUE % ("x" * 100) for name, _ in batch}
            leases = LeaseChanges(hold={f"user/default/{name}": 10.0 for name, _ in batch})
            await self._store.commit(Commit(self.commits + 1, f"commit-{self.commits + 1}", changes, "joined"), leases)
            self.commits += 1
            for _, done in batch:
                if not done.done():
                    done.set_result(None)


async def measure(store: Store, committers: int, at_most: int, seconds: float) -> str:
    await store.open()
    measured = Measured(store)
    tasks = [asyncio.create_task(measured.committer(name)) for name in range(committers)]
    tasks.append(asyncio.create_task(measured.commits_of(at_most)))
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    failures = [
        outcome for outcome in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(outcome, Exception)
    ]
    await store.close()
    if failures:
        raise failures[0]
    waits = statistics.quantiles(measured.waits_s, n=100)
    return (
        f"{len(measured.waits_s) / seconds:8.0f} changes/s {measured.commits / seconds:8.0f} commits/s"
        f"   p50 {waits[49] * 1e3:7.2f} ms   p99 {waits[98] * 1e3:7.2f} ms"
    )


@contextmanager
def url_of(kind: str, folder: Path) -> Iterator[str]:
    if kind == "redis":
        with RedisServer(folder) as server:
            yield server.url
    else:
        yield kind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", default=["memory", "sqlite", "redis"])
    parser.add_argument("--committers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    for kind in options.stores:
        for way, committers, at_most in (("batched", options.committers, options.committers), ("single", 1, 1)):
            with tempfile.TemporaryDirectory() as folder, url_of(kind, Path(folder)) as url:
                store = store_of(url, name="benchmark", state_dir=Path(folder))
                result = uvloop.run(measure(store, committers, at_most, options.seconds))
                print(f"{kind:8s} {way:8s} {committers:4d} committers {result}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
