"""The live table of `narupa watch`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from narupa_client.cli.watch import Board, _drawn
from narupa_client.frames import CurrentFrame


def drawn(interactions: list[dict[str, Any]] | None, values: dict[str, Any], arrays: dict[str, Any]) -> str:
    session: Any = SimpleNamespace(users=[SimpleNamespace(id="0a1b2c", name="Ada")])
    frames: Any = SimpleNamespace(trouble=None)
    board = Board(session, frames)
    board._interactions = interactions
    console = Console(width=200)
    with console.capture() as capture:
        console.print(board.draw(CurrentFrame(3, values, arrays), 30.0))
    return capture.get()


ARRAYS = {
    "interaction.ids": ["p", "q"],
    "interaction.energies": np.array([1.0, 2.0], np.float32),
    "interaction.work": np.array([-12.5, 4.0], np.float32),
    "interaction.forces": np.zeros((2, 3), np.float32),
}


def test_who_pulls_what_and_with_what_work() -> None:
    pulls = [
        {"id": "p", "owner": "0a1b2c", "kind": "steered", "particles": [1, 2]},
        {"id": "new", "owner": "ipv4:10.0.0.1:5", "kind": "spring", "particles": [3]},
    ]
    text = drawn(pulls, {"forces.user.work_done": 8.25}, ARRAYS)
    assert "users' work  8.25 kJ/mol" in text
    assert "Ada: steered on particles 1, 2, work -12.50 kJ/mol" in text
    assert "ipv4:10.0.0.1:5: spring on particle 3\n" in "\n".join(line.rstrip() for line in text.split("\n"))
    assert "pulls  2" in text


def test_pulls_are_counted_without_imd() -> None:
    assert "pulls  2; whose is not known" in drawn(None, {}, ARRAYS)


def test_a_problem_is_told_with_names_for_ids() -> None:
    text = drawn([], {"system.simulation.exception": "interaction p of 0a1b2c made it blow up [at 3 ps]"}, {})
    assert "interaction p of Ada made it blow up [at 3 ps]" in text


async def test_a_problem_is_drawn_at_once_as_no_other_frame_may_come() -> None:
    async def frames() -> AsyncIterator[CurrentFrame]:
        for index in range(4):
            problem = {"system.simulation.exception": "it blew up"} if index == 2 else {}
            yield CurrentFrame(index, problem, {})

    stream: Any = frames()
    indices: list[int] = []
    await _drawn(stream, None, 1000.0, lambda frame, fps: indices.append(frame.index))
    assert indices == [0, 2, 3]  # the first, the problem, and that it is over
