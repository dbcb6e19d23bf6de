"""Never two leaders at one instant: the lobby's election and a replica's belief, whatever is late, lost or stopped meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from narupa_lobby import leadership
from narupa_lobby.records import Leader, Listed, Session
from narupa_lobby.services import Endpoint, Service
from narupa_lobby.state import Draft, State
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, QuotaError
from narupa_shared.stores.leases import Leases
from narupa_shared.stores.store import LeaseHeldError
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.leadership import Answer, Tenure

LEASE_S = 1.5
NAMES = ("a", "b", "c")
SHORT = st.sampled_from((0.0, 0.0, 0.1, 0.7, 1.4, 2.0))
SESSION = Session("s", "s", "CODE-123", max_users=10, max_services=3, idle_timeout_s=0, created_at=0)


class Election:
    """What a lobby does with one call of `Lead`: a renewal where it can be, else one commit."""

    def __init__(self, clock: Callable[[], float], groups: dict[str, str]) -> None:
        self.state = State()
        self.leases = Leases(clock)
        self.granted: list[tuple[int, str]] = []  # epoch, service
        self._last: dict[str, Leader] = {}
        draft = Draft(self.state)
        draft.put("sessions", SESSION.id, SESSION)
        for name, group in groups.items():
            service = Service(name, "trajectory", endpoints=(Endpoint("grpc", "h", 1),), group=group)
            draft.put_in(SESSION.id, "services", name, Listed(SESSION.id, service, f"lease-{name}"))

    def listed(self, name: str) -> Listed:
        found = self.state.listed(SESSION.id, name)
        assert found is not None
        return found

    def lead(self, name: str, seen: int = 0, *, behind: bool = False) -> Answer:
        """The answer; `behind`: of a lobby that has not heard of what came after the caller led last."""
        listed = self.listed(name)
        held = self._last.get(name) if behind else leadership.leads(self.state, listed)
        if held is None or self.leases.renew({leadership.leader_lease(held): LEASE_S}):
            held = self._take(listed, seen)
        last = held or self.state.leader(SESSION.id, listed.service.group)
        assert last is not None
        others = leadership.standbys(self.state, listed)
        return Answer(held.epoch if held else 0, LEASE_S, others, last.service_id, last.epoch)

    def _take(self, listed: Listed, seen: int) -> Leader | None:
        draft = Draft(self.state)
        leader = leadership.take_lead(draft, listed, seen, LEASE_S)
        try:
            self.leases.check(draft.leases)
        except LeaseHeldError:
            draft.undo()
            return None
        self.leases.apply(draft.leases)
        self.granted.append((leader.epoch, leader.service_id))
        self._last[leader.service_id] = leader
        return leader

    def resign(self, name: str) -> None:
        self._last.pop(name, None)
        draft = Draft(self.state)
        leadership.resign(draft, self.listed(name))
        self.leases.apply(draft.leases)

    def sweep(self) -> None:
        """Lapsed leases are ended, as the lobby's upkeep does."""
        for lease in self.leases.lapsed(10):
            self.leases.renew({})
            draft = Draft(self.state)
            draft.only_if_lapsed.add(lease)
            self.leases.check(draft.leases)
            self.leases.apply(draft.leases)


@dataclass
class Replica:
    """One replica, its clock, and its calls on their way: what it asked at, and the answer once there is one."""

    tenure: Tenure
    asked: list[float] = field(default_factory=list)
    answers: list[tuple[float, Answer]] = field(default_factory=list)


