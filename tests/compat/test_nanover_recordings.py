"""Recordings and NanoVer's own package: it reads and plays what is written here, and what it writes is read here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipReader, NanoverZipWriter
from narupa_shared.recordings.recording import StateChange
from narupa_trajectory.sources.catalogue import SourceSpec, open_source

PEER = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
pytestmark = pytest.mark.skipif(not PEER.exists(), reason="NanoVer is not installed here: make peers")

READ = """
import json, sys
from nanover.recording import NanoverRecordingReader
with NanoverRecordingReader.from_path(sys.argv[1]) as reader:
    frames = [
        {
            "time": entry.metadata["timestamp"],
            "index": update.frame_index,
            "count": frame.particle_count,
            "positions": frame.particle_positions.tolist(),
            "elements": frame.particle_elements.tolist(),
            "names": list(frame.particle_names),
            "bonds": frame.bond_pairs.tolist(),
            "box": frame.box_vectors.tolist(),
        }
        for (entry, update), (_, frame) in zip(reader.iter_frame_updates(), reader.iter_frames_full())
    ]
    states = [[entry.metadata["timestamp"], state] for entry, state in reader.iter_states_full()]
    events = len(list(reader.iter_max()))
print(json.dumps({"frames": frames, "states": states, "events": events}))
"""

# Plays it message by message, to where NanoVer's server would take frames and states.
PLAY = """
import json, sys
from nanover.recording import PlaybackSimulation
from nanover.trajectory import FrameData
from nanover.utilities.state_dictionary import StateDictionary

class Server:
    def __init__(self):
        self.frame, self.state, self.clears = FrameData(), StateDictionary(), 0
        self.frame_publisher = self
    def send_clear(self):
        self.frame, self.clears = FrameData(), self.clears + 1
    def send_frame(self, frame):
        self.frame.update(frame)
    def clear_locks(self):
        pass
    def update_state(self, change):
        self.state.update_state(None, change)

simulation, server = PlaybackSimulation.from_path(path=sys.argv[1]), Server()
simulation.load()
simulation.reset(server)
for _ in range(len(simulation.entries)):
    simulation.advance_by_one_step()
state = server.state.copy_content()
print(json.dumps({
    "positions": server.frame.particle_positions.tolist(),
    "names": list(server.frame.particle_names),
    "clears": server.clears,
    "count": state["count"],
    "gone": "gone" in state,
    "seconds": simulation.time,
}))
"""

WRITE = """
import sys
import numpy as np
from nanover.recording import NanoverRecordingWriter
from nanover.recording.reading import MessageEvent
from nanover.trajectory import FrameData
with NanoverRecordingWriter.from_path(sys.argv[1]) as writer:
    for number in range(30):
        frame = FrameData()
        frame.frame_index = 0 if number in (0, 20) else number
        if frame.frame_index == 0:
            frame.particle_count = 4
            frame.particle_elements = [6, 1, 8, 7]
            frame.particle_names = ["a", "b", "c", "d"]
            frame.bond_pairs = np.array([[0, 1], [2, 3]], np.uint32)
            frame.box_vectors = np.eye(3) * 2.5
        frame.particle_positions = np.full((4, 3), number * 0.5)
        message = {"frame": frame.pack_to_dict()}
        if number % 5 == 0:
            message["state"] = {"updates": {"count": number, "deep": {"list": [1, None, "x"]}}, "removals": ["gone"]}
        writer.write_message_event(MessageEvent(timestamp=1_000_000 + number * 40_000, message=message))
"""


def peer(code: str, path: Path) -> Any:
    ran = subprocess.run([str(PEER), "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]) if ran.stdout else None


def written(path: Path) -> Path:
    with NanoverZipWriter.create(path) as writer:
        for number in range(12):
            items: dict[str, Any] = {keys.POSITIONS: np.full((3, 3), number * 0.25, np.float32)}
            if number in (0, 6):
                items |= {
                    keys.PARTICLE_COUNT: 3.0,
                    keys.ELEMENTS: np.array([6, 8, 1], np.uint32),
                    keys.NAMES: ["C1", "O1", "H1"],
                    keys.BOND_PAIRS: np.array([[0, 1], [0, 2]], np.uint32),
                    keys.BOX: np.eye(3, dtype=np.float32) * 3,
                }
            change = StateChange({"count": float(number)}, ("gone",) if number else ())
            if number == 0:
                change = StateChange({"count": 0.0, "gone": True})
            writer.write(number * 0.1, Frame.of(number % 6, items), change)
    return path


def test_its_reader_reads_what_is_written_here(tmp_path: Path) -> None:
    found = peer(READ, written(tmp_path / "ours.nanover.zip"))
    assert found["events"] == len(found["frames"]) == 12
    for number, frame in enumerate(found["frames"]):
        assert frame["time"] == number * 100_000
        assert frame["index"] == number % 6
        assert frame["count"] == 3
        assert frame["positions"] == [[number * 0.25] * 3] * 3
        assert frame["elements"] == [6, 8, 1]
        assert frame["names"] == ["C1", "O1", "H1"]
        assert frame["bonds"] == [[0, 1], [0, 2]]
        assert frame["box"] == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert found["states"][0] == [0, {"count": 0.0, "gone": True}]
    assert found["states"][-1] == [1_100_000, {"count": 11.0}]


def test_it_plays_what_is_written_here(tmp_path: Path) -> None:
    found = peer(PLAY, written(tmp_path / "ours.nanover.zip"))
    assert found == {
        "positions": [[11 * 0.25] * 3] * 3,
        "names": ["C1", "O1", "H1"],
        "clears": 2,
        "count": 11.0,
        "gone": False,
        "seconds": pytest.approx(1.1),
    }


def test_what_it_writes_is_read_and_played_here(tmp_path: Path) -> None:
    path = tmp_path / "theirs.nanover.zip"
    peer(WRITE, path)
    with NanoverZipReader(path) as reader:
        assert len(reader) == 30
        assert reader.contents.times_s[-1] == pytest.approx(29 * 0.04)
        assert reader.contents.indices.tolist() == [0 if number in (0, 20) else number for number in range(30)]
        states = [moment.state for moment in reader if moment.state]
    assert states[1] == StateChange({"count": 5, "deep": {"list": [1, None, "x"]}}, ("gone",))
    source = open_source(SourceSpec.parse(str(path)))
    try:
        assert source.info.frame_count == 30
        assert source.topology()["particle.names"] == ["a", "b", "c", "d"]
        for number in (29, 3, 20, 19):
            source.seek(number)
            recorded = source.snapshot().recorded
            assert recorded is not None
            np.testing.assert_array_equal(recorded.arrays[keys.POSITIONS], np.full((4, 3), number * 0.5, np.float32))
            np.testing.assert_array_equal(recorded.arrays[keys.BOX], np.eye(3, dtype=np.float32) * 2.5)
    finally:
        source.close()
