"""The options of a running engine that is joined over IMD."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from narupa_trajectory.sources.options import Options, Steps

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ImdOptions(Options):
    """Options of an engine at `imd://HOST:PORT`."""

    topology: str
    """File with the particles that the engine sends, in its order: whatever MDAnalysis or ASE reads."""
    version: Literal["auto", "2", "3"] = "auto"
    """Version of IMD; by default what the engine speaks."""
    units: Literal["auto", "imd", "real", "metal", "lj", "gromacs", "namd"] = "auto"
    """What the engine speaks; by default those of version 3, or what fits its motion. Version 2 needs it to be said."""
    steps_per_frame: Steps = 5
    """Integration steps between frames."""
    trate: Steps | None = None
    """Integration steps between the engine's own frames, at each of which its forces are renewed; by default 1."""
    periodic: Literal["none", "x", "y", "z", "xy", "xz", "yz", "xyz"] = "xyz"
    """Directions in which the box that the engine sends has a period."""
    timestep_fs: Positive | None = None
    """Integration step of an engine that does not send its time (version 2)."""
    lj_length_nm: Positive | None = None
    """With units=lj: what 1 stands for as a length."""
    lj_time_ps: Positive | None = None
    """With units=lj: what 1 stands for as a time."""
    lj_energy_kj_mol: Positive | None = None
    """With units=lj: what 1 stands for as an energy."""
    silence_s: Positive = 60.0
    """How long the engine may send nothing before it counts as gone."""
    max_temperature_k: Positive | None = None
    """What is hotter has blown up, and is stopped; by default 100 000 K."""