class Interleavings(RuleBasedStateMachine):
    """Calls are made, reach the lobby, and are answered, each whenever it likes, on clocks that run apart."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1000.0)
        self.election = Election(self.clock, dict.fromkeys(NAMES, "g"))
        rates = {"a": 1.0, "b": 1.04, "c": 0.96}
        self.replicas = {
            name: Replica(Tenure(lambda rate=rate: 50.0 + rate * self.clock.now))  # type: ignore[misc]
            for name, rate in rates.items()
        }

    @rule(name=st.sampled_from(NAMES))
    def asks(self, name: str) -> None:
        replica = self.replicas[name]
        replica.asked.append(replica.tenure.now)

    @rule(name=st.sampled_from(NAMES), newest=st.booleans(), behind=st.booleans())
    def reaches_a_lobby(self, name: str, newest: bool, behind: bool) -> None:
        replica = self.replicas[name]
        if replica.asked:
            asked_at = replica.asked.pop(-1 if newest else 0)
            replica.answers.append((asked_at, self.election.lead(name, replica.tenure.seen, behind=behind)))

    @rule(name=st.sampled_from(NAMES))
    def is_answered(self, name: str) -> None:
        replica = self.replicas[name]
        if replica.answers:
            replica.tenure.answered(*replica.answers.pop(0))

    @rule(name=st.sampled_from(NAMES), behind=st.booleans(), before_s=SHORT, after_s=SHORT)
    def asks_and_is_answered(self, name: str, behind: bool, before_s: float, after_s: float) -> None:
        replica = self.replicas[name]
        asked_at = replica.tenure.now
        self.clock.advance(before_s)
        answer = self.election.lead(name, replica.tenure.seen, behind=behind)
        self.clock.advance(after_s)
        replica.tenure.answered(asked_at, answer)

    @rule(name=st.sampled_from(NAMES))
    def answers_are_lost(self, name: str) -> None:
        self.replicas[name].answers.clear()

    @rule(name=st.sampled_from(NAMES))
    def resigns(self, name: str) -> None:
        self.replicas[name].tenure.resigned()
        self.replicas[name].asked.clear()
        self.replicas[name].answers.clear()
        self.election.resign(name)

    @rule(seconds=SHORT)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def the_lobby_sweeps(self) -> None:
        self.election.sweep()

    @invariant()
    def one_leads_at_most(self) -> None:
        holders = [name for name, replica in self.replicas.items() if replica.tenure.holds]
        assert len(holders) <= 1, holders

    @invariant()
    def whoever_leads_has_the_lease(self) -> None:
        for name, replica in self.replicas.items():
            if replica.tenure.holds:
                last = self.election.state.leader(SESSION.id, "g")
                assert last is not None
                assert (last.service_id, last.epoch) == (name, replica.tenure.epoch)
                assert leadership.leader_lease(last) not in self.election.leases.lapsed(10)

    @invariant()
    def epochs_rise(self) -> None:
        epochs = [epoch for epoch, _ in self.election.granted]
        assert epochs == sorted(set(epochs))

    @invariant()
    def an_unbroken_tenure_is_nobody_elses(self) -> None:
        for name, replica in self.replicas.items():
            if replica.tenure.granted:
                own = range(replica.tenure.unbroken_since, replica.tenure.epoch + 1)
                assert {who for epoch, who in self.election.granted if epoch in own} == {name}


InterleavingsTest = Interleavings.TestCase
InterleavingsTest.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_leader_that_is_late_renews_nothing_of_its_successors() -> None:
    clock = FakeClock()
    election = Election(clock, {"a": "g", "b": "g"})
    assert election.lead("a").epoch == 1
    clock.advance(LEASE_S)
    assert election.lead("b").epoch == 2
    late = election.lead("a")
    assert (late.epoch, late.leader_id, late.leader_epoch) == (0, "b", 2)
    clock.advance(LEASE_S - 0.1)
    assert election.lead("a").epoch == 0  # had it renewed the lease of b, b could not have been ended either
    clock.advance(0.2)
    assert election.lead("a").epoch == 3


def test_epochs_go_on_where_a_lobby_has_lost_count() -> None:
    election = Election(FakeClock(), {"a": "g"})
    assert election.lead("a", seen=41).epoch == 42


def test_groups_elect_apart_and_only_so_many_are_remembered() -> None:
    election = Election(FakeClock(), {"a": "g", "b": "h"})
    assert (election.lead("a").epoch, election.lead("b").epoch) == (1, 1)
    for number in range(SESSION.max_services):
        draft = Draft(election.state)
        listed = election.listed("a")
        service = Service("a", "trajectory", endpoints=listed.service.endpoints, group=f"more-{number}")
        draft.put_in(SESSION.id, "services", "a", Listed(SESSION.id, service, "lease-a"))
        if number + 2 < SESSION.max_services:
            election.lead("a")
    with pytest.raises(QuotaError, match="groups"):
        election.lead("a")


def test_who_belongs_to_no_group_cannot_lead() -> None:
    election = Election(FakeClock(), {"a": ""})
    with pytest.raises(FailedPreconditionError, match="group"):
        leadership.take_lead(Draft(election.state), election.listed("a"), 0, LEASE_S)
    with pytest.raises(InvalidArgumentError, match="seen_epoch"):
        leadership.checked_epoch(leadership.MAX_EPOCH)


def test_the_list_says_who_leads_and_counts_who_could() -> None:
    clock = FakeClock()
    election = Election(clock, {"a": "g", "b": "g", "c": "other"})
    assert election.lead("a").standbys == 1
    clock.advance(LEASE_S)
    election.lead("b")
    assert {name: election.listed(name).service.epoch for name in NAMES} == {"a": 0, "b": 2, "c": 0}
    election.resign("b")
    assert election.listed("b").service.epoch == 0
    assert election.lead("a").epoch == 3  # at once: who resigns leaves no lease to wait for


def test_a_lone_leader_goes_on_without_an_answer_and_one_with_standbys_does_not() -> None:
    clock = FakeClock()
    tenure = Tenure(clock)
    assert not tenure.holds
    tenure.answered(clock.now, Answer(1, LEASE_S, standbys=0))
    clock.advance(100 * LEASE_S)
    assert tenure.holds
    tenure.answered(clock.now, Answer(1, LEASE_S, standbys=1))
    assert tenure.holds
    clock.advance(0.95 * LEASE_S)  # the lobby's lease has not lapsed yet
    assert not tenure.holds
    assert tenure.granted
    tenure.answered(clock.now, Answer(1, LEASE_S, standbys=1))
    assert tenure.holds


def test_a_tenure_is_broken_by_another_leader_only() -> None:
    clock = FakeClock()
    tenure = Tenure(clock)
    tenure.answered(clock.now, Answer(1, LEASE_S, 1))
    tenure.answered(clock.now, Answer(2, LEASE_S, 1))  # its lease had lapsed, and nobody wanted it
    assert tenure.unbroken_since == 1
    tenure.answered(clock.now, Answer(0, LEASE_S, 1, "b", 3))
    assert not tenure.granted
    tenure.answered(clock.now, Answer(4, LEASE_S, 1, "a", 4))
    assert (tenure.epoch, tenure.unbroken_since) == (4, 4)


def test_an_old_answer_gives_nobody_the_lead_back() -> None:
    clock = FakeClock()
    tenure = Tenure(clock)
    tenure.answered(clock.now, Answer(1, LEASE_S, 1))
    tenure.superseded(2)
    assert not tenure.holds
    tenure.answered(clock.now, Answer(1, LEASE_S, 1))
    assert not tenure.granted
