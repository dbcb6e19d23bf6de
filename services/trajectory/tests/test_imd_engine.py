"""An engine joined over IMD, with a fake one at the other end: units, forces, pauses, and all that can go wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imd_fakes import FakeEngine, positions_at

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.imd_protocol import (
    ByteOrder,
    Energies,
    MessageType,
    SessionInfo,
    Time,
    frame_message,
    handshake,
    header,
    parsed_forces,
)
from narupa_shared.interactions import Interaction
from narupa_trajectory.sources import imd_connection, imd_engine
from narupa_trajectory.sources.catalogue import SourceSpec, check_spec, open_source
from narupa_trajectory.sources.imd_engine import ImdSource
from narupa_trajectory.sources.source import SourceDivergedError

TIMED = SessionInfo(time=True, box=True)
BOX = np.diag([20.0, 20.0, 20.0])


def timed(step: int, order: ByteOrder = "<", dt: float = 0.002) -> bytes:
    return frame_message(order, positions_at(step), time=Time(dt, dt * step, 1000 + step), box=BOX)


def with_energies(step: int, order: ByteOrder = "<") -> bytes:
    energies = Energies(step, 300.0, -20.0, -30.0, 0, 0, 0, 0, 0, 0)
    return frame_message(order, positions_at(step), energies=energies)


@contextmanager
def joined(engine: FakeEngine, folder: Path, options: str = "") -> Iterator[ImdSource]:
    topology = folder / "three.xyz"
    topology.write_text("3\n\nC 0 0 0\nO 5 0 0\nH 0 5 0\n")
    with engine:
        source = open_source(SourceSpec.parse(f"imd://127.0.0.1:{engine.port}?topology={topology}{options}"))
        assert isinstance(source, ImdSource)
        try:
            yield source
        finally:
            source.close()
            source.close()


def spring(x: float, **fields: Any) -> Interaction:
    given = {"kind": "spring", "scale": 10.0, "mass_weighted": False, "particles": [0], **fields}
    return Interaction.parse(given.pop("id", "one"), position=[x, 0, 0], **given)


@pytest.mark.parametrize("order", ["<", ">"])
def test_version_3_in_either_byte_order(tmp_path: Path, order: ByteOrder) -> None:
    engine = FakeEngine(handshake(3, order, TIMED), lambda step: timed(step, order), particles=3)
    with joined(engine, tmp_path) as source:
        first = source.snapshot()
        assert np.asarray(source.topology()["particle.elements"]).tolist() == [6, 8, 1]
        source.advance(10)
        later = source.snapshot()
        assert later.step >= first.step + 10 and later.time_ps is not None and first.time_ps is not None
        assert later.time_ps - first.time_ps == pytest.approx(0.002 * (later.step - first.step))
        np.testing.assert_allclose(later.positions, positions_at(round(later.time_ps / 0.002)) * 0.1, rtol=1e-6)
        assert later.box is not None and later.box[0, 0] == pytest.approx(2.0)
        assert later.potential_energy is later.kinetic_energy is later.temperature is later.velocities is None


# What GROMACS and NAMD send and take: kJ/mol or kcal/mol, and kcal/(mol A). A force of 1 kcal/(mol A) is 41.84 kJ/(mol nm).
@pytest.mark.parametrize(("units", "kilojoules"), [("gromacs", 1.0), ("namd", 4.184)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_version_2_has_the_units_of_its_engine(tmp_path: Path, units: str, kilojoules: float, order: ByteOrder) -> None:
    engine = FakeEngine(handshake(2, order), lambda step: with_energies(step, order), particles=3)
    with joined(engine, tmp_path, f"&units={units}&timestep_fs=2") as source:
        source.set_interactions([spring(1.0)])
        source.advance(3)
        shown = source.snapshot()
        assert shown.potential_energy == pytest.approx(-30 * kilojoules)
        assert shown.kinetic_energy == pytest.approx(10 * kilojoules)
        assert shown.temperature == 300
        assert shown.time_ps == pytest.approx(0.002 * shown.step)
        assert shown.box is None
        expected = 20.0 * (1.0 - shown.positions[0, 0].astype(float))
        assert shown.user_forces[0, 0] == pytest.approx(expected, rel=1e-5)

        def arrived() -> bool:
            sent = (parsed_forces(message, order) for message in engine.forces())
            return any(
                indices.tolist() == [0] and forces[0, 0] * 41.84 == pytest.approx(expected, rel=1e-5)
                for indices, forces in sent
            )

        engine.await_heard(lambda heard: arrived())


@pytest.mark.parametrize(("periodic", "sign"), [("xyz", 1), ("x", 1), ("yz", -1), ("none", -1)])
def test_the_box_counts_where_it_has_a_period(tmp_path: Path, periodic: str, sign: int) -> None:
    """The handle is 1.9 nm away through a box of 2 nm: 0.1 nm the other way where that has a period."""
    engine = FakeEngine(handshake(3, "<", TIMED), timed, particles=3)
    with joined(engine, tmp_path, f"&periodic={periodic}") as source:
        source.set_interactions([spring(-1.9)])
        shown = source.snapshot()
        assert np.sign(shown.user_forces[0, 0]) == sign
        assert (shown.box is not None) == (periodic == "xyz")


def test_what_was_let_go_of_is_told_to_feel_no_force(tmp_path: Path) -> None:
    engine = FakeEngine(handshake(3, "<", TIMED), timed, particles=3)
    with joined(engine, tmp_path) as source:
        source.set_interactions([spring(1.0, particles=[0, 2]), spring(0.7, id="two", particles=[1])])
        source.advance(1)
        source.set_interactions([spring(0.7, id="two", particles=[1])])
        engine.await_heard(lambda heard: any(parsed_forces(m, "<")[0].tolist() == [1, 0, 2] for m in engine.forces()))
        sent = [parsed_forces(message, "<") for message in engine.forces()]
        _, forces = next(each for each in sent if each[0].tolist() == [1, 0, 2])
        assert forces[0].any() and not forces[1:].any()
        (account,) = source.take_finished()
        assert account.id == "one"
        source.set_interactions([])
        source.advance(1)
        assert source.snapshot().user_index.size == 0
    # And on leaving, none at all acts.
    assert [m.type for m in engine.heard[-2:]] == [MessageType.MDCOMM, MessageType.DISCONNECT]
    assert engine.heard[-2].value == 0


@pytest.mark.parametrize("version", [2, 3])
def test_it_stands_still_between_frames(tmp_path: Path, version: int) -> None:
    greeting = handshake(version, "<", TIMED)
    engine = FakeEngine(greeting, timed if version == 3 else with_energies, particles=3)
    with joined(engine, tmp_path, "" if version == 3 else "&units=gromacs") as source:
        for _ in range(3):
            source.advance(2)
        time.sleep(0.05)  # what was on its way comes
        standing = source.snapshot().step
        time.sleep(0.1)
        assert source.snapshot().step == standing
        source.advance(1)
        assert source.snapshot().step > standing


def test_a_silent_engine_holds_nobody_up_and_is_given_up_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imd_engine, "PATIENCE_S", 0.02)
    engine = FakeEngine(handshake(3, "<", TIMED), timed, particles=3, steps=1)
    with joined(engine, tmp_path, "&silence_s=0.2") as source:
        began = time.monotonic()
        assert source.advance(5)
        assert time.monotonic() - began < 0.2
        with pytest.raises(UnavailableError, match=r"has sent nothing for .* s \(option silence_s\)"):
            for _ in range(100):
                source.advance(5)


def test_an_engine_that_hangs_up_is_told_with_who_pulled_it(tmp_path: Path) -> None:
    engine = FakeEngine(handshake(3, "<", TIMED), lambda step: timed(step)[: 1000 if step < 50 else 60], particles=3)
    with joined(engine, tmp_path) as source:
        source.set_interactions([spring(0.4, id="hard")])
        source.advance(1)
        engine.hang_up()
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{engine.port} has closed .* the interaction hard"):
            for _ in range(3):
                source.advance(1)


def test_positions_that_are_not_finite_are_neither_shown_nor_pulled(tmp_path: Path) -> None:
    def astray(step: int) -> bytes:
        positions = positions_at(step)
        if step > 5:
            positions[0] = np.nan
        return frame_message("<", positions, time=Time(0.002, 0.002 * step, step), box=BOX)

    engine = FakeEngine(handshake(3, "<", TIMED), astray, particles=3)
    with joined(engine, tmp_path) as source:
        source.set_interactions([spring(0.4, id="hard")])
        with pytest.raises(SourceDivergedError, match="positions"):
            for _ in range(20):
                source.advance(1)
        with pytest.raises(SourceDivergedError):
            source.snapshot()
        assert list(source.suspects()) == ["hard"]
        for message in engine.forces():
            assert np.isfinite(parsed_forces(message, "<")[1]).all()


@pytest.mark.parametrize(
    ("greeting", "options", "refusal", "complaint"),
    [
        (handshake(2, "<"), "", InvalidArgumentError, "units=gromacs or namd"),
        (handshake(2, "<"), "&units=imd", InvalidArgumentError, "differ from engine to engine"),
        (handshake(2, "<"), "&units=lj", InvalidArgumentError, "needs lj_length_nm and lj_time_ps and lj_energy"),
        (handshake(3, "<", TIMED), "&units=lj&lj_length_nm=0.3", InvalidArgumentError, "needs lj_time_ps"),
        (handshake(3, "<", TIMED), "&units=imd&lj_length_nm=1", InvalidArgumentError, "have their own"),
        (handshake(3, "<", TIMED), "&timestep_fs=2", InvalidArgumentError, "sends its time"),
        (handshake(3, "<", TIMED), "&version=2", FailedPreconditionError, "speaks IMD version 3, not 2"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "", UnavailableError, "no message of type"),
        (handshake(9, "<"), "", UnavailableError, "handshake of version 9"),
        (handshake(3, "<", SessionInfo(coordinates=False)), "", UnavailableError, "sends no coordinates"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, greeting: bytes, options: str, refusal: type[Exception], complaint: str
) -> None:
    frame: Callable[[int], bytes] = timed if greeting == handshake(3, "<", TIMED) else with_energies
    engine = FakeEngine(greeting, frame, particles=3)
    with pytest.raises(refusal, match=complaint), joined(engine, tmp_path, options):
        pass


def test_a_timestep_that_no_simulation_takes_gives_wrong_units_away(tmp_path: Path) -> None:
    engine = FakeEngine(handshake(3, "<", TIMED), lambda step: timed(step, dt=1.0), particles=3)
    with pytest.raises(FailedPreconditionError, match=r"timestep is 1 ps.*units=real"), joined(engine, tmp_path):
        pass


@pytest.mark.parametrize(("units", "slope"), [("imd", 100.0), ("metal", 9648.5332), ("real", 4.184e-4)])
def test_units_are_read_off_the_motion(tmp_path: Path, units: str, slope: float) -> None:
    """m dv/dt = slope F with m in amu: of kJ/(mol A) and A/ps, of eV/A and A/ps, of kcal/(mol A) and A/fs."""
    dt = 1.0 if units == "real" else 0.001
    masses = np.array([12.011, 15.999, 1.008])[:, None]
    forces = np.array([[1.0, 2, 0], [0, -1, 3], [-1, -1, -3]])

    def frame(step: int) -> bytes:
        velocities = slope * forces / masses * dt * step
        at = Time(dt, dt * step, step)
        return frame_message("<", positions_at(step), time=at, velocities=velocities, forces=forces)

    info = SessionInfo(time=True, velocities=True, forces=True)
    with joined(FakeEngine(handshake(3, "<", info), frame, particles=3), tmp_path) as source:
        assert source._units == imd_engine.imd_units.KNOWN[units]
    wrong = "real" if units != "real" else "metal"
    engine = FakeEngine(handshake(3, "<", info), frame, particles=3)
    complaint = f"are those of units={units}"
    with pytest.raises(InvalidArgumentError, match=complaint), joined(engine, tmp_path, f"&units={wrong}"):
        pass


def test_another_number_of_particles_names_both(tmp_path: Path) -> None:
    engine = FakeEngine(handshake(2, "<"), lambda step: header(MessageType.COORDINATES, 7) + bytes(84), particles=3)
    complaint = r"three.xyz.* has 3 particles, and the engine at 127.0.0.1:\d+ sends 7"
    with pytest.raises(InvalidArgumentError, match=complaint), joined(engine, tmp_path, "&units=namd"):
        pass


def test_nobody_there_and_nobody_who_greets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imd_connection, "HANDSHAKE_LIMIT_S", 0.05)
    topology = tmp_path / "one.xyz"
    topology.write_text("1\n\nC 0 0 0\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            UnavailableError, match=f"127.0.0.1:{port} took the connection and has sent no IMD handshake"
        ):
            open_source(SourceSpec.parse(f"imd://127.0.0.1:{port}?topology={topology}"))
    with pytest.raises(UnavailableError, match=rf"no engine answers IMD at 127.0.0.1:{port} \(Connection refused\)"):
        open_source(SourceSpec.parse(f"imd://127.0.0.1:{port}?topology={topology}"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("imd://127.0.0.1:8888", "topology"),
        ("imd://127.0.0.1:8888?topology=/nowhere/top.pdb", "no such file"),
        ("imd://?topology={file}", "write imd://HOST:PORT"),
        ("imd://host:99999?topology={file}", "write imd://HOST:PORT"),
        ("imd://host:0?topology={file}", "port 0"),
        ("imd://host:1/path?topology={file}", "write imd://HOST:PORT"),
        ("imd://host:1?topology={file}&units=stone", "units"),
        ("imd://host:1?topology={file}&trate=0", "trate"),
        ("imd://host:1?topology={file}&periodic=zx", "periodic"),
        ("imd://host:1?topology={file}&colour=red", "colour"),
    ],
)
def test_a_name_that_cannot_be_right_is_refused_before_anything_is_opened(
    tmp_path: Path, text: str, complaint: str
) -> None:
    topology = tmp_path / "one.xyz"
    topology.write_text("1\n\nC 0 0 0\n")
    with pytest.raises(NarupaError, match=complaint):
        check_spec(text.format(file=topology))
