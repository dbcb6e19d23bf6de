"""What the gateway is told."""

from __future__ import annotations

import socket

from pydantic import Field, ValidationInfo, field_validator

from narupa_shared.config import MIB, ServiceConfig, settings_for


class GatewayConfig(ServiceConfig):
    """Settings of the gateway."""

    model_config = settings_for("gateway")

    port: int = Field(default=38802, ge=0, le=65535)
    """Port for Narupa and NanoVer gRPC clients; 0 takes any free one."""

    websocket_port: int = Field(default=38801, ge=0, le=65535)
    """Port for NanoVer clients over WebSocket; 0 takes any free one."""

    imd_port: int | None = Field(default=None, ge=0, le=65535)
    """Port for programs that read IMD, usually 8888; unset means that none are served."""

    imd_version: int = Field(default=3, ge=2, le=3)
    """Version of IMD that is spoken there: 3, or 2 for VMD."""

    open_access: bool | None = None
    """Whether clients without a code are let in although no host has chosen so; unset means only when listening on loopback."""

    processes: int = Field(default=1, ge=1, le=64)
    """Processes that listen on the same ports, as one uses one core at most. Each has a metrics port of its own, counted up from
    metrics_port."""

    max_clients: int = Field(default=500, ge=1)
    """Clients at a time, of all kinds together; of each process where there are several."""

    frame_interval_s: float = Field(default=1 / 30, gt=0, le=60)
    """Time between the frames of a client that names no interval, s."""

    minimum_frame_interval_s: float = Field(default=1 / 120, gt=0, le=60)
    """Shortest time between the frames of one client that does not want every frame, s."""

    state_interval_s: float = Field(default=1 / 30, gt=0, le=60)
    """Time between the changes of the shared state for a client that names no interval, s."""

    minimum_state_interval_s: float = Field(default=1 / 120, gt=0, le=60)
    """Shortest time between the changes of the shared state for one client, s."""

    messages_per_s: float = Field(default=500, ge=1)
    """Messages accepted from one client, per second on average."""

    message_burst: int = Field(default=1000, ge=1)
    """Messages accepted from one client at once."""

    bytes_per_s: int = Field(default=8 * MIB, ge=1024)
    """Bytes accepted from one client, per second on average."""

    max_message_items: int = Field(default=300_000, ge=100)
    """Most items that the lists and maps of one message may have together."""

    max_commands: int = Field(default=32, ge=1)
    """Commands of one client that may run at a time."""

    join_limit_s: float = Field(default=5.0, gt=0, le=60)
    """How long a client waits for a lobby that cannot be reached before it is turned away, s."""

    idle_linger_s: float = Field(default=2.0, ge=0, le=60)
    """How long frames are still fetched once the last viewer has left, s."""

    allow_origins: tuple[str, ...] = ()
    """Web pages that may connect besides those of this gateway itself, such as https://lab.example.org."""

    discovery: bool = True
    """Whether the gateway is announced to existing clients by broadcasts on its networks; on loopback to this machine only."""

    discovery_name: str = Field(default="", max_length=64)
    """What people see in their lists of servers; empty for one that names the session and this machine."""

    discovery_port: int = Field(default=54545, ge=1, le=65535)
    """UDP port of the broadcasts."""

    mdns: bool | None = None
    """Whether the gateway is announced by multicast DNS; unset means where other machines can reach it."""

    @field_validator("processes")
    @classmethod
    def _can_share_ports(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError(
                "this system lets no several processes listen on one port (SO_REUSEPORT); use 1, or run several gateways, each "
                "with ports of its own"
            )
        metrics_port = info.data.get("metrics_port")
        if metrics_port and metrics_port + value - 1 > 65535:
            raise ValueError(f"metrics_port is {metrics_port}, and there are not so many ports after it")
        return value

    @property
    def byte_burst(self) -> int:
        """Bytes accepted from one client at once."""
        return 2 * max(self.bytes_per_s, self.max_message_bytes)
