"""A flat-bottomed tether, as a plug-in for Narupa."""

from __future__ import annotations

from narupa_tether.tether import Tether

__all__ = ["Tether"]
