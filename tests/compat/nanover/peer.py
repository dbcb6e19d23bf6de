"""NanoVer's own client, doing what it is told: a line of JSON on standard input is one order, one on standard output its answer.

`python peer.py ws://HOST:PORT`. An order is `{"do": NAME, ...}` with the arguments of the method of that name; its answer is
`{"is": RESULT}` or `{"error": TEXT}`. It runs with NanoVer's packages alone, and ends with its standard input.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import sys
import threading
from collections import deque
from typing import Any

import numpy as np
from nanover.imd import ParticleInteraction
from nanover.recording import NanoverRecordingReader, PlaybackSimulation
from nanover.trajectory import FrameData
from nanover.utilities.change_buffers import DictionaryChange
from nanover.websocket import NanoverImdClient
from nanover.websocket.record import BackgroundRecordingContext

# Orders that take longer than this fail.
LIMIT_S = 60.0
KEPT = 2000


class WatchfulClient(NanoverImdClient):
    """NanoVer's client, which also keeps every frame, merged, with the index that it came with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.merged: deque[tuple[int, FrameData]] = deque(maxlen=KEPT)
        self.received = 0
        self.news = threading.Condition()
        super().__init__(*args, **kwargs)

    def recv_frame(self, message: dict[str, Any]) -> None:
        super().recv_frame(message)
        with self.news:
            # NanoVer's merged frame keeps the index 0 for good once there was one.
            self.merged.append((message["frame.index"], self.current_frame.copy()))
            self.received += 1
            self.news.notify_all()


