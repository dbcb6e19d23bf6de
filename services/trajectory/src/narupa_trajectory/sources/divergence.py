"""When a simulation has blown up: a state that is not finite, or hotter than anything anybody means to simulate.

A live source checks each state that it is about to show or keep, so that a bad one is never shown nor kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError

# Ten times the surface of the sun: a pull that is merely strong heats a few atoms, not a whole system, to this.
MAX_TEMPERATURE_K: Final = 100_000.0
# Frames hold single precision.
LARGEST: Final = float(np.finfo(np.float32).max)
# How the text of a SourceDivergedError begins.
DIVERGED: Final = "the simulation diverged: "


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still a simulation.

    Attributes:
        max_temperature_k: The hottest that the whole system may be, K; infinity for no limit.
    """

    max_temperature_k: float = MAX_TEMPERATURE_K


def check(
    potential: float | None,
    kinetic: float | None,
    temperature: float | None,
    particle_count: int,
    limits: Limits | None = None,
) -> None:
    """Returns where the energies are those of a simulation that goes on.

    An exploding potential energy becomes kinetic within steps, so that the temperature limits both.

    Args:
        potential: kJ/mol; None where the source does not have it.
        kinetic: kJ/mol, or None.
        temperature: K; None takes it from the kinetic energy, T = 2 E / (3 N k).
        particle_count: N.
        limits: Those of the default when None.

    Raises:
        SourceDivergedError: naming the quantity, its value and, where there is one, the limit.
    """
    for name, value, unit in (
        ("potential energy", potential, "kJ/mol"),
        ("kinetic energy", kinetic, "kJ/mol"),
        ("temperature", temperature, "K"),
    ):
        if value is not None and not math.isfinite(value):
            raise SourceDivergedError(f"{DIVERGED}the {name} is {value} {unit}")
    if temperature is None and kinetic is not None and particle_count:
        temperature = 2 * kinetic / (3 * particle_count * BOLTZMANN_KJ_MOL_K)
    hottest = (limits or Limits()).max_temperature_k
    if temperature is not None and temperature > hottest:
        raise SourceDivergedError(
            f"{DIVERGED}the temperature is {temperature:.4g} K, above its limit of {hottest:g} K "
            "(the source's option max_temperature_k)"
        )


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Returns where all of `array` is finite. Raises: SourceDivergedError with the first particle that is not."""
    if not np.isfinite(array).all():
        rows = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        raise SourceDivergedError(f"{DIVERGED}the {name} of particle {int(np.argmin(rows))} are not finite")


def check_snapshot(snapshot: Snapshot, limits: Limits | None = None) -> None:
    """Returns where everything in a live source's snapshot can be shown. Raises: SourceDivergedError."""
    check_finite("positions", snapshot.positions)
    if snapshot.velocities is not None:
        check_finite("velocities", snapshot.velocities)
    check(snapshot.potential_energy, snapshot.kinetic_energy, snapshot.temperature, len(snapshot.positions), limits)
    of_users = (
        snapshot.user_forces,
        snapshot.interaction_energies,
        snapshot.interaction_work,
        snapshot.interaction_forces,
    )
    numbers = abs(snapshot.user_energy) <= LARGEST and abs(snapshot.user_work) <= LARGEST
    if not (numbers and all((np.abs(array) <= LARGEST).all() for array in of_users)):
        raise SourceDivergedError(f"{DIVERGED}a user's force, energy or work is not finite")
