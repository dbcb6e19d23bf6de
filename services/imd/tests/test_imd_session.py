"""Interactions as keys of the state: validated one by one, owned, and ended with what they act on."""

from __future__ import annotations

import math
from typing import Any

import pytest

from narupa_imd.commands import ImdCommands
from narupa_imd.origins import radial_origins
from narupa_imd.session import VELOCITY_RESET, ImdSession
from narupa_imd.state import Writer
from narupa_shared.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, QuotaError
from narupa_shared.rates import RateLimit
from narupa_shared.testing.clock import FakeClock

ANNA = Writer("user:anna", "ipv4:127.0.0.1:1001#1")
BERT = Writer("peer:ipv4:127.0.0.1:1002", "ipv4:127.0.0.1:1002")
PULL = {"position": [0.0, 1.0, 2.0], "particles": [3.0, 1.0], "interaction_type": "spring", "max_force": math.inf}


@pytest.fixture
def session(clock: FakeClock) -> ImdSession:
    return ImdSession(clock, "epoch")


def test_a_key_written_by_anyone_is_an_interaction(session: ImdSession) -> None:
    session.update(BERT, {"interaction.a": {**PULL, "owner.id": "bert"}})
    [(interaction, owner)] = session.interactions()
    assert interaction.particles == (1, 3) and interaction.kind == "spring" and interaction.max_force == math.inf
    assert interaction.properties == {"owner.id": "bert"} and owner == BERT.owner


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"particles": []}, "particles is .*empty"),
        ({"particles": [1.0, 1.0]}, "named twice"),
        ({"particles": [-1.0]}, "start at 0"),
        ({"particles": [0.5]}, "whole numbers"),
        ({"particles": [math.inf]}, "whole numbers"),
        ({"particles": "all"}, "must be a list"),
        ({"position": [0.0, math.nan, 0.0]}, r"position\[1\] is nan"),
        ({"position": [0.0, 0.0]}, "three numbers"),
        ({"interaction_type": "magic"}, "'magic'.*gaussian, spring, constant"),
        ({"interaction_type": ["spring"]}, "interaction_type"),
        ({"scale": math.inf}, "scale is inf"),
        ({"max_force": -1.0}, "max_force is -1"),
        ({"max_force": math.nan}, "max_force is nan"),
        ({"mass_weighted": 1.0}, "mass_weighted"),
        ({"label": math.nan}, "interaction.a is .*NaN"),
    ],
)
def test_a_bad_interaction_is_refused_alone(session: ImdSession, wrong: dict[str, Any], says: str) -> None:
    session.update(ANNA, {"interaction.good": PULL})
    with pytest.raises(InvalidArgumentError, match=says):
        session.update(ANNA, {"interaction.a": PULL | wrong, "scene": [1.0]})
    assert [item.id for item, _ in session.interactions()] == ["good"]
    assert "scene" not in session.state.values()
    assert (session.updates, session.refusals.total) == (2, 1)


def test_indices_are_checked_once_the_system_is_known(session: ImdSession) -> None:
    follower = session.add_follower()
    session.update(ANNA, {"interaction.a": PULL})
    session.update(BERT, {"interaction.b": PULL | {"particles": [9.0]}})
    session.report(follower, 5, True, 1)
    assert [item.id for item, _ in session.interactions()] == ["a"]
    with pytest.raises(InvalidArgumentError, match="particles is 7: the system has 5 particles"):
        session.update(ANNA, {"interaction.a": PULL | {"particles": [7.0]}})


def test_a_new_simulation_ends_interactions_selections_and_scene(session: ImdSession) -> None:
    follower = session.add_follower()
    session.report(follower, 5, True, 1)
    session.update(ANNA, {"interaction.a": PULL, "selection.root": {}, "scene": [1.0], "avatar.a": {}})
    session.report(follower, 5, True, 1)
    assert session.interactions()
    session.report(follower, 5, True, 2)
    assert set(session.state.values()) == {"avatar.a", VELOCITY_RESET}


def test_the_same_simulation_anew_ends_interactions_only(session: ImdSession) -> None:
    follower = session.add_follower()
    session.report(follower, 5, True, 1, "peptide", 0)
    bound = {"interaction.a": PULL, "selection.a": {}, "scene": [1.0]}
    session.update(ANNA, bound)
    session.report(follower, 5, True, 2, "peptide", 0)
    assert set(session.state.values()) & bound.keys() == {"selection.a", "scene"}
    session.update(ANNA, bound)
    session.report(follower, 5, True, 3, "peptide", 1)
    assert not set(session.state.values()) & bound.keys()


def test_velocity_reset_is_told_and_read_only(session: ImdSession) -> None:
    assert session.state.values(VELOCITY_RESET) == {VELOCITY_RESET: False}
    follower = session.add_follower()
    session.report(follower, 5, True, 1)
    assert session.state.values(VELOCITY_RESET) == {VELOCITY_RESET: True}
    with pytest.raises(PermissionDeniedError):
        session.update(ANNA, {VELOCITY_RESET: False})
    session.remove_follower(follower)
    assert session.state.values(VELOCITY_RESET) == {VELOCITY_RESET: False}


def test_moving_keeps_everything_else(session: ImdSession) -> None:
    session.set_interaction(ANNA, "a", {**PULL, "label": "x"})
    session.move_interaction(ANNA, "a", [4.0, 5.0, 6.0])
    assert session.state.values("interaction.") == {
        "interaction.a": {**PULL, "label": "x", "position": [4.0, 5.0, 6.0]}
    }
    assert session.interactions()[0][0].position == (4.0, 5.0, 6.0)


