"""`narupa record`: the running session into a file."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from narupa_client.cli.options import joined, messages, run
from narupa_client.cli.target import Target
from narupa_client.recorder import Recorder, recording
from narupa_client.tasks import ended
from narupa_shared.recordings.nanover_zip import SUFFIX

_REDRAW_S: Final = 0.25
_LINE_S: Final = 10.0
_LOBBY_WAIT_S: Final = 10.0


def record(
    at: Target,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Where to; unset: a name with the date, here.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.0, help="End after so long; unset: at Ctrl-C.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision",
            help="Have positions sent to this, nm: about a sixth of the data at 0.001.",
            show_default=False,
        ),
    ] = None,
    give_up_after: Annotated[
        float, typer.Option("--give-up-after", min=0.0, help="Longest time without a connection to frames, s.")
    ] = 60.0,
) -> None:
    """Record the session: every frame, the shared state and its changes, until Ctrl-C or its end.

    The file can be played at every instant, whatever ends the recording.
    """
    run(_record(at, path or default_path(datetime.now()), seconds, force, precision, give_up_after), interrupted=0)


def default_path(now: datetime) -> Path:
    """The name of a recording that was given none."""
    return Path(f"session-{now:%Y%m%d-%H%M%S}{SUFFIX}")


async def _record(
    at: Target, path: Path, seconds: float | None, force: bool, precision: float | None, give_up_after_s: float
) -> None:
    wait_s = min(_LOBBY_WAIT_S, give_up_after_s)
    recorder: Recorder | None = None
    try:
        async with (
            joined(at, give_up_after_s=give_up_after_s, wait_s=wait_s) as session,
            recording(session, path, force, precision) as recorder,
        ):
            recorder.on_notice = lambda text: messages.print(text.replace("[", "\\["))
            showing = asyncio.create_task(_show(recorder))
            try:
                async with asyncio.timeout(seconds):
                    await recorder.wait()
            except TimeoutError:
                pass
            finally:
                await ended(showing)
    finally:
        if recorder is not None:
            print(f"{path}: {line_of(recorder)}", flush=True)


async def _show(recorder: Recorder) -> None:
    """How far it is, again and again: in one line of a terminal, or in one line of output every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_LINE_S)
            print(line_of(recorder), flush=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            waiting = f"  (waiting for frames: {recorder.trouble})" if recorder.trouble else ""
            live.update(Text(f"recording {recorder.path}: {line_of(recorder)}{waiting}"), refresh=True)
            await asyncio.sleep(_REDRAW_S)


def line_of(recorder: Recorder) -> str:
    """How much there is so far."""
    elapsed = time.strftime("%H:%M:%S", time.gmtime(recorder.duration_s))
    runs = "" if recorder.runs < 2 else f", {recorder.runs} runs"
    return f"{recorder.frames} frames, {size_of(recorder.size)}, {elapsed}{runs}"


def size_of(count: int) -> str:
    """Bytes, as people read them."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
