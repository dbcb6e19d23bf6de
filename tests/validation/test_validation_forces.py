"""The same interaction gives the same force on every engine, and it is the published one.

One interaction of each kind acts on a group of its own among 64 atoms of two masses in a triclinic box; some groups lie across a
face. The expected forces come from formulas written down a second time in `tests/validation/laws.py`: for the radial
kinds the law that existing Narupa and NanoVer clients expect, for the others the negative gradient of the energy by finite
differences. Reported is what a frame says; felt is what moved the atoms: the momentum gained in the first step from rest, over
its length (for LAMMPS: the force that its own dump says it added). No cap is in reach. The error is the largest deviation over
the largest force of the same interaction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest

from narupa_shared.interactions import Interaction
from narupa_shared.testing.ports import unused_port
from narupa_shared.units import EV_PER_ANGSTROM_IN_KJ_MOL_NM, NM_IN_ANGSTROM
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.source import Source
from tests.integration.lammps_engine import DUMP, Lammps, lacking
from tests.validation import laws
from tests.validation.conftest import Recorder
from tests.validation.systems import Free, Vectors, free_system, on_ase, on_openmm, pull

COUNT = 64
BOX = 2.4 * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.3, 0.25, 1.0]])
MASSES = np.where(np.arange(COUNT) % 3 == 1, 20.18, 39.948)
# So short that no force changes within it, and long enough for OpenMM, which takes velocities from differences of positions.
TIMESTEP_PS = 1e-4


def places() -> Vectors:
    """A jittered lattice, wrapped into the box as engines wrap it, one by one."""
    grid = np.array([[i, j, k] for i in range(4) for j in range(4) for k in range(4)]) / 4
    jitter = np.random.default_rng(3).uniform(-0.06, 0.06, size=(COUNT, 3))
    fractions = (grid + jitter - 0.02) % 1.0
    return fractions @ BOX


def one_of_each(positions: Vectors) -> dict[str, Interaction]:
    """Interactions by kind, each on four neighbours along the third box vector, which lie across a face."""
    rows = [list(range(4 * i, 4 * i + 4)) for i in range(16)]

    def beside(atom: int, *by: float) -> Vectors:
        return positions[atom] + np.array(by)

    given: Mapping[str, dict[str, Any]] = {
        "gaussian": {"particles": rows[0][:2], "scale": 30.0, "mass_weighted": True, "parameters": {"width": 0.6}},
        "spring": {"particles": rows[1][:3], "scale": 50.0, "mass_weighted": True},
        "constant": {"particles": rows[2][:2], "scale": 100.0},
        "force": {
            "particles": rows[11],
            "mass_weighted": True,
            "parameters": {
                "force": [40.0, 10.0, -25.0],
                "forces": [[9.0, 0, 0], [0, 0, 0], [0, -30.0, 5.0], [1, 2, 3]],
            },
        },
        "steered": {"particles": rows[3][:2], "parameters": {"stiffness": 800.0, "velocity": [3e-5, -2e-5, 5e-5]}},
        "wall": {
            "particles": rows[4],
            "mass_weighted": True,
            "parameters": {"stiffness": 40.0, "normal": [0.6, 0.8, 0.3]},
        },
        "rotation": {
            "particles": rows[5],
            "mass_weighted": True,
            "parameters": {"stiffness": 50.0, "rotation": [0.2, 0.1, 0.3, 0.9]},
        },
        "distance": {"groups": [rows[6][:1], rows[6][1:3]], "parameters": {"target": 0.4}},
        "angle": {"groups": [[rows[7][0], rows[8][0]], [rows[7][1]], [rows[7][2]]], "parameters": {"target": 1.1}},
        "dihedral": {
            "groups": [[rows[9][0]], [rows[9][1]], [rows[10][1]], [rows[10][2]]],
            "parameters": {"target": 1.0},
        },
    }
    found = {}
    for kind, fields in given.items():
        first = (fields.get("particles") or fields["groups"][0])[0]
        found[kind] = pull(kind, kind, fields.pop("particles", []), beside(first, 0.23, -0.11, 0.17), **fields)
    return found


def expected(positions: Vectors, box: Vectors | None) -> dict[str, Vectors]:
    return {kind: laws.forces(item, positions, MASSES, box) for kind, item in one_of_each(positions).items()}


def in_process(engine: str, box: Vectors | None) -> Source:
    positions = places()
    if engine == "ase":
        return on_ase(MASSES, Free(), positions, timestep_ps=TIMESTEP_PS, box=box)
    integrator = openmm.VerletIntegrator(TIMESTEP_PS)
    return on_openmm(free_system(MASSES, box), integrator, positions, platform=engine)


def worst(items: Mapping[str, Interaction], law: Mapping[str, Vectors], forces: Vectors) -> tuple[float, str]:
    """The largest error of `forces` (N, 3), and the kind that has it."""
    errors = {
        kind: float(np.abs(forces[list(item.particles)] - law[kind]).max() / np.abs(law[kind]).max())
        for kind, item in items.items()
    }
    kind = max(errors, key=errors.__getitem__)
    return errors[kind], kind


def everywhere(source: Source) -> Vectors:
    """The users' forces that a frame reports, (N, 3)."""
    snapshot = source.snapshot()
    forces = np.zeros((COUNT, 3))
    forces[snapshot.user_index] = snapshot.user_forces
    return forces


