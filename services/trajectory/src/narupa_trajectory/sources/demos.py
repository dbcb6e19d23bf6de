"""Simulations to run when no input is named, built here from chemistry and published force fields.

The nanotube: an open (6, 6) armchair tube of carbon, and a methane.
  * carbon: AMBER/OPLS-AA aromatic CA, bonds 469 kcal/(mol A^2) at 1.40 A, angles 63 kcal/(mol rad^2) at 120 degrees,
    torsions V2 = 14.5 kcal/mol over four paths (Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995)), Lennard-Jones
    sigma 3.55 A and epsilon 0.070 kcal/mol (Jorgensen, Maxwell and Tirado-Rives, J. Am. Chem. Soc. 118, 11225 (1996));
  * methane: the same OPLS-AA paper, C 3.50 A and 0.066 kcal/mol, H 2.50 A and 0.030 kcal/mol, C-H 340 kcal/(mol A^2) at
    1.09 A, H-C-H 33 kcal/(mol rad^2) at 107.8 degrees.
Energies there are K (x - x0)^2, so OpenMM's constants are twice K. Charges are left out: nothing else is charged.

The peptide: acetyl, ten alanines, N-methylamide in an ideal alpha helix, Amber14 with the GBn2 implicit solvent.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import openmm
import openmm.app
from numpy.typing import NDArray
from openmm.app import element

from narupa_shared.units import ANGSTROM_IN_NM, KCAL_IN_KJ
from narupa_trajectory.sources import topologies
from narupa_trajectory.sources.openmm_source import OpenMMSource

PER_SQUARE_ANGSTROM: Final = 2 * KCAL_IN_KJ * 100  # K in kcal/(mol A^2) to k in kJ/(mol nm^2)
PER_SQUARE_RADIAN: Final = 2 * KCAL_IN_KJ

TUBE_CELLS: Final = 5
TUBE_BOND_NM: Final = 0.142
# Weak enough to let the tube breathe and recoil, strong enough that a pull on the methane does not carry it away.
TUBE_TETHER: Final = 50.0  # kJ/(mol nm^2), on each carbon
# The methane meets a soft wall before it is out of reach.
WALL_RADIUS_NM: Final = 1.5
WALL_STIFFNESS: Final = 200.0  # kJ/(mol nm^2)

HELIX_RESIDUES: Final = 10
HELIX_PHI, HELIX_PSI, TRANS = math.radians(-57.0), math.radians(-47.0), math.pi


def nanotube(name: str, **options: Any) -> OpenMMSource:
    """A methane at the mouth of a carbon nanotube that it fits through, at 300 K. The tube lies along z."""
    import ase.build  # takes as long to load as all the rest, and only this demo needs it

    tube = ase.build.nanotube(6, 6, length=TUBE_CELLS, bond=TUBE_BOND_NM * 10, vacuum=0.0)
    carbons: NDArray[np.float64] = (tube.get_positions() - tube.get_positions().mean(axis=0)) * ANGSTROM_IN_NM
    mouth = np.array([0.0, 0.0, carbons[:, 2].max() + 0.4])
    methane = mouth + np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * (0.109 / math.sqrt(3))
    positions = np.concatenate([carbons, methane])
    count = len(carbons)
    bonds = [(int(a), int(b)) for a, b in topologies.guessed_bonds([6] * count, carbons)]
    bonds += [(count, count + i) for i in range(1, 5)]

    topology = openmm.app.Topology()
    atoms = []
    for residue_name, chain, elements in (
        ("CNT", "A", [element.carbon] * count),
        ("CH4", "B", [element.carbon] + [element.hydrogen] * 4),
    ):
        residue = topology.addResidue(residue_name, topology.addChain(chain))
        atoms += [topology.addAtom(f"{each.symbol}{i + 1}", each, residue) for i, each in enumerate(elements)]
    for first, second in bonds:
        topology.addBond(atoms[first], atoms[second])

    system = openmm.System()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    for force in nanotube_forces(carbons, count, bonds):
        system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    keys = topologies.from_openmm(topology, positions)
    return OpenMMSource(name, keys, system, integrator, positions, **{"minimise": True, **options})


def nanotube_forces(carbons: NDArray[np.float64], count: int, bonds: list[tuple[int, int]]) -> list[openmm.Force]:
    neighbours: list[list[int]] = [[] for _ in range(count + 5)]
    stretch, bend, twist = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
        stretch.addBond(
            first,
            second,
            *((0.140, 469 * PER_SQUARE_ANGSTROM) if second < count else (0.109, 340 * PER_SQUARE_ANGSTROM)),
        )
    for centre, around in enumerate(neighbours):
        angle, stiffness = (120.0, 63.0) if centre < count else (107.8, 33.0)
        for first, second in itertools.combinations(around, 2):
            bend.addAngle(first, centre, second, math.radians(angle), stiffness * PER_SQUARE_RADIAN)
    for second, third in bonds:
        if third < count:
            ends = itertools.product(neighbours[second], neighbours[third])
            for first, fourth in ends:
                if first != third and fourth != second:
                    twist.addTorsion(first, second, third, fourth, 2, math.pi, 14.5 / 4 * KCAL_IN_KJ)
    dispersion = openmm.NonbondedForce()
    for index in range(count + 5):
        sigma, epsilon = (0.355, 0.070) if index < count else (0.350, 0.066) if index == count else (0.250, 0.030)
        dispersion.addParticle(0.0, sigma, epsilon * KCAL_IN_KJ)
    dispersion.createExceptionsFromBonds(bonds, 0.5, 0.5)
    tether = openmm.CustomExternalForce(f"{TUBE_TETHER}/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for axis in "xyz":
        tether.addPerParticleParameter(f"{axis}0")
    for index, place in enumerate(carbons):
        tether.addParticle(index, place)
    wall = openmm.CustomExternalForce(f"{WALL_STIFFNESS}/2*max(0, sqrt(x*x+y*y+z*z)-{WALL_RADIUS_NM})^2")
    for index in range(count, count + 5):
        wall.addParticle(index, [])
    return [stretch, bend, twist, dispersion, tether, wall]


def peptide(name: str, **options: Any) -> OpenMMSource:
    """A helix of ten alanines with neutral ends, at 300 K in implicit water, 2 fs steps."""
    structure = openmm.app.PDBFile(io.StringIO(helix_pdb()))
    field = openmm.app.ForceField("amber14-all.xml", "implicit/gbn2.xml")
    modeller = openmm.app.Modeller(structure.topology, structure.positions)
    # Without a force field hydrogens go where there is room, which is quick; the minimisation moves them to their places.
    modeller.addHydrogens(platform=openmm.Platform.getPlatform("Reference"))
    system = field.createSystem(modeller.topology, nonbondedMethod=openmm.app.NoCutoff, constraints=openmm.app.HBonds)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    positions = np.array([tuple(place) for place in modeller.positions.value_in_unit(openmm.unit.nanometer)])
    positions -= positions.mean(axis=0)
    keys = topologies.from_openmm(modeller.topology, positions)
    return OpenMMSource(name, keys, system, integrator, positions, **{"minimise": True, **options})


def helix_pdb() -> str:
    """The heavy atoms of the capped helix as PDB text, from internal coordinates (lengths in A: Engh and Huber, Acta
    Cryst. A47, 392 (1991))."""
    atoms: list[tuple[str, str, int, NDArray[np.float64]]] = []

    def add(name: str, residue: str, number: int, position: NDArray[np.float64]) -> NDArray[np.float64]:
        atoms.append((name, residue, number, position))
        return position

    methyl = add("CH3", "ACE", 1, np.zeros(3))
    carbonyl = add("C", "ACE", 1, np.array([1.52, 0.0, 0.0]))
    add(
        "O",
        "ACE",
        1,
        np.array([1.52 + 1.231 * math.cos(math.radians(59.5)), 1.231 * math.sin(math.radians(59.5)), 0.0]),
    )
    alpha = methyl  # the acetyl's methyl is where the alpha carbon before would be
    nitrogen = np.array([1.52 + 1.329 * math.cos(math.radians(-63.8)), 1.329 * math.sin(math.radians(-63.8)), 0.0])
    for number in range(2, HELIX_RESIDUES + 2):
        before_alpha, before_carbonyl = alpha, carbonyl
        nitrogen = add("N", "ALA", number, nitrogen)
        alpha = add("CA", "ALA", number, placed(before_alpha, before_carbonyl, nitrogen, 1.458, 121.7, TRANS))
        carbonyl = add("C", "ALA", number, placed(before_carbonyl, nitrogen, alpha, 1.525, 111.2, HELIX_PHI))
        add("O", "ALA", number, placed(nitrogen, alpha, carbonyl, 1.231, 120.1, HELIX_PSI + math.pi))
        add(
            "CB", "ALA", number, placed(before_carbonyl, nitrogen, alpha, 1.521, 110.5, HELIX_PHI - math.radians(122.6))
        )
        nitrogen = placed(nitrogen, alpha, carbonyl, 1.329, 116.2, HELIX_PSI)
    number = HELIX_RESIDUES + 2
    add("N", "NME", number, nitrogen)
    add("C", "NME", number, placed(alpha, carbonyl, nitrogen, 1.458, 121.7, TRANS))
    lines = [
        f"{'ATOM' if residue == 'ALA' else 'HETATM':<6}{serial:>5} {name:<4} {residue:>3} A{number:>4}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {name[0]:>2}"
        for serial, (name, residue, number, (x, y, z)) in enumerate(
            ((f" {name}" if len(name) < 4 else name, residue, number, place) for name, residue, number, place in atoms),
            1,
        )
    ]
    return "\n".join([*lines, "TER", "END", ""])


def placed(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], length: float, angle: float, dihedral: float
) -> NDArray[np.float64]:
    """The atom d bonded to c at `length`, with the angle b-c-d (degrees) and the dihedral a-b-c-d (radians)."""
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, axis)
    theta = math.radians(angle)
    along, side = -length * math.cos(theta), length * math.sin(theta)
    place: NDArray[np.float64] = c + along * axis + side * (math.cos(dihedral) * across + math.sin(dihedral) * normal)
    return place


DEMOS: Final[dict[str, Callable[..., OpenMMSource]]] = {"nanotube": nanotube, "peptide": peptide}
