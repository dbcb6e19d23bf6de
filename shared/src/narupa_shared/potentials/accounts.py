"""What is kept of an interaction once it has ended."""

from __future__ import annotations

from dataclasses import dataclass


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
