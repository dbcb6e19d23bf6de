"""`narupa state`: read, write and watch the shared state."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from narupa_client.cli.options import INTERRUPTED, joined, messages, run
from narupa_client.cli.target import JoinCodeOption, LobbyOption, Target, aimed, target
from narupa_client.cli.values import parsed, shown

app = typer.Typer(help="Read, write and watch the shared state; alone, print all of it.")

KeyArgument = Annotated[list[str], typer.Argument(metavar="KEY...")]


@app.callback(invoke_without_command=True)
def state(context: typer.Context, lobby: LobbyOption = None, join_code: JoinCodeOption = None) -> None:
    """Read, write and watch the shared state; alone, print all of it."""
    context.obj = target(context, lobby=lobby, join_code=join_code)
    if context.invoked_subcommand is None:
        run(_get(context.obj, ""))


@app.command("get")
@aimed
def get(
    at: Target,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with it.")] = "",
) -> None:
    """Print the state as JSON."""
    run(_get(at, prefix))


async def _get(at: Target, prefix: str) -> None:
    async with joined(at) as session:
        print(shown(await session.state.get(prefix)))


@app.command("set")
@aimed
def set_(
    at: Target,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Values are JSON or text.")],
) -> None:
    """Set keys, all or none."""
    updates = parsed(pairs)

    async def work() -> None:
        async with joined(at) as session:
            await session.state.update(updates)

    run(work())


@app.command("remove")
@aimed
def remove(at: Target, keys: KeyArgument) -> None:
    """Remove keys; one that is gone is no error."""

    async def work() -> None:
        async with joined(at) as session:
            await session.state.update(remove=keys)

    run(work())


@app.command("watch")
@aimed
def watch(
    at: Target,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with it.")] = "",
    changes: Annotated[int | None, typer.Option("--changes", min=1, help="End after this many changes.")] = None,
) -> None:
    """Print each change as a JSON object per line, the first with everything there is."""

    async def work() -> None:
        async with joined(at) as session, session.state.watch(prefix) as news:
            count = 0
            async for change in news:
                line = {"whole": change.whole, "updates": dict(change.updates), "removals": list(change.removals)}
                print(json.dumps({**line, "revision": change.revision}, ensure_ascii=False), flush=True)
                count += 1
                if count == changes:
                    return

    run(work(), interrupted=0 if changes is None else INTERRUPTED)


@app.command("lock")
@aimed
def lock(
    at: Target,
    key: str,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to hold it, s.")] = 10.0,
) -> None:
    """Hold the lock on a key for a while; Ctrl-C releases it."""

    async def work() -> None:
        async with joined(at) as session:
            await session.state.lock(key, seconds)
            messages.print(f"holding the lock for {seconds:g} s")
            try:
                await asyncio.sleep(seconds)
            finally:
                await session.state.release(key)

    run(work())
