"""`narupa services`: what runs where."""

from __future__ import annotations

import json
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from narupa_client.cli.options import (
    JoinCodeOption,
    JsonOption,
    LobbyOption,
    Target,
    checked_address,
    no_lobby,
    run,
    target,
)
from narupa_client.lobby import list_services
from narupa_client.records import Service
from narupa_client.session import account_name
from narupa_shared.errors import UnavailableError

# Wide enough that nothing is cut where nobody looks at a terminal.
_FILE_WIDTH: Final = 300


def services(
    context: typer.Context, as_json: JsonOption = False, lobby: LobbyOption = None, join_code: JoinCodeOption = None
) -> None:
    """List the services of the session."""
    run(_services(target(context, lobby, join_code), as_json))


async def _services(at: Target, as_json: bool) -> None:
    try:
        found = await list_services(checked_address(at.lobby), join_code=at.join_code or "", name=account_name())
    except UnavailableError as error:
        raise no_lobby(error) from error
    if as_json:
        print(json.dumps([facts(service) for service in found], indent=2))
        return
    table = Table("kind", "id", "status", "endpoints", "load", "about", box=None, header_style="bold", pad_edge=False)
    for service in found:
        capacity = f" / {service.capacity}" if service.capacity else ""
        table.add_row(
            service.kind,
            service.id,
            service.status,
            ", ".join(map(str, service.endpoints)),
            f"{service.load:g}{capacity}",
            ", ".join(f"{key}: {value}" for key, value in sorted(service.metadata.items())),
        )
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table if found else "No service is registered.")


def facts(service: Service) -> dict[str, object]:
    """A service as scripts get it."""
    return {
        "kind": service.kind,
        "id": service.id,
        "status": service.status,
        "endpoints": [str(endpoint) for endpoint in service.endpoints],
        "load": service.load,
        "capacity": service.capacity,
        "metadata": dict(service.metadata),
    }
