"""The keys of frames, as existing clients know them. Units and shapes: docs/frames.md."""

from __future__ import annotations

from typing import Final

POSITIONS: Final = "particle.positions"
VELOCITIES: Final = "particle.velocities"
FORCES: Final = "particle.forces"
SYSTEM_FORCES: Final = "particle.forces.system"
COLORS: Final = "particle.colors"
ELEMENTS: Final = "particle.elements"
NAMES: Final = "particle.names"
RESIDUES: Final = "particle.residues"
PARTICLE_COUNT: Final = "particle.count"
INDICES: Final = "particle.indices"
RESIDUE_NAMES: Final = "residue.names"
RESIDUE_IDS: Final = "residue.ids"
RESIDUE_CHAINS: Final = "residue.chains"
RESIDUE_COUNT: Final = "residue.count"
CHAIN_NAMES: Final = "chain.names"
CHAIN_COUNT: Final = "chain.count"
BOND_PAIRS: Final = "bond.pairs"
BOND_ORDERS: Final = "bond.orders"
BOX: Final = "system.box.vectors"
KINETIC: Final = "energy.kinetic"
POTENTIAL: Final = "energy.potential"
ENERGY_TIME: Final = "energy.time"
USER_ENERGY: Final = "energy.user.total"
USER_WORK: Final = "forces.user.work_done"
USER_INDEX: Final = "forces.user.index"
USER_SPARSE: Final = "forces.user.sparse"
INTERACTION_IDS: Final = "interaction.ids"
INTERACTION_ENERGIES: Final = "interaction.energies"
INTERACTION_WORK: Final = "interaction.work"
INTERACTION_FORCES: Final = "interaction.forces"
TEMPERATURE: Final = "system.temperature"
TIME: Final = "system.simulation.time"
COUNTER: Final = "system.simulation.counter"
SIMULATION_NAME: Final = "system.simulation.name"
EXCEPTION: Final = "system.simulation.exception"
STEP: Final = "system.simulation.step"
RUN: Final = "system.simulation.run"
EPOCH: Final = "system.simulation.epoch"
TIMESTAMP: Final = "server.timestamp"

# What comes with each load, and not with each frame.
TOPOLOGY: Final = frozenset(
    {
        PARTICLE_COUNT,
        ELEMENTS,
        NAMES,
        RESIDUES,
        COLORS,
        RESIDUE_NAMES,
        RESIDUE_IDS,
        RESIDUE_CHAINS,
        RESIDUE_COUNT,
        CHAIN_NAMES,
        CHAIN_COUNT,
        BOND_PAIRS,
        BOND_ORDERS,
        SIMULATION_NAME,
    }
)

# What a decoder shapes: keys of flat arrays on the compat wire, and the length of their rows.
ROWS: Final = {
    POSITIONS: 3,
    VELOCITIES: 3,
    USER_SPARSE: 3,
    INTERACTION_FORCES: 3,
    BOX: 3,
    BOND_PAIRS: 2,
    FORCES: 3,
    SYSTEM_FORCES: 3,
    COLORS: 4,
}
