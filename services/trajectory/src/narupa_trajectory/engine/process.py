"""The engine process: runs one source, one frame after another, and does what the service asks between frames.

Started by the supervisor as `python -m narupa_trajectory.engine.process SOCKET MEMORY`, with two inherited descriptors. It
ends when the service is gone, whatever ended it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError
from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.channel import SLOTS, BlockingChannel, FrameMemory, Message
from narupa_trajectory.sources.source import Source, SourceDivergedError, TopologyValue

# A checkpoint may take this share of the engine's time.
CHECKPOINT_SHARE: Final = 0.01
STATISTICS_INTERVAL_S: Final = 0.5
# The longest that an engine nobody pulls in, flat out, goes on without looking for messages, s.
UNDISTURBED_BLOCK_S: Final = 0.03


class EngineLoop:
    """Owns the source: plays, pauses and paces it, and answers the service."""

    def __init__(self, channel: BlockingChannel, memory: FrameMemory, source: Source, settings: Message) -> None:
        self._channel = channel
        self._memory = memory
        self._source = source
        self._playing: bool = settings["playing"]
        self._interval_s: float = settings["frame_interval_s"]
        self._steps: int = settings["steps_per_frame"] or source.info.steps_per_frame
        self._velocities: bool = settings["velocities"]
        self._checkpoint_interval_s: float = settings["checkpoint_interval_s"]
        self._free: deque[int] = deque(range(SLOTS))
        self._every = False
        self._want_at: float = math.inf
        self._changed = True  # something to show that no snapshot has shown
        self._show_now = True  # a snapshot is due whatever the subscribers' clocks say
        self._next_frame_at = 0.0
        self._next_checkpoint_at = 0.0
        self._steps_done = 0
        self._statistics_from = (time.monotonic(), 0)
        self._interactions: list[Interaction] = []
        self._frame_cost_s = 0.0  # what the steps of one frame take, a moving average
        self._stopped = False

    def run(self) -> None:
        """Returns when the service asks to stop. Raises EOFError when it is gone."""
        self._publish_if_due(time.monotonic())
        while not self._stopped:
            for message in self._channel.receive(self._idle_s()):
                self._handle(message)
            now = time.monotonic()
            if self._playing and now >= self._next_frame_at and not self._owing:
                self._advance()
                self._next_frame_at = max(self._next_frame_at + self._interval_s, now)
                now = time.monotonic()
            self._publish_if_due(now)
            self._report(now)

    def _idle_s(self) -> float | None:
        """How long the loop may wait for messages before it has work again, s; None: until one comes."""
        if not self._free and (self._every or self._owing):
            return None  # the service acknowledges soon
        if not self._playing:
            if not self._changed:
                return None
            if self._show_now:
                return 0.0
            return None if self._want_at == math.inf else max(0.0, self._want_at - time.monotonic())
        return max(0.0, self._next_frame_at - time.monotonic())

    @property
    def _owing(self) -> bool:
        """Whether the present instant must be shown before it passes."""
        return self._show_now or (self._every and self._changed)

    def _advance(self) -> None:
        frames = self._frames_at_once()
        before = time.monotonic()
        more = self._source.advance(self._steps * frames)
        cost = (time.monotonic() - before) / frames
        self._frame_cost_s += 0.2 * (cost - self._frame_cost_s) if self._frame_cost_s else cost
        self._steps_done += self._steps * frames if self._source.info.live else 1
        self._changed = True
        if not more:
            self._source.reset()

    def _frames_at_once(self) -> int:
        """How many frames to go before anybody could want to see or change anything.

        Every block of steps costs an engine something of its own (OpenMM: about a fifth of a millisecond). Flat out, with
        nobody pulling, the engine therefore goes on until the next snapshot is due, but not for so long that a command waits.
        """
        if self._interval_s or self._every or self._interactions or not self._playing or not self._frame_cost_s:
            return 1
        # Half of what is left: a block that takes longer than foreseen is not late yet.
        horizon_s = min(UNDISTURBED_BLOCK_S, 0.5 * (self._want_at - time.monotonic()))
        return max(1, int(horizon_s / max(self._frame_cost_s, 1e-4))) if self._source.info.live else 1

    def _publish_if_due(self, now: float) -> None:
        due = self._show_now or (self._changed and (self._every or now >= self._want_at))
        if not due or not self._free:
            return
        snapshot = self._source.snapshot(velocities=self._velocities)
        header = self._memory.write(self._free.popleft(), snapshot)
        self._channel.send({"event": "frame", "urgent": self._show_now or not self._playing, **header})
        self._want_at = math.inf
        self._changed = self._show_now = False

    def _report(self, now: float) -> None:
        if not self._source.info.live:
            return
        since, steps = self._statistics_from
        if now - since >= STATISTICS_INTERVAL_S:
            rate = (self._steps_done - steps) / (now - since)
            self._statistics_from = (now, self._steps_done)
            self._channel.send({"event": "statistics", "steps_per_second": rate})
        if self._playing and now >= self._next_checkpoint_at:
            block = self._source.checkpoint()
            cost = time.monotonic() - now
            self._next_checkpoint_at = now + max(self._checkpoint_interval_s, cost / CHECKPOINT_SHARE)
            self._channel.send({"event": "checkpoint"}, block)

    def _handle(self, message: Message) -> None:
        action = message["do"]
        if action == "ack":
            self._free.append(message["slot"])
        elif action == "want":
            self._want_at = message["at"]
        elif action == "every":
            self._every = message["on"]
        elif action == "interactions":
            self._interactions = [Interaction.parse(**fields) for fields in message["set"]]
            self._source.set_interactions(self._interactions)
            self._changed = True
            self._channel.send({"event": "interactions_applied"})
        elif action == "stop":
            self._stopped = True
        else:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        """Does a command and replies, with the error where there is one."""
        reply: dict[str, Any] = {"event": "reply", "id": message["id"]}
        block = b""
        try:
            block = self._command(message["do"], message)
        except SourceDivergedError:
            raise
        except (NarupaError, ValueError, OSError) as error:
            reply["error"] = {"kind": type(error).__name__, "text": str(error)}
        self._channel.send(reply, block)

    def _command(self, action: str, message: Message) -> bytes:
        match action:
            case "play":
                self._playing, self._next_frame_at = True, time.monotonic()
            case "pause":
                self._playing, self._show_now = False, True
            case "step":
                self._playing, self._show_now = False, True
                self._advance()
            case "reset":
                self._source.reset()
                self._source.set_interactions(self._interactions)
                self._steps_done, self._statistics_from = 0, (time.monotonic(), 0)
                self._next_checkpoint_at = 0.0
                self._channel.send({"event": "reset"})
                self._show_now = True
            case "seek":
                self._source.seek(message["index"])
                self._show_now = True
            case "stand":  # paused at a frame, which is on its way before the answer is
                self._source.seek(message["index"])
                self._playing, self._show_now = False, True
                self._publish_if_due(time.monotonic())
            case "interval":
                self._interval_s, self._next_frame_at = message["value"], time.monotonic()
            case "steps":
                self._steps = message["value"]
            case "show":
                self._show_now = True
            case "frame_at":
                return self._frame_at(message["index"])
            case _:
                raise InvalidArgumentError("engine command", action, "is unknown")
        return b""

    def _frame_at(self, index: int) -> bytes:
        """A recording's frame `index` as message bytes, without moving the playback on."""
        if self._source.info.live:
            raise FailedPreconditionError("a live source has no frames to look up")
        here = self._source.snapshot().step
        self._source.seek(index)
        snapshot = self._source.snapshot(velocities=self._velocities)
        self._source.seek(here)
        names = (
            "positions",
            "time_ps",
            "step",
            "box",
            "potential_energy",
            "kinetic_energy",
            "temperature",
            "velocities",
        )
        return jsoned({name: getattr(snapshot, name) for name in names}).encode()