def test_moving_what_is_not_there_or_anothers_or_to_nowhere_is_refused(session: ImdSession) -> None:
    with pytest.raises(NotFoundError, match="no interaction has the id 'a'"):
        session.move_interaction(ANNA, "a", [0.0, 0.0, 0.0])
    session.set_interaction(ANNA, "a", PULL)
    with pytest.raises(PermissionDeniedError, match="belongs to user:anna"):
        session.move_interaction(BERT, "a", [0.0, 0.0, 0.0])
    with pytest.raises(PermissionDeniedError):
        session.remove_interaction(BERT, "a")
    for position in ([], [0.0, 0.0, math.nan], [0.0, 0.0, 1e30]):
        with pytest.raises(InvalidArgumentError, match=r"interaction.a.position"):
            session.move_interaction(ANNA, "a", position)
    with pytest.raises(InvalidArgumentError, match="interaction id"):
        session.move_interaction(ANNA, "", [0.0, 0.0, 0.0])
    session.remove_interaction(ANNA, "a")
    session.remove_interaction(ANNA, "a")
    assert not session.interactions()


def test_one_owner_holds_so_many_interactions(session: ImdSession) -> None:
    for number in range(64):
        session.set_interaction(ANNA, f"a{number}", PULL)
    with pytest.raises(QuotaError, match="more than 64 interaction"):
        session.set_interaction(ANNA, "more", PULL)
    session.set_interaction(BERT, "b", PULL)


def test_a_large_interaction_and_selection_fit(session: ImdSession) -> None:
    session.set_interaction(ANNA, "a", PULL | {"particles": [float(index) for index in range(100_000)]})
    session.update(ANNA, {"selection.a": {"selected": {"particle_ids": [float(index) for index in range(100_000)]}}})


def test_the_end_of_a_connection_ends_what_it_owned(session: ImdSession) -> None:
    session.set_interaction(ANNA, "a", PULL)
    session.update(
        BERT, {"avatar.b": {}, "playarea.b": {}, "update.index.b": 3.0, "selection.b": {}, "user-origin.b": {}}
    )
    session.end_connection(BERT.connection, "test")
    assert set(session.state.values()) == {VELOCITY_RESET, "interaction.a", "selection.b"}


def test_writes_are_limited_per_connection(clock: FakeClock) -> None:
    rates = RateLimit(clock, per_second=10, burst=5)
    for _ in range(5):
        rates.spend("one")
    with pytest.raises(QuotaError, match="one sends more than 10 updates per second"):
        rates.spend("one")
    rates.spend("two")
    clock.advance(0.25)
    rates.spend("one")
    rates.spend("one")
    with pytest.raises(QuotaError):
        rates.spend("one")
    rates.forget("one")
    rates.spend("one")


def test_a_connection_sends_so_many_messages_and_bytes(clock: FakeClock) -> None:
    session = ImdSession(clock, "epoch", updates_per_s=10, update_burst=3, bytes_per_s=100, byte_burst=1000)
    session.spend("one", 900)
    with pytest.raises(QuotaError, match="one sends more than 100 bytes of updates per second"):
        session.spend("one", 101)
    session.spend("two", 101)
    session.spend("one", 100)
    with pytest.raises(QuotaError, match="one sends more than 10 updates per second"):
        session.spend("one")
    clock.advance(5)
    session.spend("one", 500)
    session.end_connection("one", "test")
    session.spend("one", 1000)


def test_rate_accounts_of_silent_connections_are_dropped(clock: FakeClock) -> None:
    rates = RateLimit(clock, per_second=1000, burst=2)
    for number in range(1000):
        clock.advance(0.01)
        rates.spend(f"peer {number}")
    assert len(rates._buckets) < 10


def test_players_stand_on_a_circle_and_face_its_centre() -> None:
    origins = radial_origins(["a", "b", "c", "d"], 2.0)
    assert origins["user-origin.b"]["position"] == pytest.approx([0.0, 0.0, 2.0])
    for origin in origins.values():
        x, _, z = origin["position"]
        _, y, _, w = origin["rotation"]
        yaw = 2 * math.atan2(y, w)
        # Forward, +Z, is (sin yaw, 0, cos yaw) once turned about Y in a left-handed space: it points at the centre.
        assert [2 * math.sin(yaw), 2 * math.cos(yaw)] == pytest.approx([-x, -z], abs=1e-9)


async def test_the_command_places_every_avatar(session: ImdSession, clock: FakeClock) -> None:
    session.update(ANNA, {"avatar.a": {}, "avatar.b": {}})
    commands = ImdCommands(session, clock, 10).own
    assert await commands.run("multiuser/radially-orient-origins", {}) == {}
    placed = session.state.values("user-origin.")
    assert placed["user-origin.a"]["position"] == pytest.approx([1.0, 0.0, 0.0])
    assert set(placed) == {"user-origin.a", "user-origin.b"}
    session.update(ANNA, {"user-origin.b": {"position": [0.0, 0.0, 0.0]}})
    with pytest.raises(InvalidArgumentError, match="radius is -1"):
        await commands.run("multiuser/radially-orient-origins", {"radius": -1.0})


def test_what_runs_is_in_the_state(session: ImdSession) -> None:
    follower = session.add_follower()
    session.report(follower, 5, True, 1, "nanotube", 2)
    assert session.state.values("simulation.") == {"simulation.name": "nanotube", "simulation.index": 2.0}
    revision = session.state.revision
    session.report(follower, 5, True, 1, "nanotube", 2)
    assert session.state.revision == revision
