"""`narupa convert`: recordings to and from the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from narupa_client.cli.options import BAD_INPUT, fail, messages
from narupa_shared.errors import InvalidArgumentError, NarupaError


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording, or a file that MDAnalysis or ASE reads.")],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Its ending tells the format: .nanover.zip, .traj, .xtc, .dcd, .h5md, .pdb, .xyz"
        ),
    ],
    start: Annotated[int, typer.Option("--start", min=0, help="The first frame.")] = 0,
    stop: Annotated[int | None, typer.Option("--stop", min=0, help="The frame before which to stop.")] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Take every so many frames.")] = 1,
    select: Annotated[
        str, typer.Option("--select", metavar="TEXT", help="Only these particles: 'protein', 'name CA'.")
    ] = "",
    topology: Annotated[
        Path | None,
        typer.Option("--topology", metavar="FILE", help="What the particles of IN are, where it does not say."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FILE", help="The state of a .traj recording; unset: beside it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Convert between recordings of sessions (.nanover.zip, .traj and .state) and XTC, DCD, H5MD, PDB and XYZ.

    Where the format has none, what the particles are is written beside it, into a PDB file.
    """
    from narupa_client.conversion.converting import Wanted
    from narupa_client.conversion.converting import convert as run

    try:
        done = run(source, target, Wanted(start, stop, stride, select, topology, state, force))
    except InvalidArgumentError as error:
        fail(str(error), BAD_INPUT)
    except (NarupaError, OSError) as error:
        fail(str(error))
    for notice in done.notices:
        messages.print(notice.replace("[", "\\["))
    states = f", {done.states} changes of the state" if done.states else ""
    print(f"{', '.join(map(str, done.files))}: {done.frames} frames{states}")