def jsoned(items: Mapping[str, Any]) -> str:
    """Numbers, texts and arrays as JSON text that `unjsoned` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            return {"dtype": value.dtype.str, "shape": value.shape, "data": data}
        return value

    return json.dumps({key: plain(value) for key, value in items.items()})


def unjsoned(text: str | bytes) -> dict[str, Any]:
    """What `jsoned` was given."""

    def rich(value: Any) -> Any:
        if isinstance(value, dict):
            return np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"])).reshape(value["shape"])
        return value

    return {key: rich(value) for key, value in json.loads(text).items()}


def loaded(source: Source) -> tuple[dict[str, Any], bytes]:
    """The message that tells the service what runs here."""
    info = source.info
    topology: Mapping[str, TopologyValue] = source.topology()
    header = {
        "event": "loaded",
        "name": info.name,
        "particle_count": info.particle_count,
        "live": info.live,
        "frame_count": info.frame_count,
        "velocity_reset_available": info.velocity_reset_available,
        "steps_per_frame": info.steps_per_frame,
        "content_id": info.content_id,
    }
    return header, jsoned(topology).encode()


def end_with_parent() -> None:
    """On Linux the kernel ends this process when the service dies, even in the middle of a long step."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> int:
    from narupa_trajectory.sources.catalogue import SourceSpec, open_source

    end_with_parent()
    # Ctrl-C in a terminal reaches the whole process group; only the service decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = BlockingChannel(socket.socket(fileno=int(sys.argv[1])))
    descriptor = int(sys.argv[2])
    source: Source | None = None
    try:
        (settings,) = channel.receive(None)[:1]
        spec = SourceSpec(**settings["source"])
        channel.send({"event": "starting", "text": f"loading {spec.text}", "progress": 0.2})
        source = open_source(spec)
        channel.send({"event": "starting", "text": "preparing the first frame", "progress": 0.9})
        if settings["block"]:
            source.restore(settings["block"])
        memory = FrameMemory.create(descriptor, source.info.particle_count)
        channel.send(*loaded(source))
        EngineLoop(channel, memory, source, settings).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as error:  # whatever a source or somebody's calculator raises, the users are to be told
        if not isinstance(error, NarupaError):
            import traceback

            traceback.print_exc()
        kind = type(error).__name__
        text = str(error) if isinstance(error, NarupaError) else f"{kind}: {error}"
        with contextlib.suppress(OSError):
            channel.send({"event": "failed", "kind": kind, "text": text})
        return 1
    finally:
        if source is not None:
            source.close()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Engines keep threads that may not end at once; everything of ours is closed.
    os._exit(status)