class Complaints(logging.Handler):
    """What NanoVer's own code logs as having gone wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class Peer:
    """The orders."""

    def __init__(self, address: str, complaints: Complaints) -> None:
        self._address = address
        self._complaints = complaints
        self._client = WatchfulClient.from_url(address)
        self._recording: BackgroundRecordingContext | None = None
        self._called: list[dict[str, Any]] = []

    # Frames.

    def topology(self) -> dict[str, Any]:
        """What NanoVer calls the least that can be shown, and all else that does not change."""
        frame = self._client.wait_until_minimum_usable_frame(timeout=LIMIT_S)
        return {key: plain(item) for key, item in frame.frame_dict.items()}

    def latest(self) -> dict[str, Any]:
        """The current frame."""
        return {key: plain(item) for key, item in self._client.current_frame.frame_dict.items()}

    def next_frames(self, count: int) -> list[dict[str, Any]]:
        """The next `count` frames, each whole."""
        client = self._client
        with client.news:
            wanted = client.received + count
            assert client.news.wait_for(lambda: client.received >= wanted, LIMIT_S), "no frames came"
            return [described(index, frame) for index, frame in list(client.merged)[-count:]]

    def seen(self) -> list[dict[str, Any]]:
        """Every frame since the start, or the last 2000, each whole."""
        with self._client.news:
            return [described(index, frame) for index, frame in self._client.merged]

    def digests(self, after: int) -> list[list[Any]]:
        """The index, the digest of the positions, and the pulled particles of every frame but the first `after` ones."""
        with self._client.news:
            missing = self._client.received - after
            fresh = list(self._client.merged)[-missing:] if missing else []
        return [
            [index, digest(frame["particle.positions"]), frame["forces.user.index"].tolist()] for index, frame in fresh
        ]

    def counts(self) -> dict[str, Any]:
        """How many frames came, and what NanoVer found wrong."""
        return {"frames": self._client.received, "complaints": self._complaints.texts}

    # The shared state.

    def state(self) -> dict[str, Any]:
        return dict(self._client.copy_state())

    def update(self, updates: dict[str, Any] | None = None, removals: list[str] | None = None) -> None:
        self._client.update_state(DictionaryChange(updates, removals))

    def select(self, name: str, particles: list[int], **properties: Any) -> str:
        """A selection, made and changed as NanoVer's scripts do; returns its key."""
        selection = self._client.create_selection(name, particles)
        with selection.modify():
            for key, value in properties.items():
                setattr(selection, key, value)
        return str(selection.selection_id)

    def selections(self) -> dict[str, Any]:
        """By key: the particles of each selection, and how they are shown."""
        return {
            each.selection_id: {
                "name": each.selection_name,
                "particles": sorted(each.selected_particle_ids or ()),
                "renderer": each.renderer,
                "hide": each.hide,
                "interaction": each.interaction_method,
            }
            for each in self._client.selections
        }

    # Pulls.

    def pull(self, **interaction: Any) -> str:
        """A pull begins; returns its key."""
        return str(self._client.start_interaction(ParticleInteraction(**interaction)))

    def move(self, key: str, **interaction: Any) -> None:
        self._client.update_interaction(key, ParticleInteraction(**interaction))

    def release(self, key: str) -> None:
        self._client.stop_interaction(key)

    def interactions(self) -> dict[str, list[int]]:
        """By key: the particles of each interaction that NanoVer can read."""
        return {key: [int(i) for i in each.particles] for key, each in self._client.interactions.items()}

    # Commands.

    def commands(self) -> dict[str, Any]:
        return dict(self._client.commands)

    def run(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        return self._client.run_command(name, arguments).result(LIMIT_S)

    def playback(self, method: str, **arguments: Any) -> Any:
        """One of the methods that NanoVer has for a command of its own: run_play, run_load, ..."""
        assert method.startswith("run_")
        return getattr(self._client, method)(**arguments)

    def register(self, name: str, **facts: Any) -> None:
        """Others may run a command of ours, which answers with its arguments, and fails when told to."""

        def called(**arguments: Any) -> dict[str, Any]:
            self._called.append(arguments)
            if "fail" in arguments:
                raise ValueError(arguments["fail"])
            return {"echo": arguments}

        self._client.register_command(name, called, **facts)

    def called(self) -> list[dict[str, Any]]:
        """The arguments of each call of a command of ours."""
        return self._called

    # Recordings.

    def record(self, path: str) -> None:
        self._recording = BackgroundRecordingContext.from_address_to_path(address=self._address, path=path)

    def stop_recording(self) -> None:
        assert self._recording is not None
        self._recording.close()

    def recorded(self, path: str) -> dict[str, Any]:
        """A recording as NanoVer reads it: every frame, whole, with its time in us, and the last state."""
        with NanoverRecordingReader.from_path(path) as reader:
            in_memory(reader)
            current, frames, state = FrameData(), [], {}
            for entry, frame in reader.iter_frame_updates():
                current.update(frame)
                frames.append({**described(frame.frame_index, current), "at": entry.metadata["timestamp"]})
            for _, whole in reader.iter_states_full():
                state = whole
            return {"frames": frames, "state": state, "entries": len(reader)}

    def played(self, path: str) -> dict[str, Any]:
        """What NanoVer's server shows when it plays the recording, step by step."""
        simulation = PlaybackSimulation.from_path(path=path)
        in_memory(simulation.reader)
        simulation.load()
        stage = Stage()
        simulation.reset(stage)
        for _ in simulation.entries:
            simulation.advance_by_one_step()
        simulation.reader.close()
        return {"frames": stage.frames, "state": stage.state, "cleared": stage.cleared}

    # The end.

    def close(self) -> None:
        self._client.close()


def in_memory(reader: NanoverRecordingReader) -> None:
    """Where parts of a stored file are skipped, zipfile of the first Pythons 3.12 believes that it ends too early."""
    with reader.messagesfile as messages:
        reader.messagesfile = io.BytesIO(messages.read())


class Stage:
    """What a simulation of NanoVer's needs of the server that it runs in."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.cleared = 0
        self._current = FrameData()

    @property
    def frame_publisher(self) -> Stage:
        return self

    def send_clear(self) -> None:
        self.cleared += 1
        self._current = FrameData()

    def send_frame(self, frame: FrameData) -> None:
        if frame:
            self._current.update(frame)
            self.frames.append(described(frame.frame_index, self._current))

    def clear_locks(self) -> None:
        pass

    def update_state(self, change: DictionaryChange) -> None:
        for key in change.removals:
            self.state.pop(key, None)
        self.state.update(change.updates)


def described(index: int, frame: FrameData) -> dict[str, Any]:
    """Positions as the float32 that they are, and every number."""
    items = frame.frame_dict
    numbers = {key: item for key, item in items.items() if isinstance(item, int | float)}
    positions = np.ascontiguousarray(items["particle.positions"], np.float32)
    users = [int(i) for i in items.get("forces.user.index", ())]
    return {"index": index, "positions": base64.b64encode(positions.tobytes()).decode(), "users": users, **numbers}


def digest(positions: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(positions, np.float32).tobytes(), digest_size=16).hexdigest()


def plain(item: Any) -> Any:
    return item.tolist() if isinstance(item, np.ndarray) else item


def main() -> None:
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    peer = Peer(sys.argv[1], complaints)
    answer({"is": "ready"})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer({"is": getattr(peer, order.pop("do"))(**order)})
        except Exception as error:  # whatever it is, whoever gave the order is told
            answer({"error": f"{type(error).__name__}: {error}"})


def answer(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
