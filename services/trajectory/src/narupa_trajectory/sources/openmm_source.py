"""A simulation that OpenMM runs, with the users' bias evaluated inside the integration at every step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import openmm

from narupa_shared.errors import FailedPreconditionError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.sources import divergence
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.openmm_bias import OpenMMBias
from narupa_trajectory.sources.openmm_state import OpenMMState
from narupa_trajectory.sources.openmm_system import Vectors, drop_placeholders, new_context, vectors_of
from narupa_trajectory.sources.source import Snapshot, SourceDivergedError, SourceInfo, TopologyValue
from narupa_trajectory.sources.velocities import to_redraw


class OpenMMSource:
    """One OpenMM context: its state is `OpenMMState`'s affair, what users do to it `OpenMMBias`'s."""

    def __init__(
        self,
        name: str,
        topology: Mapping[str, TopologyValue],
        system: openmm.System,
        integrator: openmm.Integrator,
        positions: Vectors,
        *,
        velocities: Vectors | None = None,
        box: Vectors | None = None,
        steps_per_frame: int = 5,
        temperature_k: float | None = None,
        minimise: bool = False,
        platform: str | None = None,
        max_temperature_k: float = divergence.MAX_TEMPERATURE_K,
    ) -> None:
        """Ready to run from `positions` ((N, 3) nm), and `velocities` ((N, 3) nm/ps) if they are given.

        Args:
            box: (3, 3) nm; by default the system's own.
            temperature_k: Of the first velocities where none are given; by default the integrator's own, and a
                simulation without thermostat starts at rest.
            minimise: Whether to relax the positions to a minimum of the potential energy first.
            platform: Name of an OpenMM platform; by default the fastest that works.
            max_temperature_k: Above this it counts as diverged.

        Raises:
            InvalidArgumentError: no such platform, or the parts do not fit together.
        """
        count = system.getNumParticles()
        self._info = SourceInfo(name, count, True, None, True, steps_per_frame)
        self._topology = topology
        self._limits = divergence.Limits(max_temperature_k)
        self._system = system
        self._integrator = integrator
        self._masses = masses = np.array([system.getParticleMass(i)._value for i in range(count)])
        drop_placeholders(system)
        self._context = new_context(system, integrator, platform)
        self._state = OpenMMState(self._context, system, masses)
        self._bias = OpenMMBias(self._context, system, masses, self._state.periodic, self._state.rebuild)
        self._wanted: tuple[Interaction, ...] = ()
        self._start = self._state.first(positions, velocities, box, temperature_k, minimise)
        self._box = self._state.box()
        self._state.put(self._start)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def platform(self) -> str:
        """The OpenMM platform that runs this."""
        return str(self._context.getPlatform().getName())

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        with self._guarded():
            self._integrator.step(steps)
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        with self._guarded():
            state, positions = self._whole_state(velocities)
            kinetic = float(state.getKineticEnergy()._value)
            snapshot = Snapshot(
                positions=positions.astype(np.float32),
                time_ps=float(state.getTime()._value),
                step=int(state.getStepCount()),
                box=None if self._box is None else self._box.astype(np.float32),
                potential_energy=float(state.getPotentialEnergy()._value),
                kinetic_energy=kinetic,
                temperature=self._state.temperature_of(kinetic),
            )
            if velocities:
                snapshot.velocities = vectors_of(state, openmm.State.Velocities).astype(np.float32)
            if self._bias.active:
                self._add_bias(snapshot, positions)
            snapshot.user_work = self._bias.work
            divergence.check_snapshot(snapshot, self._limits)
        return snapshot

    def glimpse(self, velocities: bool = False) -> Snapshot:
        with self._guarded():
            state = self._context.getState(getPositions=True, getVelocities=True)
            positions = vectors_of(state, openmm.State.Positions)
            moving = vectors_of(state, openmm.State.Velocities)
            divergence.check_finite("positions", positions)
            # Of leap-frog integrators half a step off, which is near enough to tell a blow-up.
            kinetic = 0.5 * float(self._masses @ np.einsum("ij,ij->i", moving, moving))
            divergence.check(None, kinetic, self._state.temperature_of(kinetic), len(positions), self._limits)
            if self._bias.box_moves:
                self._box = self._state.box(state)
        return Snapshot(
            positions=positions.astype(np.float32),
            time_ps=float(state.getTime()._value),
            step=int(state.getStepCount()),
            box=None if self._box is None else self._box.astype(np.float32),
            velocities=moving.astype(np.float32) if velocities else None,
            user_work=self._bias.work,
        )

    def seek(self, index: int) -> None:
        raise FailedPreconditionError("a simulation has no frames to seek; reset it, or play a recording")

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        count = self._info.particle_count
        fitting = {item.id: item for item in interactions if item.particles and item.particles[-1] < count}
        wanted = tuple(fitting.values())
        before, self._wanted = self._wanted, wanted
        if wanted == before:
            return
        with self._guarded():
            state = self._context.getState(getPositions=True)
            box = self._state.box(state) if self._bias.box_moves else self._box
            positions = vectors_of(state, openmm.State.Positions)
            self._bias.set(wanted, positions, box, float(state.getTime()._value))
            redraw = to_redraw(before, wanted)
            if redraw.size:
                self._state.redraw_velocities(redraw)

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return self._bias.take_finished()

    def suspects(self) -> Sequence[str]:
        return self._bias.suspects()

    def reset(self) -> None:
        self._put(self._start)

    def checkpoint(self) -> bytes:
        with self._guarded():
            state, positions = self._whole_state(velocities=True)
            if self._bias.active:
                self._bias.read(positions, self._box, float(state.getTime()._value))
            portable = self._state.portable(state)
            return replace(
                portable, work=self._bias.work, exact=self._state.exact(), bias=self._bias.state()
            ).to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        read = Checkpoint.from_bytes(checkpoint, self._info.particle_count)
        self._state.check(read)
        self._put(read)

    def close(self) -> None:
        # OpenMM frees a context when nothing refers to it any more.
        if hasattr(self, "_context"):
            self._bias.close()
            del self._context, self._integrator, self._state, self._bias

    def _whole_state(self, velocities: bool) -> tuple[openmm.State, Vectors]:
        """The present state and its positions, (N, 3) nm, where they are good. Raises: SourceDivergedError."""
        # With the bias in, the kinetic energy of leap-frog integrators, which is extrapolated from the forces, sees all of them.
        state = self._context.getState(
            getPositions=True, getEnergy=True, getVelocities=velocities, groups=self._bias.groups
        )
        positions = vectors_of(state, openmm.State.Positions)
        kinetic = float(state.getKineticEnergy()._value)
        divergence.check_finite("positions", positions)
        divergence.check(
            float(state.getPotentialEnergy()._value),
            kinetic,
            self._state.temperature_of(kinetic),
            len(positions),
            self._limits,
        )
        if self._bias.box_moves:
            self._box = self._state.box(state)
        return state, positions

    def _add_bias(self, snapshot: Snapshot, positions: Vectors) -> None:
        """The snapshot tells of the users' bias, and its potential energy is the system's own."""
        reading = self._bias.read(positions, self._box, snapshot.time_ps or 0.0)
        snapshot.potential_energy = (snapshot.potential_energy or 0.0) - reading.energy
        snapshot.user_energy = reading.energy
        snapshot.user_index = reading.index.astype(np.uint32)
        snapshot.user_forces = reading.forces.astype(np.float32)
        snapshot.interaction_ids = reading.ids
        snapshot.interaction_energies = reading.energies
        snapshot.interaction_work = reading.works
        snapshot.interaction_forces = reading.net_forces

    def _put(self, checkpoint: Checkpoint) -> None:
        """There, with nobody pulling."""
        self._bias.clear(checkpoint.bias or {"native": {"work": checkpoint.work}})
        # Anew, so that nothing of what was goes on: no coordinates that are not finite, nor the counts that barostats keep.
        self._context.reinitialize()
        self._state.put(checkpoint)
        self._wanted, self._box = (), checkpoint.box

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """OpenMM's errors are told as ours are."""
        try:
            yield
        except openmm.OpenMMException as error:
            cause, self._bias.error = self._bias.error, None
            if cause is not None:
                raise cause from error
            if re.search(r"\bnan\b", str(error), re.IGNORECASE):
                raise SourceDivergedError(f"the simulation diverged: {error}") from error
            raise
