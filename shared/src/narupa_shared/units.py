"""Conversions to Narupa's units (nm, ps, amu, e, kJ/mol, K), used only at an engine's edge.

Values follow from the exact SI constants of 2019 (elementary charge, Avogadro, Boltzmann).
"""

from __future__ import annotations

from typing import Final

ANGSTROM_IN_NM: Final = 0.1
NM_IN_ANGSTROM: Final = 10.0
FS_IN_PS: Final = 1.0e-3
EV_IN_KJ_MOL: Final = 96.48533212331002  # e N_A / 1000
EV_PER_ANGSTROM_IN_KJ_MOL_NM: Final = EV_IN_KJ_MOL / ANGSTROM_IN_NM
BOLTZMANN_KJ_MOL_K: Final = 8.31446261815324e-3  # k_B N_A / 1000
KCAL_IN_KJ: Final = 4.184
