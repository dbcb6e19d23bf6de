"""A running LAMMPS, joined over IMD: the frames are its own, our forces are what it feels, and its end is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from narupa_shared.interactions import Interaction
from narupa_shared.testing.ports import unused_port
from narupa_shared.units import EV_PER_ANGSTROM_IN_KJ_MOL_NM, KCAL_IN_KJ
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.imd_engine import ImdSource
from tests.integration.lammps_engine import DUMP, Lammps, lacking

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "LAMMPS is there")

MASS = 39.948


@dataclass(frozen=True)
class Style:
    """One of LAMMPS's systems of units: its numbers for argon, and its units in ours."""

    name: str
    epsilon: float
    timestep: float
    force: float  # kJ/(mol nm)
    velocity: float  # nm/ps
    time: float  # ps


REAL = Style("real", 0.238, 1.0, KCAL_IN_KJ * 10, 100.0, 1e-3)
METAL = Style("metal", 0.0103, 0.001, EV_PER_ANGSTROM_IN_KJ_MOL_NM, 0.1, 1.0)


def script(
    style: Style, port: int, version: int, *, free: bool = False, side: int = 3, cutoff: float = 8.0, extra: str = ""
) -> str:
    """Argon on a lattice; of `free` atoms none feels another, so that all their momentum is what we gave them.

    The longer the `cutoff`, the slower: an engine that makes a step in microseconds outruns any force from outside.
    """
    pair = (
        f"pair_style zero {cutoff} nocoeff\npair_coeff * *"
        if free
        else f"pair_style lj/cut {cutoff}\npair_coeff 1 1 {style.epsilon} 3.405"
    )
    edge = 6.0 * side
    return f"""
units {style.name}
atom_style atomic
atom_modify map array
lattice sc 6.0
region box block 0 {edge} 0 {edge} 0 {edge} units box
create_box 1 box
create_atoms 1 box
mass 1 {MASS}
{pair}
{"" if free else "velocity all create 60 4711 mom yes"}
timestep {style.timestep}
write_data system.data
fix 1 all nve
fix 2 all imd {port} version {version} {extra}
dump 1 all custom 1 {DUMP} id x y z vx vy vz fx fy fz
dump_modify 1 sort id format float %.17g flush yes
run 1000000
"""


