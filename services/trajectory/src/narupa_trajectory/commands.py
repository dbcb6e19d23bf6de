"""The commands of the trajectory service, by the names that existing clients use."""

from __future__ import annotations

from typing import Any

from narupa_shared.commands import Argument, CommandTable
from narupa_trajectory.playback import MAX_INTERVAL_S, Playback


def playback_commands(playback: Playback) -> CommandTable:
    """Every command with what it does to `playback`."""
    table = CommandTable()
    table.register("playback/play", playback.play)
    table.register("playback/pause", playback.pause)
    table.register("playback/step", playback.step)
    table.register("playback/reset", playback.reset)
    table.register("playback/next", playback.next)
    table.register("playback/get-state", lambda: {"playing": playback.playing and not playback.failed})
    table.register("playback/list", lambda: {"simulations": playback.names})
    table.register("playback/load", playback.load, Argument("index", "int", minimum=0))
    # Of a recording's frame, or of its time in s; one of them is to be given, and is then 0 or more.
    by_index, by_time = Argument("index", "int", -1, minimum=-1), Argument("time", "float", -1.0, minimum=-1)
    table.register("playback/seek", playback.seek, by_index, by_time)

    table.register("trajectory/get-dynamics-interval", lambda: {"interval": playback.frame_interval_s})

    async def set_dynamics_interval(interval: float) -> None:
        await playback.set_dynamics_interval(interval)

    table.register(
        "trajectory/set-dynamics-interval",
        set_dynamics_interval,
        Argument("interval", "float", minimum=0, maximum=MAX_INTERVAL_S),
    )

    async def set_frame_interval(interval: int) -> None:
        await playback.set_frame_interval(interval)

    steps = Argument("interval", "int", minimum=1, maximum=1_000_000)
    table.register("trajectory/get-frame-interval", lambda: {"interval": float(playback.steps)})
    table.register("trajectory/set-frame-interval", set_frame_interval, steps)

    def set_wait_for_recorders(wait: bool) -> None:
        playback.recorders.wanted = wait

    table.register("trajectory/get-wait-for-recorders", lambda: {"wait": playback.recorders.wanted})
    table.register("trajectory/set-wait-for-recorders", set_wait_for_recorders, Argument("wait", "bool"))

    def set_force_interval(interval: int) -> dict[str, Any]:
        # Users' forces act at every integration step; a client may ask for less, and gets more.
        return {"interval": 1.0}

    table.register("imd/get-force-interval", lambda: {"interval": 1.0})
    table.register("imd/set-force-interval", set_force_interval, steps)
    return table
