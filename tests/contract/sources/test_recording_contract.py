"""What every recording promises, whatever reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError, NoLongerKeptError
from narupa_shared.interactions import Interaction
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.source import Source


@pytest.fixture(params=["ase", "mdanalysis", "mdanalysis-two-files"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    import MDAnalysis

    atoms = ase.build.molecule("CH3CH2OH", vacuum=4)
    images = []
    for k in range(4):
        image = atoms.copy()
        image.positions += 0.1 * k
        image.set_pbc(True)
        images.append(image)
    ase.io.write(tmp_path / "run.traj", images)
    if request.param == "ase":
        text = str(tmp_path / "run.traj")
    else:
        ase.io.write(tmp_path / "run.pdb", images)
        text = str(tmp_path / "run.pdb")
    if request.param == "mdanalysis-two-files":
        universe = MDAnalysis.Universe.empty(len(atoms), trajectory=True)
        with MDAnalysis.Writer(str(tmp_path / "run.dcd"), n_atoms=len(atoms), dt=2.0) as writer:
            for image in images:
                universe.atoms.positions = image.positions
                universe.dimensions = image.cell.cellpar()
                writer.write(universe.atoms)
        text = f"{tmp_path / 'run.dcd'}?topology={tmp_path / 'run.pdb'}"
    source = open_source(SourceSpec.parse(text))
    yield source
    source.close()


@pytest.mark.filterwarnings("ignore:::MDAnalysis")
class TestRecordings:
    def test_have_frames_and_no_forces(self, recording: Source) -> None:
        assert not recording.info.live and recording.info.frame_count == 4
        recording.set_interactions([Interaction.parse("x", particles=[0])])
        assert recording.snapshot().user_index.size == 0

    def test_play_to_the_last_frame(self, recording: Source) -> None:
        heights = [float(recording.snapshot().positions[0, 2])]
        while recording.advance(5):
            heights.append(float(recording.snapshot().positions[0, 2]))
        assert len(heights) == 4
        np.testing.assert_allclose(np.diff(heights), 0.01, atol=2e-4)
        assert recording.snapshot().step == 3

    def test_seek_and_reset(self, recording: Source) -> None:
        recording.seek(2)
        assert recording.snapshot().step == 2
        recording.reset()
        assert recording.snapshot().step == 0
        for index in (-1, 4):
            with pytest.raises(NoLongerKeptError, match=str(index)):
                recording.seek(index)

    def test_carry_topology_box_and_checkpoint(self, recording: Source) -> None:
        topology = recording.topology()
        elements = topology["particle.elements"]
        assert sorted(np.asarray(elements).tolist()) == [1, 1, 1, 1, 1, 1, 6, 6, 8]
        assert len(topology["bond.pairs"]) == 8  # type: ignore[arg-type]
        box = recording.snapshot().box
        assert box is not None and 0.5 < box[0, 0] < 2
        recording.advance(1)
        checkpoint = recording.checkpoint()
        recording.reset()
        recording.restore(checkpoint)
        assert recording.snapshot().step == 1
        with pytest.raises(InvalidArgumentError):
            recording.restore(b"frame 99")
