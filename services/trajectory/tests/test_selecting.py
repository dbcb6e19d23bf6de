"""The process that evaluates selections: what MDAnalysis is told of a system, and what hostile texts do to who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.errors import InvalidArgumentError, QuotaError, UnavailableError
from narupa_shared.frames import Frame
from narupa_trajectory import selections as selections_module
from narupa_trajectory.selecting import selected, universe_of
from narupa_trajectory.selections import Selections


def solvated(waters: int = 40) -> Frame:
    """Glycine and alanine in chain A, a ligand in B, and waters in W; atoms are 1 nm apart, on a line."""
    residues = [("GLY", "1", 0), ("ALA", "2A", 0), ("LIG", "501", 1), *(("HOH", str(n + 1), 2) for n in range(waters))]
    atoms = [
        ("N", 7, 0),
        ("CA", 6, 0),
        ("C", 6, 0),
        ("N", 7, 1),
        ("CA", 6, 1),
        ("CB", 6, 1),
        ("C1", 6, 2),
        ("CL", 17, 2),
    ]
    atoms += [(name, 8 if name == "O" else 1, 3 + n) for n in range(waters) for name in ("O", "H1", "H2")]
    positions = np.zeros((len(atoms), 3), np.float32)
    positions[:, 0] = np.arange(len(atoms))
    return Frame.of(
        0,
        {
            keys.PARTICLE_COUNT: float(len(atoms)),
            keys.NAMES: [name for name, _, _ in atoms],
            keys.ELEMENTS: np.array([number for _, number, _ in atoms], np.uint32),
            keys.RESIDUES: np.array([residue for _, _, residue in atoms], np.uint32),
            keys.RESIDUE_NAMES: [name for name, _, _ in residues],
            keys.RESIDUE_IDS: [id for _, id, _ in residues],
            keys.RESIDUE_CHAINS: np.array([chain for _, _, chain in residues], np.uint32),
            keys.CHAIN_NAMES: ["A", "B", "W"],
            keys.BOND_PAIRS: np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [6, 7]], np.uint32),
            keys.POSITIONS: positions,
            keys.BOX: np.diag(np.array([len(atoms), 5, 5], np.float32)),
        },
    )


@pytest.fixture(scope="module")
def universe() -> Any:
    return universe_of(solvated())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("protein", [0, 1, 2, 3, 4, 5]),
        ("protein or resname LIG", list(range(8))),
        ("protein and name CA", [1, 4]),
        ("element Cl", [7]),
        ("resid 501 and not name C*", []),
        ("resid 2A and protein", [3, 4, 5]),
        ("segid B or (chainID A and name N)", [0, 3, 6, 7]),
        ("bonded index 2", [1, 3]),
        ("same fragment as index 6", [6, 7]),
        ("around 10.5 index 6", [5, 7]),
        ("prop x < 25", [0, 1, 2]),
        ("byres (resname HOH and around 10.5 index 0)", [125, 126, 127]),
        ("not all", []),
    ],
)
def test_texts_mean_what_they_say(universe: Any, text: str, expected: list[int]) -> None:
    found = selected(universe, text)
    assert not isinstance(found, str), found
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "protein and",
        "((((",
        "(" * 400 + "all" + ")" * 400,
        "not " * 240 + "all",
        "index 99999999999999999999999999999999",
        "index 1:",
        "around nan all",
        "around all",
        "prop __class__ < 1",
        "group missing",
        "global group missing",
        "smarts [#6]",
        "name \x00",
        "resname " + "[" * 500,
        "sphzone 1e308",
        "same __dict__ as all",
        "bynum -1",
        "\u202e all",
        "import os",
    ],
)
def test_hostile_texts_are_refused_in_words_or_mean_something(universe: Any, text: str) -> None:
    found = selected(universe, text)
    assert isinstance(found, np.ndarray) or (0 < len(found) < 400 and found.isprintable())


@pytest.mark.parametrize(
    ("items", "count"),
    [
        ({}, 0),
        ({keys.POSITIONS: np.zeros((3, 3), np.float32)}, 3),
        ({keys.PARTICLE_COUNT: 2.0, keys.NAMES: ["A"], keys.RESIDUES: np.zeros(5, np.uint32)}, 2),
        ({keys.PARTICLE_COUNT: 2.0, keys.ELEMENTS: np.array([0, 4_000_000], np.uint32)}, 2),
    ],
)
def test_systems_that_say_little_can_be_selected_from(items: dict[str, Any], count: int) -> None:
    found = selected(universe_of(Frame.of(0, items)), "all or name X")
    assert not isinstance(found, str), found
    assert len(found) == count


@pytest.fixture
async def selections() -> AsyncIterator[Selections]:
    made = Selections(limit_s=30)
    yield made
    await made.close()


async def test_each_text_is_evaluated_once_for_each_system(
    selections: Selections, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = selections_module._Worker.ask

    async def counted(self: Any, header: Any, block: bytes = b"") -> Any:
        asked.append(header["do"] if header["do"] == "system" else header["text"])
        return await ask(self, header, block)

    monkeypatch.setattr(selections_module._Worker, "ask", counted)
    whole = solvated()
    found = await asyncio.gather(*(selections.particles("protein", whole) for _ in range(20)))
    assert all(one is found[0] for one in found)
    assert found[0].tolist() == [0, 1, 2, 3, 4, 5]
    moved = whole.overlaid(Frame(1, {}, {keys.POSITIONS: np.zeros((128, 3), np.float32)}))
    assert await selections.particles("protein", moved) is found[0], "of the same system"
    assert await selections.particles("protein", solvated()) is found[0], "that is said again"
    for _ in range(100):
        selections.admit("ada", "protein")
    with pytest.raises(InvalidArgumentError, match=r"view\.selection is 'foo': is no selection"):
        await selections.particles("foo", whole)
    assert asked == ["system", "protein", "foo"]
    other = solvated(3)
    assert (await selections.particles("resname HOH and name O", other)).tolist() == [8, 11, 14]
    assert asked == ["system", "protein", "foo", "system", "resname HOH and name O"]


async def test_nobody_has_others_wait_for_ever_new_selections() -> None:
    now = 100.0
    selections = Selections(limit_s=5, clock=lambda: now)
    for n in range(selections_module.BURST):
        selections.admit("mallory", f"index {n}")
    with pytest.raises(QuotaError, match=r"mallory sends more than 0\.5 new selections per second"):
        selections.admit("mallory", "index 99")
    selections.admit("mallory", "")  # everything
    selections.admit("ada", "index 99")
    now += 1 / selections_module.PER_S
    selections.admit("mallory", "index 99")


async def test_one_that_is_too_much_is_ended_and_the_next_is_answered() -> None:
    """All atoms are near all others: 800 million pairs."""
    selections = Selections(limit_s=0.5)
    try:
        whole = solvated(20_000)
        whole.arrays[keys.POSITIONS] = np.zeros((len(whole.arrays[keys.POSITIONS]), 3), np.float32)
        with pytest.raises(InvalidArgumentError, match=r"takes longer than 0\.5 s|more than can be|too much memory"):
            await selections.particles("around 10 name O", whole)
        selections._limit_s = 30
        assert len(await selections.particles("protein", whole)) == 6
    finally:
        await selections.close()


async def test_a_process_that_dies_is_started_again(selections: Selections) -> None:
    whole = solvated()
    await selections.particles("protein", whole)
    assert selections._worker is not None
    process = selections._worker._process
    process.kill()
    await process.wait()
    with pytest.raises(UnavailableError):
        await selections.particles("all", solvated(5))
    assert len(await selections.particles("all", solvated(5))) == 23


async def test_it_is_ended_when_there_is_nothing_to_select(
    selections: Selections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selections_module, "IDLE_S", 0.0)
    await selections.particles("protein", solvated())
    async with asyncio.timeout(30):
        while selections._worker is not None:
            await asyncio.sleep(0.01)


async def test_who_gives_up_waiting_does_not_stop_it_for_others(selections: Selections) -> None:
    whole = solvated()
    waiting = [asyncio.create_task(selections.particles("protein", whole)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert len(await waiting[1]) == 6
