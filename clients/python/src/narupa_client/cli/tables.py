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
    """A table that fits the terminal; long texts are folded, never cut. Without rows, the sentence `nothing`.

    Columns named `id` hold ids, of which a terminal is shown a beginning that tells them apart.
    """
    out = console()
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold")
        if column == "id" and out.is_terminal:
            for row, text in zip(cells, shortened([row[index] for row in cells]), strict=True):
                row[index] = text
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    out.print(table if cells else Text(nothing))


def print_facts(rows: Iterable[tuple[str, object]]) -> None:
    """One fact per line, each whole, so that it can be copied; those that are empty are left out."""
    shown = [(name, printable(str(value))) for name, value in rows if value not in ("", None)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        console().print(Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True)


def print_services(services: Sequence[Service]) -> None:
    """The services, each with what there is to say about it on a line below."""
    out = console()
    if not services:
        out.print("No service is registered.")
        return
    rows = [_SERVICE_HEADER, *map(_service_row, services)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_SERVICE_HEADER) - 1)]
    for row, service in zip(rows, (None, *services), strict=True):
        line = Text()
        for cell, width in zip(row, (*widths, 0), strict=True):
            style = "bold" if service is None else _STYLES.get(cell, "")
            line.append(cell.ljust(width), style)
            line.append("  ")
        line.rstrip()
        out.print(line, soft_wrap=True)
        if service is not None and (about := _about(service)):
            out.print(Text(f"  {printable(about)}", style="dim"), soft_wrap=True)


def shortened(ids: Sequence[str], least: int = 8) -> list[str]:
    """The beginnings of `ids` that tell them apart, all of one length."""
    length = least
    while len({text[:length] for text in ids}) < len(set(ids)):
        length += 1
    return [text if len(text) <= length + least else text[:length] for text in ids]


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
        "group": service.group,
        "epoch": service.epoch,
    }


_SERVICE_HEADER: Final = ("kind", "status", "load", "id", "endpoints")


def _service_row(service: Service) -> tuple[str, ...]:
    capacity = f" / {service.capacity}" if service.capacity else ""
    row = (
        service.kind,
        service.status,
        f"{service.load:g}{capacity}",
        service.id,
        ", ".join(map(str, service.endpoints)) or "-",
    )
    return tuple(map(printable, row))


def _about(service: Service) -> str:
    facts = [service.reason] if service.reason else []
    if service.status == "starting":
        facts.append(f"{service.progress:.0%}")
    if service.group:
        part = f"leads {service.group} in epoch {service.epoch}" if service.epoch else f"stands by for {service.group}"
        facts.append(part)
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
