"""`narupa watch`: the running session as a live table, or as one JSON object per frame."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from narupa_client.cli.lobby_services import START_LIMIT_S, started
from narupa_client.cli.options import (
    INTERRUPTED,
    JsonOption,
    joined,
    messages,
    run,
)
from narupa_client.cli.target import Target
from narupa_client.frames import CurrentFrame
from narupa_client.session import Session
from narupa_client.subscription import Subscription
from narupa_client.tasks import ended
from narupa_shared.errors import NarupaError
from narupa_shared.sdk.narupa.trajectory.v1 import EngineState

_REDRAW_S = 0.125
_LINE_S = 1.0
_RATE_WINDOW_S = 2.0
_SHORTEST_SPAN_S = 0.25
_SAY_AFTER_S = 1.5
# Whoever starts a session and watches it at once need not time it: containers take some seconds to answer.
_LOBBY_WAIT_S = 10.0
# What is shown of a frame, which is a small part of it.
_WATCHED = ("energy", "forces.user", "interaction", "system")


def watch(
    at: Target,
    as_json: JsonOption = False,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="End after this many frames.")] = None,
    interval: Annotated[float, typer.Option("--interval", min=0.0, help="Least time between frames, s.")] = 1 / 30,
    give_up_after: Annotated[
        float, typer.Option("--give-up-after", min=0.0, help="Longest time without a connection to frames, s.")
    ] = 60.0,
    simulation: Annotated[
        str | None,
        typer.Option("--start", metavar="SIMULATION", help="Start this simulation of the catalogue, and watch it."),
    ] = None,
    within: Annotated[
        float, typer.Option("--within", min=0.0, help="Longest time that --start may take, s.")
    ] = START_LIMIT_S,
) -> None:
    """Watch the running simulation: frames per second, time, energies, temperature, users, pulls and their work."""
    work = _watch(at, as_json, frames, interval, give_up_after, simulation, within)
    run(work, interrupted=0 if frames is None else INTERRUPTED)


async def _watch(
    at: Target,
    as_json: bool,
    limit: int | None,
    interval_s: float,
    give_up_after_s: float,
    simulation: str | None,
    within_s: float,
) -> None:
    wait_s = min(_LOBBY_WAIT_S, give_up_after_s)
    async with joined(at, give_up_after_s=give_up_after_s, wait_s=wait_s) as session:
        if simulation is not None:
            session.use(await started(session.lobby, simulation, within_s))
        async with session.frames(interval_s, fields=_WATCHED) as frames:
            explaining = asyncio.create_task(_explain_silence(session, frames))
            try:
                if as_json:
                    await _as_json(session, frames, limit)
                else:
                    await _as_table(session, frames, limit)
            finally:
                await ended(explaining)


async def _as_json(session: Session, frames: Subscription[CurrentFrame], limit: int | None) -> None:
    rate = Rate()
    count = 0
    async for frame in frames:
        line = {**facts(frame), "fps": round(rate.tick(), 2), "users": len(session.users)}
        print(json.dumps(line, allow_nan=False), flush=True)
        count += 1
        if count == limit:
            return


def facts(frame: CurrentFrame) -> dict[str, Any]:
    """A frame as scripts get it; null is what the source has not, or what is not finite."""
    return {
        "frame_index": frame.index,
        "time_ps": _finite(frame.time_ps),
        "particle_count": frame.particle_count,
        "potential_kj_mol": _finite(frame.potential_energy),
        "kinetic_kj_mol": _finite(frame.kinetic_energy),
        "temperature_k": _finite(frame.temperature),
        "user_energy_kj_mol": _finite(frame.user_energy),
        "user_force_particles": len(frame.user_forces.indices),
        "user_work_kj_mol": _finite(frame.user_work),
        "interactions": {
            id: {"energy_kj_mol": _finite(account.energy), "work_kj_mol": _finite(account.work)}
            for id, account in frame.interactions.items()
        },
        "simulation": frame.simulation_name,
        "exception": frame.exception,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


async def _as_table(session: Session, frames: Subscription[CurrentFrame], limit: int | None) -> None:
    board = Board(session, frames)
    polling = asyncio.create_task(board.keep_interactions())
    console = Console()
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                await _drawn(
                    frames, limit, _REDRAW_S, lambda frame, fps: live.update(board.draw(frame, fps), refresh=True)
                )
        else:
            await _drawn(frames, limit, _LINE_S, lambda frame, fps: print(_line(frame, fps), flush=True))
    finally:
        await ended(polling)


async def _drawn(
    frames: Subscription[CurrentFrame],
    limit: int | None,
    interval_s: float,
    draw: Callable[[CurrentFrame, float], None],
) -> None:
    rate = Rate()
    count, drawn, problem = 0, -math.inf, ""
    async for frame in frames:
        fps = rate.tick()
        count += 1
        now = time.monotonic()
        # What has gone wrong is told at once: it may be in the last frame for a long time.
        if now - drawn >= interval_s or count == limit or (frame.exception or "") != problem:
            draw(frame, fps)
            drawn, problem = now, frame.exception or ""
        if count == limit:
            return


class Rate:
    """Frames per second over the last two seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def tick(self) -> float:
        now = time.monotonic()
        self._times.append(now)
        while now - self._times[0] > _RATE_WINDOW_S:
            self._times.popleft()
        span = now - self._times[0]
        return (len(self._times) - 1) / span if span > _SHORTEST_SPAN_S else 0.0


