"""The users' bias in an OpenMM simulation: the forces that put it into the integration, and its accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_trajectory.sources import openmm_native
from narupa_trajectory.sources.openmm_native import NativePulls
from narupa_trajectory.sources.openmm_system import Vectors, bias_group, box_of, parts_of, vectors_of

ALL_GROUPS = 0xFFFFFFFF
# These keep the particles where the integration takes them; others bring molecules back into the box, one by one.
PLATFORMS_THAT_DO_NOT_WRAP = ("Reference", "CPU")
PathKey = tuple[str, str, tuple[int, ...], bool]


@dataclass(frozen=True, slots=True)
class BiasReading:
    """The bias at one instant."""

    energy: float  # kJ/mol
    index: NDArray[np.intp]  # (n,) ascending: the particles that it acts on
    forces: Vectors  # (n, 3) kJ/(mol nm)
    ids: tuple[str, ...]
    energies: Vectors  # (K,) kJ/mol, in the order of `ids`
    works: Vectors  # (K,) kJ/mol
    net_forces: Vectors  # (K, 3) kJ/(mol nm)


class OpenMMBias:
    """The interactions in force on one context.

    Pulls of one group towards a handle are bonds of a `CustomCentroidBondForce`, evaluated by the engine itself; the rest,
    and what that force would not get exactly right (groups in boxes that are skewed, or change), is a `PythonForce` on the
    particles concerned. Either is evaluated at every force evaluation. They enter the system when they are first needed,
    in a force group that takes part in the integration only while somebody pulls, so that an undisturbed simulation runs
    at raw speed. Moving a handle changes parameters; only grabbing particles that the forces do not cover, and the end
    of what needs the `PythonForce`, rebuild the context, with its state kept.

    An integrator made of user-written expressions (`CustomIntegrator`) fixes its force groups when it is built, so there
    the forces are taken out of the system on release; where its expressions name groups, the bias joins the one they
    evaluate most often, the innermost of a multiple-time-step scheme.

    Energies, forces and work are computed by `Bias`, one for either force, whatever the engine's precision. For an energy
    that does not depend on time, work is a difference of energies and needs no evaluation at each step; what is not native
    is accounted for at every evaluation all the same.
    """

    def __init__(
        self,
        context: openmm.Context,
        system: openmm.System,
        masses: Vectors,
        periodic: bool,
        rebuild: Callable[[], None],
    ) -> None:
        """No interactions. The forces of the `system` in the `context` must be its own; `masses` (N,) amu.

        `rebuild` has the context be of the system as that is then, and keeps its state.
        """
        forces = list(system.getForces())
        kinds = [type(force).__name__ for force in forces]
        integrator = context.getIntegrator()
        self.box_moves = any("Barostat" in kind for kind in kinds)
        self.error: Exception | None = None  # what the last evaluation in Python failed with
        self.active = False
        self.rebuilds = 0
        self._rebuild_context = rebuild
        self._skews = any("Flexible" in kind for kind in kinds)
        self._context, self._system, self._integrator = context, system, integrator
        self._masses, self._periodic = masses, periodic
        self._base_groups = integrator.getIntegrationForceGroups() & ALL_GROUPS
        self._group, self._alone = bias_group(integrator, forces)
        self._switchable = self._alone and not any(isinstance(i, openmm.CustomIntegrator) for i in parts_of(integrator))
        self._own_forces = system.getNumForces()
        platform = context.getPlatform().getName()
        self._wraps = self.box_moves or platform not in PLATFORMS_THAT_DO_NOT_WRAP
        self._molecules: NDArray[np.intp] | None = None
        self._new_accounts()

    def _new_accounts(self) -> None:
        self._pulls = NativePulls(self._masses, self._periodic)
        self._native, self._stepped = Bias(self._masses), Bias(self._masses)
        self._wanted: tuple[Interaction, ...] = ()
        self._paths: dict[PathKey, bool] = {}  # whether native, of each interaction in force
        self._box: Vectors | None = None
        self._seen: tuple[Vectors, Vectors | None, float] | None = (
            None  # where all particles were last, the box, the time
        )
        self._covered: NDArray[np.intp] = np.empty(0, np.intp)  # particles of the PythonForce in the system
        self._places: NDArray[np.intp] | slice = slice(None)  # in `_covered`, of the particles of `_stepped`

    @property
    def groups(self) -> int:
        """The force groups that make up the potential energy at present."""
        return ALL_GROUPS if self.active or not self._alone else ALL_GROUPS & ~(1 << self._group)

    @property
    def work(self) -> float:
        """What all interactions since the last reset have done, kJ/mol."""
        return float(self._native.work + self._stepped.work)

    def set(self, wanted: Sequence[Interaction], positions: Vectors, box: Vectors | None, time_ps: float) -> None:
        """From the next force evaluation on `wanted`, and nothing else, act; the particles are at `positions`, (N, 3) nm.

        Raises:
            OpenMMException: the context cannot be rebuilt.
        """
        self._wanted, self._box, self._seen = tuple(wanted), box, (positions, box, time_ps)
        self._paths = {key: self._path(key, item, positions, box) for item in wanted if (key := path_key(item))}
        native = [item for item in wanted if self._paths[path_key(item)]]
        stepped = [item for item in wanted if not self._paths[path_key(item)]]
        self._native.set(native, positions, box, time_ps)
        self._stepped.set(stepped, positions, box, time_ps)
        particles = self._stepped.particles
        covered = bool(np.isin(particles, self._covered).all()) and (
            bool(stepped) or not native or not self._covered.size
        )
        if wanted and not (covered and self._pulls.covers(native)):
            self._rebuild(native, particles, positions, box)
        else:
            self._pulls.set(native)
            self._refresh(positions, box)
        same = np.array_equal(particles, self._covered)
        self._places = slice(None) if same else np.searchsorted(self._covered, particles)
        self._switch(bool(wanted))

    def read(self, positions: Vectors, box: Vectors | None, time_ps: float) -> BiasReading:
        """The bias with all particles at `positions`, (N, 3) nm; the accounts are brought up to here."""
        self._box, self._seen = box, (positions, box, time_ps)
        native, stepped = self._native, self._stepped
        parts = [bias.step(positions[bias.particles], box, time_ps) for bias in (native, stepped)]
        if self._pulls.shifts:
            self._refresh(positions, box)
        index = np.union1d(native.particles, stepped.particles)
        forces = np.zeros((len(index), 3))
        for bias, (_, some) in zip((native, stepped), parts, strict=True):
            forces[np.searchsorted(index, bias.particles)] += some
        ids = [item.id for item in (*native.interactions, *stepped.interactions)]
        place = {item.id: rank for rank, item in enumerate(self._wanted)}
        order = sorted(range(len(ids)), key=lambda i: place[ids[i]])
        return BiasReading(
            energy=sum(energy for energy, _ in parts),
            index=index,
            forces=forces,
            ids=tuple(ids[i] for i in order),
            energies=np.concatenate([native.energies, stepped.energies])[order],
            works=np.concatenate([native.works, stepped.works])[order],
            net_forces=np.concatenate([native.net_forces, stepped.net_forces])[order],
        )

    def take_finished(self) -> list[FinishedInteraction]:
        """The accounts of the interactions that have ended since this was called last, in the order of their ends."""
        both = [*self._native.take_finished(), *self._stepped.take_finished()]
        return sorted(both, key=lambda item: item.started_at + item.duration_s)

    def suspects(self) -> tuple[str, ...]:
        """Ids of the interactions that may have made the simulation diverge, the likeliest first."""
        if self._native.empty or self._stepped.empty or self._seen is None:
            return (*self._stepped.suspects(), *self._native.suspects())
        together = Bias(self._masses)  # to be compared, they are evaluated where both were last
        accounts = [bias.state()["accounts"] for bias in (self._native, self._stepped)]
        together.restore({"accounts": {**accounts[0], **accounts[1]}})
        together.set(self._wanted, *self._seen)
        return together.suspects()

    def state(self) -> dict[str, Any]:
        """The accounts, as JSON holds them."""
        return {"native": self._native.state(), "stepped": self._stepped.state()}

    def clear(self, state: Mapping[str, Any]) -> None:
        """No interaction acts; those that were accounted for in the `state` go on with their account when they are set again.

        The forces are out of the system, and the context is to be reinitialised before it is used.

        Raises:
            InvalidArgumentError: no such state; nothing has changed.
        """
        biases = (Bias(self._masses), Bias(self._masses))
        for name, bias in zip(("native", "stepped"), biases, strict=True):
            bias.restore(state.get(name, {}))
        self._new_accounts()
        self._native, self._stepped = biases
        self._take_out()
        self.active = False
        self._set_groups(False)

    def close(self) -> None:
        """Nothing here keeps the context alive: the `PythonForce` that it holds refers to this object."""
        del self._context, self._system, self._integrator, self._rebuild_context

    # What the engine evaluates

    def _path(self, key: PathKey, item: Interaction, positions: Vectors, box: Vectors | None) -> bool:
        known = self._paths.get(key)
        return self._is_native(item, positions, box) if known is None else known

    def _is_native(self, item: Interaction, positions: Vectors, box: Vectors | None) -> bool:
        """Whether the engine's own force is exact for `item` for as long as it lasts."""
        members = np.array(item.particles, dtype=np.intp)
        weighted = not item.mass_weighted or bool(self._masses[members].any())
        if item.kind not in openmm_native.SHAPES or not weighted:
            return False
        if box is None:
            return True
        # OpenMM subtracts box vectors row by row, which misses the closest image in the corners of a skewed box.
        if self._skews or np.count_nonzero(box - np.diag(np.diag(box))):
            return False
        if len(members) == 1 or not self._wraps:
            return True
        # Molecules are brought back into the box whole: within one, the particles keep their places to each other.
        molecule = self._molecule_of()[members]
        whole = not np.rint((positions[members] - positions[members[0]]) / np.diag(box)).any()
        return bool((molecule == molecule[0]).all()) and (whole or not self.box_moves)

    def _molecule_of(self) -> NDArray[np.intp]:
        if self._molecules is None:
            self._molecules = np.empty(len(self._masses), np.intp)
            for number, members in enumerate(self._context.getMolecules()):
                self._molecules[list(members)] = number
        return self._molecules

    def _refresh(self, positions: Vectors, box: Vectors | None) -> None:
        if self._pulls.refresh(positions, None if box is None else np.diag(box)):
            self._pulls.send(self._context)

    def _evaluate(self, state: openmm.State) -> tuple[float, Vectors]:
        """What OpenMM calls at every force evaluation, with the positions of the covered particles."""
        try:
            positions = vectors_of(state, openmm.State.Positions)
            if self.box_moves:
                self._box = box_of(state)
            energy, some = self._stepped.step(positions[self._places], self._box, float(state.getTime()._value))
            forces = np.zeros_like(positions)
            forces[self._places] = some
            return energy, forces
        except Exception as error:
            self.error = error
            raise

    # Their place in the system

    def _rebuild(
        self, native: Sequence[Interaction], stepped: NDArray[np.intp], positions: Vectors, box: Vectors | None
    ) -> None:
        """The system has forces that cover these interactions and particles, always in the same order."""
        self._take_out()
        forces: list[openmm.Force] = []
        if native:
            forces.append(self._pulls.build(native))
            self._pulls.set(native)
            self._pulls.refresh(positions, None if box is None else np.diag(box))
        self._covered = stepped
        if stepped.size:
            force = openmm.PythonForce(self._evaluate)
            force.setUsesPeriodicBoundaryConditions(self._periodic)
            force.setParticles(stepped.tolist())
            forces.append(force)
        self._places = slice(None)
        for force in forces:
            force.setForceGroup(self._group)
            self._system.addForce(force)
        self._reinitialize()

    def _take_out(self) -> None:
        self._pulls.remove()
        self._covered = np.empty(0, np.intp)
        for index in reversed(range(self._own_forces, self._system.getNumForces())):
            self._system.removeForce(index)

    def _switch(self, active: bool) -> None:
        """The forces take part in the integration, or do not."""
        self.active = active
        if self._switchable:
            self._set_groups(active)
        elif not active and self._system.getNumForces() > self._own_forces:
            self._take_out()
            self._reinitialize()

    def _set_groups(self, active: bool) -> None:
        if self._switchable:
            bit = 1 << self._group
            groups = self._base_groups | bit if active else self._base_groups & ~bit
            self._integrator.setIntegrationForceGroups(groups - (groups >> 31 << 32))  # as a signed 32-bit integer

    def _reinitialize(self) -> None:
        self.rebuilds += 1
        self._rebuild_context()


def path_key(item: Interaction) -> PathKey:
    """What makes it the same interaction: while it lasts, the same force evaluates it."""
    return item.id, item.kind, item.particles, item.mass_weighted
