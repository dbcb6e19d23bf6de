"""Figures as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.figures import Figure

# Unit of the figures that are drawn, file, and what the picture says.
PICTURES: Final = (
    ("frames per CPU-second", "delivery.png", "Frames delivered per second of server CPU"),
    ("bytes per atom and frame", "packed-positions.png", "Positions on the wire, at 0.001 nm"),
    ("ms of age", "ages.png", "Age of frames when a viewer has them"),
)


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """One picture for each unit of which there are figures; returns where they are."""
    paths = []
    for unit, name, title in PICTURES:
        drawn = [each for each in figures if each.unit == unit]
        if drawn:
            paths.append(folder / name)
            bars(drawn, title, unit, paths[-1])
    return paths


def bars(figures: Sequence[Figure], title: str, unit: str, path: Path) -> None:
    values = [each.value for each in figures]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.3 * len(values)), layout="constrained")
    held = axes.barh([each.what for each in figures], values, color="#3b6ea5")
    axes.bar_label(held, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values], padding=3)
    axes.invert_yaxis()
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
