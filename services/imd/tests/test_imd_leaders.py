"""Of the replicas of a simulation imd hears only the one that leads, by its epoch."""

from __future__ import annotations

import pytest

from narupa_imd.session import MAX_GROUPS, ImdSession
from narupa_shared.errors import FailedPreconditionError
from narupa_shared.testing.clock import FakeClock


@pytest.fixture
def session(clock: FakeClock) -> ImdSession:
    return ImdSession(clock, "epoch")


def test_a_lower_epoch_is_refused_once_a_higher_one_has_been_heard(session: ImdSession) -> None:
    old, new = session.add_follower(), session.add_follower()
    session.lead(old, "g", 1)
    session.lead(new, "g", 2)
    assert old.superseded
    with pytest.raises(FailedPreconditionError, match="in epoch 2; this is 1"):
        session.lead(old, "g", 1)
    with pytest.raises(FailedPreconditionError):
        session.lead(session.add_follower(), "g", 1)
    session.lead(new, "g", 2)
    assert not new.superseded


def test_a_superseded_follower_stays_so_whatever_epoch_it_says(session: ImdSession) -> None:
    old = session.add_follower()
    session.lead(old, "g", 1)
    session.lead(session.add_follower(), "g", 2)
    with pytest.raises(FailedPreconditionError):
        session.lead(old, "g", 3)


def test_a_leader_goes_on_in_a_later_epoch_and_over_another_stream(session: ImdSession) -> None:
    first, second = session.add_follower(), session.add_follower()
    session.lead(first, "g", 1)
    session.lead(first, "g", 2)
    session.lead(second, "g", 2)
    assert not first.superseded
    session.remove_follower(first)
    session.lead(second, "g", 3)
    assert not second.superseded


def test_groups_and_services_that_stand_alone_are_apart(session: ImdSession) -> None:
    alone, one, other = (session.add_follower() for _ in range(3))
    session.lead(one, "g", 5)
    session.lead(other, "h", 1)
    session.lead(alone, "", 0)
    assert not any(each.superseded for each in (alone, one, other))


def test_only_so_many_groups_are_remembered(session: ImdSession) -> None:
    follower = session.add_follower()
    for number in range(MAX_GROUPS + 10):
        session.lead(follower, f"g{number}", 1)
    assert len(session._epochs) == MAX_GROUPS
    session.remove_follower(follower)
    assert not session._leaders
