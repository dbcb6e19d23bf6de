"""The service's end of an engine's channel, for tests of the loop at the other end, which runs in a thread."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

from engine_fakes import FakeSource

from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.channel import BlockingChannel, FrameMemory, Message, packed, unnamed_memory
from narupa_trajectory.engine.loop import EngineLoop
from narupa_trajectory.sources.source import Snapshot

SETTINGS: Message = {
    "playing": True,
    "frame_interval_s": 0.0,
    "steps_per_frame": None,
    "velocities": False,
    "checkpoint_interval_s": 1000.0,
    "on_blow_up": "stop",
    "energy_share": 0.01,
}


class Service:
    """The service's end of the channel, as plain blocking calls."""

    def __init__(self, source: FakeSource, **settings: Any) -> None:
        ours, theirs = socket.socketpair()
        descriptor = unnamed_memory()
        self.channel = BlockingChannel(ours)
        self._socket = ours
        self.memory = FrameMemory.create(descriptor, source.info.particle_count)
        loop = EngineLoop(
            BlockingChannel(theirs),
            FrameMemory.attach(descriptor, source.info.particle_count),
            source,
            {**SETTINGS, **settings},
        )
        os.close(descriptor)
        self.error: BaseException | None = None
        self._theirs = theirs
        self.thread = threading.Thread(target=self._run, args=(loop,))
        self.thread.start()
        self._pending: list[Message] = []
        assert self.frame().step == 0  # where it starts is shown before anything moves

    def _run(self, loop: EngineLoop) -> None:
        try:
            loop.run()
        except BaseException as error:
            self.error = error

    def send(self, **header: Any) -> None:
        self._socket.sendall(packed(header))

    def next(self, event: str) -> Message:
        """The next message of this kind; others before it are dropped."""
        return self.next_of(event)

    def next_of(self, *events: str) -> Message:
        """As `next`, of any of these kinds."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if not self._pending:
                self._pending = self.channel.receive(5)
            while self._pending:
                message = self._pending.pop(0)
                if message["event"] in events:
                    return message
                if message["event"] == "frame":  # its slot is free again, or the engine would run out of them
                    self.send(do="ack", slot=message["slot"])
        raise AssertionError(f"no {' or '.join(events)} came")

    def frame(self) -> Snapshot:
        header = self.next("frame")
        snapshot = self.memory.read(header)
        self.send(do="ack", slot=header["slot"])
        return snapshot

    def command(self, do: str, **arguments: Any) -> Message:
        self.send(do=do, id=1, **arguments)
        return self.next("reply")

    def pull(self, *interactions: Interaction) -> None:
        """These interactions act, and no others."""
        self.send(do="interactions", set=[item.to_json() for item in interactions])

    def close(self) -> None:
        self._socket.close()
        self.thread.join(5)
        self._theirs.close()
        assert not self.thread.is_alive()
