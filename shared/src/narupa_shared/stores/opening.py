"""The store that a setting names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.stores.log import KEPT_COMMITS
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import Store


def store_of(
    url: str,
    *,
    name: str,
    state_dir: Path,
    clock: Callable[[], float] = time.monotonic,
    kept_commits: int = KEPT_COMMITS,
) -> Store:
    """The store that `url` names, not yet opened.

    Args:
        url: "memory", "sqlite" (`<state_dir>/<name>.sqlite`), "sqlite:PATH", or "redis://..." ("rediss://..." for TLS).
        name: What keeps it, such as "lobby": services that share one Redis keep apart by it.
        state_dir: The folder of a file that `url` does not name.
        clock: Judges leases in stores that are not shared; s.
        kept_commits: How far back a follower may resume.

    Raises:
        InvalidArgumentError: `url` names no store; its text repeats no secret.
    """
    kind, _, rest = url.partition(":")
    if url == "memory":
        return MemoryStore(clock, kept_commits=kept_commits)
    if url == "sqlite":
        return SqliteStore(state_dir / f"{name}.sqlite", clock, kept_commits=kept_commits)
    if kind == "sqlite" and rest:
        return SqliteStore(Path(rest).expanduser(), clock, kept_commits=kept_commits)
    if kind in ("redis", "rediss"):
        from narupa_shared.stores.redis import RedisStore  # takes a quarter of a second to load

        return RedisStore(url, f"narupa:{name}", kept_commits=kept_commits)
    shown = f"{kind[:20]}:..." if rest else url[:20]
    raise InvalidArgumentError("store", shown, "must be memory, sqlite, sqlite:PATH, redis://HOST or rediss://HOST")
