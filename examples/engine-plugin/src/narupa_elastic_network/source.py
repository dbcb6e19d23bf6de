"""The simulation that people see and pull: Langevin dynamics of the network, the users' bias in every step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from narupa_elastic_network.beads import Beads
from narupa_elastic_network.network import Network
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.units import BOLTZMANN_KJ_MOL_K, FS_IN_PS
from narupa_trajectory.sources import divergence
from narupa_trajectory.sources.checkpoints import Checkpoint
from narupa_trajectory.sources.source import Snapshot, SourceInfo, TopologyValue
from narupa_trajectory.sources.velocities import thermal_velocities, to_redraw

if TYPE_CHECKING:
    from narupa_elastic_network.engine import ElasticNetworkOptions

RESIDUE_MASS: Final = 110.0  # amu, the mean of the amino acids in proteins
SIGNATURE: Final = "narupa-elastic-network 1"


class ElasticNetworkSource:
    """One network, moved by the BAOAB splitting (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34): half a kick,
    half a drift, friction and noise, half a drift, half a kick. Without friction it is velocity Verlet."""

    def __init__(
        self, name: str, beads: Beads, options: ElasticNetworkOptions, rng: np.random.Generator | None = None
    ) -> None:
        """At rest in the structure, with thermal velocities; `rng` draws them, and the thermostat's noise.

        Raises:
            InvalidArgumentError: the network falls apart, or is too stiff for the integration step.
        """
        count = len(beads.positions)
        self._info = SourceInfo(name, count, True, None, True, options.steps_per_frame)
        self._topology = beads.topology
        self._network = Network(beads.positions, options.cutoff_nm, options.stiffness_kj_mol_nm2)
        self._dt = options.timestep_fs * FS_IN_PS
        fastest = self._network.fastest(RESIDUE_MASS)
        if fastest * self._dt >= 2:  # where the Verlet scheme becomes unstable
            longest = 2 / fastest / FS_IN_PS
            reason = f"is too long for springs so stiff; use less than {longest:.0f}"
            raise InvalidArgumentError("timestep_fs", options.timestep_fs, reason)
        self._limits = divergence.Limits(options.max_temperature_k)
        self._temperature = options.temperature_k
        self._friction = options.friction_per_ps
        self._masses = np.full(count, RESIDUE_MASS)
        self._bias = Bias(self._masses)
        self._rng = rng or np.random.default_rng()
        self._positions = beads.positions.copy()
        self._velocities = thermal_velocities(self._masses, self._temperature, self._rng)
        self._step = 0
        self._time_ps = 0.0
        self._forces = self._network.evaluate(self._positions)[1]
        self._start = self._checkpoint()

    @property
    def info(self) -> SourceInfo:
        return self._info

    def topology(self) -> Mapping[str, TopologyValue]:
        return self._topology

    def advance(self, steps: int) -> bool:
        dt, mass = self._dt, RESIDUE_MASS
        kept = np.exp(-self._friction * dt)
        noise = np.sqrt(BOLTZMANN_KJ_MOL_K * self._temperature / mass * (1 - kept * kept))
        for _ in range(steps):
            half = self._velocities + 0.5 * dt / mass * self._forces
            self._positions = self._positions + 0.5 * dt * half
            half = kept * half + noise * self._rng.standard_normal(half.shape)
            self._positions += 0.5 * dt * half
            self._step += 1
            self._time_ps += dt
            self._forces = self._network.evaluate(self._positions)[1]
            if not self._bias.empty:
                # From the present positions, in every step: a pull is as much a part of the dynamics as any other force.
                held = self._bias.particles
                self._forces[held] += self._bias.step(self._positions[held], None, self._time_ps)[1]
            self._velocities = half + 0.5 * dt / mass * self._forces
        divergence.check_finite("positions", self._positions)
        return True

    def snapshot(self, velocities: bool = False) -> Snapshot:
        kinetic = self._kinetic()
        snapshot = Snapshot(
            positions=self._positions.astype(np.float32),
            time_ps=self._time_ps,
            step=self._step,
            potential_energy=self._network.evaluate(self._positions)[0],
            kinetic_energy=kinetic,
            temperature=2 * kinetic / (3 * len(self._masses) * BOLTZMANN_KJ_MOL_K),
            velocities=self._velocities.astype(np.float32) if velocities else None,
        )
        if not self._bias.empty:
            held = self._bias.particles
            snapshot.user_energy, forces = self._bias.step(self._positions[held], None, self._time_ps)
            snapshot.user_index = held.astype(np.uint32)
            snapshot.user_forces = forces.astype(np.float32)
            snapshot.interaction_ids = tuple(item.id for item in self._bias.interactions)
            snapshot.interaction_energies = self._bias.energies.copy()
            snapshot.interaction_work = self._bias.works.copy()
            snapshot.interaction_forces = self._bias.net_forces.copy()
        snapshot.user_work = self._bias.work
        divergence.check_snapshot(snapshot, self._limits)
        return snapshot

    def seek(self, index: int) -> None:
        raise FailedPreconditionError("a simulation has no frames to seek; reset it, or play a recording")

    def set_interactions(self, interactions: Sequence[Interaction]) -> None:
        before = self._bias.interactions
        self._bias.set(interactions, self._positions, None, self._time_ps)
        redraw = to_redraw(before, self._bias.interactions)
        self._velocities[redraw] = thermal_velocities(self._masses[redraw], self._temperature, self._rng)
        self._refresh()

    def take_finished(self) -> Sequence[FinishedInteraction]:
        return self._bias.take_finished()

    def suspects(self) -> Sequence[str]:
        return self._bias.suspects()

    def reset(self) -> None:
        self._put(self._start)

    def checkpoint(self) -> bytes:
        divergence.check_finite("positions", self._positions)
        divergence.check(None, self._kinetic(), None, len(self._masses), self._limits)
        return self._checkpoint().to_bytes()

    def restore(self, checkpoint: bytes) -> None:
        state = Checkpoint.from_bytes(checkpoint, len(self._masses))
        self._put(state)
        self._bias.restore(state.bias)
        self._rng.bit_generator.state = random_state(state.exact) or self._rng.bit_generator.state

    def close(self) -> None:
        """Nothing is held."""

    def _kinetic(self) -> float:
        return 0.5 * RESIDUE_MASS * float(np.einsum("ij,ij->", self._velocities, self._velocities))

    def _refresh(self) -> None:
        """The forces are those of the present positions and interactions."""
        self._forces = self._network.evaluate(self._positions)[1]
        if not self._bias.empty:
            held = self._bias.particles
            self._forces[held] += self._bias.evaluate(self._positions[held], None, self._time_ps)[1]

    def _checkpoint(self) -> Checkpoint:
        """All of it is exact: positions and velocities are in double precision, as they are reckoned with."""
        exact = {"signature": SIGNATURE, "random": self._rng.bit_generator.state}
        return Checkpoint(
            positions=self._positions.copy(),
            velocities=self._velocities.copy(),
            time_ps=self._time_ps,
            step=self._step,
            work=self._bias.work,
            exact=json.dumps(exact).encode(),
            bias=self._bias.state(),
        )

    def _put(self, state: Checkpoint) -> None:
        """It stands where `state` does, and nobody pulls."""
        self._positions, self._velocities = state.positions.copy(), state.velocities.copy()
        self._step, self._time_ps = state.step, state.time_ps
        self._bias.set((), self._positions, None, self._time_ps)
        self._bias.reset()
        self._refresh()


def random_state(exact: bytes) -> dict[str, Any] | None:
    """The state of the random numbers in a checkpoint of this engine; None where it is of another one."""
    try:
        read = json.loads(exact)
        if read["signature"] != SIGNATURE:
            return None
        np.random.default_rng().bit_generator.state = read["random"]  # refuses what is no state
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    state: dict[str, Any] = read["random"]
    return state
