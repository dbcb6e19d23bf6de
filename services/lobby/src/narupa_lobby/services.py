"""What a service says about itself, and what the lobby accepts of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.placement import preference

MAX_ENDPOINTS: Final = 8
MAX_CAPACITY: Final = 1_000_000
MAX_REASON: Final = 1000
MAX_FACTS: Final = 32
MAX_FACT_NAME: Final = 64
MAX_FACTS_CHARACTERS: Final = 4096

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9+.-]{0,15}")
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,253}")


class ServiceStatus(IntEnum):
    """The numbers of `narupa.lobby.v1.ServiceStatus`."""

    AVAILABLE = 1
    STARTING = 2
    RUNNING = 3
    UNHEALTHY = 4
    DRAINING = 5
    STOPPED = 6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address at which a service can be reached."""

    protocol: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is listed.

    Attributes:
        capacity: Subscribers that it takes; 0 states no limit.
        load: Subscribers that it has.
        metadata: Free facts for people.
        simulation: The catalogue's name for it, when the lobby started it.
        reason: Why it is not running.
        progress: Of its start, 0 to 1.
        log_tail: The last lines it wrote, while it starts or when it failed.
        restarts: After failures, since it was started.
        group: Replicas of one another have the same; empty for a service that stands alone.
        epoch: In which it leads its group; 0 when it does not.
    """

    id: str
    kind: str
    status: ServiceStatus = ServiceStatus.RUNNING
    endpoints: tuple[Endpoint, ...] = ()
    capacity: int = 0
    load: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    simulation: str = ""
    reason: str = ""
    progress: float = 0.0
    log_tail: tuple[str, ...] = ()
    restarts: int = 0
    group: str = ""
    epoch: int = 0

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: by kind, then the one to try first at the front, then by id."""
        return self.kind, *preference(self.status, self.load, self.capacity), self.id


def check_service(service: Service) -> None:
    """`service` may be listed. An empty id is left for the lobby to fill.

    Raises:
        InvalidArgumentError: a field is malformed, too long, or out of range.
    """
    if service.id and not _ID.fullmatch(service.id):
        raise InvalidArgumentError(
            "service.id", service.id, "needs at most 64 letters, digits, dots, hyphens and underscores"
        )
    if not _KIND.fullmatch(service.kind):
        raise InvalidArgumentError(
            "service.kind", service.kind, "needs at most 32 lower case letters, digits and hyphens, a letter first"
        )
    if service.group and not _ID.fullmatch(service.group):
        raise InvalidArgumentError(
            "service.group", service.group, "needs at most 64 letters, digits, dots, hyphens and underscores"
        )
    if not service.endpoints or len(service.endpoints) > MAX_ENDPOINTS:
        raise InvalidArgumentError("service.endpoints", len(service.endpoints), f"needs 1 to {MAX_ENDPOINTS} endpoints")
    for index, endpoint in enumerate(service.endpoints):
        _check_endpoint(f"service.endpoints[{index}]", endpoint)
    if not 0 <= service.capacity <= MAX_CAPACITY:
        raise InvalidArgumentError("service.capacity", service.capacity, f"needs 0 to {MAX_CAPACITY}")
    check_load("service.occupancy", service.load)
    check_metadata("service.metadata", service.metadata)
    check_reason("service.reason", service.reason)
    check_progress("service.progress", service.progress)


def _check_endpoint(field: str, endpoint: Endpoint) -> None:
    if not _PROTOCOL.fullmatch(endpoint.protocol):
        raise InvalidArgumentError(
            f"{field}.protocol", endpoint.protocol, "needs a short lower case name, such as 'grpc'"
        )
    if not _HOST.fullmatch(endpoint.host):
        raise InvalidArgumentError(
            f"{field}.host", endpoint.host, "needs a host name or an IP address, without brackets"
        )
    if not 1 <= endpoint.port <= 65535:
        raise InvalidArgumentError(f"{field}.port", endpoint.port, "needs 1 to 65535")


def check_status(field: str, number: int) -> ServiceStatus:
    """The status of this number.

    Raises:
        InvalidArgumentError: there is none.
    """
    try:
        return ServiceStatus(number)
    except ValueError:
        known = ", ".join(f"{status.value} ({status.name.lower()})" for status in ServiceStatus)
        raise InvalidArgumentError(field, number, f"needs one of {known}") from None


def check_load(field: str, load: float) -> None:
    """`load` is finite and not negative, or InvalidArgumentError."""
    if not math.isfinite(load) or load < 0:
        raise InvalidArgumentError(field, load, "needs a finite number of subscribers, 0 or more")


def check_reason(field: str, reason: str) -> None:
    """`reason` is short enough to be sent to every client, or InvalidArgumentError."""
    if len(reason) > MAX_REASON:
        raise InvalidArgumentError(field, reason, f"takes at most {MAX_REASON} characters")


def check_progress(field: str, progress: float) -> None:
    """`progress` is a fraction, or InvalidArgumentError."""
    if not 0 <= progress <= 1:  # a NaN is not, either
        raise InvalidArgumentError(field, progress, "needs 0 to 1")


def check_metadata(field: str, metadata: Mapping[str, str]) -> None:
    """`metadata` is few and short enough to be sent to every client, or InvalidArgumentError."""
    if len(metadata) > MAX_FACTS:
        raise InvalidArgumentError(field, len(metadata), f"takes at most {MAX_FACTS} entries")
    for name in metadata:
        if not name or len(name) > MAX_FACT_NAME or not name.isprintable():
            raise InvalidArgumentError(f"{field} key", name, f"needs 1 to {MAX_FACT_NAME} printable characters")
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > MAX_FACTS_CHARACTERS:
        raise InvalidArgumentError(field, f"{size} characters", f"takes at most {MAX_FACTS_CHARACTERS} in all")
