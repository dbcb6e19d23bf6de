"""Serving does not bias what an engine samples.

Dense argon (64 atoms, 300 K, Langevin with 5/ps, 5 fs steps) is served by the real trajectory service, with four subscribers
and a user who keeps pausing and resuming it; one subscriber writes down the energies of every frame. The raw engine runs the same
input by itself. Each series is thinned by twice its integrated autocorrelation time, after which its samples count as
independent, and compared by the two-sample Kolmogorov-Smirnov test. Kinetic energies are also compared, by the
one-sample test, with the exact distribution, a gamma distribution of shape 3N/2 and scale kT. Ten such tests are made, so that
each has a level of 0.001 / 10 (Bonferroni): all of them together raise a false alarm once in a thousand runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import narupa_client
from narupa_shared.daemon import serving
from narupa_shared.units import BOLTZMANN_KJ_MOL_K
from narupa_trajectory.app import TrajectoryApp
from narupa_trajectory.config import TrajectoryConfig
from tests.validation.conftest import Recorder
from tests.validation.sampling import TEMPERATURE_K, Series, decorrelated, source_text, written
from tests.validation.systems import ARGON_COUNT

pytestmark = [pytest.mark.validation, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
FRAMES = {"openmm": 2500, "ase": 1600}
STEPS_PER_FRAME = {"openmm": 20, "ase": 15}
LEVEL = 0.001 / 10
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE_K
EXACT = stats.gamma(3 * ARGON_COUNT / 2, scale=KT)


async def meddled(session: narupa_client.Session) -> None:
    """Somebody who cannot leave the simulation alone."""
    while True:
        for name, then_s in (("playback/pause", 0.05), ("playback/play", 0.5)):
            await session.run_command(name)
            await asyncio.sleep(then_s)


async def looked_at(session: narupa_client.Session) -> None:
    async for _ in session.frames():
        pass


@contextlib.asynccontextmanager
async def everybody(address: str) -> AsyncIterator[narupa_client.Session]:
    """Four sessions, three of which only look."""
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(narupa_client.open(trajectory=address)) for _ in range(4)]
        tasks = [asyncio.create_task(looked_at(session)) for session in sessions[1:]]
        tasks.append(asyncio.create_task(meddled(sessions[0])))
        try:
            yield sessions[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def served_energies(text: str, frames: int, steps: int) -> tuple[Series, Series, Series]:
    """Potential and kinetic energy (kJ/mol) and temperature (K) of every frame, as a client gets them."""
    found = []
    config = TrajectoryConfig(
        port=0, sources=(text,), frame_interval_s=0, steps_per_frame=steps, lobby="127.0.0.1:1", drain_grace_s=0.2
    )
    async with serving("trajectory", config, TrajectoryApp(config)) as bound, everybody(bound.address) as session:
        previous = None
        async for frame in session.frames(mode="all"):
            step, last = frame.step, previous
            assert step is not None
            previous = step
            if last is None or step == last:
                continue  # the one at hand when we came, or one shown again on a command
            assert not found or step == last + steps, "a frame is missing"
            found.append((frame.potential_energy, frame.kinetic_energy, frame.temperature))
            if len(found) == frames:
                break
    potential, kinetic, temperature = np.array(found, dtype=np.float64).T
    return potential, kinetic, temperature


def described(served: Series, raw: Series, p: float) -> str:
    means = [f"{each.mean():.2f} ± {each.std() / np.sqrt(len(each)):.2f}" for each in (served, raw)]
    return f"p = {p:.3g}; means {means[0]} and {means[1]} from {len(served)} and {len(raw)} independent samples"


@pytest.fixture(scope="module")
def samples() -> dict[str, tuple[Series, Series]]:
    """What has been sampled by served engines so far, decorrelated."""
    return {}


@pytest.mark.parametrize("engine", ["openmm", "ase"])
async def test_serving_does_not_bias_energies(
    engine: str,
    tmp_path: Path,
    samples: dict[str, tuple[Series, Series]],
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Serving does not bias energies."""
    # The engine process imports the calculator of these tests.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    path = written(engine, tmp_path, seed=11)
    frames, steps = FRAMES[engine], STEPS_PER_FRAME[engine]
    command = ["-m", "tests.validation.sampling", engine, str(path), str(frames), str(steps), "12"]
    raw = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        potential, kinetic, temperature = await served_energies(source_text(engine, path), frames, steps)
        output, _ = await raw.communicate()
    finally:
        if raw.returncode is None:
            raw.kill()
            await raw.communicate()
    raw_potential, raw_kinetic = (np.array(each) for each in json.loads(output))
    system = (
        f"argon, {'OpenMM Reference' if engine == 'openmm' else 'ASE'}, served and raw, {frames * steps} steps each"
    )
    bound = f"p > {LEVEL:g}"
    pairs = {"potential": (potential, raw_potential), "kinetic": (kinetic, raw_kinetic)}
    for name, (ours, theirs) in pairs.items():
        a, b = decorrelated(ours), decorrelated(theirs)
        p = float(stats.ks_2samp(a, b).pvalue)
        check = f"Distribution of the {name} energy, served against raw"
        record(check, system=system, bound=bound, result=described(a, b, p), passed=p > LEVEL)
    samples[engine] = decorrelated(potential), decorrelated(kinetic)
    for name, series in (("served", kinetic), ("raw", raw_kinetic)):
        few = decorrelated(series)
        p = float(stats.kstest(few, EXACT.cdf).pvalue)
        record(
            f"Distribution of the kinetic energy, {name}, against the exact one",
            system=system,
            bound=bound,
            result=f"p = {p:.3g}; mean {few.mean():.2f} ± {few.std() / np.sqrt(len(few)):.2f}, exactly {EXACT.mean():.2f}, "
            f"spread {few.std():.2f}, exactly {EXACT.std():.2f}; {len(few)} independent samples",
            passed=p > LEVEL,
        )
    error = float(np.abs(temperature * 1.5 * ARGON_COUNT * BOLTZMANN_KJ_MOL_K / kinetic - 1).max())
    record(
        "Temperature of a frame against 2 KE / (3N k) of the same frame",
        system=system,
        bound="relative error ≤ 1e-6",
        result=f"at most {error:.1g}",
        passed=error <= 1e-6,
    )


async def test_two_served_engines_sample_the_same(samples: dict[str, tuple[Series, Series]], record: Recorder) -> None:
    """Two served engines sample the same liquid."""
    if len(samples) < 2:
        pytest.skip("needs what the served engines sampled")
    for index, name in enumerate(("potential", "kinetic")):
        a, b = samples["openmm"][index], samples["ase"][index]
        p = float(stats.ks_2samp(a, b).pvalue)
        record(
            f"Distribution of the {name} energy, OpenMM against ASE",
            system="argon, both served",
            bound=f"p > {LEVEL:g}",
            result=described(a, b, p),
            passed=p > LEVEL,
        )
