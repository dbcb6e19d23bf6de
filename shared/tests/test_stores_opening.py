"""Which store a setting means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.stores.memory import MemoryStore
from narupa_shared.stores.opening import store_of
from narupa_shared.stores.redis import RedisStore
from narupa_shared.stores.sqlite import SqliteStore
from narupa_shared.stores.store import StoreError


def test_the_setting_says_where_things_are_kept(tmp_path: Path) -> None:
    assert isinstance(store_of("memory", name="lobby", state_dir=tmp_path), MemoryStore)
    assert isinstance(store_of("redis://127.0.0.1:1/0", name="lobby", state_dir=tmp_path), RedisStore)
    assert isinstance(store_of("rediss://user:secret@example.org", name="lobby", state_dir=tmp_path), RedisStore)
    assert isinstance(store_of("sqlite", name="lobby", state_dir=tmp_path), SqliteStore)


@pytest.mark.parametrize(("url", "file"), [("sqlite", "lobby.sqlite"), ("sqlite:{}/other.db", "other.db")])
async def test_a_file_is_made_where_the_setting_says(tmp_path: Path, url: str, file: str) -> None:
    store = store_of(url.format(tmp_path), name="lobby", state_dir=tmp_path)
    await store.open()
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:",
        "disk",
        "postgres://user:hunter2@host",
        "redis:hunter2",
        "redis://",
        "redis://user:hunter2@host:port",
        "redis://user:hun#ter2@host",
        "redis://user:hunter2@host:99999999",
        "redis://host?socket_timeout=hunter2",
        "hunter2",
    ],
)
def test_anything_else_is_refused_without_repeating_secrets(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be .*redis://") as caught:
        store_of(url, name="lobby", state_dir=tmp_path)
    assert "hunter2" not in str(caught.value) or url == "hunter2"
    assert "ter2@" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_a_redis_that_is_away_is_named_without_its_secrets(tmp_path: Path) -> None:
    store = RedisStore("redis://someone:hunter2@127.0.0.1:1/3?client_name=x")
    with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1/3 cannot be used") as caught:
        await store.open()
    assert "hunter2" not in str(caught.value) and caught.value.__suppress_context__


def test_redis_is_loaded_only_for_those_who_use_it() -> None:
    code = "import sys, narupa_shared.stores.opening; assert 'redis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
