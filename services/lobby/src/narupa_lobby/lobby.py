"""The owner of all that the lobby knows: it takes what is asked of it to the store, and tells what is committed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, TypeVar

import structlog
from pydantic import SecretStr

from narupa_lobby import guests, invites, leadership, metrics, registry, sessions, upkeep, users
from narupa_lobby.admission import Door, Wish
from narupa_lobby.attempts import Attempts
from narupa_lobby.history import History, SessionWatch
from narupa_lobby.join_codes import digest, new_join_code, new_secret
from narupa_lobby.log_writer import LogWriter, Operation
from narupa_lobby.presence import Holding, Presence
from narupa_lobby.records import Event, GuestRole, Invite, Listed, Session, SessionView, User, UserRole
from narupa_lobby.registry import Report
from narupa_lobby.renewals import Renewals
from narupa_lobby.rules import Rules
from narupa_lobby.services import Service, check_service
from narupa_lobby.sessions import Spec
from narupa_lobby.state import Draft, State
from narupa_lobby.tokens import Grant, Tokens
from narupa_lobby.upkeep import Upkeep
from narupa_lobby.users import Arrival, GoneError, user_lease
from narupa_shared.auth import Identity
from narupa_shared.errors import NarupaError, NoLongerKeptError, NotFoundError, UnauthenticatedError, UnavailableError
from narupa_shared.stores.store import Contents, Key, LeaseHeldError, Store, StoreError

log = structlog.get_logger(__name__)

OPEN_RETRY_S: Final = 0.5
# A lease that stands for nothing, see `Lobby.caught_up`.
PROBE: Final = "probe"
PROBE_S: Final = 60.0
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Joined:
    """A user who is in, and the revision that they joined at or later."""

    user: User
    grant: Grant
    services: tuple[Service, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A service's hold on its place. `id` is a secret: whoever knows it may renew or end the lease."""

    id: str
    listed: Listed
    grant: Grant


@dataclass(frozen=True, slots=True)
class Leadership:
    """What a service of a group has to know of its leader.

    Attributes:
        epoch: In which the service itself leads; 0 when it does not.
        standbys: How many others could take over.
        leader_id: Of the service that leads, or led last; empty before the first.
        leader_epoch: And its epoch.
    """

    epoch: int
    standbys: int
    leader_id: str = ""
    leader_epoch: int = 0


