"""`narupa pull`: pull particles for a while."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from narupa_client.cli.options import (
    BAD_INPUT,
    fail,
    joined,
    messages,
    run,
)
from narupa_client.cli.target import Target
from narupa_client.pulls import Pull
from narupa_client.session import Session
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import DEFAULT_MAX_FORCE, KINDS, Interaction

_BEAT_S = 0.1


def pull(
    at: Target,
    particles: Annotated[str, typer.Option("--particles", metavar="I,J,...", help="Particle indices, from 0.")],
    to: Annotated[str, typer.Option("--to", metavar="X,Y,Z", help="Where to pull them, nm.")],
    kind: Annotated[str, typer.Option("--type", metavar="|".join(KINDS), help="The bias potential.")] = "spring",
    scale: Annotated[float, typer.Option("--scale", help="Strength.")] = 100.0,
    max_force: Annotated[
        float, typer.Option("--max-force", help="Cap on the force on each particle, kJ/(mol nm); inf for none.")
    ] = DEFAULT_MAX_FORCE,
    mass_weighted: Annotated[
        bool, typer.Option("--mass-weighted/--no-mass-weighted", help="Share the force in proportion to mass.")
    ] = True,
    reset_velocities: Annotated[
        bool, typer.Option("--reset-velocities", help="Redraw the particles' velocities on release.")
    ] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="How long to pull, s.")] = 5.0,
    relative: Annotated[
        bool, typer.Option("--relative", help="Take --to from the particles' present (geometric) centre.")
    ] = False,
) -> None:
    """Pull particles towards a point for a while, and release them; also on Ctrl-C."""
    indices = [int(number) for number in _numbers("--particles", particles, whole=True)]
    handle = _numbers("--to", to)
    if len(handle) != 3:
        fail(f"--to is {to!r}: name three numbers X,Y,Z (nm)", BAD_INPUT)
    try:  # what can be known to be wrong before anybody is asked
        wanted = Interaction.parse(
            "pull",
            position=handle,
            particles=indices,
            kind=kind,
            scale=scale,
            max_force=max_force,
            mass_weighted=mass_weighted,
            reset_velocities=reset_velocities,
        )
    except InvalidArgumentError as error:
        fail(f"{_flag(error.field)} is {error.value!r}: {error.reason}", BAD_INPUT)
    run(_pull(at, wanted, seconds, relative))


async def _pull(at: Target, wanted: Interaction, seconds: float, relative: bool) -> None:
    async with joined(at, give_up_after_s=5.0) as session:
        to = await _from_centre(session, wanted) if relative else wanted.position
        async with session.pull(
            wanted.particles,
            to,
            kind=wanted.kind,
            scale=wanted.scale,
            mass_weighted=wanted.mass_weighted,
            reset_velocities=wanted.reset_velocities,
            max_force=wanted.max_force,
        ) as held:
            await _hold(held, seconds)
    messages.print(f"released after {seconds:g} s")


async def _hold(held: Pull, seconds: float) -> None:
    x, y, z = held.position
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task(f"pulling to {x:.3f}, {y:.3f}, {z:.3f} nm", total=seconds)
        left = seconds
        while left > 0:
            await held.hold(min(_BEAT_S, left))
            left -= _BEAT_S
            progress.update(task, completed=seconds - max(left, 0.0))


async def _from_centre(session: Session, wanted: Interaction) -> tuple[float, float, float]:
    frame = await session.get_frame()
    count = len(frame.positions)
    if wanted.particles[-1] >= count:
        raise InvalidArgumentError("--particles", wanted.particles[-1], f"the system has {count} particles")
    centre = frame.positions[list(wanted.particles)].mean(axis=0)
    x, y, z = (float(a) + b for a, b in zip(centre, wanted.position, strict=True))
    return x, y, z


def _numbers(flag: str, text: str, whole: bool = False) -> list[float]:
    try:
        return [int(item) if whole else float(item) for item in text.split(",")]
    except ValueError:
        kind = "whole numbers, such as 0,1" if whole else "numbers, such as 0,-1,2.5"
        fail(f"{flag} is {text!r}: write {kind}", BAD_INPUT)


def _flag(field: str) -> str:
    """The option that an interaction's field, such as `interaction.pull.position[1]`, comes from."""
    name = field.split(".")[-1].split("[")[0]
    return {"position": "--to", "interaction_type": "--type"}.get(name, f"--{name.replace('_', '-')}")
