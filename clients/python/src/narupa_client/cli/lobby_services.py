"""`narupa lobby catalogue | services | start | stop | drain | log`."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from narupa_client.cli.lobby_sessions import asked
from narupa_client.cli.naming import named
from narupa_client.cli.options import JsonOption, messages, run
from narupa_client.cli.tables import (
    print_json,
    print_services,
    print_table,
    printable,
    service_facts,
    simulation_facts,
)
from narupa_client.cli.target import Target
from narupa_client.lobby import Lobby
from narupa_client.records import Service

START_LIMIT_S: Final = 120.0

ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="Id or simulation, or the beginning of it.")]


def catalogue(at: Target, as_json: JsonOption = False) -> None:
    """List the simulations that can be started, and what is wrong in the catalogue."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.simulations()
        if as_json:
            print_json(
                {
                    "simulations": [simulation_facts(item) for item in found.simulations],
                    "templates": list(found.templates),
                    "problems": list(found.problems),
                }
            )
            return
        print_table(
            ("simulation", "status", "launcher", "about"),
            ((item.name, item.status, item.launcher, item.title or item.description) for item in found.simulations),
            "The catalogue has no simulation.",
        )
        if found.templates:
            print(f"\nsession templates: {printable(', '.join(found.templates))}")
        for problem in found.problems:
            messages.print(Text.assemble(("cannot be used: ", "bold red"), printable(problem)))

    run(work())


def services(at: Target, as_json: JsonOption = False) -> None:
    """List the services of the session, with those that start or have stopped."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await lobby.services()
        if as_json:
            print_json([service_facts(service) for service in found])
        else:
            print_services(found)

    run(work())


def start(
    at: Target,
    simulation: Annotated[str, typer.Argument(metavar="SIMULATION", help="Its name in the catalogue.")],
    wait: Annotated[bool, typer.Option("--wait", help="Show its start, and end once it runs or has failed.")] = False,
    within: Annotated[
        float, typer.Option("--within", min=0.0, help="Longest time to wait, s; it goes on starting after that.")
    ] = START_LIMIT_S,
    as_json: JsonOption = False,
) -> None:
    """Start a simulation of the catalogue."""

    async def work() -> None:
        async with asked(at) as lobby:
            service = await (started(lobby, simulation, within) if wait else lobby.start(simulation))
        if as_json:
            print_json(service_facts(service))
        elif wait:
            print_services([service])
        else:
            how = "is running" if service.status == "running" else f"is {service.status}"
            messages.print(printable(f"{simulation} {how} as {service.id}"), markup=False)

    run(work())


def stop(at: Target, service: ServiceArgument, as_json: JsonOption = False) -> None:
    """Drain and stop a service that the lobby started."""

    async def work() -> None:
        async with asked(at) as lobby:
            _tell(await lobby.stop((await _service(lobby, service)).id), as_json, "is being stopped")

    run(work())


def drain(at: Target, service: ServiceArgument, as_json: JsonOption = False) -> None:
    """Move a service's subscribers to another of its kind; it takes no new ones."""

    async def work() -> None:
        async with asked(at) as lobby:
            _tell(await lobby.drain((await _service(lobby, service)).id), as_json, "is being drained")

    run(work())


def log(
    at: Target,
    service: ServiceArgument,
    lines: Annotated[int, typer.Option("--lines", min=1, max=1000, help="How many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a started service wrote."""

    async def work() -> None:
        async with asked(at) as lobby:
            found = await _service(lobby, service)
            written = await lobby.log(found.id, lines)
        if as_json:
            print_json({"service_id": found.id, "lines": written})
        else:
            for line in written:
                print(printable(line))

    run(work())


async def started(lobby: Lobby, simulation: str, within_s: float = START_LIMIT_S) -> Service:
    """The simulation runs; how it gets there is shown on standard error. Raises as `Lobby.started`."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        shown = StartShown(progress, simulation)
        return await lobby.started(simulation, within_s=within_s, progress=shown.update)


class StartShown:
    """The start of a service on standard error: a bar on a terminal, and each line that it writes, once."""

    def __init__(self, progress: Progress, simulation: str) -> None:
        self._progress = progress
        self._simulation = simulation
        self._task: TaskID = progress.add_task(f"starting {simulation}", total=1.0)
        self._written: tuple[str, ...] = ()

    def update(self, service: Service) -> None:
        """What is known of the service now is shown."""
        for line in new_lines(self._written, service.log_tail):
            messages.print(Text(f"  {printable(line)}", style="dim"))
        self._written = service.log_tail or self._written
        reason = f": {service.reason}" if service.reason else ""
        text = printable(f"{service.status} {self._simulation}{reason}")
        self._progress.update(self._task, completed=service.progress, description=text)


def new_lines(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, ...]:
    """The lines at the end of the tail `now` that an earlier tail of the same log did not have."""
    for length in range(min(len(before), len(now)), 0, -1):
        if before[-length:] == now[:length]:
            return now[length:]
    return now


async def _service(lobby: Lobby, text: str) -> Service:
    found = await lobby.services()
    return named("service", text, found, lambda item: item.id, lambda item: item.simulation or item.kind)


def _tell(service: Service, as_json: bool, soon: str) -> None:
    """What became of the service; `soon` where nothing did yet."""
    if as_json:
        print_json(service_facts(service))
    else:
        there = service.status in ("draining", "stopped")
        messages.print(printable(f"{service.id} {f'is {service.status}' if there else soon}"), markup=False)