class Lobby:
    """Reads answer at once from what is committed; whatever changes something returns once that is durable."""

    def __init__(
        self,
        rules: Rules,
        store: Store,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        new_id: Callable[[], str],
        attempts: Attempts | None = None,
        join_code: str = "",
        service_key: SecretStr | None = None,
        operator_key: SecretStr | None = None,
    ) -> None:
        """A lobby that does not run yet.

        Args:
            rules: How much it takes.
            store: Keeps its records; opened and closed by `running`.
            clock: Monotonic, s.
            wall_clock: s since the Unix epoch; tokens and invites expire, and idle sessions end, by it.
            new_id: Ids that cannot be guessed.
            attempts: Limits what one address may try.
            join_code: Of the session that is always there; one is made when it is empty.
            service_key: With which services register while the lobby is closed.
            operator_key: With which the operator calls.
        """
        self.rules = rules
        self.tokens = Tokens(rules, wall_clock)
        self._store = store
        self._wall_clock = wall_clock
        self._new_id = new_id
        self._join_code = join_code
        self._writer = LogWriter(store, self._took_in, new_id)
        self._presence = Presence(store, rules.rejoin_grace_s)
        self._history = History(rules)
        self.renewals = Renewals(clock)
        self._upkeep = Upkeep(rules, store, self._writer, self._presence, self.tokens, self.renewals, clock, wall_clock)
        self.door = Door(
            rules, self.state, self.tokens, attempts or Attempts(clock), wall_clock, self.caught_up,
            service_key, operator_key,
        )  # fmt: skip
        self._changed = asyncio.Event()
        self._ready = False
        self._draining = False
        self._lost: Exception | None = None
        self._probing = asyncio.Lock()
        self._probes = self._answered = 0

    @property
    def state(self) -> State:
        """What is committed."""
        return self._writer.state

    @property
    def ready(self) -> bool:
        """Whether the store has been read."""
        return self._ready

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The store is open, and what is asked is done, while this is open; to be left once `until_lost` raises.

        Raises:
            StoreError: the store cannot be opened, and is not one that others may be serving soon; or see `until_lost`.
            NoLongerKeptError: see `until_lost`.
        """
        contents = await self._opened()
        self._history.load(contents.epoch, self._writer.load(contents), self.state)
        self.tokens.use(self.state.keys())
        tasks = [self._task(self._writer.write, "lobby writer")]
        try:
            if self._store.shared:
                tasks.append(self._task(self._writer.follow, "lobby follower"))
            await self._prepare(contents)
            self._ready = True
            tasks.append(self._task(self._upkeep.run, "lobby upkeep"))
            yield
            with contextlib.suppress(StoreError):
                await self._presence.renew_due()
            if self._lost:
                raise self._lost
        finally:
            self._ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._store.close()

    @property
    def lost(self) -> bool:
        """Whether what is read here may be wrong for ever: the store has gone on without this lobby."""
        return self._lost is not None

    async def until_lost(self) -> NoReturn:
        """Raises once the lobby cannot go on and must be started anew.

        Raises:
            NoLongerKeptError: other lobbies have committed more than the store's log keeps since this one last heard of it.
            StoreReplacedError: the store was emptied or replaced.
            StoreError: what is in the store is none of this version's.
        """
        while not self._lost:
            await self._changed.wait()
        raise self._lost

    def _task(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        async def kept_up() -> None:
            try:
                await work()
            except Exception as error:
                self._lose(error)

        return asyncio.create_task(kept_up(), name=name)

    def _lose(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
            log.error("lobby_lost", reason=str(error) if isinstance(error, NarupaError) else repr(error))
            self._writer.give_up("the lobby has lost its store and starts anew; try again in a few seconds")
            self._tell_changed()

    async def sweep(self) -> None:
        """Whoever and whatever has not shown life in time is gone. Happens by itself a few times per second."""
        await self._upkeep.sweep()

    def drain(self) -> None:
        """Every watch ends, and nobody can come in."""
        self._draining = True
        self._history.end(UnavailableError("the lobby is stopping; try again once it is back"))

    async def fresh(self, read: Callable[[], Result]) -> Result:
        """What `read` returns: if it finds nothing, then again with all that other lobbies have committed by now."""
        try:
            return read()
        except (NotFoundError, NoLongerKeptError):
            if not self._store.shared:
                raise
        await self.caught_up()
        return read()

    async def caught_up(self) -> None:
        """All that other lobbies had committed when this was called is here. One question serves all who ask meanwhile.

        Raises:
            UnavailableError: the store is away.
        """
        begun = self._probes
        if not self._store.shared:
            return
        async with self._probing:
            if self._answered > begun:
                return
            self._probes = number = self._probes + 1
            # The store refuses this to whoever is behind; to others because of the lease, so that it is rarely written.
            with contextlib.suppress(LeaseHeldError):
                await self._writer.submit(lambda draft: draft.hold_anew(PROBE, PROBE_S), alone=True)
            self._answered = number

    async def _surely(self, operation: Operation[Result]) -> Result:
        """What `operation` returns: if it finds nothing to change, then again with all that other lobbies have committed."""
        changed = False

        def noted(draft: Draft) -> Result:
            nonlocal changed
            result = operation(draft)
            changed = bool(draft)
            return result

        try:
            result = await self._writer.submit(noted)
            if changed or not self._store.shared:
                return result
        except NotFoundError:
            if not self._store.shared:
                raise
        await self.caught_up()
        return await self._writer.submit(operation)

    def session(self, session_id: str) -> Session:
        """The session of this id; the one that is always there when it is empty. NotFoundError when there is none."""
        self._refuse_unless_ready()
        return sessions.session_of(self.state, session_id or self.rules.session_id)

    def view(self, session: Session) -> SessionView:
        """What everybody in the session may know of it."""
        return sessions.view(self.state, session, self.rules)

    def seconds_left(self, grant: Grant) -> float:
        """How long the token is still good for, s."""
        return max(0.0, grant.expires_at - self._wall_clock())

    async def join(self, wish: Wish) -> Joined:
        """Whoever wishes it is in a session: as somebody new, as who they were, or as the same request made them.

        Raises:
            NotFoundError, InvalidArgumentError, PermissionDeniedError, QuotaError: see `Door.admit` and `users.add_user`.
            UnavailableError: the lobby is stopping, or its store is away.
        """
        self._refuse_unless_serving()
        try:
            try:
                user, new = await self._let_in(await self.door.admit(wish))
            except GoneError:  # the user left meanwhile, at another lobby: now that is known here
                user, new = await self._let_in(await self.door.admit(wish))
        except NarupaError as error:
            metrics.REFUSALS.labels("join", type(error).__name__).inc()
            raise
        metrics.JOINS.labels(("returned" if user.generation > 1 else "new") if new else "again").inc()
        log.info("user_joined", session=user.session_id, user=user.id, name=user.name, role=user.role, new=new)
        return self._joined(user)

    async def _let_in(self, arrival: Arrival) -> tuple[User, bool]:
        return await self._writer.submit(lambda draft: self._arrive(draft, arrival))

    def _arrive(self, draft: Draft, arrival: Arrival) -> tuple[User, bool]:
        user = users.add_user(draft, self.rules, self._wall_clock(), arrival, self._new_id)
        return user, bool(draft.events)

    def _joined(self, user: User) -> Joined:
        services = tuple(self.state.services(user.session_id))
        return Joined(user, self.tokens.for_user(user), services, self._history.revision(user.session_id))

    async def leave(self, identity: Identity) -> None:
        """The user is gone. Idempotent."""

        def operation(draft: Draft) -> bool:
            if user := draft.state.user(identity.session_id, identity.user_id):
                users.remove_user(draft, self.rules, self._wall_clock(), user, "left")
            return user is not None

        if await self._surely(operation):
            self._tell_left(identity.session_id, identity.user_id, "left")

    def renew_token(self, identity: Identity) -> tuple[Grant, UserRole]:
        """A new token for a user who is still here, or NotFoundError."""
        user = self._user(identity)
        self._presence.show(user_lease(user.session_id, user.id), self.rules.user_lease_s)
        return self.tokens.for_user(user), user.role

    async def kick(self, session_id: str, user_id: str, reason: str) -> None:
        """The user is gone and cannot come back as the same; errors as for `users.kick`."""
        await self._surely(lambda draft: users.kick(draft, self.rules, self._wall_clock(), session_id, user_id, reason))
        self._tell_left(session_id, user_id, "kicked")

    async def set_role(self, session_id: str, user_id: str, role: UserRole) -> User:
        """The user has this role; errors as for `users.set_role`."""
        return await self._surely(
            lambda draft: users.set_role(draft, self.rules, self._wall_clock(), session_id, user_id, role)
        )

    async def set_guest_role(self, session_id: str, role: GuestRole | None) -> Session:
        """Guests come in as this from now on; None leaves it to gateways. NotFoundError: no such session."""
        session = await self._surely(lambda draft: guests.set_guest_role(draft, self.rules, session_id, role))
        log.info("guest_role_set", session=session_id, role=role)
        return session

    async def create_session(
        self, spec: Spec, template: str, host_name: str, request_id: str
    ) -> tuple[Session, Joined | None]:
        """A new session, or the one that the same request made; with a host's name, they are in it.

        Raises:
            InvalidArgumentError: a field of `spec`, the name, or the request id.
            QuotaError: the lobby takes no more sessions.
        """
        self._refuse_unless_serving()
        sessions.check_spec(spec, self.rules)
        users.checked_request_id(request_id)
        host_name = users.checked_name("host_name", host_name) if host_name else ""
        fallback = f"{host_name}'s session"[: users.MAX_NAME] if host_name else "session"
        name = users.checked_name("spec.name", spec.name or fallback)
        hashed = await self.door.passwords.hash(spec.password) if spec.password else ""
        session = Session(
            id=self._new_id(), name=name, join_code=spec.join_code or new_join_code(),
            max_users=spec.max_users or self.rules.max_users,
            max_services=spec.max_services or self.rules.max_services,
            idle_timeout_s=self.rules.idle_timeout_s if spec.idle_timeout_s is None else spec.idle_timeout_s,
            created_at=self._wall_clock(), join_role=spec.join_role, password_hash=hashed, template=template,
            request_id=request_id, guest_role=spec.guest_role,
        )  # fmt: skip

        def operation(draft: Draft) -> tuple[Session, User | None]:
            made = draft.state.named(("made", request_id)) if request_id else None
            if not isinstance(made, Session):
                made = sessions.add_session(draft, session, self.rules.max_sessions)
            arrival = Arrival(made.id, "host", host_name, request_id)
            return made, self._arrive(draft, arrival)[0] if host_name else None

        made, host = await self._writer.submit(operation)
        log.info("session_made", session=made.id, name=made.name, template=template, again=made.id != session.id)
        return made, self._joined(host) if host else None

    async def end_session(self, session_id: str, reason: str) -> None:
        """Everybody has left the session, and it is gone. Idempotent; FailedPreconditionError for the one always there."""
        await self._writer.submit(lambda draft: sessions.end_session(draft, self.rules, session_id, reason))
        log.info("session_ended", session=session_id, reason=reason)

    async def create_invite(
        self, session_id: str, role: UserRole | None, expires_in_s: float, uses: int, made_by: str
    ) -> tuple[Invite, str]:
        """A new invite and its secret; InvalidArgumentError for a time or number, QuotaError when there are too many."""
        secret = new_secret()
        expires_at = self._wall_clock() + invites.checked_life(expires_in_s)
        role = role or self.session(session_id).join_role or self.rules.join_role
        invite = Invite(
            session_id, self._new_id(), digest(secret), role, expires_at, invites.checked_uses(uses), made_by
        )
        return await self._writer.submit(lambda draft: invites.add_invite(draft, invite)), secret

    def list_invites(self, session_id: str) -> list[Invite]:
        """The invites that still work."""
        now = self._wall_clock()
        return [each for each in self.state.invites(session_id) if each.uses_left and each.expires_at > now]

    async def revoke_invite(self, session_id: str, invite_id: str) -> None:
        """The invite lets nobody in any more. Idempotent."""
        await self._surely(lambda draft: draft.put_in(session_id, "invites", invite_id, None))

    async def register(self, session_id: str, service_key: str, service: Service, address: str) -> Lease:
        """`service` is listed for `service_lease_s`; an earlier lease of the same service id ends.

        Raises:
            PermissionDeniedError: the lobby is closed and the service key is not right.
            NotFoundError: no such session.
            InvalidArgumentError: a field of `service` is malformed or out of range.
            QuotaError: the session takes no more services, or too many wrong keys came from this address.
        """
        self._refuse_unless_serving()
        try:
            self.door.admit_service(service_key, address)
            check_service(service)
            session = await self.fresh(lambda: self.session(session_id))
            service = replace(service, id=service.id or self._new_id())
            lease_id = new_secret()
            lease_s = self.rules.service_lease_s
            listed = await self._writer.submit(
                lambda draft: registry.register(draft, session.id, service, digest(lease_id), lease_s)
            )
        except NarupaError as error:
            metrics.REFUSALS.labels("register", type(error).__name__).inc()
            raise
        self.renewals.note(listed.lease)
        log.info("service_registered", session=session.id, service=service.id, kind=service.kind)
        return self._lease(lease_id, listed)

    async def renew_lease(self, lease_id: str, report: Report) -> Lease:
        """The lease runs anew, and the service is listed as it reports.

        Raises:
            NotFoundError: the lease has lapsed or ended.
            InvalidArgumentError: a field of `report` is out of range. The lease is not renewed.
        """
        self._refuse_unless_ready()
        report.check()
        secret, lease_s = digest(lease_id), self.rules.service_lease_s
        listed = await self.fresh(lambda: registry.leased(self.state, secret))
        name = registry.service_lease(listed.session_id, listed.service.id)
        same = report.told(listed.service) == listed.service and not listed.drain
        if not same or await self._store_renew({name: lease_s}):
            before = listed.service.status
            listed = await self._writer.submit(lambda draft: registry.renew(draft, secret, report, lease_s))
            if listed.service.status is not before:
                log.info(
                    "service_status", session=listed.session_id, service=listed.service.id,
                    status=listed.service.status.name.lower(), reason=listed.service.reason,
                )  # fmt: skip
        self.renewals.note(secret)
        return self._lease(lease_id, listed)

    async def lead(self, lease_id: str, seen_epoch: int) -> Leadership:
        """The service leads its group for `leader_lease_s`, as it did or in a new epoch, unless somebody else does.

        Args:
            lease_id: The service's own.
            seen_epoch: The highest that the service has heard of.

        Raises:
            NotFoundError: the lease has lapsed or ended.
            FailedPreconditionError: the service is in no group.
            InvalidArgumentError: `seen_epoch` is out of range.
        """
        self._refuse_unless_ready()  # also while it stops: whoever leads is to go on
        leadership.checked_epoch(seen_epoch)
        secret, lease_s = digest(lease_id), self.rules.leader_lease_s
        listed = await self.fresh(lambda: registry.leased(self.state, secret))
        group = leadership.group_of(listed)
        held = leadership.leads(self.state, listed)
        if held and not await self._store_renew({leadership.leader_lease(held): lease_s}):
            leader, leads = held, True
        else:
            leads = False
            with contextlib.suppress(LeaseHeldError):
                leader = await self._writer.submit(
                    lambda draft: leadership.take_lead(
                        draft, registry.leased(draft.state, secret), seen_epoch, lease_s
                    ),
                    alone=True,
                )
                leads = True
                log.info("leader_chosen", session=leader.session_id, group=group, service=leader.service_id,
                         epoch=leader.epoch)  # fmt: skip
        last = leader if leads else self.state.leader(listed.session_id, group)
        return Leadership(
            last.epoch if leads and last else 0,
            leadership.standbys(self.state, listed),
            last.service_id if last else "",
            last.epoch if last else 0,
        )

    async def resign(self, lease_id: str) -> None:
        """The service does not lead its group. Idempotent; NotFoundError when its lease has ended."""
        self._refuse_unless_ready()
        secret = digest(lease_id)
        await self._surely(lambda draft: leadership.resign(draft, registry.leased(draft.state, secret)))

    async def deregister(self, lease_id: str) -> None:
        """The lease has ended and its service is not listed. Idempotent."""
        self._refuse_unless_ready()

        def operation(draft: Draft) -> Listed | None:
            listed = draft.state.named(("lease", digest(lease_id)))
            if isinstance(listed, Listed):
                leadership.resign(draft, listed)
                registry.unlease(draft, listed, "it left")
                return listed
            return None

        if left := await self._surely(operation):
            log.info("service_deregistered", session=left.session_id, service=left.service.id, kind=left.service.kind)

    async def rotate_keys(self, revoke: bool) -> tuple[tuple[str, bytes], ...]:
        """There is a new signing key; with `revoke`, every token is void. Returns the public keys."""
        await self._writer.submit(lambda draft: upkeep.rotate_keys(draft, self.rules, self._wall_clock, revoke))
        log.info("keys_rotated", revoked=revoke)
        return self.tokens.ring.public_keys

    def watch(self, session_id: str, identity: Identity | None, epoch: str, after_revision: int) -> SessionWatch:
        """The session's events, to be closed; a user with a token is present until then.

        Raises:
            NotFoundError: no such session, or the user has left.
            InvalidArgumentError: a revision without its epoch.
            NoLongerKeptError: the epoch has passed, or the revision is not kept.
            QuotaError: the session takes no more watchers.
        """
        self._refuse_unless_serving()
        session = self.session(session_id)
        if identity is None or identity.role == "service":
            return self._history.watch(session.id, "", epoch, after_revision)
        user = self._user(identity)
        lease = user_lease(session.id, user.id)
        watch = self._history.watch(session.id, user.id, epoch, after_revision)
        self._presence.begin(lease)
        watch.at_end = lambda: self._presence.end(lease, self.rules.rejoin_grace_s)
        return watch

    def holding(self) -> Holding:
        """A gateway's hold on users, of whom there are none yet; to be closed."""
        self._refuse_unless_serving()
        return Holding(self._presence, self.rules.rejoin_grace_s)

    async def hold(self, holding: Holding, session_id: str, user_ids: Iterable[str]) -> list[str]:
        """Those of these users who are in the session are held; returns the others.

        Raises:
            UnavailableError: the store is away.
        """
        missing = self._hold(holding, session_id, user_ids)
        if missing and self._store.shared:  # another lobby may have let them in
            await self.caught_up()
            missing = self._hold(holding, session_id, missing)
        return missing

    def _hold(self, holding: Holding, session_id: str, user_ids: Iterable[str]) -> list[str]:
        missing = []
        for user_id in user_ids:
            if self.state.user(session_id, user_id):
                holding.begin(user_lease(session_id, user_id))
            else:
                missing.append(user_id)
        return missing

    def watcher_count(self, session_id: str) -> int:
        """How many watches of the session are open here."""
        return self._history.watcher_count(session_id)

    # What the supervision of launches needs: `Board`.

    def service(self, session_id: str, service_id: str) -> Service | None:
        listed = self.state.listed(session_id, service_id)
        return listed.service if listed else None

    def registered(self, session_id: str, service_id: str) -> bool:
        listed = self.state.listed(session_id, service_id)
        return bool(listed and listed.lease)

    def session_exists(self, session_id: str) -> bool:
        return self.state.session(session_id) is not None

    def records(self, collection: str) -> Mapping[str, str]:
        return self.state.collection(collection)

    async def put_record(self, collection: str, key: str, value: str | None) -> None:
        await self._writer.submit(lambda draft: draft.put(collection, key, value))

    async def replace_record(self, collection: str, key: str, before: str | None, after: str | None) -> bool:
        def operation(draft: Draft) -> bool:
            if draft.state.get((collection, key)) != before:
                return False
            draft.put(collection, key, after)
            return True

        return await self._writer.submit(operation)

    async def put_service(self, session_id: str, service: Service) -> None:
        await self._writer.submit(lambda draft: registry.put_started(draft, session_id, service))

    async def remove_service(self, session_id: str, service_id: str) -> None:
        await self._writer.submit(lambda draft: registry.remove(draft, session_id, service_id))

    async def drain_service(self, session_id: str, service_id: str) -> None:
        await self._surely(lambda draft: registry.drain(draft, session_id, service_id))

    def changed(self) -> Awaitable[bool]:
        return self._changed.wait()

    async def _opened(self) -> Contents:
        complained = False
        while True:
            try:
                return await self._store.open()
            except StoreError as error:
                if not self._store.shared:
                    raise
                if not complained:
                    log.error("store_not_there_yet", reason=str(error))
                complained = True
                await asyncio.sleep(OPEN_RETRY_S)

    async def _prepare(self, contents: Contents) -> None:
        """What every lobby must have is there, and every user and service has time to show that it still is."""
        while True:
            if self._lost:
                raise self._lost
            try:
                return await self._writer.submit(
                    lambda draft: upkeep.prepare(
                        draft, self.rules, self._wall_clock, self._join_code, contents.leases, shared=self._store.shared
                    )
                )
            except UnavailableError as error:
                log.error("store_not_there_yet", reason=str(error))

    async def _store_renew(self, leases: Mapping[str, float]) -> frozenset[str]:
        try:
            return await self._store.renew(leases)
        except StoreError as error:
            raise UnavailableError(f"the lobby's store is away; try again ({error})") from error

    def _took_in(self, events: tuple[Event, ...], keys: frozenset[Key]) -> None:
        self._history.take_in(events, self.state)
        if any(collection == "keys" for collection, _ in keys):
            before = {key_id for key_id, _ in self.tokens.ring.public_keys}
            self.tokens.use(self.state.keys())
            if before and before.isdisjoint(key_id for key_id, _ in self.tokens.ring.public_keys):
                self._history.end(UnauthenticatedError("every token was revoked by the lobby's operator; join again"))
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell_left(self, session_id: str, user_id: str, reason: str) -> None:
        metrics.LEAVES.labels(reason).inc()
        log.info("user_left", session=session_id, user=user_id, reason=reason)

    def _lease(self, lease_id: str, listed: Listed) -> Lease:
        return Lease(lease_id, listed, self.tokens.for_service(listed))

    def _user(self, identity: Identity) -> User:
        user = self.state.user(identity.session_id, identity.user_id)
        # Whose token is of a later generation came back since, which a lobby that is behind has yet to hear of: it would
        # take them for gone once it hears that they went.
        if user is None or user.generation < identity.generation:
            raise NotFoundError(
                "user", identity.user_id, f"they have left the session {identity.session_id!r}; join again"
            )
        return user

    def _refuse_unless_ready(self) -> None:
        if self._lost:
            raise UnavailableError("the lobby has lost its store and starts anew; try again in a few seconds")
        if not self._ready:
            raise UnavailableError("the lobby is starting; try again in a second")

    def _refuse_unless_serving(self) -> None:
        self._refuse_unless_ready()
        if self._draining:
            raise UnavailableError("the lobby is stopping; try again once it is back")
