"""The sessions' event logs: what happened, for those who watch and those who resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from narupa_lobby import metrics
from narupa_lobby.messages import event_message
from narupa_lobby.records import Event
from narupa_lobby.rules import Rules
from narupa_lobby.state import State
from narupa_lobby.watch import EventLog, Watcher
from narupa_shared.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, QuotaError


class Told:
    """An event, and what watchers are sent of it, which is made once for all of them."""

    __slots__ = ("_epoch", "_event", "_message")

    def __init__(self, epoch: str, event: Event) -> None:
        self._epoch = epoch
        self._event = event
        self._message = b""

    @property
    def message(self) -> bytes:
        """A serialised `WatchSessionResponse`."""
        if not self._message:
            self._message = event_message(self._epoch, self._event).SerializeToString()
        return self._message


@dataclass(eq=False, slots=True)
class SessionWatch:
    """One open watch of a session, until it is closed.

    Attributes:
        user_id: Of whoever watches; empty for services and callers without a token.
        at_end: Called once when it is closed.
    """

    session_id: str
    user_id: str
    events: EventLog[Told]
    watcher: Watcher[Told]
    at_close: Callable[[], None]
    at_end: Callable[[], None] = field(default=lambda: None)

    def close(self) -> None:
        """Nothing more arrives."""
        self.watcher.close()
        self.at_close()
        self.at_end()


class History:
    """One event log per session, the same at every lobby over one store, and who watches it here."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._epoch = ""
        self._logs: dict[str, EventLog[Told]] = {}
        self._watches: dict[tuple[str, str], set[SessionWatch]] = {}  # by session and user

    def load(self, epoch: str, events: Iterable[Event], state: State) -> None:
        """The logs go on where the store's log ends."""
        self._epoch = epoch
        for event in events:
            if state.session(event.session_id):
                self._append(event)
        for session in state.sessions():
            self._log(session.id, state.revision(session.id))
        self._count(state, {session.id for session in state.sessions()})

    def take_in(self, events: Iterable[Event], state: State) -> None:
        """Every watcher will see these events; who they concern stops watching."""
        touched = set()
        for event in events:
            touched.add(event.session_id)
            self._append(event)
            if event.kind == "user_left" and event.user is not None:
                self._dismiss(event.session_id, event.user.id, event.reason)
            elif event.kind == "session_ended":
                self._logs.pop(event.session_id).end(None)
        self._count(state, touched)

    def revision(self, session_id: str) -> int:
        """That of the session's latest event."""
        log = self._logs.get(session_id)
        return log.revision if log else 0

    def watcher_count(self, session_id: str) -> int:
        """How many watches of the session are open."""
        log = self._logs.get(session_id)
        return log.watcher_count if log else 0

    def watch(self, session_id: str, user_id: str, epoch: str, after_revision: int) -> SessionWatch:
        """A watch of the session, to be closed; errors as for `Lobby.watch`."""
        if after_revision and not epoch:
            raise InvalidArgumentError(
                "epoch", epoch, "needs the epoch that came with after_revision; or leave out both"
            )
        log = self._log(session_id, 0)
        if log.watcher_count >= self._rules.max_watchers:
            raise QuotaError(f"the session {session_id!r} has {log.watcher_count} watchers already and takes no more")
        watcher = log.resume(epoch, after_revision) if epoch else log.watch()
        watch = SessionWatch(session_id, user_id, log, watcher, lambda: self._closed(watch))
        self._watches.setdefault((session_id, user_id), set()).add(watch)
        metrics.WATCHERS.labels(session_id).set(log.watcher_count)
        return watch

    def end(self, reason: Exception) -> None:
        """Every watch ends with `reason`."""
        for log in self._logs.values():
            log.end(reason)

    def _append(self, event: Event) -> None:
        log = self._log(event.session_id, event.revision - 1)
        log.append(Told(self._epoch, event))
        assert log.revision == event.revision, "the store's log has a gap"

    def _log(self, session_id: str, revision: int) -> EventLog[Told]:
        if (log := self._logs.get(session_id)) is None:
            log = self._logs[session_id] = EventLog(self._epoch, self._rules.history_events, revision)
        return log

    def _dismiss(self, session_id: str, user_id: str, reason: str) -> None:
        for watch in self._watches.get((session_id, user_id), ()):
            if reason.startswith("kicked"):
                error: Exception = PermissionDeniedError(f"you were removed from the session: {reason}")
            else:
                error = NotFoundError("user", user_id, f"they have left the session {session_id!r}; join again")
            watch.watcher.end(error)

    def _closed(self, watch: SessionWatch) -> None:
        key = (watch.session_id, watch.user_id)
        self._watches[key].discard(watch)
        if not self._watches[key]:
            del self._watches[key]
        if watch.session_id in self._logs:
            metrics.WATCHERS.labels(watch.session_id).set(watch.events.watcher_count)

    def _count(self, state: State, touched: set[str]) -> None:
        metrics.SESSIONS.set(len(state.collection("sessions")))
        for session_id in touched:
            if state.session(session_id):
                metrics.USERS.labels(session_id).set(state.user_count(session_id))
            else:
                metrics.forget_session(session_id)
