"""Prints the table of docs/metrics.md from what running services say of themselves.

`python deploy/monitoring/metrics_table.py http://127.0.0.1:9100/metrics ...`: one address for each service of a session that is
in use, as metrics have no labels before they have values.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

SERVICES = ("lobby", "trajectory", "imd", "gateway")
EVERYWHERE = "every service"
# Labels of each bucket of a histogram.
BUCKET = "le"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
START, END = "<!-- table -->", "<!-- end of the table -->"


def rows(expositions: Iterable[str]) -> dict[str, dict[str, tuple[str, str, str]]]:
    """Service to name to type, labels and meaning, of everything in these expositions that is Narupa's own."""
    labels: dict[str, set[str]] = {}
    said: dict[str, tuple[str, str]] = {}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            if family.name.startswith("narupa_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                said[name] = family.type, " ".join(family.documentation.split())
                labels.setdefault(name, set()).update(*(each.labels for each in family.samples))
    table: dict[str, dict[str, tuple[str, str, str]]] = {name: {} for name in (EVERYWHERE, *SERVICES)}
    for name, (kind, meaning) in sorted(said.items()):
        service = name.split("_")[1]
        named = ", ".join(f"`{each}`" for each in sorted(labels[name] - {BUCKET}))
        table[service if service in SERVICES else EVERYWHERE][name] = kind, named, meaning
    return table


def markdown(table: dict[str, dict[str, tuple[str, str, str]]]) -> str:
    """The table as it stands in the document."""
    parts = []
    for service, metrics in table.items():
        lines = [f"### {service}", "", "| name | type | labels | meaning |", "|---|---|---|---|"]
        lines += [f"| `{name}` | {kind} | {labels} | {meaning} |" for name, (kind, labels, meaning) in metrics.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def scraped(address: str) -> str:
    """The exposition at an address."""
    with urllib.request.urlopen(address, timeout=10) as response:
        return str(response.read().decode())


if __name__ == "__main__":
    print(markdown(rows(map(scraped, sys.argv[1:]))))
