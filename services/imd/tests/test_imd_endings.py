"""Interactions that the simulation cannot go on with: ended, their owners told why, and kept from coming back at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_imd.endings import MAX_KEPT, MAX_REASON, Endings
from narupa_imd.session import ImdSession
from narupa_imd.state import Writer
from narupa_shared.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError
from narupa_shared.testing.clock import FakeClock

ANNA = Writer("user:anna", "ipv4:127.0.0.1:1001#1")
BERT = Writer("peer:ipv4:127.0.0.1:1002", "ipv4:127.0.0.1:1002")
PULL = {"position": [0.0, 1.0, 2.0], "particles": [3.0, 1.0]}
REASON = "the simulation blew up"


@pytest.fixture
def session(clock: FakeClock) -> ImdSession:
    session = ImdSession(clock, "epoch")
    session.update(ANNA, {"interaction.a": PULL})
    session.update(BERT, {"interaction.b": PULL})
    return session


def ids(session: ImdSession) -> set[str]:
    return {item.id for item, _ in session.interactions()}


def test_an_ended_interaction_is_gone_and_its_owner_alone_is_told(session: ImdSession) -> None:
    annas: list[tuple[str, str]] = []
    berts: list[tuple[str, str]] = []
    with (
        session.endings.told(ANNA.connection, lambda *it: annas.append(it)),
        session.endings.told(BERT.connection, lambda *it: berts.append(it)),
    ):
        session.end_interactions([("a", REASON), ("nobody's", "x"), ("", "")])
    assert ids(session) == {"b"}
    assert (annas, berts) == ([("a", REASON)], [])


def test_it_may_come_back_once_it_was_removed(session: ImdSession) -> None:
    session.end_interactions([("a", REASON)])
    with pytest.raises(FailedPreconditionError, match=f"'a' was ended: {REASON}; remove it"):
        session.set_interaction(ANNA, "a", PULL)
    with pytest.raises(FailedPreconditionError):
        session.update(ANNA, {"interaction.a": PULL, "scene": [1.0]})
    assert "scene" not in session.state.values()
    assert session.without_ended(ANNA, {"interaction.a": PULL, "avatar.a": 1.0}) == {"avatar.a": 1.0}
    session.set_interaction(ANNA, "another", PULL)
    session.remove_interaction(ANNA, "a")
    session.set_interaction(ANNA, "a", PULL)
    assert ids(session) == {"a", "b", "another"}


def test_moving_and_changing_it_says_why_it_ended(session: ImdSession) -> None:
    session.end_interactions([("a", REASON)])
    for act in (
        lambda: session.move_interaction(ANNA, "a", [0.0, 0.0, 0.0]),
        lambda: session.change_interaction(ANNA, "a", PULL),
    ):
        with pytest.raises(NotFoundError, match=f"it was ended: {REASON}"):
            act()
    with pytest.raises(NotFoundError, match="never set"):
        session.change_interaction(BERT, "a", PULL)
    assert ids(session) == {"b"}


def test_a_change_is_of_what_is_there_and_ones_own(session: ImdSession) -> None:
    session.change_interaction(ANNA, "a", {**PULL, "scale": 7.0})
    [interaction] = [item for item, _ in session.interactions() if item.id == "a"]
    assert interaction.scale == 7.0
    with pytest.raises(PermissionDeniedError):
        session.change_interaction(BERT, "a", PULL)


def test_another_owner_may_have_the_id(session: ImdSession) -> None:
    session.end_interactions([("a", REASON)])
    session.set_interaction(BERT, "a", PULL)
    assert ids(session) == {"a", "b"}


def test_another_simulation_bars_nobody_but_tells_why(session: ImdSession) -> None:
    told: list[tuple[str, str]] = []
    follower = session.add_follower()
    session.report(follower, 5, True, 1)
    session.end_interactions([("a", REASON)])
    with session.endings.told(BERT.connection, lambda *it: told.append(it)):
        session.report(follower, 5, True, 2)
    assert told == [("b", "another simulation was loaded")]
    session.set_interaction(ANNA, "a", PULL)
    session.set_interaction(BERT, "b", PULL)


def test_interactions_beyond_the_system_tell_why(session: ImdSession) -> None:
    told: list[tuple[str, str]] = []
    with session.endings.told(BERT.connection, lambda *it: told.append(it)):
        session.report(session.add_follower(), 3, True, 1)
    assert told == [("b", "the system has only 3 particles")]
    with pytest.raises(NotFoundError, match="only 3 particles"):
        session.move_interaction(BERT, "b", [0.0, 0.0, 0.0])


def test_it_is_forgotten_with_its_owners_connection(session: ImdSession) -> None:
    session.end_interactions([("a", REASON)])
    session.end_connection(ANNA.connection, "gone")
    session.set_interaction(ANNA, "a", PULL)


@given(st.text(max_size=2000))
def test_a_reason_is_one_short_line(reason: str) -> None:
    session = ImdSession(FakeClock(), "epoch")
    session.update(ANNA, {"interaction.a": PULL})
    told: list[str] = []
    with session.endings.told(ANNA.connection, lambda _, why: told.append(why)):
        session.end_interactions([("a", reason)])
    assert len(told) == 1 and 0 < len(told[0]) <= MAX_REASON and len(told[0].splitlines()) == 1


def test_what_is_remembered_is_bounded() -> None:
    endings = Endings()
    for number in range(MAX_KEPT + 1):
        endings.add(str(number), ANNA, REASON, barred=True)
    assert not endings.barred("0", ANNA) and endings.barred("1", ANNA)
