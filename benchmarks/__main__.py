"""Runs benchmarks one after the other, and makes one table and pictures of what they note.

`python -m benchmarks [NAME ...]` (`make bench`): all of them, or these. Alone on the machine; some of them take minutes. The
table and the pictures go to docs/bench/, the table to the terminal as well. Everything that is compared was measured in one
run, by turns.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.figures import FILE, Figure, noted
from benchmarks.pictures import draw

FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "bench"
STREAMING: Final = (
    "delivery",
    "crowd",
    "gateway_processes",
    "fan_out_floor",
    "position_codec",
    "views",
    "serving_overhead",
    "failover",
)
OTHERS: Final = (
    "bias",
    "interactions",
    "openmm_bias",
    "fan_out",
    "loop_lag",
    "stores",
    "lobby_join",
    "lobby_churn",
    "session_churn",
    "start",
)


def table(figures: Sequence[Figure]) -> str:
    """The figures in Markdown."""
    lines = ["| benchmark | what | measured | asked | |", "|---|---|---|---|---|"]
    for each in figures:
        verdict = "" if each.bound is None else "yes" if each.holds else "**no**"
        value = f"{each.value:,.0f}" if abs(each.value) >= 1000 else f"{each.value:.3g}"
        lines.append(f"| {each.benchmark} | {each.what} | {value} {each.unit} | {each.asked} | {verdict} |")
    return "\n".join(lines)


def page(figures: Sequence[Figure], pictures: Sequence[Path]) -> str:
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    shown = "\n".join(f"![{path.stem.replace('-', ' ')}]({path.name})\n" for path in pictures)
    return (
        f"# Benchmarks\n\nWritten by `make bench` on {time.strftime('%Y-%m-%d')}: {machine}. What each figure is, its module in\n"
        f"`benchmarks/` says.\n\n{table(figures)}\n\n{shown}"
    )


def main(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in (*STREAMING, *OTHERS)]:
        print(
            f"benchmarks: there is no {', '.join(unknown)}; choose of {', '.join((*STREAMING, *OTHERS))}",
            file=sys.stderr,
        )
        return 2
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "figures"
        for name in names or (*STREAMING, *OTHERS):
            print(f"== {name}", flush=True)
            command = [sys.executable, "-m", f"benchmarks.{name}"]
            if subprocess.run(command, env={**os.environ, FILE: str(notes)}).returncode:
                failed.append(name)
        figures = noted(notes)
    if figures:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "README.md").write_text(page(figures, draw(figures, FOLDER)))
        print(table(figures))
    if failed:
        print(f"benchmarks: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
