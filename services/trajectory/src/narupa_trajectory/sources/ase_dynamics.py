"""What moves the atoms of an ASE source: integrators that tell the bias the time, and whose state can be kept exactly."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import ase
import ase.units
import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.units import FS_IN_PS
from narupa_trajectory.sources.ase_calculator import BiasedCalculator

DynamicsKind = Literal["langevin", "nve", "npt"]
PER_PS: Final = FS_IN_PS / ase.units.fs  # 1/ps in ASE's unit
BAR: Final = 1e5 * ase.units.Pascal  # in eV/A^3
# The volume answers this many times slower than the thermostat, so that the two do not resonate.
BAROSTAT_SLOWER: Final = 10.0


class Dynamics(Protocol):
    """Moves the atoms step by step. The state is plain JSON, and complete together with positions, momenta and cell."""

    def step(self, time_ps: float) -> None:
        """One step, from the instant `time_ps`. Whatever it asks the calculator, the calculator knows of what instant."""

    def changed(self) -> None:
        """The atoms, their velocities or what acts on them are no longer what this left behind."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """As it was at `state`; an empty one: at rest. The atoms have been put there before.

        Raises: KeyError, TypeError or ValueError for what is no state of this.
        """


class AtConstantVolume:
    """Velocity Verlet or Langevin dynamics, which evaluate the forces once a step, at the positions it ends with."""

    def __init__(self, inner: Any, calculator: BiasedCalculator, timestep_ps: float) -> None:
        self._inner = inner
        self._calculator = calculator
        self._step_ps = timestep_ps
        self._forces: NDArray[np.float64] | None = None

    def step(self, time_ps: float) -> None:
        if self._forces is None:
            self._calculator.time_ps = time_ps
            self._forces = self._inner.atoms.get_forces(md=True)
        self._calculator.time_ps = time_ps + self._step_ps
        forces, self._forces = self._forces, None  # none are left of a step that fails
        self._forces = self._inner.step(forces)

    def changed(self) -> None:
        self._forces = None

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._forces = None


class AtConstantPressure:
    """A Langevin thermostat and piston for the volume (Quigley and Probert, J. Chem. Phys. 120, 11432 (2004)).

    The thermostat is on every particle: Nose-Hoover chains scale all momenta alike, so that once a pull has set the whole
    system moving, they take that motion for heat and keep the inner one too cold. Without the thermostat, enthalpy and the
    piston's energy are conserved, which the tests hold it to. The shape of the cell stays.
    """

    def __init__(self, atoms: ase.Atoms, calculator: BiasedCalculator, timestep_ps: float, **settings: Any) -> None:
        self._calculator = calculator
        self._step_ps = timestep_ps
        self._stale = False
        make: Any = LangevinBAOAB
        with warnings.catch_warnings():  # it tells which mass it gives the piston
            warnings.simplefilter("ignore")
            self.inner: Any = make(atoms, timestep_ps / PER_PS, hydrostatic=True, **settings)

    def step(self, time_ps: float) -> None:
        if self._stale:
            self._calculator.time_ps = time_ps
            self.inner._update_accel()
        self._stale = True  # after a step that fails
        self._calculator.time_ps = time_ps + self._step_ps
        self.inner.step()
        self._stale = False

    def changed(self) -> None:
        """The force on the piston stays: the bias is no part of it."""
        self._stale = True

    def state(self) -> dict[str, Any]:
        return {"piston": float(self.inner.p_eps), "force": float(self.inner.force_eps)}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state:
            piston, force = float(state["piston"]), float(state["force"])
            if not np.isfinite((piston, force)).all():
                raise ValueError("numbers that are not finite")
            self.inner.p_eps, self.inner.force_eps = piston, force
        else:
            self.inner.p_eps = 0.0
            self.inner._update_force_eps()
        self._stale = True


def make_dynamics(
    kind: DynamicsKind,
    atoms: ase.Atoms,
    calculator: BiasedCalculator,
    rng: np.random.Generator,
    *,
    timestep_fs: float,
    temperature_k: float,
    friction_per_ps: float,
    pressure_bar: float | None,
) -> Dynamics:
    """What moves `atoms`, whose calculator is `calculator`.

    Raises:
        InvalidArgumentError: the options, the cell, the constraints or the calculator do not allow it.
    """
    timestep, timestep_ps = timestep_fs * ase.units.fs, timestep_fs * FS_IN_PS
    if kind != "npt":
        if pressure_bar is not None:
            raise InvalidArgumentError(
                "pressure_bar", pressure_bar, "there is a pressure to keep only with dynamics=npt"
            )
        if kind == "nve":
            return AtConstantVolume(VelocityVerlet(atoms, timestep), calculator, timestep_ps)
        # The centre of mass is left free: holding it would take part of every pull away again.
        friction = friction_per_ps * PER_PS
        langevin = Langevin(atoms, timestep, temperature_K=temperature_k, friction=friction, fixcm=False, rng=rng)
        return AtConstantVolume(langevin, calculator, timestep_ps)
    if not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise InvalidArgumentError("dynamics", kind, "needs a cell that is periodic in all three directions")
    if atoms.constraints:
        held = ", ".join(sorted({type(item).__name__ for item in atoms.constraints}))
        raise InvalidArgumentError("dynamics", kind, f"does not go with constraints, and the atoms have {held}")
    if not (temperature_k > 0 and friction_per_ps > 0):
        raise InvalidArgumentError("dynamics", kind, "needs temperature_k and friction_per_ps above 0")
    try:
        calculator.inner.get_property("stress", atoms)
    except (PropertyNotImplementedError, NotImplementedError) as error:
        name = type(calculator.inner).__name__
        raise InvalidArgumentError(
            "dynamics", kind, f"needs the stress, which {name} does not compute; use langevin or another calculator"
        ) from error
    return AtConstantPressure(
        atoms,
        calculator,
        timestep_ps,
        temperature_K=temperature_k,
        externalstress=-(1.0 if pressure_bar is None else pressure_bar) * BAR,
        T_tau=1 / (friction_per_ps * PER_PS),
        P_tau=BAROSTAT_SLOWER / (friction_per_ps * PER_PS),
        rng=rng,
    )


@dataclass(frozen=True, slots=True)
class ExactState:
    """All that goes on bit for bit, in ASE's units: no conversion, no rounding."""

    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]
    dynamics: Mapping[str, Any]
    random: Mapping[str, Any]  # of numpy's bit generator

    @classmethod
    def of(cls, atoms: ase.Atoms, dynamics: Dynamics, rng: np.random.Generator) -> ExactState:
        return cls(
            atoms.get_positions(),
            atoms.get_momenta(),
            atoms.cell.array.copy(),
            dynamics.state(),
            rng.bit_generator.state,
        )

    def to_bytes(self, signature: str) -> bytes:
        buffer = io.BytesIO()
        plain = json.dumps({"signature": signature, "dynamics": self.dynamics, "random": self.random}).encode()
        np.savez(
            buffer,
            plain=np.frombuffer(plain, np.uint8),
            positions=self.positions,
            momenta=self.momenta,
            cell=self.cell,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, signature: str, particle_count: int) -> ExactState | None:
        """What `to_bytes` wrote; None where another engine did, or this one otherwise set up.

        Raises:
            InvalidArgumentError: this engine's by its signature, and yet not in order.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                plain = json.loads(archive["plain"].tobytes())
                if plain["signature"] != signature:
                    return None
                names = ("positions", "momenta", "cell")
                positions, momenta, cell = (np.asarray(archive[name], np.float64) for name in names)
        except Exception:  # of another engine: of any form whatever
            return None
        sound = positions.shape == momenta.shape == (particle_count, 3) and cell.shape == (3, 3)
        sound = sound and all(np.isfinite(array).all() for array in (positions, momenta, cell))
        if not (sound and isinstance(plain.get("dynamics"), dict) and isinstance(plain.get("random"), dict)):
            raise InvalidArgumentError("checkpoint exact", f"{len(data)} bytes", "is not of these atoms, or not finite")
        return cls(positions, momenta, cell, plain["dynamics"], plain["random"])
