"""The elastic network: its physics against what is known of it, and what it says of inputs that it cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from narupa_elastic_network.beads import Beads, helix, read
from narupa_elastic_network.engine import ENGINE, HELIX, ElasticNetworkOptions
from narupa_elastic_network.network import Network, piece_count
from narupa_elastic_network.source import RESIDUE_MASS, ElasticNetworkSource, random_state

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.sources.catalogue import SourceSpec, check_spec, open_source
from narupa_trajectory.sources.source import SourceDivergedError
from narupa_trajectory.testing.engine_contract import EngineCase, EngineContract

PDB = "ATOM  {0:>5} {1:<4} GLY A{0:>4}    {2:8.3f}{3:8.3f}{4:8.3f}  1.00  0.00           {5:>2}\n"


def source(**options: object) -> ElasticNetworkSource:
    """The helix; the same random numbers every time."""
    return ElasticNetworkSource(
        "helix", helix(), ElasticNetworkOptions.model_validate(options), np.random.default_rng(2)
    )


class TestEngine(EngineContract):
    """What every engine promises."""

    @pytest.fixture(params=["langevin", "nve"])
    def case(self, request: pytest.FixtureRequest) -> EngineCase:
        nve = request.param == "nve"
        options = {"timestep_fs": 4, "friction_per_ps": 0} if nve else {}
        return EngineCase(
            make=lambda: source(**options),
            temperature_k=300.0,
            masses=lambda source: np.full(source.info.particle_count, RESIDUE_MASS),
            conserves_energy=nve,
            # At rest in the structure, all of its thermal energy is kinetic; without a thermostat half of it goes.
            equilibrated=not nve,
        )


def test_the_force_is_the_negative_gradient_of_the_energy() -> None:
    network = Network(helix().positions, 1.3, 418.4)
    positions = helix().positions + np.random.default_rng(1).normal(scale=0.05, size=helix().positions.shape)
    _, forces = network.evaluate(positions)
    step = 1e-6
    for bead, axis in ((0, 0), (7, 1), (39, 2)):
        shift = np.zeros_like(positions)
        shift[bead, axis] = step
        slope = (network.evaluate(positions + shift)[0] - network.evaluate(positions - shift)[0]) / (2 * step)
        assert forces[bead, axis] == pytest.approx(-slope, rel=1e-6)
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-9)


def test_the_structure_is_at_rest_and_two_beads_swing_as_they_should() -> None:
    energy, forces = Network(helix().positions, 1.3, 418.4).evaluate(helix().positions)
    assert energy == pytest.approx(0, abs=1e-20)
    np.testing.assert_allclose(forces, 0, atol=1e-9)
    # Two beads and a spring: omega = sqrt(2 k / m), which is also the bound for one spring on each bead.
    pair = Network(np.array([[0.0, 0, 0], [0.4, 0, 0]]), 1.0, 418.4)
    assert pair.fastest(RESIDUE_MASS) == pytest.approx(np.sqrt(2 * 418.4 / RESIDUE_MASS))
    energy, forces = pair.evaluate(np.array([[0.0, 0, 0], [0.5, 0, 0]]))
    assert energy == pytest.approx(418.4 / 2 * 0.01)
    np.testing.assert_allclose(forces, [[41.84, 0, 0], [-41.84, 0, 0]], atol=1e-9)


@pytest.mark.parametrize(("pairs", "pieces"), [([], 5), ([(3, 4), (2, 3), (1, 2), (0, 1)], 1), ([(0, 4), (1, 3)], 3)])
def test_pieces_are_counted(pairs: list[tuple[int, int]], pieces: int) -> None:
    assert piece_count(5, np.array(pairs, np.intp).reshape(-1, 2)) == pieces


def test_the_bound_of_the_frequencies_holds() -> None:
    network = Network(helix().positions, 1.3, 418.4)
    arms = helix().positions[network.pairs[:, 0]] - helix().positions[network.pairs[:, 1]]
    directions = arms / network.lengths[:, None]
    count = len(helix().positions)
    hessian = np.zeros((3 * count, 3 * count))
    for (first, second), direction in zip(network.pairs, directions, strict=True):
        block = 418.4 * np.outer(direction, direction)
        for row, column, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            hessian[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += sign * block
    values = np.linalg.eigvalsh(hessian) / RESIDUE_MASS
    assert np.abs(values[:6]).max() < 1e-9 < values[6], "six motions of the whole body, and no other for free"
    assert 0.5 * network.fastest(RESIDUE_MASS) < np.sqrt(values[-1]) <= network.fastest(RESIDUE_MASS)


def test_the_energy_is_conserved_without_friction_while_a_bead_is_held() -> None:
    running = source(friction_per_ps=0, timestep_fs=5)
    handle = running.snapshot().positions[0].astype(float) + np.array([0.3, 0, 0])
    held = {"particles": [0], "position": handle.tolist(), "kind": "spring", "scale": 300.0, "mass_weighted": False}
    running.set_interactions([Interaction.parse("held", **held)])
    totals = []
    for _ in range(40):
        running.advance(50)
        shot = running.snapshot()
        assert shot.potential_energy is not None and shot.kinetic_energy is not None
        totals.append(shot.potential_energy + shot.kinetic_energy + shot.user_energy)
    thermal = 1.5 * len(running.topology()["particle.names"]) * BOLTZMANN_KJ_MOL_K * 300  # type: ignore[arg-type]
    assert np.ptp(totals) < 0.01 * thermal


def test_the_thermostat_keeps_the_temperature() -> None:
    running = source(friction_per_ps=5, temperature_k=200)
    running.advance(500)
    temperatures = []
    for _ in range(300):
        running.advance(20)
        temperatures.append(running.snapshot().temperature)
    # 120 degrees of freedom: one reading scatters by 200 K sqrt(2 / 120) = 26 K.
    assert np.mean(temperatures) == pytest.approx(200, abs=10)  # type: ignore[arg-type]


def test_a_checkpoint_goes_on_bit_for_bit() -> None:
    pull = Interaction.parse("one", particles=[3, 4], position=[1.0, 0.5, 0.0], kind="spring", scale=50)
    running, other = source(), source()
    running.set_interactions([pull])
    running.advance(7)
    other.restore(running.checkpoint())
    other.set_interactions([pull])
    running.set_interactions([pull])
    for each in (running, other):
        each.advance(25)
    here, there = running.snapshot(velocities=True), other.snapshot(velocities=True)
    assert here.positions.tobytes() == there.positions.tobytes()
    assert here.velocities is not None and there.velocities is not None
    assert here.velocities.tobytes() == there.velocities.tobytes()
    assert (here.step, here.user_work) == (there.step, there.user_work)
    for hostile in (
        b"",
        b"{}",
        b"[1]",
        b'{"signature": "narupa-elastic-network 1", "random": {"bit_generator": "PCG64"}}',
    ):
        assert random_state(hostile) is None


def test_what_has_blown_up_is_neither_shown_nor_kept() -> None:
    running = source(max_temperature_k=50)
    for refused in (running.snapshot, running.checkpoint):
        with pytest.raises(SourceDivergedError, match="limit of 50 K"):
            refused()


def test_a_structure_becomes_beads(tmp_path: Path) -> None:
    lines = ""
    for number, (x, y, z) in enumerate(helix().positions * 10, 1):
        lines += PDB.format(number, " CA ", x, y, z, "C") + PDB.format(number, " N  ", x + 1, y + 1, z, "N")
    path = tmp_path / "chain.pdb"
    path.write_text(lines + "END\n")
    beads = read(str(path), "name CA")
    np.testing.assert_allclose(beads.positions, helix().positions, atol=1e-4)
    assert beads.topology["residue.names"] == ["GLY"] * 40
    assert len(beads.topology["bond.pairs"]) == 39  # type: ignore[arg-type]
    assert read(str(path), "name CA and resid 1:5").topology["particle.count"] == 5
    opened = open_source(SourceSpec.parse(f"{path}?engine=elastic-network&cutoff_nm=1.0"))
    assert (opened.info.name, opened.info.particle_count) == ("chain", 40)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("selection=name%20XX", "selection is 'name XX': selects none of the 2 atoms"),
        ("selection=nme%20CA", "selection is 'nme CA': is no selection"),
        ("cutoff_nm=0.3", "cutoff_nm is 0.3: leaves the structure in 2 pieces; raise it"),
        ("timestep_fs=800", "timestep_fs is 800.0: is too long for springs so stiff; use less than 7"),
        ("cutof_nm=1", "cutof_nm is unknown here; this source has cutoff_nm, friction_per_ps"),
        ("friction_per_ps=-1", "friction_per_ps .* is '-1'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: str, said: str) -> None:
    path = tmp_path / "two.pdb"
    path.write_text(PDB.format(1, " CA ", 0, 0, 0, "C") + PDB.format(2, " CA ", 3.8, 0, 0, "C") + "END\n")
    with pytest.raises(InvalidArgumentError, match=said):
        open_source(SourceSpec.parse(f"{path}?engine=elastic-network&{options}"))


def test_the_service_finds_the_engine_by_its_entry_point() -> None:
    spec = SourceSpec.parse(f"{HELIX}?temperature_k=10")
    assert (spec.kind, spec.options["temperature_k"]) == (ENGINE.name, 10.0)
    with pytest.raises(InvalidArgumentError, match="there is elastic-network:helix"):
        check_spec("elastic-network:sheet")
    with pytest.raises(InvalidArgumentError, match="no such file"):
        check_spec("nowhere.pdb?engine=elastic-network")


def test_a_single_bead_has_no_springs() -> None:
    alone = Beads(np.zeros((1, 3)), {"particle.count": 1.0})
    running = ElasticNetworkSource("one", alone, ElasticNetworkOptions())
    running.advance(5)
    assert running.snapshot().potential_energy == 0
