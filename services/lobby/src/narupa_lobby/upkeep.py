"""What the lobby does by itself: it renews, sweeps, forgets, ends idle sessions and rotates keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from narupa_lobby import metrics, registry, sessions, users
from narupa_lobby.join_codes import new_join_code
from narupa_lobby.leadership import leader_lease
from narupa_lobby.log_writer import LogWriter
from narupa_lobby.presence import BEAT_S, Presence
from narupa_lobby.records import Departed, Invite, Listed, Revocation, Session, User
from narupa_lobby.renewals import Renewals
from narupa_lobby.rules import Rules
from narupa_lobby.signing_keys import Changes, KeyRing
from narupa_lobby.state import Draft, State
from narupa_lobby.tokens import Tokens
from narupa_shared.errors import UnavailableError
from narupa_shared.stores.store import LeaseHeldError, Store, StoreError, StoreReplacedError

log = structlog.get_logger(__name__)

SWEEP_INTERVAL_S: Final = 0.1
TIDY_INTERVAL_S: Final = 10.0
# A service that ran while the lobby was away has so much longer than a lease to find it again: its longest back-off.
RETURN_S: Final = 2.0


class Upkeep:
    """The lobby's own tasks, on its clocks."""

    def __init__(
        self,
        rules: Rules,
        store: Store,
        writer: LogWriter,
        presence: Presence,
        tokens: Tokens,
        renewals: Renewals,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._rules = rules
        self._store = store
        self._writer = writer
        self._presence = presence
        self._tokens = tokens
        self._renewals = renewals
        self._clock = clock
        self._wall_clock = wall_clock
        self._sweeping = asyncio.Lock()
        self._tidied_at = clock()

    async def run(self) -> None:
        """All of it, for ever; a store in trouble is waited for, and StoreReplacedError raised."""
        tasks = [
            asyncio.create_task(self._beat(), name="lobby presence"),
            asyncio.create_task(self._flush(), name="lobby presence changes"),
            asyncio.create_task(self._sweep(), name="lobby sweep"),
        ]
        try:
            await asyncio.gather(*tasks)  # not a group, which would wrap what is raised
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Whoever has not shown life in time is gone, and so is what nobody needs any more."""
        async with self._sweeping:
            await self._hold_missing(await self._presence.renew_due())
            lapsed = [lease for lease in await self._store.lapsed() if not self._kept(lease)]
            if lapsed:
                await self._drop(lapsed)
            await self._end_idle()
            if self._clock() - self._tidied_at >= TIDY_INTERVAL_S:
                self._tidied_at = self._clock()
                await self._writer.submit(lambda draft: tidy(draft, self._wall_clock()))
                leases = {each.lease for each in self._services()}
                self._tokens.forget_services_but(leases)
                self._renewals.forget_but(leases)
            await self._rotate()

    def _services(self) -> Sequence[Listed]:
        return list(self._writer.state.collection("services").values())

    def _kept(self, lease: str) -> bool:
        """Whether a user watches here, whose lease a stall of this process may have let lapse."""
        if watched := self._presence.watched(lease):
            self._presence.show(lease, 0.0)
        return watched

    async def _drop(self, leases: list[str]) -> None:
        def operation(draft: Draft) -> list[tuple[str, User | Listed]]:
            return drop(draft, self._rules, self._wall_clock(), [each for each in leases if not self._kept(each)])

        try:
            gone = await self._writer.submit(operation, alone=True)
        except LeaseHeldError:
            return  # somebody was renewed at another lobby just now; the next sweep sees
        for lease, each in gone:
            if isinstance(each, User):
                metrics.LEAVES.labels("vanished").inc()
                log.info("user_left", session=each.session_id, user=each.id, name=each.name, reason="vanished")
            else:
                metrics.LEASES_LAPSED.inc()
                log.info("service_lapsed", session=each.session_id, service=each.service.id, lease=lease)

    async def _end_idle(self) -> None:
        now, state, rules = self._wall_clock(), self._writer.state, self._rules
        for id in [session.id for session in state.sessions() if idle(state, rules, now, session)]:
            if await self._writer.submit(lambda draft, id=id: end_if_idle(draft, rules, now, id)):  # type: ignore[misc]
                log.info("session_ended", session=id, reason="idle")

    async def _rotate(self) -> None:
        due = self._tokens.ring.due()
        if due.put or due.delete:
            await self._writer.submit(
                lambda draft: change_keys(draft, _ring(draft, self._rules, self._wall_clock).due())
            )

    async def _hold_missing(self, leases: frozenset[str]) -> None:
        """Leases that the store has lost begin anew, for users who are here."""

        def operation(draft: Draft) -> None:
            for lease in leases:
                if draft.state.get(("users", lease.partition("/")[2])):
                    draft.hold_lease(lease, self._rules.user_lease_s)

        if leases:
            await self._writer.submit(operation)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._hold_missing(await self._presence.renew_watched())
            except (StoreError, UnavailableError) as error:
                trouble(error)

    async def _flush(self) -> None:
        while True:
            await self._presence.changed()
            try:
                await self._hold_missing(await self._presence.renew_due())
            except (StoreError, UnavailableError) as error:
                trouble(error)
                await asyncio.sleep(BEAT_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self.sweep()
            except (StoreError, UnavailableError) as error:
                trouble(error)
                await asyncio.sleep(BEAT_S)


def trouble(error: Exception) -> None:
    """The store did not answer: counted, and said by the writer when it notices, too.

    Raises:
        StoreReplacedError: it answered that it is not the same any more, which no waiting will mend.
    """
    if isinstance(error, StoreReplacedError):
        raise error
    metrics.STORE_TROUBLE.inc()
    log.debug("store_trouble", reason=str(error))


def drop(draft: Draft, rules: Rules, now: float, leases: list[str]) -> list[tuple[str, User | Listed]]:
    """Whose leases these are is gone, provided that they have lapsed; returns who and what."""
    gone: list[tuple[str, User | Listed]] = []
    for lease in leases:
        kind, _, key = lease.partition("/")
        record = draft.state.get(({"user": "users", "service": "services"}.get(kind, kind), key))
        draft.only_if_lapsed.add(lease)
        if isinstance(record, User):
            users.vanish(draft, rules, now, record)
        elif isinstance(record, Listed):
            registry.unlease(draft, record, "it stopped renewing its lease")
        else:
            continue
        gone.append((lease, record))
    return gone


def tidy(draft: Draft, now: float) -> None:
    """What has served its time is forgotten: departed users, revocations, invites."""
    for collection in ("departed", "revocations", "invites"):
        for key, record in list(draft.state.collection(collection).items()):
            assert isinstance(record, Departed | Revocation | Invite)
            until = record.expires_at if isinstance(record, Invite) else record.until
            if until <= now:
                draft.put(collection, key, None)


def idle(state: State, rules: Rules, now: float, session: Session) -> bool:
    """Whether nobody was in the session for so long that it ends; `now` in s since the Unix epoch."""
    since = state.empty_since(session.id)
    lasting = not session.idle_timeout_s or session.id == rules.session_id
    return not lasting and since is not None and now - since >= session.idle_timeout_s


def end_if_idle(draft: Draft, rules: Rules, now: float, session_id: str) -> bool:
    """The session has ended, unless somebody has come, or ended it, meanwhile; returns whether it has."""
    session = draft.state.session(session_id)
    if session is None or not idle(draft.state, rules, now, session):
        return False
    sessions.end_session(draft, rules, session_id, "idle")
    return True


def prepare(
    draft: Draft,
    rules: Rules,
    wall_clock: Callable[[], float],
    join_code: str,
    leases: frozenset[str],
    *,
    shared: bool,
) -> None:
    """What every lobby must have is there: a key, the session that is always there, and a lease for everyone and everything.

    Args:
        draft: Of the operation.
        rules: The lobby's.
        wall_clock: s since the Unix epoch.
        join_code: Of that session; empty leaves what it has.
        leases: That the store holds.
        shared: Whether other lobbies run, at which users and services may be.
    """
    change_keys(draft, _ring(draft, rules, wall_clock).due())
    before = draft.state.session(rules.session_id)
    wanted = Session(
        id=rules.session_id, name=rules.session_id, max_users=rules.max_users, max_services=rules.max_services,
        join_code=join_code or (before.join_code if before else new_join_code()), idle_timeout_s=0.0,
        created_at=before.created_at if before else wall_clock(),
        guest_role=before.guest_role if before else None,
    )  # fmt: skip
    if before is None:
        draft.put("sessions", wanted.id, wanted)
    elif wanted != before:
        sessions.change_session(draft, wanted, rules)
    away_s = 0.0 if shared else RETURN_S
    for collection, kind, seconds in (
        ("users", "user", rules.user_lease_s),
        ("services", "service", rules.service_lease_s + away_s),
    ):
        for key, record in draft.state.collection(collection).items():
            if f"{kind}/{key}" not in leases and (isinstance(record, User) or record.lease):
                draft.hold_lease(f"{kind}/{key}", seconds)
    if not shared:  # whoever led while the lobby was away has time to say so; leases of a shared store have gone on
        for leader in draft.state.collection("leaders").values():
            if leader.lease and leader_lease(leader) not in leases:
                draft.hold_lease(leader_lease(leader), rules.leader_lease_s + away_s)


def rotate_keys(draft: Draft, rules: Rules, wall_clock: Callable[[], float], revoke: bool) -> None:
    """There is a new signing key; with `revoke`, it is the only one, and everybody's tokens are void."""
    change_keys(draft, _ring(draft, rules, wall_clock).rotation(revoke))
    if revoke:
        for session in draft.state.sessions():
            for user in draft.state.users(session.id):
                users.void_tokens(draft, rules, wall_clock(), user)


def change_keys(draft: Draft, changes: Changes) -> None:
    """The signing keys are as `changes` says."""
    for key_id in changes.delete:
        draft.put("keys", key_id, None)
    for record in changes.put:
        draft.put("keys", record.key_id, record)


def _ring(draft: Draft, rules: Rules, wall_clock: Callable[[], float]) -> KeyRing:
    return KeyRing(
        draft.state.keys(), wall_clock, rules.token_ttl_s, rules.key_rotation_s, settle_s=rules.service_lease_s
    )
