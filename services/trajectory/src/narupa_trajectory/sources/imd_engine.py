"""A simulation that another program runs, joined over IMD: LAMMPS, GROMACS, NAMD, and whatever else speaks versions 2 or 3.

The engine goes at its own speed and sends frames; for each, the users' bias is evaluated at the positions that it holds and
the forces go back. They act from the step in which the engine next looks, at least one later, until it is sent others.
`docs/engines.md` says what that means, and what each engine makes of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from narupa_shared.imd_protocol import Frame, ImdParticleCountError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.units import FS_IN_PS
from narupa_trajectory.sources import imd_units
from narupa_trajectory.sources.divergence import Limits, check, check_finite, check_snapshot
from narupa_trajectory.sources.imd_connection import SCHEME, Connection, address_of
from narupa_trajectory.sources.source import Snapshot, SourceInfo, TopologyValue

if TYPE_CHECKING:
    from narupa_trajectory.sources.catalogue import SourceSpec
    from narupa_trajectory.sources.imd_topology import Particles
    from narupa_trajectory.sources.options import Options

# The longest that one call waits for the engine, so that commands are heard meanwhile, s.
PATIENCE_S: Final = 0.5
# How long, and for how many frames, an engine is watched to tell its units: when they were not said, and when they were.
RECOGNITION_S: Final = {False: 3.0, True: 0.5}
RECOGNITION_FRAMES: Final = 50
# LAMMPS leaves our forces out of each step in which it sends a frame by version 2.
GAPPED_RATE: Final = 5


class ImdSource:
    """One engine at the other end of a connection. It cannot be reset or restored from here."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        particles: Particles,
        *,
        units: str = "auto",
        scales: tuple[float | None, float | None, float | None] = (None, None, None),
        steps_per_frame: int = 5,
        trate: int | None = None,
        periodic: str = "xyz",
        timestep_fs: float | None = None,
        silence_s: float = 60.0,
        max_temperature_k: float | None = None,
    ) -> None:
        """Stands at the first frame that the engine sends, with the engine paused.

        Args:
            name: What people call it.
            connection: To the engine; the source closes it, and so does a failure here.
            particles: What the engine simulates.
            units: As in `ImdOptions`.
            scales: With units "lj": of length (nm), time (ps) and energy (kJ/mol).
            steps_per_frame: Integration steps that `advance` is asked for by default.
            trate: Integration steps between the engine's frames; None for the smallest that works.
            periodic: Directions in which its box has a period: letters of "xyz", or "none".
            timestep_fs: Its integration step where it does not send its time.
            silence_s: How long it may send nothing before it counts as gone.
            max_temperature_k: Above it the simulation has blown up; None for the default.

        Raises:
            UnavailableError: the engine went away, or sends nothing.
            FailedPreconditionError, InvalidArgumentError: options that do not fit the engine.
        """
        self._connection = connection
        self._particles = particles
        self._bias = Bias(particles.masses)
        self._wanted: tuple[Interaction, ...] = ()
        self._pushed: NDArray[np.intp] = np.empty(0, np.intp)  # the particles whose forces in the engine may not be 0
        self._user_energy = 0.0
        self._user_forces: NDArray[np.float64] = np.empty((0, 3))
        self._info = SourceInfo(
            name,
            particles.count,
            True,
            steps_per_frame=steps_per_frame,
            restorable=False,
            velocity_reset_available=False,
        )
        self._periods = np.array([letter in periodic for letter in "xyz"]) & (periodic != "none")
        self._timestep_ps = None if timestep_fs is None else timestep_fs * FS_IN_PS
        self._silence_s = silence_s
        self._silent_s = 0.0
        self._limits = Limits() if max_temperature_k is None else Limits(max_temperature_k)
        self._steps = 0  # made since the first frame
        self._engine_step: int | None = None
        try:
            self._check_options(units, trate)
            self._frame = self._await_first()
            self._units = self._settled(units, scales)
            gapped = self._units.gap and connection.session.version == 2
            self._rate = trate or (GAPPED_RATE if gapped else 1)
            # The engine pushes in rate - 1 of rate steps: the mean force is then what it should be.
            self._push_unit = self._units.push * ((self._rate - 1) / self._rate if gapped else 1.0)
            connection.set_rate(self._rate)
            connection.pause()
            self._topology = particles.topology(self._positions())
            self._engine_step, self._steps = self._step_of(self._frame), 0
        except BaseException:
            connection.close()
            raise

    @property
    def info(self) -> SourceInfo:
        return self._info

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        """Lets the engine go on until it has made `steps`, or for half a second, and stops it.

        It is told to stop when its frame has come, and makes the steps that it makes until it hears that. When it needs
        longer, this returns with fewer steps made, and the next call goes on.

        Raises:
            UnavailableError: the engine is gone, or has been silent for too long.
            SourceDivergedError: the positions of what is being pulled are no longer finite.
        """
        goal_at = time.monotonic() + PATIENCE_S
        try:
            self._catch_up()
            goal = self._steps + steps
            self._connection.resume()
            while self._steps < goal and (left := goal_at - time.monotonic()) > 0:
                self._wait(left, goal)
            self._connection.pause()
        except UnavailableError as error:
            suspects = self._bias.suspects()
            if not suspects:
                raise
            # Engines that are torn to pieces end themselves, LAMMPS for one.
            raise UnavailableError(f"{error}; the strongest pull on it was the interaction {suspects[0]}") from error
        check_finite("positions", self._frame.positions[self._bias.particles])
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        self._catch_up()
        frame, units, bias = self._frame, self._units, self._bias
        energies = frame.energies
        box = self._box()
        snapshot = Snapshot(
            positions=self._positions().astype(np.float32),
            time_ps=self._time_ps(),
            step=self._steps,
            box=box.astype(np.float32) if box is not None and self._periods.all() else None,
            user_work=bias.work,
        )
        if energies is not None:
            snapshot.potential_energy = energies.potential * units.energy
            snapshot.kinetic_energy = (energies.total - energies.potential) * units.energy
            snapshot.temperature = energies.temperature
        if velocities and frame.velocities is not None:
            snapshot.velocities = (frame.velocities * units.velocity).astype(np.float32)
        if not bias.empty:
            snapshot.user_energy = self._user_energy
            snapshot.user_index = bias.particles.astype(np.uint32)
            snapshot.user_forces = self._user_forces.astype(np.float32)
            snapshot.interaction_ids = tuple(item.id for item in bias.interactions)
            snapshot.interaction_energies = np.array(bias.energies, dtype=np.float64)
            snapshot.interaction_work = np.array(bias.works, dtype=np.float64)
            snapshot.interaction_forces = np.array(bias.net_forces, dtype=np.float64)
        check_snapshot(snapshot, self._limits)
        check(None, self._heat(), None, self._info.particle_count, self._limits)
        return snapshot

    def seek(self, index: int) -> None:
        raise FailedPreconditionError("a running engine has no frames to seek; record it, and play the recording")

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        count = self._info.particle_count
        wanted = tuple(item for item in interactions if item.particles and item.particles[-1] < count)
        if wanted == self._wanted:
            return
        self._catch_up()
        self._wanted = wanted
        self._bias.set(wanted, self._positions(), self._periodic_box(), self._time_ps() or 0.0)
        self._push()

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return self._bias.take_finished()

    def suspects(self) -> Sequence[str]:
        return self._bias.suspects()

    def reset(self) -> None:
        raise FailedPreconditionError(self._not_ours("be reset"))

    def checkpoint(self) -> bytes:
        raise FailedPreconditionError(self._not_ours("be checkpointed"))

    def restore(self, checkpoint: bytes) -> None:
        raise FailedPreconditionError(self._not_ours("go back to a checkpoint"))

    def close(self) -> None:
        self._connection.close()

    def _not_ours(self, what: str) -> str:
        return f"the engine at {self._connection.address} runs by itself and cannot {what} from here; do that where it runs"

    def _check_options(self, units: str, trate: int | None) -> None:
        version, address = self._connection.session.version, self._connection.address
        if version == 2 and units in ("auto", "imd"):
            reason = (
                f"{address} speaks IMD version 2, whose units differ from engine to engine: say which, "
                "units=gromacs or namd, or for LAMMPS the units of its input, real, metal or lj"
            )
            raise InvalidArgumentError("units", units, reason)
        if version == 2 and trate == 1 and units in ("real", "metal", "lj"):
            reason = (
                "LAMMPS leaves out forces in each step in which it sends a frame by version 2, so that none would "
                "ever act; say 2 or more, or use version 3 in its input (fix ... imd ... version 3)"
            )
            raise InvalidArgumentError("trate", trate, reason)
        if self._connection.info.time and self._timestep_ps is not None:
            reason = f"{address} sends its time, and needs no option for it"
            raise InvalidArgumentError("timestep_fs", self._timestep_ps / FS_IN_PS, reason)

    def _await_first(self) -> Frame:
        self._connection.set_rate(1)
        frames = self._connection.receive(self._silence_s)
        if not frames:
            address = self._connection.address
            raise UnavailableError(f"the engine at {address} has sent no frame for {self._silence_s:g} s (silence_s)")
        return frames[-1]

    def _settled(self, name: str, scales: tuple[float | None, float | None, float | None]) -> imd_units.Units:
        """The units that were named, or that fit, checked against what the engine sends."""
        given = name != "auto"
        units = imd_units.named(name, *scales) if given else None
        if self._connection.session.version == 2 or name == "lj":
            assert units is not None
            return units
        masses = self._particles.masses
        found = None
        for pair in self._pairs(RECOGNITION_S[given]):
            found = imd_units.recognised(pair, masses) if masses.any() else None
            if found is not None:
                break
        if units is not None and found not in (None, name):
            raise InvalidArgumentError("units", name, f"the engine's velocities and forces are those of units={found}")
        settled = found or ("imd" if units is None else name)
        chosen = units or imd_units.named(settled, *scales)
        imd_units.check_timestep(chosen, self._frame, settled)
        return chosen

    def _pairs(self, limit_s: float) -> Iterator[tuple[Frame, Frame]]:
        """Pairs of consecutive frames of the next moments, of engines that send time, velocities and forces."""
        info = self._connection.info
        if not (info.time and info.velocities and info.forces):
            return
        deadline, seen = time.monotonic() + limit_s, 0
        while seen < RECOGNITION_FRAMES and (left := deadline - time.monotonic()) > 0:
            for frame in self._connection.receive(left, newest=False):
                before, self._frame = self._frame, frame
                seen += 1
                yield before, frame

    def _wait(self, limit_s: float, goal: int) -> None:
        """Takes in what the engine sends within `limit_s`, and stops it when it has come to `goal`.

        Raises:
            UnavailableError: it has been silent for too long.
        """
        began = time.monotonic()
        if frames := self._connection.receive(limit_s):
            self._take(frames, goal)
            return
        self._silent_s += time.monotonic() - began
        if self._silent_s > self._silence_s:
            raise UnavailableError(
                f"the engine at {self._connection.address} has sent nothing for {self._silent_s:.0f} s "
                "(option silence_s); is it still running?"
            )

    def _catch_up(self) -> None:
        """Takes in what the engine has sent since it was told to stop."""
        frames = self._connection.receive(0.0)
        if frames:
            self._take(frames)

    def _take(self, frames: Sequence[Frame], goal: int | None = None) -> None:
        """The newest of `frames` is where the engine is, and the forces there are on their way to it; it stops at `goal`."""
        self._silent_s = 0.0
        for frame in frames:
            step = self._step_of(frame)
            # An engine may count anew (LAMMPS: reset_timestep).
            moved = step - self._engine_step if step is not None and self._engine_step is not None else 0
            self._steps += moved if moved > 0 else self._rate
            self._engine_step = step
        self._frame = frames[-1]
        if goal is not None and self._steps >= goal:
            self._connection.pause()  # first, since it does not wait for us
        if not self._bias.empty:
            self._push()

    def _push(self) -> None:
        """The forces on the particles where they are now go to the engine; those let go of are told to feel none."""
        bias = self._bias
        self._user_energy, self._user_forces = 0.0, np.zeros((0, 3))
        if not bias.empty:
            positions = self._frame.positions[bias.particles].astype(np.float64) * self._units.length
            energy, forces = bias.step(positions, self._periodic_box(), self._time_ps() or 0.0)
            # An engine that has gone astray is pushed no further; `advance` tells.
            self._user_energy, self._user_forces = energy, np.nan_to_num(forces, nan=0.0, posinf=0.0, neginf=0.0)
        released = np.setdiff1d(self._pushed, bias.particles)
        indices = np.concatenate([bias.particles, released])
        if indices.size:
            forces = np.zeros((len(indices), 3))
            forces[: len(self._user_forces)] = self._user_forces / self._push_unit
            self._connection.push(indices, forces)
        self._pushed = bias.particles

    def _positions(self) -> NDArray[np.float64]:
        """(N, 3) nm."""
        return self._frame.positions.astype(np.float64) * self._units.length

    def _heat(self) -> float | None:
        """sum m v^2 / 2 of the velocities as they are sent, kJ/mol; None without any.

        To tell a blow-up by. It is not shown: an engine may send velocities of half a step before, or constrain some.
        """
        velocities = self._frame.velocities
        if velocities is None:
            return None
        squares = np.einsum("ij,ij->i", velocities, velocities, dtype=np.float64)
        return 0.5 * float(self._particles.masses @ squares) * self._units.velocity**2

    def _box(self) -> NDArray[np.float64] | None:
        """(3, 3) nm, as the engine sends it."""
        box = self._frame.box
        return None if box is None else box.astype(np.float64) * self._units.length

    def _periodic_box(self) -> NDArray[np.float64] | None:
        """(3, 3) nm, with zeros along directions without a period; None without any."""
        box = self._box()
        if box is None or not self._periods.any():
            return None
        return np.where(self._periods[:, None], box, 0.0)

    def _time_ps(self) -> float | None:
        """The engine's own time; None where it does not tell and nobody has said how long its step is."""
        if (at := self._frame.time) is not None:
            return at.time * self._units.time
        return None if self._timestep_ps is None else self._steps * self._timestep_ps

    def _step_of(self, frame: Frame) -> int | None:
        if (at := frame.time) is not None:
            return at.step
        return None if frame.energies is None else frame.energies.step


