"""What a simulation samples: raw engines to compare with, and the statistics of correlated series.

`python -m tests.validation.sampling ENGINE FILE FRAMES STEPS SEED` prints the energies of a raw engine as JSON.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import ase.io
import ase.units
import numpy as np
import openmm
import openmm.app
from ase.md.langevin import Langevin
from numpy.typing import NDArray

from narupa_shared.units import EV_IN_KJ_MOL, NM_IN_ANGSTROM
from narupa_trajectory.sources.ase_source import ASE_VELOCITY_IN_NM_PS
from tests.validation.systems import ARGON_BOX, PairArgon, argon_start, argon_system

Series = NDArray[np.float64]

TIMESTEP_PS: Final = 0.005
FRICTION_PER_PS: Final = 5.0
# Hot enough for the liquid's structure to forget itself as fast as the thermostat does.
TEMPERATURE_K: Final = 300.0


def written(engine: str, folder: Path, seed: int) -> Path:
    """The liquid with Langevin dynamics, in equilibrium, as a file that the service and the raw engine read."""
    positions, velocities = argon_start(seed, temperature_k=TEMPERATURE_K)
    if engine == "ase":
        atoms = ase.Atoms(
            ["Ar"] * len(positions), positions * NM_IN_ANGSTROM, cell=ARGON_BOX * NM_IN_ANGSTROM, pbc=True
        )
        atoms.set_velocities(velocities / ASE_VELOCITY_IN_NM_PS)
        ase.io.write(folder / "argon.traj", atoms)
        return folder / "argon.traj"
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE_K, FRICTION_PER_PS, TIMESTEP_PS)
    integrator.setRandomNumberSeed(seed)
    system = argon_system()
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    context.setVelocities(velocities)
    state = context.getState(getPositions=True, getVelocities=True)
    root = ElementTree.Element("OpenMMSimulation")
    lines = [
        f"HETATM{i:5d} AR   AR  A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          AR"
        for i, (x, y, z) in enumerate(positions * NM_IN_ANGSTROM, 1)
    ]
    ElementTree.SubElement(root, "pdb").text = "\n".join([*lines, "END"])
    for part in (system, integrator, state):
        root.append(ElementTree.fromstring(openmm.XmlSerializer.serialize(part)))
    path = folder / "argon.xml"
    ElementTree.ElementTree(root).write(path, encoding="utf-8")
    return path


def source_text(engine: str, path: Path) -> str:
    """The file as an input of the trajectory service."""
    if engine == "openmm":
        return f"{path}?platform=Reference"
    return (
        f"{path}?calculator=tests.validation.systems:PairArgon&timestep_fs={TIMESTEP_PS * 1000:g}"
        f"&temperature_k={TEMPERATURE_K:g}&friction_per_ps={FRICTION_PER_PS:g}"
    )


def raw_openmm(path: Path, frames: int, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Potential and kinetic energies, kJ/mol, of OpenMM by itself."""
    root = ElementTree.parse(path).getroot()
    system, integrator, state = (
        openmm.XmlSerializer.deserialize(ElementTree.tostring(root[i], encoding="unicode")) for i in (1, 2, 3)
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setState(state)
    potential, kinetic = [], []
    for _ in range(frames):
        integrator.step(steps)
        now = context.getState(getEnergy=True)
        potential.append(now.getPotentialEnergy()._value)
        kinetic.append(now.getKineticEnergy()._value)
    return potential, kinetic


def raw_ase(path: Path, frames: int, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """Potential and kinetic energies, kJ/mol, of ASE by itself."""
    atoms = ase.io.read(path)
    atoms.calc = PairArgon()
    dynamics = Langevin(
        atoms,
        TIMESTEP_PS * 1000 * ase.units.fs,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_PS / (1000 * ase.units.fs),
        fixcm=False,
        rng=np.random.default_rng(seed),
    )
    potential, kinetic = [], []
    for _ in range(frames):
        for _ in range(steps):
            dynamics.step()
        potential.append(atoms.get_potential_energy() * EV_IN_KJ_MOL)
        kinetic.append(atoms.get_kinetic_energy() * EV_IN_KJ_MOL)
    return potential, kinetic


def correlation_time(series: Series) -> float:
    """The integrated autocorrelation time in samples, at least 1/2: 1/2 + sum of the normalised autocorrelation.

    The sum ends at the first window of 10 such times (Sokal, Monte Carlo Methods in Statistical Mechanics, 1996).
    """
    away = series - series.mean()
    size = 1 << (2 * len(away) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(away, size)) ** 2
    correlation = np.fft.irfft(spectrum)[: len(away)]
    times = 0.5 + np.cumsum(correlation[1:] / correlation[0])
    windows = np.arange(1, len(away))
    (enough,) = np.nonzero(windows >= 10 * times)
    return max(0.5, float(times[enough[0] if len(enough) else -1]))


def decorrelated(series: Series) -> Series:
    """Every n-th sample, n being twice the correlation time: as good as independent."""
    return series[:: math.ceil(2 * correlation_time(series))]


if __name__ == "__main__":
    engine, file, *counts = sys.argv[1:]
    run = {"openmm": raw_openmm, "ase": raw_ase}[engine]
    print(json.dumps(run(Path(file), *map(int, counts))))
