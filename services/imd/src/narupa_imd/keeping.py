"""Keeps what lasts of the shared state in a store, and holds back acknowledgements until it is there.

The state itself changes at once, whatever the store does: who keeps it is one more watcher, which writes what changed since
its last commit, so that all that comes while one commit is made goes into the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from narupa_imd.session import ImdSession
from narupa_imd.state import SERVER, Entry, Writer
from narupa_shared.changed_keys import Place
from narupa_shared.errors import NarupaError, NoLongerKeptError, UnavailableError
from narupa_shared.stores.store import BehindError, Commit, Contents, Store, StoreError

log = structlog.get_logger(__name__)

COLLECTION: Final = "state"
COMMIT_LIMIT_S: Final = 2.0
LAST_COMMIT_LIMIT_S: Final = 2.0
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 2.0
# What is read or written between two turns of the loop, bytes and keys.
BYTES_AT_ONCE: Final = 256 * 1024
KEYS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An update whose caller is not answered before it is kept."""

    revision: int
    keys: Sequence[str]
    kept: asyncio.Future[None]


class Keeping:
    """The state's copy in a store. Without a store nothing outlives the service, and nobody waits.

    Attributes:
        trouble: Why updates of keys that last are refused just now; empty when they are not.
        commits: How many have been made.
    """

    def __init__(
        self,
        session: ImdSession,
        store: Store | None,
        ids: Callable[[], str] = lambda: uuid.uuid4().hex,
        commit_limit_s: float = COMMIT_LIMIT_S,
    ) -> None:
        self._session = session
        self._state = session.state
        self._store = store
        self._ids = ids
        self._commit_limit_s = commit_limit_s
        self.trouble = "what was kept of it is still being read" if store else ""
        self.commits = 0
        self._woken = asyncio.Event()
        self._ending = False
        self._number = 0
        self._own: set[str] = set()  # commits that may or may not have been made
        self._place = Place(0)  # the revision of the state up to which everything is kept
        self._kept: dict[str, Entry] = {}  # what the store holds, as the entries that were written
        self._in_doubt: set[str] = set()  # keys that the store may hold otherwise
        self._awaited: list[_Awaited] = []
        if store:
            self._state.listen(self._woken.set)

    async def update(self, writer: Writer, updates: Mapping[str, Any], removals: Iterable[str] = ()) -> int:
        """As `ImdSession.update`; what lasts of it outlives the service from here on.

        Raises:
            UnavailableError: it cannot be kept. Keys that last are as they were before.
            NarupaError: as `ImdSession.update`.
        """
        revision, kept = self.apply(writer, updates, removals)
        if kept:
            await kept
        return revision

    def apply(
        self, writer: Writer, updates: Mapping[str, Any], removals: Iterable[str] = ()
    ) -> tuple[int, asyncio.Future[None] | None]:
        """As `ImdSession.update`, at once: the revision, and what lasts of it outlives the service once the future is done.
        None where there is nothing to wait for. The future raises as `update`; cancelled, nobody waits any more.

        Raises:
            UnavailableError: it cannot be kept; nothing is done.
            NarupaError: as `ImdSession.update`.
        """
        removals = list(removals)
        lasting = [key for key in (*updates, *removals) if self._state.lasts(key)] if self._store else []
        if lasting and self.trouble:
            raise self._refusal()
        revision = self._session.update(writer, updates, removals)
        if not lasting or revision <= self._place.revision:
            return revision, None
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append(_Awaited(revision, lasting, kept))
        self._woken.set()
        return revision, kept

    def _refusal(self) -> UnavailableError:
        return UnavailableError(f"the shared state cannot be kept just now ({self.trouble}); try again")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What was kept is in the state, and changes are kept while this is open; at the end the last of them are.

        Raises:
            StoreError: the store cannot be opened.
        """
        if self._store is None:
            yield
            return
        try:
            contents = await self._store.open()
            with self._state.watching() as self._place:
                await self._restore(contents)
                tasks = [asyncio.create_task(self._keep(), name="keeping-state")]
                if self._store.shared:
                    tasks.append(asyncio.create_task(self._follow(), name="following-state"))
                try:
                    yield
                finally:
                    self._ending = True
                    self._woken.set()
                    await asyncio.wait(tasks[:1], timeout=LAST_COMMIT_LIMIT_S)
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._store.close()

    # Reading what was kept.

    async def _restore(self, contents: Contents) -> None:
        self._number = contents.number
        size = 0
        for number, ((collection, key), text) in enumerate(sorted(contents.records.items())):
            if collection != COLLECTION:
                continue
            self._take(key, text)
            size += len(text)
            if size > BYTES_AT_ONCE or number % KEYS_AT_ONCE == 0:
                size = 0
                await asyncio.sleep(0)
        self.trouble = ""
        if self._kept:
            log.info("state_restored", keys=len(self._kept))

    def _take(self, key: str, text: str | None) -> None:
        """What a store says of a key is true of the state, if it is fit to be."""
        try:
            if text is None:
                self._state.update(SERVER, {}, [key])
                self._kept.pop(key, None)
                return
            self._session.restore(key, json.loads(text))
        except (NarupaError, ValueError, RecursionError) as error:
            log.warning("key_not_restored", key=key, reason=str(error))
        else:
            entry = self._state.get(key)
            assert entry is not None
            self._kept[key] = entry

    # Keeping.

    async def _keep(self) -> None:
        """Commits what changed, whenever something did, and tries again when it fails; ends once all is kept at the end."""
        retry_s = FIRST_RETRY_S
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self._commit()
            except (NarupaError, TimeoutError, OSError) as error:
                self._give_up(str(error) or f"the store did not answer within {self._commit_limit_s:g} s")
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                self._woken.set()
                continue
            retry_s = FIRST_RETRY_S
            if self.trouble:
                log.info("state_store_back", was=self.trouble)
                self.trouble = ""
            if self._ending and not self._woken.is_set():
                return

    async def _commit(self) -> None:
        assert self._store is not None
        revision, news = self._news()
        if news:
            # Until the store has answered, nobody knows what it holds of these.
            self._in_doubt |= news.keys()
            changes = {(COLLECTION, key): text for key, text in (await self._texts(news)).items()}
            id = self._ids()
            self._own.add(id)
            async with asyncio.timeout(self._commit_limit_s):
                await self._write(id, changes)
            self.commits += 1
            self._own.clear()
            self._in_doubt -= news.keys()
            for key, entry in news.items():
                if entry is None:
                    self._kept.pop(key, None)
                else:
                    self._kept[key] = entry
        self._place.revision = revision
        for awaited in self._awaited:
            if awaited.revision <= revision and not awaited.kept.done():
                awaited.kept.set_result(None)
        self._awaited = [awaited for awaited in self._awaited if awaited.revision > revision]

    def _news(self) -> tuple[int, dict[str, Entry | None]]:
        """The state's revision, and what the store does not hold of it; None is a key that is gone."""
        state = self._state
        try:
            changes = state.changes(self._place.revision)
            removed: Iterable[str] = changes.removed
        except NoLongerKeptError:
            changes = state.changes(None)
            removed = [key for key in self._kept if state.get(key) is None]
        news: dict[str, Entry | None] = {}
        for key, entry in changes.updated:
            if entry.family.lasts and self._kept.get(key) is not entry:
                news[key] = entry
            elif not entry.family.lasts and key in self._kept:
                news[key] = None  # what is shown under it now is somebody's own, or a recording's
        news.update((key, None) for key in removed if key in self._kept)
        for key in self._in_doubt:
            present = state.get(key)
            news[key] = present if present and present.family.lasts else None
        return changes.revision, news

    async def _texts(self, news: Mapping[str, Entry | None]) -> dict[str, str | None]:
        texts: dict[str, str | None] = {}
        size = 0
        for key, entry in news.items():
            texts[key] = None if entry is None else json.dumps(entry.value, separators=(",", ":"))
            size += entry.size if entry else 0
            if size > BYTES_AT_ONCE:
                size = 0
                await asyncio.sleep(0)
        return texts

    async def _write(self, id: str, changes: Mapping[tuple[str, str], str | None]) -> None:
        """The commit is made, after those that others, or attempts of ours of unknown outcome, have made before it."""
        assert self._store is not None
        while True:
            commit = Commit(self._number + 1, id, changes)
            try:
                await self._store.commit(commit)
            except BehindError:
                missed = self._store.since(self._number)
                async with contextlib.aclosing(missed):  # type: ignore[type-var]  # stores give generators
                    self._take_in(await anext(missed))
            else:
                self._number = max(self._number, commit.number)
                return

    async def _follow(self) -> None:
        """Takes in what another imd service of this session writes into the same store, as when one replaces the other."""
        assert self._store is not None
        while True:
            try:
                async for commit in self._store.since(self._number):
                    self._take_in(commit)
            except (StoreError, NoLongerKeptError, OSError) as error:
                log.debug("state_not_followed", reason=str(error))
            await asyncio.sleep(LONGEST_RETRY_S)

    def _take_in(self, commit: Commit) -> None:
        if commit.number <= self._number:
            return
        self._number = commit.number
        if commit.id in self._own:
            return
        for (collection, key), text in commit.changes.items():
            # A change of ours that is not kept yet comes after theirs.
            if collection == COLLECTION and self._state.get(key) is self._kept.get(key):
                self._take(key, text)

    # A store in trouble.

    def _give_up(self, reason: str) -> None:
        """Whoever waits is refused, and what they changed is as it was; new updates of keys that last are refused."""
        if not self.trouble:
            log.warning("state_store_trouble", reason=reason, refused=len(self._awaited))
        self.trouble = reason
        awaited, self._awaited = self._awaited, []
        # A key that somebody else has changed since stays so.
        undone = {key for update in awaited for key in update.keys if self._state.changed_at(key) == update.revision}
        before = {key: self._kept[key].value for key in undone if key in self._kept}
        self._state.update(SERVER, before, undone - before.keys())
        for update in awaited:
            if not update.kept.done():
                update.kept.set_exception(self._refusal())
