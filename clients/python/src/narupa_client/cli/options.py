"""What every command understands: where the lobby is, how errors are told, and how a command ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from narupa_client.cli.target import Target
from narupa_client.connection import Endpoint
from narupa_client.session import Session, join
from narupa_shared.errors import NarupaError, UnavailableError

FAILED: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143
# After so many, whatever still hangs is left to its fate.
MOST_SIGNALS: Final = 4
_EXPLAIN_AFTER_S: Final = 2.5

JsonOption = Annotated[
    bool, typer.Option("--json", help="Machine-readable output, and nothing else, on standard output.")
]

messages = Console(stderr=True, highlight=False, soft_wrap=True)


@asynccontextmanager
async def joined(
    at: Target, name: str | None = None, give_up_after_s: float | None = 60.0, wait_s: float = 2.0
) -> AsyncIterator[Session]:
    """The session, joined; when there is no lobby `wait_s` long the error says what to do."""
    opened = join(at.lobby, name, **at.admission(), give_up_after_s=give_up_after_s, wait_s=wait_s)
    text = f"waiting for a lobby at {_escaped(at.lobby)} ..."
    patient = wait_s > _EXPLAIN_AFTER_S
    explaining = asyncio.get_running_loop().call_later(_EXPLAIN_AFTER_S, messages.print, text) if patient else None
    try:
        session = await opened.__aenter__()
    except UnavailableError as error:
        raise no_lobby(error) from error
    finally:
        if explaining:
            explaining.cancel()
    try:
        yield session
    except BaseException as error:
        if not await opened.__aexit__(type(error), error, error.__traceback__):
            raise
    else:
        await opened.__aexit__(None, None, None)


def no_lobby(error: UnavailableError) -> UnavailableError:
    """`error` with what to do about it."""
    return UnavailableError(
        f"{error}; start a session with `narupa session`, or say where one is with --lobby HOST:PORT: "
        "`narupa discover` lists those on this network"
    )


def checked_address(text: str, field: str = "--lobby") -> Endpoint:
    """The endpoint in `text`; a wrong one ends the command."""
    try:
        return Endpoint.parse(text, field)
    except NarupaError as error:
        fail(str(error), BAD_INPUT)


def fail(message: str, status: int = FAILED) -> NoReturn:
    """The command ends with `status`, having said why in one sentence."""
    messages.print(f"[bold red]error:[/] {_escaped(message)}")
    raise typer.Exit(status)


def run(work: Coroutine[Any, Any, int | None], interrupted: int = INTERRUPTED) -> NoReturn:
    """`work` is done, or cancelled by Ctrl-C or SIGTERM and cleaned up; the command ends with its status.

    Args:
        interrupted: The status after Ctrl-C; 0 where being ended is the normal end, after SIGTERM as well.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Scripts start background jobs that ignore Ctrl-C; whoever sends the signal to this process means it.
        with suppress(ValueError):  # off the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = asyncio.run(_until_terminated(work))
    except NarupaError as error:
        fail(str(error))
    except (KeyboardInterrupt, _InterruptedError):
        raise typer.Exit(interrupted) from None
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED if interrupted else 0) from None
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    raise typer.Exit(status or 0)


class _InterruptedError(Exception):
    """Somebody pressed Ctrl-C, and everything has ended in order."""


async def _until_terminated(work: Coroutine[Any, Any, int | None]) -> int | None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    asked: list[signal.Signals] = []

    def ask(number: signal.Signals) -> None:
        """The first signal ends the work in order; a second one, out of impatience, must not leave half of it behind."""
        asked.append(number)
        if len(asked) == 1:
            task.cancel()
        elif len(asked) == MOST_SIGNALS:
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)

    with suppress(NotImplementedError, RuntimeError):  # not on Windows, not off the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask, number)
    try:
        return await work
    except asyncio.CancelledError:
        if asked and asked[0] is signal.SIGINT:
            raise _InterruptedError from None
        raise
    finally:
        if 0 < len(asked) < MOST_SIGNALS:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                # All has ended in order; a signal that comes while Python leaves would make another ending of it.
                signal.signal(number, signal.SIG_IGN)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