class Board:
    """The table, and what it shows besides the frame."""

    def __init__(self, session: Session, frames: Subscription[CurrentFrame]) -> None:
        self._session = session
        self._frames = frames
        self._interactions: list[dict[str, Any]] | None = None

    async def keep_interactions(self) -> None:
        """Who pulls what is asked for twice a second."""
        while True:
            try:
                self._interactions = await self._session.interactions()
            except NarupaError:
                self._interactions = None
            await asyncio.sleep(0.5)

    def draw(self, frame: CurrentFrame, fps: float) -> Table:
        names = {user.id: user.name for user in self._session.users}
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold cyan", justify="right")
        table.add_column(overflow="fold")
        rows = [
            ("simulation", frame.simulation_name or "-"),
            ("frame", f"{frame.index}   {fps:.1f} frames/s"),
            ("particles", str(frame.particle_count)),
            ("time", _shown(frame.time_ps, "ps", 3)),
            ("potential", _shown(frame.potential_energy, "kJ/mol")),
            ("kinetic", _shown(frame.kinetic_energy, "kJ/mol")),
            ("temperature", _shown(frame.temperature, "K", 1)),
            ("users' energy", _shown(frame.user_energy, "kJ/mol")),
            ("users' work", _shown(frame.user_work, "kJ/mol")),
            ("users' forces", f"on {counted(len(frame.user_forces.indices))}"),
            ("users", ", ".join(sorted(names.values())) or "-"),
            ("pulls", self._pulls(frame, names)),
        ]
        for label, text in rows:
            table.add_row(label, text.replace("[", "\\["))
        if problem := frame.exception or self._frames.trouble:
            for id, name in names.items():
                problem = problem.replace(id, name)
            table.add_row("[bold red]problem[/]", f"[red]{problem.replace('[', chr(92) + '[')}[/]")
        return table

    def _pulls(self, frame: CurrentFrame, names: dict[str, str]) -> str:
        accounts = frame.interactions
        if self._interactions is None:
            return f"{len(accounts)}; whose is not known: the imd service cannot be reached"
        lines = [str(len(self._interactions))]
        for item in self._interactions:
            account = accounts.get(item["id"])
            done = f", work {_shown(account.work, 'kJ/mol')}" if account else ""
            lines.append(
                f"{names.get(item['owner'], item['owner'])}: {item['kind']} on {_list(item['particles'])}{done}"
            )
        return "\n".join(lines)


def _list(particles: list[int]) -> str:
    shown = ", ".join(map(str, particles[:6]))
    more = f" and {len(particles) - 6} more" if len(particles) > 6 else ""
    return f"particle{'' if len(particles) == 1 else 's'} {shown}{more}"


def _shown(value: float | None, unit: str, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f} {unit}"


def _line(frame: CurrentFrame, fps: float) -> str:
    return "  ".join(
        (
            f"frame {frame.index}",
            f"{fps:.1f} frames/s",
            _shown(frame.time_ps, "ps", 3),
            f"potential {_shown(frame.potential_energy, 'kJ/mol')}",
            f"temperature {_shown(frame.temperature, 'K', 1)}",
            f"users' energy {_shown(frame.user_energy, 'kJ/mol')}",
            f"pulls {len(frame.interactions)}",
            f"users' work {_shown(frame.user_work, 'kJ/mol')}",
            *([f"problem: {frame.exception}"] if frame.exception else []),
        )
    )


async def _explain_silence(session: Session, frames: Subscription[CurrentFrame]) -> None:
    """Says on standard error why nothing comes, once per reason."""
    said: str | None = None
    while True:
        count = frames.received
        await asyncio.sleep(_SAY_AFTER_S)
        if frames.received > count:
            said = None
            continue
        trouble = frames.trouble
        reason = await _engine_state(session) if trouble is None else f"waiting for frames: {trouble}"
        if reason is not None and reason != said:
            said = reason
            messages.print(reason.replace("[", "\\["))


async def _engine_state(session: Session) -> str | None:
    try:
        status = await session.status()
    except NarupaError as error:
        return f"waiting for frames: {error}"
    match status.state:
        case EngineState.PAUSED:
            return "the simulation is paused; `narupa command playback/play` goes on"
        case EngineState.FAILED:
            return f"the engine has failed: {status.exception}; `narupa command playback/reset` starts it again"
        case EngineState.STARTING:
            return "the engine is starting"
        case _:
            return None


def counted(particles: int) -> str:
    """That many particles, in words."""
    return f"{particles} particle{'' if particles == 1 else 's'}"
