"""The command table: defaults overlaid, every argument checked, errors that name it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from narupa_shared.commands import Argument, CommandTable
from narupa_shared.errors import InvalidArgumentError


@pytest.fixture
def table() -> CommandTable:
    async def load(index: int) -> dict[str, Any]:
        return {"loaded": index}

    made = CommandTable()
    made.register("playback/load", load, Argument("index", "int", minimum=0))
    made.register(
        "tune", lambda **given: given, Argument("interval", "float", 0.1, 0, 10), Argument("name", "str", "x")
    )
    made.register("switch", lambda on: None, Argument("on", "bool", True))
    return made


async def test_defaults_are_overlaid_with_what_the_caller_gives(table: CommandTable) -> None:
    assert await table.run("tune", {}) == {"interval": 0.1, "name": "x"}
    assert await table.run("tune", {"interval": 2}) == {"interval": 2.0, "name": "x"}
    assert await table.run("tune", {"interval": None}) == {"interval": 0.1, "name": "x"}


async def test_handlers_may_be_coroutines_and_may_return_nothing(table: CommandTable) -> None:
    assert await table.run("playback/load", {"index": 2.0}) == {"loaded": 2}
    assert await table.run("switch", {"on": False}) == {}


async def test_the_listing_gives_names_and_defaults(table: CommandTable) -> None:
    assert table.listing()["tune"] == {"interval": 0.1, "name": "x"}
    assert table.listing()["playback/load"] == {}
    listed = await table.run("commands/list", {})
    assert listed["list"] == table.listing()
    assert {"name": "tune", "arguments": {"interval": 0.1, "name": "x"}} in listed["commands"]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("nothing", {}, "command is 'nothing'.*tune"),
        ("tune", {"speed": 1}, "tune.speed is 1: unknown argument; use interval, name"),
        ("tune", {"interval": "fast"}, "tune.interval is 'fast': must be a number"),
        ("tune", {"interval": True}, "tune.interval is True: must be a number"),
        ("tune", {"interval": math.nan}, "tune.interval is nan: must be finite"),
        ("tune", {"interval": -1}, "tune.interval is -1: must be between 0 and 10"),
        ("tune", {"name": 3.0}, "tune.name is 3.0: must be text"),
        ("tune", {"name": "x" * 2000}, "tune.name.*at most 1024"),
        ("switch", {"on": 1}, "switch.on is 1: must be true or false"),
        ("commands/list", {"x": []}, "it takes none"),
        ("playback/load", {}, "playback/load.index is None: this argument must be given"),
        ("playback/load", {"index": 1.5}, "must be a whole number"),
        ("playback/load", {"index": -1}, "must be 0 or more"),
    ],
)
async def test_a_wrong_call_is_refused_by_name(
    table: CommandTable, name: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        await table.run(name, arguments)


def test_a_name_is_taken_once(table: CommandTable) -> None:
    with pytest.raises(ValueError, match="tune"):
        table.register("tune", lambda: None)
