"""The order in which services are offered, the same at the lobby and at everyone who watches it."""

from __future__ import annotations

from typing import Final

# narupa.lobby.v1.ServiceStatus: running, starting, available, unhealthy, draining; anything else comes last.
_STATUS_ORDER: Final = {3: 0, 2: 1, 1: 2, 4: 3, 5: 4}


def preference(status: int, load: float, capacity: int) -> tuple[int, float, float]:
    """A sort key that puts the service to try first at the front: by status, then least loaded.

    Args:
        status: A `narupa.lobby.v1.ServiceStatus`.
        load: Subscribers that the service has.
        capacity: Subscribers that it takes; 0 means no stated limit, which counts as empty.
    """
    return _STATUS_ORDER.get(status, len(_STATUS_ORDER)), load / capacity if capacity > 0 else 0.0, load
