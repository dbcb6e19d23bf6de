"""The example of a potential as a plug-in: installed as its README says, and felt in a session of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import narupa_client
from narupa_client import CurrentFrame
from narupa_shared.errors import InvalidArgumentError
from tests.e2e.sessions import ROOT, at_rest, first, pulled, session

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = ROOT / "examples" / "potential-plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be on the path of Python, with nothing in it but the installed example and a plug-in that is broken."""
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
    facts = folder / "narupa_broken-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: narupa-broken\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text("[narupa.potentials]\nbroken = narupa_broken:Potential\n")
    return folder


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


async def test_it_is_felt_in_a_session_and_a_broken_one_beside_it_is_named(installed: Path, tmp_path: Path) -> None:
    with session(tmp_path, "demo:peptide", PYTHONPATH=str(installed)) as running:
        async with narupa_client.join(running.lobby, "Ada") as ada, ada.frames() as frames:
            before = await first(frames, at_rest)
            handle = before.positions[0] + np.array([2.0, 0.0, 0.0])
            parameters = {"length": 0.5, "stiffness": 400.0}

            def away(frame: CurrentFrame) -> float:
                return float(np.linalg.norm(frame.positions[0] - handle))

            async with ada.pull([0], handle, kind="tether", scale=1.0, mass_weighted=False, parameters=parameters):
                frame = await first(frames, pulled)
                (index, [force]), r = frame.user_forces, away(frame)
                assert index.tolist() == [0] and r > 0.5
                # The law of the tether at the frame's own positions.
                expected = -400.0 * (r - 0.5) * (frame.positions[0] - handle) / r
                np.testing.assert_allclose(force, expected, atol=0.5)
                assert frame.user_energy == pytest.approx(200.0 * (r - 0.5) ** 2, rel=1e-3)

            with pytest.raises(InvalidArgumentError, match="length"):
                async with ada.pull([0], handle, kind="tether"):
                    pass
            with pytest.raises(InvalidArgumentError, match=r"narupa_broken:Potential cannot be loaded"):
                async with ada.pull([0], handle, kind="broken"):
                    pass
