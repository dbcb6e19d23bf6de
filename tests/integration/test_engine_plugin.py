"""The example of an engine as a plug-in: installed as its README says, and run by the real services."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame
from tests.e2e.sessions import LIMIT_S, ROOT, at_rest, first, narupa_soon, pulled, session

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = ROOT / "examples" / "engine-plugin"
ANY_PORT = ("--lobby=127.0.0.1:0", "--trajectory-port=0", "--imd-port=0", "--gateway-port=0", "--websocket-port=0")
ATOM = "ATOM  {0:>5}  CA  GLY A{0:>4}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00  0.00           C\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be on the path of Python, with nothing in it but the installed example."""
    folder = tmp_path_factory.mktemp("site")
    options = (
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--no-cache-dir",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def beside_a_broken_one(installed: Path, tmp_path: Path) -> str:
    """The path of Python with another plug-in on it, whose code is not there."""
    facts = tmp_path / "broken" / "narupa_broken-0.1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: narupa-broken\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[narupa.engines]\nbroken = narupa_broken:ENGINE\n")
    return os.pathsep.join([str(facts.parent), str(installed)])


@pytest.fixture
def zigzag(tmp_path: Path) -> Path:
    """A structure of somebody's own: eight residues, the sixth above the fifth."""
    path = tmp_path / "zigzag.pdb"
    places = [(3.0 * i, 2.0 * (i % 2), 1.5 * (i % 3)) for i in range(8)]
    path.write_text("".join(ATOM.format(number, *place) for number, place in enumerate(places, 1)) + "END\n")
    return path


def test_its_own_tests_pass_on_what_is_installed(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


async def test_it_is_watched_and_pulled_like_any_other(beside_a_broken_one: str, zigzag: Path, tmp_path: Path) -> None:
    inputs = ("elastic-network:helix?temperature_k=50", f"{zigzag}?engine=elastic-network&steps_per_frame=7")
    with session(tmp_path, *inputs, PYTHONPATH=beside_a_broken_one) as running:
        async with narupa_client.join(running.lobby, "Ada") as ada, ada.frames() as frames:
            before = await first(frames, at_rest)
            assert before.values["system.simulation.name"] == "helix"
            assert before.positions.shape == (40, 3) and before.arrays["residue.names"] == ["ALA"] * 40
            handle = (before.positions[0] + np.array([0.5, 0.0, 0.0])).tolist()

            def there(frame: CurrentFrame) -> bool:
                return bool(np.linalg.norm(frame.positions[0] - handle) < 0.2)

            async with ada.pull([0], handle, kind="spring", scale=2000.0, mass_weighted=False):
                frame = await first(frames, lambda frame: pulled(frame) and there(frame))
                (index, forces), away = frame.user_forces, frame.positions[0] - np.array(handle)
                assert index.tolist() == [0]
                # The force of a spring at the frame's own positions: F = -2 scale d.
                np.testing.assert_allclose(forces[0], -2 * 2000.0 * away, atol=0.5)
                assert frame.user_energy == pytest.approx(2000.0 * float(away @ away), abs=0.5)
                assert frame.values["forces.user.work_done"] > 0
            await first(frames, at_rest)
            await ada.run_command("playback/next")
            other = await first(frames, lambda frame: frame.values["system.simulation.name"] == "zigzag")
            assert other.positions.shape == (8, 3)
            step = await first(frames, lambda frame: frame.values["system.simulation.step"] > 0)
            assert step.values["system.simulation.step"] % 7 == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("elastic-network:sheet", "there is elastic-network:helix"),
        ("elastic-network:helix?stifness=2", "the option stifness is unknown here; this source has cutoff_nm"),
        (
            "a.pdb?engine=elastic-net",
            "is unknown; there are demo, imd, openmm, ase, recording, broken, elastic-network",
        ),
        ("a.pdb?engine=broken", "is a plug-in of narupa-broken 0.1 and cannot be loaded (ModuleNotFoundError"),
    ],
)
async def test_what_is_wrong_with_its_inputs_is_said_at_the_start(
    beside_a_broken_one: str, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", beside_a_broken_one)
    done = await narupa_soon("session", text, *ANY_PORT, within_s=2 * LIMIT_S)
    assert done.returncode != 0
    assert said in done.stderr


async def test_an_input_of_an_engine_that_is_not_there_is_refused_with_those_that_are() -> None:
    done = await narupa_soon("session", "elastic-network:helix", *ANY_PORT, within_s=2 * LIMIT_S)
    assert done.returncode != 0
    assert "no engine takes it; there are demo, imd, openmm, ase, recording" in done.stderr
