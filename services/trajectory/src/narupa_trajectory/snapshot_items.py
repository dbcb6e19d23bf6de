"""The keys of a frame that change with time, from what the engine says of an instant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from narupa_shared import frame_keys as keys
from narupa_trajectory.sources.source import Snapshot


def snapshot_items(snapshot: Snapshot) -> dict[str, Any]:
    """All that is known at the instant. Every frame of a source has the same keys, so that one can stand for many."""
    if (recorded := snapshot.recorded) is not None:
        return {**recorded.values, **recorded.arrays, keys.STEP: float(snapshot.step)}
    optional = {
        keys.VELOCITIES: snapshot.velocities,
        keys.BOX: snapshot.box,
        keys.TIME: snapshot.time_ps,
        keys.POTENTIAL: snapshot.potential_energy,
        keys.KINETIC: snapshot.kinetic_energy,
        keys.TEMPERATURE: snapshot.temperature,
        keys.ENERGY_TIME: snapshot.energies_at_ps,
    }
    return {
        keys.POSITIONS: snapshot.positions,
        **_user_items(snapshot),
        keys.USER_WORK: snapshot.user_work,
        keys.STEP: float(snapshot.step),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _user_items(snapshot: Snapshot) -> dict[str, Any]:
    return {
        keys.USER_ENERGY: snapshot.user_energy,
        keys.USER_INDEX: snapshot.user_index,
        keys.USER_SPARSE: snapshot.user_forces,
        **(_interaction_items(snapshot) if snapshot.interaction_ids else _NO_INTERACTIONS),
    }


def _interaction_items(snapshot: Snapshot) -> dict[str, Any]:
    """The keys about each interaction in force."""
    return {
        keys.INTERACTION_IDS: list(snapshot.interaction_ids),
        keys.INTERACTION_ENERGIES: snapshot.interaction_energies.astype(np.float32),
        keys.INTERACTION_WORK: snapshot.interaction_work.astype(np.float32),
        keys.INTERACTION_FORCES: snapshot.interaction_forces.astype(np.float32),
    }


_NOTHING: Final = Snapshot(np.empty((0, 3), np.float32), None, 0)
_NO_INTERACTIONS: Final = _interaction_items(_NOTHING)
# What a frame says of users' forces where there are none.
NO_FORCES: Final[Mapping[str, Any]] = _user_items(_NOTHING)