@pytest.mark.parametrize("box", [BOX, None], ids=["triclinic", "no box"])
@pytest.mark.parametrize("engine", ["Reference", "CPU", "ase"])
def test_forces_are_the_law(engine: str, box: Vectors | None, record: Recorder) -> None:
    """Forces are the published ones."""
    positions = places()
    items, law = one_of_each(positions), expected(positions, box)
    source = in_process(engine, box)
    source.set_interactions(list(items.values()))
    reported, reported_kind = worst(items, law, everywhere(source))
    source.advance(1)
    velocities = source.snapshot(velocities=True).velocities
    assert velocities is not None
    felt, felt_kind = worst(items, law, velocities * MASSES[:, None] / TIMESTEP_PS)
    free = np.setdiff1d(np.arange(COUNT), [i for item in items.values() for i in item.particles])
    stray = float(np.abs(velocities[free]).max())
    source.close()
    name = "ASE" if engine == "ase" else f"OpenMM {engine}"
    record(
        f"Forces of {len(items)} kinds against independent formulas",
        system=f"{name}, {'no box' if box is None else 'triclinic box'}",
        bound="relative error ≤ 2e-6 (single precision), none on others",
        result=f"reported {reported:.1e} ({reported_kind}), felt {felt:.1e} ({felt_kind}); on others {stray:g}",
        passed=reported <= 2e-6 and felt <= 2e-6 and stray == 0,
    )


@pytest.mark.parametrize("box", [BOX, None], ids=["triclinic", "no box"])
def test_each_kind_alone_is_the_same_on_every_engine(box: Vectors | None, record: Recorder) -> None:
    """Each kind alone, as engines may choose another path for it, gives the same momentum on every engine."""
    positions = places()
    worst_pair = (0.0, "")
    for kind, item in one_of_each(positions).items():
        gained = []
        for engine in ("Reference", "CPU", "ase"):
            source = in_process(engine, box)
            source.set_interactions([item])
            source.advance(1)
            velocities = source.snapshot(velocities=True).velocities
            assert velocities is not None
            gained.append(velocities[list(item.particles)] * MASSES[list(item.particles), None] / TIMESTEP_PS)
            source.close()
        size = np.abs(gained[0]).max()
        worst_pair = max(worst_pair, *((float(np.abs(each - gained[0]).max() / size), kind) for each in gained[1:]))
    record(
        "Each kind alone: force felt, every engine against OpenMM Reference",
        system=f"OpenMM CPU, ASE; {'no box' if box is None else 'triclinic box'}",
        bound="relative difference ≤ 2e-6 (single precision)",
        result=f"at most {worst_pair[0]:.1e} ({worst_pair[1]})",
        passed=worst_pair[0] <= 2e-6,
    )


LAMMPS_SCRIPT = f"""
units metal
atom_style atomic
atom_modify map array
read_data system.data
pair_style zero 6.0 nocoeff
pair_coeff * *
timestep 0.001
fix 1 all nve
fix 2 all imd {{port}} version 3
dump 1 all custom 1 {DUMP} id x y z vx vy vz fx fy fz
dump_modify 1 sort id format float %.17g flush yes
run 1000000
"""


def lammps_data(positions: Vectors) -> str:
    """The same atoms in the same box, in LAMMPS's units."""
    box = BOX * NM_IN_ANGSTROM
    sides = "\n".join(f"0 {box[i, i]:.10f} {axis}lo {axis}hi" for i, axis in enumerate("xyz"))
    atoms = "\n".join(
        f"{i} {2 if mass < 30 else 1} {x:.10f} {y:.10f} {z:.10f}"
        for i, (mass, (x, y, z)) in enumerate(zip(MASSES, positions * NM_IN_ANGSTROM, strict=True), 1)
    )
    return (
        f"atoms\n\n{COUNT} atoms\n2 atom types\n\n{sides}\n{box[1, 0]:.10f} {box[2, 0]:.10f} {box[2, 1]:.10f} xy xz yz\n\n"
        f"Masses\n\n1 39.948\n2 20.18\n\nAtoms # atomic\n\n{atoms}\n"
    )


@pytest.mark.skipif(bool(lacking()), reason=lacking() or "LAMMPS is there")
def test_lammps_feels_the_law(tmp_path: Path, record: Recorder) -> None:
    """Forces in LAMMPS, which is sent them over IMD."""
    (tmp_path / "system.data").write_text(lammps_data(places()))
    port = unused_port()
    lammps = Lammps(tmp_path, LAMMPS_SCRIPT.format(port=port))
    source = None
    try:
        lammps.await_listening(port)
        source = open_source(
            SourceSpec.parse(f"imd://127.0.0.1:{port}?topology={tmp_path / 'system.data'}&units=metal")
        )
        positions = source.snapshot().positions.astype(float)
        items, law = one_of_each(positions), expected(positions, BOX)
        source.set_interactions(list(items.values()))
        reported, reported_kind = worst(items, law, everywhere(source))
        for _ in range(10):
            source.advance(2)
        dumped = lammps.steps()
        acted = [step for step, rows in sorted(dumped.items()) if np.abs(rows[:, 6:9]).max() > 0]
        assert acted, "no force has arrived"
        felt, felt_kind = worst(items, law, dumped[acted[0]][:, 6:9] * EV_PER_ANGSTROM_IN_KJ_MOL_NM)
    finally:
        if source is not None:
            source.close()
        lammps.close()
    record(
        f"Forces of {len(items)} kinds against independent formulas",
        system="LAMMPS over IMDv3, triclinic box",
        bound="relative error ≤ 1e-5 (IMD carries single precision)",
        result=f"reported {reported:.1e} ({reported_kind}), felt {felt:.1e} ({felt_kind})",
        passed=max(reported, felt) <= 1e-5 and math.isfinite(felt),
    )
