"""The engine process: loads one source and runs it until the service asks it to stop.

Started by the supervisor as `python -m narupa_trajectory.engine.process SOCKET MEMORY`, with two inherited descriptors. It
ends when the service is gone, whatever ended it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from narupa_shared.errors import NarupaError
from narupa_trajectory.engine.channel import BlockingChannel, FrameMemory, jsoned
from narupa_trajectory.engine.loop import EngineLoop
from narupa_trajectory.sources.source import Source, TopologyValue


def loaded(source: Source) -> tuple[dict[str, Any], bytes]:
    """The message that tells the service what runs here."""
    info = source.info
    topology: Mapping[str, TopologyValue] = source.topology()
    header = {"event": "loaded", **asdict(info)}
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
        if settings["waits"]:
            channel.send({"event": "waiting"})
            (settings,) = channel.receive(None)[:1]
        channel.send({"event": "starting", "text": "preparing the first frame", "progress": 0.9})
        if settings["block"]:
            source.restore(settings["block"])
        run_id, frame = settings["after"] or ("", 0)
        if run_id and run_id == source.info.content_id and source.info.frame_count:
            source.seek((frame + 1) % source.info.frame_count)
        memory = FrameMemory.create(descriptor, source.info.particle_count)
        channel.send(*loaded(source))
        gc.freeze()  # garbage is looked for before it is a quarter of all that is loaded
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
