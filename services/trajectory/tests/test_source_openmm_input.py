"""OpenMM inputs that are broken, hostile, or from other servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import openmm.app
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources.openmm_input import open_openmm
from narupa_trajectory.sources.openmm_system import degrees_of_freedom, drop_placeholders

PDB = "HETATM    1 AR1  AR  A   1       0.000   0.000   0.000  1.00  0.00          AR\nEND\n"


def serialised(thing: object) -> str:
    text: str = openmm.XmlSerializer.serialize(thing)
    return text.partition("?>")[2]


def one_argon() -> openmm.System:
    system = openmm.System()
    system.addParticle(39.948)
    return system


def written(folder: Path, *parts: str, root: str = "OpenMMSimulation") -> Path:
    path = folder / "input.xml"
    path.write_text(f"<{root}>{''.join(parts)}</{root}>")
    return path


STRUCTURE = f"<pdb>{PDB}</pdb>"
SYSTEM = serialised(one_argon())
INTEGRATOR = serialised(openmm.VerletIntegrator(0.001))


def test_a_minimal_input_runs(tmp_path: Path) -> None:
    source = open_openmm(written(tmp_path, STRUCTURE, SYSTEM, INTEGRATOR), "argon")
    assert source.advance(5)
    assert source.topology()["particle.elements"].tolist() == [18]  # type: ignore[union-attr]


def test_a_state_overrides_the_structure(tmp_path: Path) -> None:
    context = openmm.Context(one_argon(), openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions([[1, 2, 3]])
    context.setVelocities([[0.5, 0, 0]])
    state = serialised(context.getState(getPositions=True, getVelocities=True))
    source = open_openmm(written(tmp_path, STRUCTURE, SYSTEM, INTEGRATOR, state), "argon")
    snapshot = source.snapshot(velocities=True)
    np.testing.assert_allclose(snapshot.positions, [[1, 2, 3]])
    np.testing.assert_allclose(snapshot.velocities, [[0.5, 0, 0]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((SYSTEM, INTEGRATOR), "has no <pdbx> or <pdb> element"),
        ((STRUCTURE, INTEGRATOR), "has no <System> element"),
        ((STRUCTURE, SYSTEM), "has no <Integrator> element"),
        (("<pdb>ATOM nonsense</pdb>", SYSTEM, INTEGRATOR), "structure"),
        ((STRUCTURE, "<System type='System' version='999'/>", INTEGRATOR), "System cannot be read"),
        ((STRUCTURE, "<System/>", INTEGRATOR), "System cannot be read"),
        (
            (STRUCTURE, SYSTEM, SYSTEM.replace("<System ", "<Integrator ").replace("</System", "</Integrator")),
            "Integrator",
        ),
        ((STRUCTURE, SYSTEM.replace("<Particles>", '<Particles><Particle mass="1"/>'), INTEGRATOR), "1 particles .* 2"),
        ((STRUCTURE, SYSTEM, INTEGRATOR, "<State>"), "not well-formed"),
        ((STRUCTURE, SYSTEM, INTEGRATOR, "<State/>"), "State cannot be read"),
    ],
)
def test_broken_inputs_name_the_file_and_the_part(tmp_path: Path, parts: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said) as caught:
        open_openmm(written(tmp_path, *parts), "broken")
    assert "input.xml" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "bomb.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><OpenMMSimulation>&a;</OpenMMSimulation>', encoding=encoding)
    with pytest.raises(InvalidArgumentError, match=r"document type|UTF-8"):
        open_openmm(path, "bomb")


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    system = one_argon()
    system.addForce(openmm.PythonForce(abs))
    text = serialised(system)
    assert "PythonForce" in text
    with pytest.raises(InvalidArgumentError, match="PythonForce"):
        open_openmm(written(tmp_path, STRUCTURE, text, INTEGRATOR), "code")


def test_other_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="root is <ForceField>"):
        open_openmm(written(tmp_path, STRUCTURE, root="ForceField"), "other")


def test_placeholders_at_zero_are_dropped_and_real_forces_kept() -> None:
    for value, kept in ((0.0, 0), (2.0, 1)):
        system = one_argon()
        force = openmm.CustomExternalForce("-fx * x - fy * y - fz * z")
        for name in ("fx", "fy", "fz"):
            force.addPerParticleParameter(name)
        force.addParticle(0, [value, 0, 0])
        system.addForce(force)
        drop_placeholders(system)
        assert system.getNumForces() == kept


def test_degrees_of_freedom() -> None:
    system = openmm.System()
    for mass in (16, 1, 1, 0):
        system.addParticle(mass)
    system.addConstraint(0, 1, 0.1)
    system.addConstraint(0, 2, 0.1)
    masses = np.array([16.0, 1, 1, 0])
    assert degrees_of_freedom(system, masses) == 7
    system.addForce(openmm.CMMotionRemover())
    assert degrees_of_freedom(system, masses) == 4


def test_an_unknown_platform_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="Reference"):
        open_openmm(written(tmp_path, STRUCTURE, SYSTEM, INTEGRATOR), "argon", platform="Abacus")
