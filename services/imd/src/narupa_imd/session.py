"""Everything the imd service knows: the shared state, and the interactions in it. No I/O."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from narupa_imd.endings import MAX_REASON, Endings
from narupa_imd.replays import Replay
from narupa_imd.state import KEPT, SERVER, Ended, Family, Limits, SharedState, Writer
from narupa_shared.config import MIB
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError, NotFoundError
from narupa_shared.interactions import KEY_PREFIX, Interaction, checked_id
from narupa_shared.rates import RateLimit
from narupa_shared.refusals import Refusals

log = structlog.get_logger(__name__)

VELOCITY_RESET: Final = "imd.velocity_reset_available"
SIMULATION_NAME: Final = "simulation.name"
SIMULATION_INDEX: Final = "simulation.index"
MAX_NAME: Final = 256
# What another system makes meaningless, besides the interactions: particles selected, and where the box stands.
SELECTION_PREFIX: Final = "selection."
SCENE: Final = "scene"
AVATAR_PREFIX: Final = "avatar."
ORIGIN_PREFIX: Final = "user-origin."

# Groups of replicas of which it is remembered who leads.
MAX_GROUPS: Final = 64
MAX_INTERACTIONS: Final = 1_000
MAX_INTERACTIONS_PER_OWNER: Final = 64
MAX_PRESENCES_PER_OWNER: Final = 64
# Lists of particle indices take 11 bytes for each.
MAX_INDEX_BYTES: Final = 1024 * 1024 + 512 * 1024


class Follower:
    """A service that applies the interactions, and what it last said about its simulation.

    Attributes:
        superseded: Whether another leads its group by now, so that nothing it says counts.
    """

    def __init__(self, replay: Replay) -> None:
        self.simulation_counter: int | None = None
        self.replay = replay
        self.superseded = False


class ImdSession:
    """The one owner of the shared state; an interaction is a key of it whose value has been understood."""

    def __init__(
        self,
        clock: Callable[[], float],
        epoch: str,
        on_change: Callable[[], None] = lambda: None,
        limits: Limits | None = None,
        updates_per_s: float = 1000.0,
        update_burst: int = 2000,
        bytes_per_s: float = 8 * MIB,
        byte_burst: int = 32 * MIB,
    ) -> None:
        families = [
            Family(
                KEY_PREFIX,
                owned=True,
                max_bytes=MAX_INDEX_BYTES,
                max_per_owner=MAX_INTERACTIONS_PER_OWNER,
                max_keys=MAX_INTERACTIONS,
                parse=self._parse,
            ),
            *(
                Family(prefix, owned=True, max_per_owner=MAX_PRESENCES_PER_OWNER)
                for prefix in (AVATAR_PREFIX, "playarea.", "update.index.")
            ),
            Family(ORIGIN_PREFIX, fleeting=True, follows=AVATAR_PREFIX),
            Family(SELECTION_PREFIX, max_bytes=MAX_INDEX_BYTES),
            Family("imd.", read_only=True, fleeting=True),
            # Kept, so that a restarted service knows what kept selections belong to.
            Family("simulation.", read_only=True),
        ]
        self.particle_count: int | None = None
        self._rates = RateLimit(clock, updates_per_s, update_burst)
        self._volumes = RateLimit(clock, bytes_per_s, byte_burst, "bytes of updates")
        self.endings = Endings()
        self.updates = 0
        self.refusals = Refusals()
        self._kept_name: Any = None  # of the simulation that kept selections and scene belong to, until one is reported
        self._followers: set[Follower] = set()
        self._epochs: OrderedDict[str, int] = OrderedDict()  # the highest heard of, by group
        self._leaders: dict[str, Follower] = {}
        self._replays = itertools.count(1)
        self.state = SharedState(clock, epoch, families, limits or Limits(), on_change)
        self.state.update(SERVER, {VELOCITY_RESET: False})

    def _parse(self, key: str, value: Any) -> Interaction:
        return Interaction.from_state(key.removeprefix(KEY_PREFIX), value, self.particle_count)

    # Writing.

    def spend(self, connection: str, size: int = 0) -> None:
        """A message of `size` bytes is taken from what the connection may send.

        Raises:
            QuotaError: it sends too many, or too much.
        """
        self._rates.spend(connection)
        self._volumes.spend(connection, size)

    def update(self, writer: Writer, updates: Mapping[str, Any], removals: Iterable[str] = ()) -> int:
        """As `SharedState.update`.

        Raises:
            FailedPreconditionError: the service has ended an interaction among the updates, and it was not removed since.
        """
        return self._counted(self._update, writer, updates, list(removals))

    def _update(self, writer: Writer, updates: Mapping[str, Any], removals: list[str]) -> int:
        ids = _interaction_ids(updates)
        for id in ids:
            self.endings.check(id, writer)
        revision = self.state.update(writer, updates, removals)
        for id in (*ids, *_interaction_ids(removals)):
            self.endings.forget(id, writer)
        return revision

    def without_ended(self, writer: Writer, updates: Mapping[str, Any]) -> dict[str, Any]:
        """`updates` without the interactions that would be refused because the service has ended them."""
        barred = {KEY_PREFIX + id for id in _interaction_ids(updates) if self.endings.barred(id, writer)}
        return {key: value for key, value in updates.items() if key not in barred}

    def set_interaction(self, writer: Writer, id: str, value: Mapping[str, Any]) -> int:
        """The interaction acts, as its state value describes it; returns the revision then.

        Raises:
            InvalidArgumentError, PermissionDeniedError, QuotaError, FailedPreconditionError: as `update`.
        """
        return self.update(writer, {KEY_PREFIX + id: value})

    def change_interaction(self, writer: Writer, id: str, value: Mapping[str, Any]) -> int:
        """As `set_interaction`, of one that is there.

        Raises:
            NotFoundError: there is no such interaction (any more).
        """
        return self._counted(self._change, writer, id, value)

    def _change(self, writer: Writer, id: str, value: Mapping[str, Any]) -> int:
        key = KEY_PREFIX + checked_id(id)
        entry = self.state.get(key)
        if entry is None or not isinstance(entry.meaning, Interaction):
            raise self._not_found(writer, id)
        return self.state.update(writer, {key: value})

    def move_interaction(self, writer: Writer, id: str, position: object) -> int:
        """The interaction's handle is at `position` (nm); returns the revision then.

        Raises:
            NotFoundError: there is no such interaction (any more).
            InvalidArgumentError, PermissionDeniedError: as `SharedState.update`.
        """
        return self._counted(self._move, writer, id, position)

    def _move(self, writer: Writer, id: str, position: object) -> int:
        key = KEY_PREFIX + checked_id(id)
        entry = self.state.get(key)
        if entry is None or not isinstance(entry.meaning, Interaction):
            raise self._not_found(writer, id)
        moved = entry.meaning.moved(position)
        return self.state.replace_value(writer, key, {**entry.value, "position": list(moved.position)}, moved)

    def _not_found(self, writer: Writer, id: str) -> NotFoundError:
        reason = self.endings.why(id, writer)
        hint = f"it was ended: {reason}" if reason else "it has ended, or was never set; set it again"
        return NotFoundError("interaction", id, hint)

    def remove_interaction(self, writer: Writer, id: str) -> int:
        """The interaction does not act; one that is gone already is no error. Returns the revision then.

        Raises:
            InvalidArgumentError, PermissionDeniedError: as `SharedState.update`.
        """
        return self.update(writer, {}, [KEY_PREFIX + checked_id(id)])

    def _counted(self, write: Callable[..., int], *arguments: object) -> int:
        self.updates += 1
        try:
            return write(*arguments)
        except NarupaError as error:
            self.refusals.note(error)
            raise

    # What lasts.

    def restore(self, key: str, value: Any) -> None:
        """A key that was kept from an earlier life of the service is there again.

        Raises:
            InvalidArgumentError, PermissionDeniedError, QuotaError: as `SharedState.update`; or it is not a key that lasts.
        """
        if not self.state.lasts(key):
            raise InvalidArgumentError("key", key, "does not outlive its owner, and should not have been kept")
        self.state.update(KEPT, {key: value})
        if key == SIMULATION_NAME:
            self._kept_name = value

    # Reading.

    def interactions(self) -> list[tuple[Interaction, str]]:
        """What acts now, and who owns it."""
        return [
            (entry.meaning, entry.writer.owner)
            for _, entry in self.state.entries(KEY_PREFIX)
            if isinstance(entry.meaning, Interaction)
        ]

    def players(self) -> list[str]:
        """Suffixes of the avatars' keys, in order, of those who are there and not only replayed."""
        avatars = self.state.entries(AVATAR_PREFIX)
        return sorted(key.removeprefix(AVATAR_PREFIX) for key, entry in avatars if not entry.writer.replays)

    # The simulation.

    def add_follower(self) -> Follower:
        """A service begins to apply the interactions; give it back with `remove_follower`."""
        follower = Follower(Replay(self.state, f"replay#{next(self._replays)}"))
        self._followers.add(follower)
        return follower

    def lead(self, follower: Follower, group: str, epoch: int) -> None:
        """The follower leads `group` in this epoch; who led it in a lower one does not any more.

        Raises:
            FailedPreconditionError: a higher epoch has been heard of.
        """
        if not group or not epoch:
            return
        known = self._epochs.get(group, 0)
        if follower.superseded or epoch < known:
            follower.superseded = True
            raise FailedPreconditionError(
                f"another service leads the group {group!r}, in epoch {known}; this is {epoch}"
            )
        before = self._leaders.get(group)
        if before is not None and before is not follower and epoch > known:
            before.superseded = True
        self._leaders[group], self._epochs[group] = follower, epoch
        self._epochs.move_to_end(group)
        while len(self._epochs) > MAX_GROUPS:
            oldest, _ = self._epochs.popitem(last=False)
            self._leaders.pop(oldest, None)

    def remove_follower(self, follower: Follower) -> None:
        self._followers.discard(follower)
        for group in [group for group, leader in self._leaders.items() if leader is follower]:
            del self._leaders[group]
        follower.replay.end()
        if not self._followers:
            self._say_velocity_reset(False)

    @property
    def followers(self) -> int:
        return len(self._followers)

    def report(
        self,
        follower: Follower,
        particle_count: int,
        velocity_reset_available: bool,
        simulation_counter: int,
        simulation_name: str = "",
        simulation_index: int = 0,
    ) -> None:
        """What the follower simulates is known; interactions that cannot act on it end.

        Args:
            particle_count: 0 when not known yet; the counter is looked at only when it is.
            velocity_reset_available: Whether velocities can be redrawn on release.
            simulation_counter: Raised when another system was loaded, or the same anew.
            simulation_name: What is running; empty leaves the state's `simulation.name` and `simulation.index` alone.
            simulation_index: Its place in the list of simulations.
        """
        self._say_velocity_reset(velocity_reset_available)
        ran = self._simulation()
        if simulation_name:
            simulation_name = simulation_name[:MAX_NAME]
            if self._kept_name not in (None, simulation_name):
                self._drop_bound((SELECTION_PREFIX,), "they were kept from another simulation")
            self._kept_name = None
            self._say({SIMULATION_NAME: simulation_name, SIMULATION_INDEX: float(simulation_index)})
        if not particle_count:
            return
        self.particle_count = particle_count
        before, follower.simulation_counter = follower.simulation_counter, simulation_counter
        if before is not None and simulation_counter > before:
            follower.replay.end()
            if simulation_name and self._simulation() == ran:
                self._drop([key for key, _ in self.state.entries(KEY_PREFIX)], "the simulation began anew")
            else:
                self._drop_bound((KEY_PREFIX, SELECTION_PREFIX), "another simulation was loaded")
            self.endings.clear()
        else:
            beyond = [KEY_PREFIX + item.id for item, _ in self.interactions() if item.particles[-1] >= particle_count]
            self._drop(beyond, f"the system has only {particle_count} particles")

    def _say_velocity_reset(self, available: bool) -> None:
        self._say({VELOCITY_RESET: available})

    def _say(self, facts: Mapping[str, Any]) -> None:
        """These keys have these values; what holds already is not said again."""
        news = {key: value for key, value in facts.items() if self.state.values(key).get(key) != value}
        if news:
            self.state.update(SERVER, news)

    def _drop_bound(self, prefixes: Iterable[str], reason: str) -> None:
        bound = [key for prefix in prefixes for key, _ in self.state.entries(prefix)]
        self._drop([*bound, SCENE], reason)

    def _simulation(self) -> tuple[Any, ...]:
        """Name and place in the list of what runs, as far as it was said."""
        return tuple(self.state.values(key).get(key) for key in (SIMULATION_NAME, SIMULATION_INDEX))

    def end_interactions(self, ended: Iterable[tuple[str, str]]) -> None:
        """A follower has taken these (id, reason) out of its simulation: they end, and their owners are told why."""
        for id, reason in ended:
            reason = " ".join(reason.split())[:MAX_REASON] or "the simulation cannot go on with it"
            self._drop([KEY_PREFIX + id], reason, barred=True)

    def _drop(self, keys: Iterable[str], reason: str, barred: bool = False) -> None:
        found = {key: entry.writer for key in keys if (entry := self.state.get(key))}
        writers = {key: writer for key, writer in found.items() if not writer.replays}
        if not writers:
            return
        self.state.update(SERVER, {}, writers)
        log.info("keys_dropped", reason=reason, keys={key: writer.owner for key, writer in writers.items()})
        for key, writer in writers.items():
            if key.startswith(KEY_PREFIX):
                self.endings.add(key.removeprefix(KEY_PREFIX), writer, reason, barred)

    # The end of a connection.

    def connections(self) -> set[str]:
        """Connections that own a key or a lock."""
        return self.state.connections() - {follower.replay.connection for follower in self._followers}

    def end_connection(self, connection: str, reason: str) -> Ended:
        """Interactions, presences and locks of the connection are gone. Idempotent."""
        ended = self.state.end_connection(connection)
        self._rates.forget(connection)
        self._volumes.forget(connection)
        self.endings.end_connection(connection)
        if ended:
            log.info("connection_ended", connection=connection, reason=reason, keys=ended.keys, locks=ended.locks)
        return ended


def _interaction_ids(keys: Iterable[str]) -> list[str]:
    return [key.removeprefix(KEY_PREFIX) for key in keys if key.startswith(KEY_PREFIX)]