class Joined:
    """LAMMPS and the source that has joined it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = unused_port()
        self.lammps: Lammps | None = None
        self.source: ImdSource | None = None

    def start(self, text: str) -> Lammps:
        self.lammps = Lammps(self.folder, text)
        self.lammps.await_listening(self.port)
        return self.lammps

    def join(self, options: str = "", topology: str = "system.data") -> ImdSource:
        text = f"imd://127.0.0.1:{self.port}?topology={self.folder / topology}{options}"
        source = open_source(SourceSpec.parse(text))
        assert isinstance(source, ImdSource)
        self.source = source
        return source

    def close(self) -> None:
        if self.source:
            self.source.close()
        if self.lammps:
            self.lammps.close()


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Joined]:
    both = Joined(tmp_path)
    yield both
    both.close()


def spring(source: ImdSource, particle: int, by: tuple[float, float, float], scale: float = 100.0) -> Interaction:
    place = source.snapshot().positions[particle].astype(float) + by
    return Interaction.parse(
        "pull", particles=[particle], position=place.tolist(), kind="spring", scale=scale, mass_weighted=False
    )


@pytest.mark.parametrize("style", [REAL, METAL], ids=lambda style: style.name)
@pytest.mark.parametrize("version", [3, 2])
def test_frames_are_lammps_own(joined: Joined, style: Style, version: int) -> None:
    lammps = joined.start(script(style, joined.port, version))
    source = joined.join("" if version == 3 else f"&units={style.name}")
    assert source.info.live and not source.info.restorable and source.info.particle_count == 27
    assert np.asarray(source.topology()["particle.elements"]).tolist() == [18] * 27
    for _ in range(5):
        before = source.snapshot().step
        source.advance(10)
        snapshot = source.snapshot(velocities=True)
        assert snapshot.step >= before + 10
        assert (
            snapshot.potential_energy is None and snapshot.temperature is None
        )  # it sends no energies: not zero, none
        if version == 2:
            assert snapshot.time_ps is None and snapshot.box is None and snapshot.velocities is None
            continue
        assert snapshot.time_ps is not None and snapshot.velocities is not None and snapshot.box is not None
        step = round(snapshot.time_ps / (style.timestep * style.time))
        own = lammps.at(step)
        np.testing.assert_allclose(snapshot.positions, own[:, :3] * 0.1, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(snapshot.velocities, own[:, 3:6] * style.velocity, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(snapshot.box, np.diag([1.8] * 3), rtol=1e-6)
    if version == 2:
        lammps.await_positions(source.snapshot().positions * 10)


@pytest.mark.parametrize("style", [REAL, METAL], ids=lambda style: style.name)
def test_lammps_feels_the_force_that_is_reported(joined: Joined, style: Style) -> None:
    lammps = joined.start(script(style, joined.port, 3, free=True))
    source = joined.join(f"&units={style.name}")
    source.set_interactions([spring(source, 13, (0.3, -0.2, 0.1))])
    reported = [source.snapshot()]
    for _ in range(40):
        source.advance(1)
        reported.append(source.snapshot())
    source.set_interactions([])
    source.advance(20)
    source.advance(1)
    # Each force that LAMMPS added, as its own dump tells, is one of those that we computed for a frame before it.
    steps = lammps.steps()
    felt = np.array([steps[step][13, 6:9] for step in sorted(steps)]) * style.force
    sent = np.array([snapshot.user_forces[0] for snapshot in reported], dtype=float)
    acted = felt[np.linalg.norm(felt, axis=1) > 0]
    assert len(acted) >= 40
    np.testing.assert_allclose(acted[0], sent[0], rtol=1e-6)
    matched = [force for force in acted if np.abs(force - sent).max(axis=1).min() < 1e-5 * np.abs(sent).max()]
    assert len(matched) > 0.5 * len(acted)  # the rest are those of frames between the snapshots
    # Nothing else acts: what the atom gained in momentum, measured by LAMMPS, is the sum of F dt.
    last = max(steps)
    gained = steps[last][13, 3:6] * style.velocity * MASS
    np.testing.assert_allclose(gained, felt.sum(axis=0) * style.timestep * style.time, rtol=1e-6)
    # And the force is the law's: -2 scale (x - h) at the positions that we showed.
    first = reported[0]
    np.testing.assert_allclose(first.user_forces[0], 200.0 * np.array([0.3, -0.2, 0.1]), rtol=1e-6)
    assert not felt[-1].any(), "the force outlives its release"
    others = np.delete(steps[last][:, 3:6], 13, axis=0)
    assert not others.any()


def test_a_pull_moves_the_atom_and_its_release_ends_it(joined: Joined) -> None:
    joined.start(script(METAL, joined.port, 3))
    source = joined.join()
    given = spring(source, 0, (0.25, 0, 0), scale=2000.0)
    far = float(np.linalg.norm(source.snapshot().positions[0] - given.position))
    source.set_interactions([given])
    nearest, work = far, 0.0  # where it comes nearest, the most work has been done; it may swing back
    for _ in range(60):
        source.advance(5)
        held = source.snapshot()
        nearest = min(nearest, float(np.linalg.norm(held.positions[0] - given.position)))
        work = max(work, held.user_work)
        assert held.interaction_ids == ("pull",)
    assert nearest < 0.5 * far
    assert work > 0
    source.set_interactions([])
    (account,) = source.take_finished()
    assert account.id == "pull" and account.work == pytest.approx(source.snapshot().user_work)
    source.advance(5)
    assert source.snapshot().user_index.size == 0


def test_version_2_pushes_as_hard_on_average(joined: Joined) -> None:
    """LAMMPS leaves forces out whenever it sends a frame by version 2; what is sent makes up for it."""
    lammps = joined.start(script(REAL, joined.port, 2, free=True))
    source = joined.join("&units=real&trate=4")
    far = Interaction.parse(
        "pull", particles=[13], position=[500.0, 0.9, 0.9], kind="constant", scale=50.0, mass_weighted=False
    )
    source.set_interactions([far])
    for _ in range(40):
        source.advance(10)
    steps = lammps.steps()
    felt = np.array([steps[step][13, 6] for step in sorted(steps)]) * REAL.force
    began = int(np.flatnonzero(felt)[0])
    assert felt[began:].mean() == pytest.approx(50.0, rel=0.03)


@pytest.mark.parametrize(
    ("style", "version", "options", "refusal", "complaint"),
    [
        (METAL, 2, "", InvalidArgumentError, "units of its input, real, metal or lj"),
        (METAL, 2, "&units=metal&trate=1", InvalidArgumentError, "none would ever act"),
        (METAL, 3, "&version=2", FailedPreconditionError, "speaks IMD version 3, not 2"),
        (METAL, 3, "&units=real", InvalidArgumentError, "are those of units=metal"),
        (REAL, 3, "&units=imd", InvalidArgumentError, "are those of units=real"),
    ],
)
def test_options_that_do_not_fit_are_refused_and_lammps_goes_on(
    joined: Joined, style: Style, version: int, options: str, refusal: type[Exception], complaint: str
) -> None:
    lammps = joined.start(script(style, joined.port, version))
    with pytest.raises(refusal, match=complaint):
        joined.join(options)
    assert lammps.process.poll() is None
    source = joined.join(f"&units={style.name}")
    source.advance(1)


def test_another_number_of_particles_is_refused(joined: Joined) -> None:
    joined.start(script(METAL, joined.port, 3))
    (joined.folder / "two.xyz").write_text("2\n\nAr 0 0 0\nAr 4 0 0\n")
    with pytest.raises(InvalidArgumentError, match=r"has 2 particles, and the engine at .* sends 27"):
        joined.join("&units=metal", topology="two.xyz")


def test_the_end_of_lammps_is_told(joined: Joined) -> None:
    lammps = joined.start(script(METAL, joined.port, 3))
    source = joined.join("&units=metal")
    source.advance(5)
    lammps.kill()
    with pytest.raises(UnavailableError, match=f"the engine at 127.0.0.1:{joined.port} has closed the connection"):
        for _ in range(3):
            source.advance(5)
    with pytest.raises(UnavailableError, match=f"no engine answers IMD at 127.0.0.1:{joined.port}"):
        joined.join()


def test_lammps_goes_on_after_we_leave_and_takes_the_next(joined: Joined) -> None:
    lammps = joined.start(script(METAL, joined.port, 3, free=True))
    source = joined.join("&units=metal")
    source.set_interactions([spring(source, 13, (0.3, 0, 0))])
    source.advance(20)
    source.close()
    source = joined.join("&units=metal")
    source.advance(20)
    steps = lammps.steps()
    assert lammps.process.poll() is None
    assert not steps[max(steps)][13, 6:9].any(), "a force outlives its client"


def test_what_a_running_engine_cannot_do_is_said(joined: Joined) -> None:
    joined.start(script(METAL, joined.port, 3))
    source = joined.join("&units=metal")
    refused: list[Callable[[], object]] = [source.reset, source.checkpoint, lambda: source.restore(b"")]
    for act in refused:
        with pytest.raises(FailedPreconditionError, match="runs by itself"):
            act()
    with pytest.raises(FailedPreconditionError, match="no frames to seek"):
        source.seek(0)
