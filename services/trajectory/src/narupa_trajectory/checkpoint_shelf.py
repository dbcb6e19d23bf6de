"""Where checkpoints lie: a folder, or an object store that fsspec speaks to. Each is a set of named bytes, whole or not there.

Everything here blocks, and belongs on a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from narupa_shared.errors import InvalidArgumentError

FIELD: Final = "checkpoint_dir"
# Left behind by writers that were killed while they wrote.
STALE_S: Final = 600.0
# What stores say of a refusal may repeat a key or a signature.
_SECRETIVE: Final = re.compile(r"\?\S*|[A-Za-z0-9+/=]{20,}")
# What these say of each request, when asked for debugging, has keys and tokens in it.
_TALKATIVE: Final = ("fsspec", "s3fs", "botocore", "aiobotocore", "aiohttp", "urllib3")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*(?=://)", re.IGNORECASE)


class Shelf(Protocol):
    """Named bytes. Names are made by us, of letters, digits, dashes and dots. Every method raises OSError where it fails."""

    def sizes(self) -> dict[str, int]:
        """What is there, and how many bytes it has; nothing where there is no place yet."""
        ...

    def read(self, name: str) -> bytes:
        """All of it. Raises: FileNotFoundError as well."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """It is there, whole, and stays when the machine loses power; or it is not there."""
        ...

    def remove(self, name: str) -> None:
        """It is not there."""
        ...


def shelf_at(place: str, session_id: str, group: str, limit_s: float) -> Shelf:
    """The shelf of one group of replicas. Nothing is asked of it yet.

    Args:
        place: A folder, or the URL of one (`file:///...`), or of a place in a store that fsspec knows (`s3://BUCKET/PREFIX`).
        session_id: Of the session.
        group: Of the replicas.
        limit_s: How long a store may take to answer, s.

    Raises:
        InvalidArgumentError: there is no such kind of store, or the URL says more than where it is.
    """
    within = (f"session-{quote(session_id, safe='')}", f"group-{quote(group, safe='')}")
    if "://" not in place:
        return FolderShelf(Path(place).joinpath(*within))
    found, url = _SCHEME.match(place), urlsplit(place)
    if found is None or "@" in url.netloc or url.query or url.fragment or "::" in place:
        # Not shown: what is too much may be a password.
        shown = f"{found[0]}://..." if found else "...://..."
        raise InvalidArgumentError(
            FIELD, shown, "may say a place only; name who asks, and how, in the environment of the service"
        )
    if found[0].lower() == "file":
        if url.netloc not in ("", "localhost"):
            raise InvalidArgumentError(
                FIELD, place, "is on another machine; a folder needs three slashes: file:///PATH"
            )
        return FolderShelf(Path(unquote(url.path)).joinpath(*within))
    return ObjectShelf(place, within, limit_s)


class FolderShelf:
    """A folder, on a disk of this machine or one that several share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for each in self.path.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found[each.name] = each.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        aside = self.path / f".{name}.{secrets.token_hex(4)}.part"
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / name)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for part in self.path.glob(".*.part"):
                if time.time() - part.stat().st_mtime > STALE_S:
                    part.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


class ObjectShelf:
    """Objects under a prefix of a store. A store makes an object visible once all of it is there."""

    def __init__(self, url: str, within: tuple[str, ...], limit_s: float) -> None:
        """Nothing is asked of the store yet. Raises: InvalidArgumentError when nothing here speaks to such a store."""
        # Only here: a folder needs none of it.
        from fsspec.core import url_to_fs

        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.WARNING)
        # Other replicas write there as well, so nothing that was seen is remembered.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if url.lower().startswith("s3:"):
            options["config_kwargs"] = {"connect_timeout": limit_s, "read_timeout": limit_s}
        try:
            self._store, root = url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise InvalidArgumentError(FIELD, url, f"is in no store that can be used here ({error})") from None
        self._root = "/".join((root.rstrip("/"), *within))
        self._limit_s = limit_s

    def sizes(self) -> dict[str, int]:
        try:
            found = self._asked("ls", self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(each["name"]).rpartition("/")[2]: int(each["size"] or 0) for each in found if each["type"] == "file"
        }

    def read(self, name: str) -> bytes:
        return bytes(self._asked("cat_file", f"{self._root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        self._asked("pipe_file", f"{self._root}/{name}", data)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._asked("rm_file", f"{self._root}/{name}")

    def _asked(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What the store answers. Raises: OSError, which repeats no secret, for whatever it has against it."""
        try:
            if not self._store.async_impl:
                return getattr(self._store, method)(*arguments, **options)
            from fsspec.asyn import sync

            asked = getattr(self._store, f"_{method}")
            return sync(self._store.loop, asked, *arguments, timeout=self._limit_s, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError(_said(error)) from None
        except TimeoutError:
            raise TimeoutError(f"the store did not answer within {self._limit_s:g} s") from None
        except Exception as error:  # stores have errors of their own
            raise OSError(_said(error)) from None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {_SECRETIVE.sub('...', str(error))[:300]}"
