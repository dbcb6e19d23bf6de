"""`narupa pull`: pull particles for a while, or put another bias on them."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from narupa_client.cli.options import (
    BAD_INPUT,
    JsonOption,
    fail,
    joined,
    messages,
    run,
)
from narupa_client.cli.target import Target
from narupa_client.cli.values import parsed
from narupa_client.finished import FinishedInteraction
from narupa_client.pulls import Pull, wanted
from narupa_client.session import Session
from narupa_client.subscription import Subscription
from narupa_client.tasks import ended
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.interactions import DEFAULT_MAX_FORCE, Interaction
from narupa_shared.potentials.registry import known_kinds

_BEAT_S: Final = 0.1
# How long the engine may take to account for a pull once it was released.
_ACCOUNT_LIMIT_S: Final = 3.0
# Potentials that hold particles where, or as, they are: their handle means nothing.
_WITHOUT_HANDLE: Final = ("rotation",)
# What an interaction's field is called here.
_FLAGS: Final = {"position": "--to", "interaction_type": "--kind", "parameters": "--parameter", "groups": "--group"}


def pull(
    at: Target,
    particles: Annotated[
        str | None, typer.Option("--particles", metavar="I,J,...", help="Particle indices, from 0.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="X,Y,Z", help="Where to pull them, nm.")] = None,
    kind: Annotated[
        str, typer.Option("--kind", "--type", metavar="|".join(known_kinds()), help="The bias potential.")
    ] = "spring",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of the potential; VALUE is JSON."),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="I,J,...", help="For a bias between groups: one of them, in their order."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", help="Strength.  [default: 100 for spring, gaussian and constant, otherwise 1]"),
    ] = None,
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
    as_json: JsonOption = False,
) -> None:
    """Pull particles for a while, release them (also on Ctrl-C), and tell the work done."""
    if particles is None and not groups:
        fail("name what to pull: --particles I,J,..., or --group I,J,... for each group", BAD_INPUT)
    if to is None and not groups and kind not in _WITHOUT_HANDLE:
        fail("say where to pull: --to X,Y,Z (nm)", BAD_INPUT)
    handle = _numbers("--to", to or "0,0,0")
    if len(handle) != 3:
        fail(f"--to is {to!r}: name three numbers X,Y,Z (nm)", BAD_INPUT)
    try:  # what can be known to be wrong before anybody is asked
        interaction = wanted(
            "pull",
            position=handle,
            particles=_indices("--particles", particles) if particles is not None else [],
            kind=kind,
            parameters=_parameters(parameters or []),
            groups=[_indices("--group", group) for group in groups or []] or None,
            scale=scale,
            max_force=max_force,
            mass_weighted=mass_weighted,
            reset_velocities=reset_velocities,
        )
    except InvalidArgumentError as error:
        fail(_in_words(error, "pull"), BAD_INPUT)
    run(_pull(at, interaction, seconds, relative, as_json))


async def _pull(at: Target, wanted: Interaction, seconds: float, relative: bool, as_json: bool) -> None:
    async with (
        joined(at, give_up_after_s=5.0) as session,
        session.finished_interactions() as finished,
    ):
        to = await _from_centre(session, wanted) if relative else wanted.position
        held = session.pull(
            wanted.particles,
            to,
            kind=wanted.kind,
            scale=wanted.scale,
            parameters={name: value for name, value in wanted.parameters.items() if value is not None},
            groups=wanted.groups,
            mass_weighted=wanted.mass_weighted,
            reset_velocities=wanted.reset_velocities,
            max_force=wanted.max_force,
        )
        reporting = asyncio.create_task(_account(finished, held.id))
        try:
            try:
                async with held:
                    await _hold(held, seconds, wanted)
            except InvalidArgumentError as error:  # what only the services know to be wrong
                fail(_in_words(error, held.id))
            await asyncio.wait({reporting}, timeout=_ACCOUNT_LIMIT_S)
            account = reporting.result() if reporting.done() else None
        finally:
            await ended(reporting)
    messages.print(_told(account, seconds))
    if as_json:
        print(json.dumps(asdict(account) if account else None), flush=True)


async def _account(finished: Subscription[FinishedInteraction], id: str) -> FinishedInteraction | None:
    """What the engine tells of the interaction `id` once it has ended; None where nobody does."""
    try:
        async for account in finished:
            if account.id == id:
                return account
    except NarupaError:  # the pull itself does not depend on it
        pass
    return None


def _told(account: FinishedInteraction | None, seconds: float) -> str:
    if account is None:
        return f"released after {seconds:g} s; the simulation has not told what work was done (does it run?)"
    simulated = account.end_time_ps - account.start_time_ps
    return (
        f"released after {seconds:g} s: {account.work:,.2f} kJ/mol of work done in {account.duration_s:.1f} s, "
        f"{simulated:,.3f} ps of simulated time"
    )


async def _hold(held: Pull, seconds: float, wanted: Interaction) -> None:
    x, y, z = held.position
    what = f"pulling to {x:.3f}, {y:.3f}, {z:.3f} nm" if not wanted.groups else f"holding a {wanted.kind}"
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True) as progress:
        task = progress.add_task(what, total=seconds)
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


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """As `parsed`; numbers with commas between are a list without its brackets, which shells would take for a pattern."""
    values = parsed(pairs, "--parameter", "NAME=VALUE, such as stiffness=500")
    for name, value in values.items():
        if isinstance(value, str) and "," in value:
            with suppress(ValueError):
                values[name] = [float(item) for item in value.split(",")]
    return values


def _indices(flag: str, text: str) -> list[int]:
    return [int(number) for number in _numbers(flag, text, whole=True)]


def _numbers(flag: str, text: str, whole: bool = False) -> list[float]:
    try:
        return [int(item) if whole else float(item) for item in text.split(",")]
    except ValueError:
        kind = "whole numbers, such as 0,1" if whole else "numbers, such as 0,-1,2.5"
        fail(f"{flag} is {text!r}: write {kind}", BAD_INPUT)


def _in_words(error: InvalidArgumentError, id: str) -> str:
    """`error` with the option that a field of the interaction `id`, such as `interaction.ID.position[1]`, comes from."""

    def flag(match: re.Match[str]) -> str:
        field, rest = match["field"], match["rest"]
        named = _FLAGS.get(field, f"--{field.replace('_', '-')}")
        return f"{named} {rest[1:]}" if field == "parameters" and rest.startswith(".") else named

    text = re.sub(rf"\binteraction\.{re.escape(id)}\.(?P<field>\w+)(?P<rest>[\w.\[\]]*)", flag, str(error))
    text = re.sub(r"^--group is '(\d+) groups'", r"--group is given \1 times", text)
    return re.sub(r"^(--parameter \w+) is None: (\w+) needs it", r"\1 is missing: \2 needs it", text)
