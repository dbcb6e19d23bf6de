"""The account of an interaction: from when and where it acts, and the work it has done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.potentials.parameters import MAX_TIME_PS, checked_number
from narupa_shared.potentials.vectors import Array

if TYPE_CHECKING:
    from narupa_shared.interactions import Interaction


@dataclass(frozen=True, slots=True)
class FinishedInteraction:
    """The account of one interaction from when it began to act to its end."""

    id: str
    owner: str  # user id, or the address of a client without a token
    potential: str
    particles: tuple[int, ...]
    started_at: float  # seconds since 1970
    duration_s: float  # wall clock
    start_time_ps: float  # simulated time
    end_time_ps: float
    work: float  # kJ/mol: integral of F dx over the particles' paths
    reason: str = ""  # why it ended where that was not its owner's doing


@dataclass(slots=True)
class Account:
    """What is kept of an interaction while it acts.

    Attributes:
        interaction: As it is now.
        started_at: Seconds since 1970.
        start_time_ps: Simulated time at which it began; None until the first evaluation after a reset.
        begun_at: (3, m) nm, its particles then, its groups whole; None where nothing depends on that.
        work: kJ/mol, up to when the account was last closed.
    """

    interaction: Interaction
    started_at: float
    start_time_ps: float | None = None
    begun_at: Array | None = None
    work: float = 0.0

    def finished(self, now: float, time_ps: float) -> FinishedInteraction:
        """The report of its end, now."""
        interaction = self.interaction
        return FinishedInteraction(
            id=interaction.id,
            owner=interaction.owner,
            potential=interaction.kind,
            particles=interaction.particles,
            started_at=self.started_at,
            duration_s=max(0.0, now - self.started_at),
            start_time_ps=time_ps if self.start_time_ps is None else self.start_time_ps,
            end_time_ps=time_ps,
            work=self.work,
        )

    def state(self, work: float) -> dict[str, Any]:
        """In JSON's types, with `work` done by now."""
        item = self.interaction
        return KeptAccount(
            item.kind,
            item.particles,
            item.groups,
            item.mass_weighted,
            self.started_at,
            self.start_time_ps,
            self.begun_at,
            work,
        ).state()


@dataclass(frozen=True, slots=True)
class KeptAccount:
    """What a checkpoint says of an interaction that acted then."""

    kind: str
    particles: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    mass_weighted: bool
    started_at: float
    start_time_ps: float | None
    begun_at: Array | None
    work: float

    @classmethod
    def of_state(cls, where: str, value: object) -> KeptAccount:
        """What `Account.state` wrote.

        Raises:
            InvalidArgumentError: naming the field and the value.
        """
        if not isinstance(value, Mapping):
            raise InvalidArgumentError(where, value, "must be a map")
        kind, particles, groups = value.get("kind"), value.get("particles"), value.get("groups", [])
        if not isinstance(kind, str):
            raise InvalidArgumentError(f"{where}.kind", kind, "must be text")
        if not isinstance(groups, list):
            raise InvalidArgumentError(f"{where}.groups", groups, "must be a list of lists of indices")
        if not isinstance(value.get("mass_weighted"), bool):
            raise InvalidArgumentError(f"{where}.mass_weighted", value.get("mass_weighted"), "must be true or false")
        indices = checked_indices(f"{where}.particles", particles)
        start, begun = value.get("start_time_ps"), value.get("begun_at")
        if start is not None and abs(checked_number(f"{where}.start_time_ps", start)) > MAX_TIME_PS:
            raise InvalidArgumentError(f"{where}.start_time_ps", start, f"must be within {MAX_TIME_PS:g} ps")
        positions = None
        if begun is not None:
            try:
                positions = np.array(begun, dtype=np.float64)
            except (TypeError, ValueError, OverflowError):
                positions = np.empty(0)
            if positions.shape != (len(indices), 3) or not np.isfinite(positions).all():
                raise InvalidArgumentError(
                    f"{where}.begun_at", len(indices), "must be that many rows of 3 numbers, in nm"
                )
            positions = np.ascontiguousarray(positions.T)
        return cls(
            kind=kind,
            particles=indices,
            groups=tuple(checked_indices(f"{where}.groups[{n}]", group) for n, group in enumerate(groups)),
            mass_weighted=bool(value["mass_weighted"]),
            started_at=checked_number(f"{where}.started_at", value.get("started_at")),
            start_time_ps=None if start is None else float(start),
            begun_at=positions,
            work=checked_number(f"{where}.work", value.get("work")),
        )

    def state(self) -> dict[str, Any]:
        """In JSON's types; `of_state` reads it back."""
        return {
            "kind": self.kind,
            "particles": list(self.particles),
            "groups": [list(group) for group in self.groups],
            "mass_weighted": self.mass_weighted,
            "started_at": self.started_at,
            "start_time_ps": self.start_time_ps,
            "begun_at": None if self.begun_at is None else self.begun_at.T.tolist(),
            "work": self.work,
        }

    def of(self, interaction: Interaction) -> bool:
        """Whether it is the account of this interaction."""
        return (
            self.kind == interaction.kind
            and self.particles == interaction.particles
            and self.groups == interaction.groups
            and self.mass_weighted is interaction.mass_weighted
        )


def checked_indices(where: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise InvalidArgumentError(
            where, value if not isinstance(value, list) else len(value), "must be a list of indices"
        )
    return tuple(value)


def same(one: Interaction, other: Interaction) -> bool:
    """Whether `other` is what `one` has become, rather than another interaction."""
    return (
        one.id == other.id
        and one.kind == other.kind
        and one.mass_weighted is other.mass_weighted
        and one.particles == other.particles
        and one.groups == other.groups
    )


def sound_total(value: object) -> float:
    """The total work that a state names."""
    total = checked_number("bias.work", value)
    if not math.isfinite(total):
        raise InvalidArgumentError("bias.work", value, "must be finite")
    return total
