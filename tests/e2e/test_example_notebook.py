"""The example notebook, run cell by cell as its readers do, against a real session; and whether its numbers are right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from narupa_shared.units import EV_IN_KJ_MOL
from tests.e2e.sessions import ROOT, session

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

NOTEBOOK: Final = ROOT / "examples" / "notebook" / "pull_and_analyse.ipynb"
CELL_LIMIT_S: Final = 180

# What the reader has made, for the test to compare.
KEPT: Final = """
np.savez(
    "made.npz",
    first=first, last=last, target=target, stiffness=stiffness,
    positions=pulled.positions, times=pulled.times_ps, potential=pulled.potential_energies,
    kinetic=pulled.kinetic_energies, user=pulled.user_energies, temperature=energies["temperature"],
    universe=universe.trajectory.timeseries(order="fac"), universe_times=[step.time for step in universe.trajectory],
    universe_bonds=universe.bonds.indices, alphas=ca.indices, rmsd=structure["rmsd"], end_to_end=structure["end_to_end"],
    ase=[each.positions for each in atoms], ase_energy=[each.get_potential_energy() for each in atoms],
    ase_kinetic=[each.get_kinetic_energy() for each in atoms], symbols=universe.atoms.elements.astype(str),
    selected=view.selection, index=energies.index, steps=energies["step"], after_index=[frame.index for frame in after],
    rest=resting.positions, rest_user=resting.user_energies, after=after.times_ps, after_user=after.user_energies,
)
"""


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_whole_and_kept_without_outputs() -> None:
    nbformat.validate(notebook())
    cells = [cell for cell in notebook().cells if cell.cell_type == "code"]
    assert cells
    assert not [cell.source for cell in cells if cell.outputs or cell.execution_count is not None]
    assert "narupa session demo:peptide" in notebook().cells[0].source  # what to run first


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The notebook with all outputs, and the arrays that it made."""
    folder = tmp_path_factory.mktemp("notebook")
    book = notebook()
    book.cells.append(nbformat.v4.new_code_cell(KEPT))
    with (
        pytest.MonkeyPatch.context() as patch,
        session(folder, "demo:peptide", NARUPA_TRAJECTORY_VELOCITIES="true") as running,
    ):
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        client = NotebookClient(
            book, timeout=CELL_LIMIT_S, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env={**os.environ, "NARUPA_LOBBY": running.lobby})
        with np.load(folder / "made.npz") as made:
            yield book, dict(made)


def printed(book: Any) -> str:
    """All that its cells printed."""
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_it_shows_tables_plots_and_numbers(read: tuple[Any, Any]) -> None:
    book, _ = read
    text = printed(book)
    assert "peptide: 112 atoms" in text
    rich = [output.data for cell in book.cells for output in cell.get("outputs", ()) if "data" in output]
    tables = [data["text/html"] for data in rich if "text/html" in data]
    assert len(tables) == 2
    assert len([data for data in rich if "application/vnd.jupyter.widget-view+json" in data]) == 1
    assert "ALA" in tables[0] and "user_energy" in tables[1]
    assert len([data for data in rich if len(data.get("image/png", "")) > 5000]) == 2  # plots with something in them
    nm, mda, ase = (
        float(re.search(rf"{name}: +([\d.]+)", text)[1]) for name in ("nm, NumPy", "Å, MDAnalysis", "Å, ASE")
    )  # type: ignore[index]
    assert mda == pytest.approx(10 * nm, abs=1e-2)
    assert ase == pytest.approx(10 * nm, abs=1e-2)
    spring, formula = map(float, re.search(r"spring: +([\d.]+) kJ/mol, and .* is ([\d.]+)", text).groups())  # type: ignore[union-attr]
    assert spring == pytest.approx(formula, abs=0.05)
    assert "<FrameSeries of 20 frames of 112 particles" in text
    assert "users' energy now 0.0 kJ/mol" in text


def test_the_pull_stretched_the_helix_and_its_energy_is_that_of_a_spring(read: tuple[Any, Any]) -> None:
    made = read[1]
    assert made["selected"].tolist() == [made["first"], made["last"]]
    ends = np.linalg.norm(made["positions"][:, made["last"]] - made["positions"][:, made["first"]], axis=1)
    assert ends[-1] > ends[0] + 0.5
    assert not made["rest_user"].any() and not made["after_user"].any()
    acting = made["user"] > 0
    assert acting.sum() > 120
    expected = made["stiffness"] / 2 * (ends - made["target"]) ** 2  # kJ/mol
    np.testing.assert_allclose(made["user"][acting], expected[acting], atol=0.05)


def test_each_tool_has_the_same_frames_in_its_own_units(read: tuple[Any, Any]) -> None:
    made = read[1]
    assert made["positions"].shape == (240, 112, 3)
    np.testing.assert_allclose(made["universe"], made["positions"] * 10, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made["ase"], made["positions"] * 10, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made["universe_times"], made["times"])
    assert set(np.diff(made["index"])) == {1} and set(np.diff(made["after_index"])) == {3}  # every one, every third
    np.testing.assert_allclose(made["times"], made["steps"] * 0.002, rtol=1e-9)  # ps
    assert (np.diff(made["times"]) >= 0).all() and made["after"][0] > made["times"][-1]
    np.testing.assert_allclose(made["ase_energy"] * EV_IN_KJ_MOL, made["potential"], rtol=1e-5)


def test_the_numbers_are_those_of_a_peptide(read: tuple[Any, Any]) -> None:
    made = read[1]
    one, other = made["universe_bonds"].T
    lengths = np.linalg.norm(made["universe"][:, one] - made["universe"][:, other], axis=-1)  # Å
    with_hydrogen = (made["symbols"][one] == "H") | (made["symbols"][other] == "H")
    assert len(one) == 111
    assert with_hydrogen.sum() == np.sum(made["symbols"] == "H")
    assert lengths[:, with_hydrogen].min() > 0.9 and lengths[:, with_hydrogen].max() < 1.15
    assert lengths[:, ~with_hydrogen].min() > 1.05 and lengths[:, ~with_hydrogen].max() < 1.8
    assert 220 < made["temperature"].mean() < 400  # K
    # From the momenta of the atoms, whose masses are those of the elements; the engine's velocities are half a step away.
    np.testing.assert_allclose(made["ase_kinetic"].mean() * EV_IN_KJ_MOL, made["kinetic"].mean(), rtol=0.05)


def test_the_deviation_is_that_of_the_best_superposition(read: tuple[Any, Any]) -> None:
    made = read[1]
    alphas = made["positions"][:, made["alphas"]].astype(np.float64)
    assert alphas.shape == (240, 10, 3)
    alphas -= alphas.mean(axis=1, keepdims=True)
    for number in (0, 120, 239):
        u, _, v = np.linalg.svd(alphas[number].T @ alphas[0])
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        rmsd = np.sqrt(np.sum((alphas[number] @ turn - alphas[0]) ** 2) / 10)
        assert made["rmsd"][number] == pytest.approx(10 * rmsd, abs=1e-2)
    assert made["rmsd"][-1] > 1.0  # Å
    assert made["end_to_end"][-1] > made["end_to_end"][0] + 5  # Å
