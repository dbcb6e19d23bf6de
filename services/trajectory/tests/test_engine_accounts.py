"""What the service tells of interactions whose engine ended without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from narupa_shared.interactions import Interaction
from narupa_shared.testing.clock import FakeClock
from narupa_trajectory.engine.accounts import OpenAccounts, works_in
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot

A = Interaction.parse("a", particles=[0, 2], kind="spring", owner="ann")
B = Interaction.parse("b", particles=[1])


def snapshot(time_ps: float | None, **works: float) -> Snapshot:
    return Snapshot(
        np.zeros((3, 3), np.float32),
        time_ps,
        0,
        interaction_ids=tuple(works),
        interaction_work=np.array(list(works.values())),
    )


@pytest.fixture
def accounts(clock: FakeClock) -> OpenAccounts:
    return OpenAccounts(clock)


def told(accounts: OpenAccounts, *arguments: Any, **options: Any) -> dict[str, tuple[float, float, str]]:
    return {item.id: (item.end_time_ps, item.work, item.reason) for item in accounts.close(*arguments, **options)}


def test_an_account_without_the_engine_s_word_is_what_frames_last_said(
    accounts: OpenAccounts, clock: FakeClock
) -> None:
    accounts.applied([A, B], 1.0)
    began = clock()
    clock.advance(2)
    accounts.seen(snapshot(5.0, a=7.5, b=1.0, stranger=3.0))
    accounts.told("b")
    (item,) = accounts.close("the engine failed")
    assert (item.id, item.owner, item.potential, item.particles) == ("a", "ann", "spring", (0, 2))
    assert (item.started_at, item.duration_s, item.start_time_ps, item.end_time_ps) == (began, 2.0, 1.0, 5.0)
    assert (item.work, item.reason) == (7.5, "the engine failed")
    assert accounts.close("again") == []


def test_what_moves_is_the_same_and_what_takes_other_particles_is_not(accounts: OpenAccounts) -> None:
    accounts.applied([A], 1.0)
    accounts.seen(snapshot(5.0, a=7.5))
    accounts.applied([A.moved((1, 1, 1))], 5.0)
    assert told(accounts, "x") == {"a": (5.0, 7.5, "x")}
    accounts.applied([A], 1.0)
    accounts.seen(snapshot(5.0, a=7.5))
    accounts.applied([Interaction.parse("a", particles=[1])], 6.0)
    assert told(accounts, "x") == {"a": (6.0, 0.0, "x")}


def test_those_that_go_on_are_not_told(accounts: OpenAccounts) -> None:
    accounts.applied([A, B], 0.0)
    assert told(accounts, "x", still={"b"}).keys() == {"a"}
    accounts.applied([A], 0.0)
    assert told(accounts, "x", only="a").keys() == {"a"}
    assert told(accounts, "x").keys() == {"b"}


def test_going_back_undoes_the_work_since(accounts: OpenAccounts) -> None:
    accounts.applied([A, B], 3.0)
    accounts.seen(snapshot(9.0, a=7.5, b=2.0))
    accounts.rolled_back({"a": 4.0}, 2.0)
    closed = accounts.close("x")
    assert [(item.id, item.start_time_ps, item.end_time_ps, item.work) for item in closed] == [
        ("a", 2.0, 2.0, 4.0),
        ("b", 2.0, 2.0, 0.0),
    ]


def test_works_of_checkpoints_that_do_not_say_are_nothing() -> None:
    assert works_in(b"", 3) == {}
    assert works_in(b"an engine's own", 3) == {}
    silent = Checkpoint(np.zeros((3, 3)), np.zeros((3, 3)), 0.0, 0, 0.0)
    assert works_in(silent.to_bytes(), 3) == {}
