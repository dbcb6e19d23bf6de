"""What a client makes of several replicas: frames in one order, and not everybody at the same one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from narupa_client.address import SessionAddress
from narupa_client.connection import Endpoint
from narupa_client.frames import CurrentFrame, Fence
from narupa_client.membership import LobbyMembership
from narupa_client.place import Admission
from narupa_client.records import Service
from narupa_shared import frame_keys as keys


def frame(index: int, epoch: int = 1, run: str = "r") -> CurrentFrame:
    values: dict[str, Any] = {keys.RUN: run, **({keys.EPOCH: float(epoch)} if epoch else {})}
    return CurrentFrame(index, values, {})


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([(1, 1), (2, 1), (2, 1), (1, 1), (3, 1)], [(1, 1), (2, 1), (3, 1)]),
        ([(5, 1), (1005, 2), (6, 1), (1006, 2)], [(5, 1), (1005, 2), (1006, 2)]),
        ([(5, 1), (0, 1), (1, 1)], [(5, 1), (0, 1), (1, 1)]),
        ([(5, 1), (4, 2), (5, 2)], [(5, 1), (4, 2), (5, 2)]),
        ([(5, 0), (5, 0), (3, 0)], [(5, 0), (5, 0), (3, 0)]),
    ],
    ids=["a replica that is behind", "a leader that was", "a reset", "a leader that counts anew", "no replicas"],
)
async def test_what_is_older_is_left_out(given: list[tuple[int, int]], passed: list[tuple[int, int]]) -> None:
    seen: list[tuple[int, int]] = []

    async def deliver(frame: CurrentFrame) -> None:
        seen.append((frame.index, frame.epoch))

    admit = Fence().before(deliver)
    for index, epoch in given:
        await admit(frame(index, epoch))
    assert seen == passed


async def test_another_run_is_another_order() -> None:
    seen: list[str] = []

    async def deliver(frame: CurrentFrame) -> None:
        seen.append(frame.run_id)

    admit = Fence().before(deliver)
    for run, index in (("a", 7), ("b", 3), ("b", 3)):
        await admit(frame(index, run=run))
    assert seen == ["a", "b"]


def member(user_id: str, *services: Service) -> LobbyMembership:
    membership = LobbyMembership(SessionAddress.parse("127.0.0.1:1"), Admission("Ada"))
    membership.user_id = user_id
    membership._services = {service.id: service for service in services}
    return membership


def replica(name: str, load: float = 0.0, status: str = "running", group: str = "g") -> Service:
    return Service(name, "trajectory", status, (Endpoint(name, 1),), load=load, capacity=500, group=group)


def chosen(*services: Service) -> Counter[str]:
    """Which host each of many users tries first."""
    return Counter(member(f"user-{number}", *services).endpoints("trajectory")[0].host for number in range(90))


def test_users_who_come_at_once_spread_over_replicas_that_are_about_as_loaded() -> None:
    found = chosen(replica("a", 3), replica("b", 0), replica("c", 9))
    assert set(found) == {"a", "b", "c"}
    assert min(found.values()) > 10


def test_a_replica_with_much_more_to_do_is_left_alone() -> None:
    assert set(chosen(replica("a", 60), replica("b", 5), replica("c", 5))) == {"b", "c"}


def test_what_runs_goes_before_what_does_not() -> None:
    assert set(chosen(replica("a", 40), replica("b", 0, "starting"))) == {"a"}


def test_services_that_are_no_replicas_keep_their_order() -> None:
    assert set(chosen(replica("a", 1, group=""), replica("b", 2, group=""))) == {"a"}


def test_one_user_keeps_to_one_choice() -> None:
    services = (replica("a"), replica("b"), replica("c"))
    first = [endpoint.host for endpoint in member("u", *services).endpoints("trajectory")]
    assert first == [endpoint.host for endpoint in member("u", *reversed(services)).endpoints("trajectory")]
