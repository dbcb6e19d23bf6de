"""Where users stand around the simulation box."""

from __future__ import annotations

import math
from typing import Any

from narupa_imd.session import ORIGIN_PREFIX, ImdSession
from narupa_imd.state import SERVER
from narupa_shared.commands import Argument, CommandTable


def register_origins(table: CommandTable, session: ImdSession) -> None:
    """`table` has the commands that place users."""

    def orient(radius: float) -> None:
        session.state.update(SERVER, radial_origins(session.players(), radius))

    table.register("multiuser/radially-orient-origins", orient, Argument("radius", "float", 1.0, 0.0, 1000.0))


def radial_origins(players: list[str], radius: float) -> dict[str, dict[str, Any]]:
    """`user-origin.*` values that put the players evenly on a circle, each facing its centre.

    Player i of n stands at angle t = 2 pi i / n, at (r cos t, 0, r sin t) in server space (m, Y up), turned about Y by
    -t - pi/2.

    Args:
        players: Suffixes of the players' avatar keys, in order of their places.
        radius: r, m.
    """
    origins: dict[str, dict[str, Any]] = {}
    for place, player in enumerate(players):
        angle = 2 * math.pi * place / len(players)
        yaw = -angle - math.pi / 2
        origins[ORIGIN_PREFIX + player] = {
            "position": [radius * math.cos(angle), 0.0, radius * math.sin(angle)],
            "rotation": [0.0, math.sin(yaw / 2), 0.0, math.cos(yaw / 2)],
        }
    return origins
