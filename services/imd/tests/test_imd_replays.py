"""State of a recording that is played: shown, behind whoever is there, without effect, and gone with its follower."""

from __future__ import annotations

import math
from typing import Any

import pytest
import structlog.testing

from narupa_imd.session import Follower, ImdSession
from narupa_imd.state import Limits, Writer
from narupa_imd.wire import follow_response
from narupa_shared.errors import NotFoundError
from narupa_shared.interactions import KEY_PREFIX
from narupa_shared.testing.clock import FakeClock

ANNA = Writer("user:anna", "ipv4:127.0.0.1:1001")
PULL = {"position": [0.0, 1.0, 2.0], "particles": [3.0], "interaction_type": "spring"}
OWN = {"imd.velocity_reset_available": False}


@pytest.fixture
def session(clock: FakeClock) -> ImdSession:
    return ImdSession(clock, "epoch", limits=Limits(keys=50))


@pytest.fixture
def follower(session: ImdSession) -> Follower:
    return session.add_follower()


def shown(session: ImdSession) -> dict[str, Any]:
    return {key: value for key, value in session.state.values().items() if key not in OWN}


def test_it_is_shown_and_ends_with_its_follower(session: ImdSession, follower: Follower) -> None:
    follower.replay.show({"avatar.x": {"name": "X"}, "interaction.x": PULL, "scene": [1.0]})
    follower.replay.show({"scene": [2.0]}, ["avatar.x", "never"])
    assert shown(session) == {"interaction.x": PULL, "scene": [2.0]}
    follower.replay.show({"avatar.y": 1.0, "scene": [3.0]}, whole=True)
    assert shown(session) == {"avatar.y": 1.0, "scene": [3.0]}
    session.remove_follower(follower)
    assert session.state.values() == OWN


def test_another_source_ends_it(session: ImdSession, follower: Follower) -> None:
    session.report(follower, 10, False, 1, "recording")
    follower.replay.show({"avatar.x": 1.0, "custom": 1.0, "selection.x": 1.0})
    session.report(follower, 10, False, 1, "recording")
    assert {"avatar.x", "custom", "selection.x"} <= shown(session).keys()
    session.report(follower, 10, False, 2, "other")
    assert set(shown(session)) == {"simulation.name", "simulation.index"}


def test_interactions_of_a_recording_are_no_forces(session: ImdSession, follower: Follower) -> None:
    session.set_interaction(ANNA, "live", PULL)
    follower.replay.show({"interaction.x": PULL, "interaction.odd": {"particles": "none of this is looked at"}})
    assert [item.id for item, _ in session.interactions()] == ["live"]
    whole = follow_response(session.state.changes(None, KEY_PREFIX), KEY_PREFIX, 0.5)
    assert [item.id for item in whole.set] == ["live"] and not whole.removed
    with pytest.raises(NotFoundError):
        session.move_interaction(ANNA, "x", [0.0, 0.0, 0.0])
    with pytest.raises(NotFoundError):
        session.change_interaction(ANNA, "x", PULL)
    session.end_interactions([("x", "blew up")])
    assert "interaction.x" in shown(session)


def test_a_follower_hears_that_a_force_ended_whose_key_is_replayed_at_once(
    session: ImdSession, follower: Follower
) -> None:
    session.set_interaction(ANNA, "x", PULL)
    before = session.state.revision
    session.remove_interaction(ANNA, "x")
    follower.replay.show({"interaction.x": PULL})
    told = follow_response(session.state.changes(before, KEY_PREFIX), KEY_PREFIX, 0.5)
    assert list(told.removed) == ["x"] and not told.set


def test_whoever_is_there_keeps_their_keys(session: ImdSession, follower: Follower) -> None:
    live = {"avatar.x": "live", "interaction.x": PULL, "scene": [0.0], "custom": "live"}
    session.update(ANNA, live)
    session.state.update_locks(ANNA, {"locked": 10.0})
    old = {"avatar.x": "old", "interaction.x": {}, "scene": [9.0], "custom": "old", "locked": "old", "new": 1.0}
    follower.replay.show(old)
    assert shown(session) == {**live, "new": 1.0}
    follower.replay.show({}, list(live))
    follower.replay.show({}, whole=True)
    assert shown(session) == live
    assert [item.id for item, _ in session.interactions()] == ["x"]


def test_what_is_replayed_is_anybodys_who_writes_it(session: ImdSession, follower: Follower) -> None:
    follower.replay.show({"avatar.x": "old", "interaction.x": {}, "scene": [9.0], "lock": 1.0})
    session.update(ANNA, {"avatar.x": "live", "interaction.x": PULL}, ["scene"])
    session.state.update_locks(ANNA, {"lock": 10.0})
    assert [item.id for item, _ in session.interactions()] == ["x"]
    follower.replay.show({"avatar.x": "older", "interaction.x": {}, "lock": 2.0})
    follower.replay.show({}, ["lock", "avatar.x"])
    follower.replay.show({}, whole=True)
    assert shown(session)["lock"] == 1.0
    follower.replay.end()
    assert shown(session) == {"avatar.x": "live", "interaction.x": PULL}
    session.end_connection(ANNA.connection, "test")
    assert shown(session) == {}


def test_the_services_own_keys_and_places_of_users_are_not_replayed(session: ImdSession, follower: Follower) -> None:
    session.report(follower, 10, True, 1, "recording")
    before = session.state.values()
    follower.replay.show(
        {"imd.x": 1.0, "imd.velocity_reset_available": False, "simulation.name": "?", "simulation.x": 1.0}
    )
    follower.replay.show({"avatar.x": 1.0, "user-origin.x": {}, "user-origin.anna": {}})
    assert session.state.values() == {**before, "avatar.x": 1.0}
    assert session.players() == []


def test_what_cannot_be_shown_is_left_out_and_said_once(session: ImdSession, follower: Follower) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            follower.replay.show({"good": 1.0, "nan": math.nan, "": 1.0, "large": "x" * 3_000_000, "none": None})
    assert shown(session) == {"good": 1.0}
    assert [entry["event"] for entry in logs] == ["not_replayed"] and logs[0]["keys"] == 4
    follower.replay.show({f"k{number}": 1.0 for number in range(100)}, whole=True)
    assert len(session.state) == 50 and "good" not in shown(session)
    session.remove_follower(follower)
    assert session.state.values() == OWN


def test_it_is_no_connection_that_could_be_gone(session: ImdSession, follower: Follower) -> None:
    follower.replay.show({"avatar.x": 1.0})
    session.update(ANNA, {"avatar.a": 1.0})
    assert session.connections() == {ANNA.connection}


def test_the_next_service_shows_anew_what_the_one_before_has_shown(session: ImdSession, follower: Follower) -> None:
    follower.replay.show({"avatar.x": 1.0, "avatar.y": 1.0})
    following = session.add_follower()
    following.replay.show({"avatar.x": 2.0}, whole=True)
    session.remove_follower(follower)
    assert shown(session) == {"avatar.x": 2.0}
    session.remove_follower(following)
    assert shown(session) == {}