class ImdEngine:
    """Engines that listen for IMD clients, at `imd://HOST:PORT`."""

    name = SCHEME

    @property
    def options(self) -> type[Options]:
        from narupa_trajectory.sources.imd_options import ImdOptions

        return ImdOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return target.startswith(f"{SCHEME}://")

    def check(self, spec: SourceSpec) -> None:
        from narupa_trajectory.sources.engines import existing

        address_of(spec.target)
        existing(spec.options["topology"], "topology")

    def open(self, spec: SourceSpec, name: str) -> ImdSource:
        from narupa_trajectory.sources.imd_topology import Particles

        options = dict(spec.options)
        host, port = address_of(spec.target)
        topology = options.pop("topology")
        # The file first: an engine that waits for its client should not be left waiting by one that cannot stay.
        particles = Particles(Path(topology))
        connection = Connection(host, port, particles.count, options.pop("version", "auto"))
        scales = tuple(options.pop(option, None) for option in ("lj_length_nm", "lj_time_ps", "lj_energy_kj_mol"))
        assert len(scales) == 3
        try:
            return ImdSource(name, connection, particles, scales=scales, **options)
        except ImdParticleCountError as error:
            reason = (
                f"has {error.expected} particles, and the engine at {connection.address} sends {error.sent}; "
                "name the file of just what it sends, in its order"
            )
            raise InvalidArgumentError("topology", topology, reason) from error


IMD_ENGINE: Final = ImdEngine()
