"""Where the gateway finds services: replicas that run no engine first, and the same one for as long as it will do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from narupa_gateway.directory import ServiceDirectory
from narupa_shared.sdk.narupa.lobby.v1 import Endpoint, Service, ServiceStatus


class FakeRegistration:
    """A lobby's list, in its order."""

    def __init__(self, id: str = "gateway-1") -> None:
        self.service_id = id
        self.token = "t"
        self.listed: list[Service] = []

    def find(self, kind: str) -> list[Service]:
        return [each for each in self.listed if each.kind == kind]


def service(id: str, epoch: int = 0, group: str = "g", status: ServiceStatus = ServiceStatus.RUNNING) -> Service:
    ends = [Endpoint(protocol="grpc", host=id, port=1)]
    return Service(id=id, kind="trajectory", status=status, endpoints=ends, group=group, epoch=epoch)


def directory(*listed: Service, id: str = "gateway-1") -> tuple[ServiceDirectory, Any]:
    registration: Any = FakeRegistration(id)
    registration.listed = list(listed)
    return ServiceDirectory(registration), registration


def tried(found: ServiceDirectory) -> list[str]:
    return [end.host for end in found.endpoints("trajectory")]


def test_the_leader_comes_after_all_that_run_and_before_what_does_not() -> None:
    found, _ = directory(
        service("ill", status=ServiceStatus.UNHEALTHY), service("leads", 3), service("r1"), service("r2")
    )
    assert set(tried(found)[:2]) == {"r1", "r2"}
    assert tried(found)[2:] == ["leads", "ill"]
    assert [each.epoch for each in found.services] == [0, 0, 3, 0]


def test_gateways_spread_over_the_replicas() -> None:
    relays = [service(f"r{number}") for number in range(4)]
    firsts = Counter(
        tried(directory(service("leads", 1), *relays, id=f"gateway-{number}")[0])[0] for number in range(100)
    )
    assert all(10 <= firsts[each.id] <= 45 for each in relays)


def test_services_that_stand_alone_stay_in_the_lobbys_order() -> None:
    found, _ = directory(service("z", group=""), service("a", group=""), service("m", group=""))
    assert tried(found) == ["z", "a", "m"]
    assert found.replica_to_use() is None


def used(found: ServiceDirectory) -> str:
    replica = found.replica_to_use()
    assert replica is not None
    return replica.id


@pytest.mark.parametrize("status", [None, ServiceStatus.UNHEALTHY, ServiceStatus.DRAINING])
def test_a_replica_is_used_for_as_long_as_it_runs(status: ServiceStatus | None) -> None:
    found, registration = directory(service("leads", 1), service("r1"))
    assert used(found) == "r1"
    others = [service(f"s{number}") for number in range(20)]  # of which some would be tried first
    registration.listed += others
    assert used(found) == "r1"
    registration.listed = [service("leads", 1), *others, *([service("r1", status=status)] if status else [])]
    assert used(found).startswith("s")


def test_one_that_leads_is_used_only_where_there_is_no_other() -> None:
    found, registration = directory(service("a", 1))
    assert used(found) == "a"
    registration.listed.append(service("b"))
    assert used(found) == "b"
    registration.listed = [service("a"), service("b", 2)]
    assert used(found) == "a"
    registration.listed = [service("b", 2)]
    assert used(found) == "b"
    registration.listed = []
    assert found.replica_to_use() is None
