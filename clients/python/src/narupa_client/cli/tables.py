"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from narupa_client.records import Service, Simulation

# Wide enough that nothing is cut where nobody looks at a terminal.
_FILE_WIDTH: Final = 300
_STYLES: Final = {
    "running": "green",
    "available": "dim",
    "starting": "yellow",
    "draining": "yellow",
    "unhealthy": "red",
    "stopped": "red",
}


def print_json(value: Any) -> None:
    """`value` as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """A table that fits the terminal; long texts are folded, never cut. Without rows, the sentence `nothing`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell)), style=_STYLES.get(str(cell), "")) for cell in row))
    console().print(table if table.row_count else Text(nothing))


def print_facts(rows: Iterable[tuple[str, object]]) -> None:
    """One fact per line; those that are empty are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in ("", None):
            table.add_row(name, Text(printable(str(value))))
    console().print(table)


def console() -> Console:
    """The standard output."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = _FILE_WIDTH
    return out


def printable(text: str) -> str:
    """`text`, which others may have chosen, without what would control the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def service_facts(service: Service) -> dict[str, Any]:
    """A service as scripts get it."""
    return {
        "kind": service.kind,
        "id": service.id,
        "status": service.status,
        "endpoints": [str(endpoint) for endpoint in service.endpoints],
        "load": service.load,
        "capacity": service.capacity,
        "metadata": dict(service.metadata),
        "simulation": service.simulation,
        "reason": service.reason,
        "progress": service.progress,
        "log_tail": list(service.log_tail),
        "restarts": service.restarts,
    }


def service_row(service: Service) -> tuple[str, ...]:
    """A service for `print_table`; the columns are `SERVICE_COLUMNS`."""
    capacity = f" / {service.capacity}" if service.capacity else ""
    return (
        service.kind,
        service.id,
        service.status,
        ", ".join(map(str, service.endpoints)) or "-",
        f"{service.load:g}{capacity}",
        _about(service),
    )


SERVICE_COLUMNS: Final = ("kind", "id", "status", "endpoints", "load", "about")


def _about(service: Service) -> str:
    facts = [service.reason] if service.reason else []
    if service.status == "starting":
        facts.append(f"{service.progress:.0%}")
    if service.restarts:
        facts.append(f"restarts: {service.restarts}")
    facts += [f"{key}: {value}" for key, value in sorted(service.metadata.items())]
    return ", ".join(facts)


def simulation_facts(simulation: Simulation) -> dict[str, Any]:
    """A simulation of the catalogue as scripts get it."""
    return asdict(simulation)


def in_words(seconds: float) -> str:
    """A time span, rounded to its largest unit."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def ago(then: float) -> str:
    """How long ago a time, in s since the Unix epoch, was; "-" for none."""
    return in_words(time.time() - then) if then else "-"


def ahead(then: float) -> str:
    """How far ahead a time, in s since the Unix epoch, is; "-" for none."""
    return in_words(then - time.time()) if then else "-"
