"""`narupa state`: read, write and watch the shared state."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from narupa_client.cli.options import INTERRUPTED, JoinCodeOption, LobbyOption, Target, joined, messages, run, target
from narupa_client.cli.values import parsed, shown

app = typer.Typer(help="Read, write and watch the shared state; alone, print all of it.")

KeyArgument = Annotated[list[str], typer.Argument(metavar="KEY...")]


@app.callback(invoke_without_command=True)
def state(context: typer.Context, lobby: LobbyOption = None, join_code: JoinCodeOption = None) -> None:
    """Read, write and watch the shared state; alone, print all of it."""
    context.obj = target(context, lobby, join_code)
    if context.invoked_subcommand is None:
        run(_get(context.obj, ""))


@app.command("get")
def get(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with it.")] = "",
    lobby: LobbyOption = None,
    join_code: JoinCodeOption = None,
) -> None:
    """Print the state as JSON."""
    run(_get(target(context, lobby, join_code), prefix))


async def _get(at: Target, prefix: str) -> None:
    async with joined(at) as session:
        print(shown(await session.state.get(prefix)))


@app.command("set")
def set_(
    context: typer.Context,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Values are JSON or text.")],
    lobby: LobbyOption = None,
    join_code: JoinCodeOption = None,
) -> None:
    """Set keys, all or none."""
    updates = parsed(pairs)

    async def work(at: Target) -> None:
        async with joined(at) as session:
            await session.state.update(updates)

    run(work(target(context, lobby, join_code)))


@app.command("remove")
def remove(
    context: typer.Context, keys: KeyArgument, lobby: LobbyOption = None, join_code: JoinCodeOption = None
) -> None:
    """Remove keys; one that is gone is no error."""

    async def work(at: Target) -> None:
        async with joined(at) as session:
            await session.state.update(remove=keys)

    run(work(target(context, lobby, join_code)))


@app.command("watch")
def watch(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with it.")] = "",
    changes: Annotated[int | None, typer.Option("--changes", min=1, help="End after this many changes.")] = None,
    lobby: LobbyOption = None,
    join_code: JoinCodeOption = None,
) -> None:
    """Print each change as a JSON object per line, the first with everything there is."""

    async def work(at: Target) -> None:
        async with joined(at) as session, session.state.watch(prefix) as news:
            count = 0
            async for change in news:
                line = {"whole": change.whole, "updates": dict(change.updates), "removals": list(change.removals)}
                print(json.dumps({**line, "revision": change.revision}, ensure_ascii=False), flush=True)
                count += 1
                if count == changes:
                    return

    run(work(target(context, lobby, join_code)), interrupted=0 if changes is None else INTERRUPTED)


@app.command("lock")
def lock(
    context: typer.Context,
    key: str,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to hold it, s.")] = 10.0,
    lobby: LobbyOption = None,
    join_code: JoinCodeOption = None,
) -> None:
    """Hold the lock on a key for a while; Ctrl-C releases it."""

    async def work(at: Target) -> None:
        async with joined(at) as session:
            await session.state.lock(key, seconds)
            messages.print(f"holding the lock for {seconds:g} s")
            try:
                await asyncio.sleep(seconds)
            finally:
                await session.state.release(key)

    run(work(target(context, lobby, join_code)))
