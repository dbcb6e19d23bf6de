"""What views of frames weigh on the wire, and how soon one who joins late has a whole frame.

`python -m benchmarks.views [--frames N] [--joins N]`

Two recordings are served: a peptide in water (21 000 atoms, that of `benchmarks.position_codec`), and 100 000 atoms made of
it. Of the first each view is read alone; prints bytes per frame after the first, and their share of everything's. At the
second clients join while others watch; prints milliseconds from the subscription to the decoded frame: the first of a view,
whose selection is evaluated then, and the median and the worst of those after it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

import narupa_client
from benchmarks.figures import Figure, note
from benchmarks.position_codec import large, water
from benchmarks.serving import served
from narupa_shared import frame_keys as keys
from narupa_shared.frames import Frame
from narupa_shared.gen.narupa.trajectory.v1 import trajectory_pb2 as pb
from narupa_shared.recordings.nanover_zip import NanoverZipWriter

VIEWS: Final[dict[str, dict[str, Any]]] = {
    "everything": {},
    "everything, 1 pm": {"precision": 0.001},
    "everything, 10 pm": {"precision": 0.01},
    "protein": {"selection": "protein"},
    "protein, 1 pm": {"selection": "protein", "precision": 0.001},
    "not water, 1 pm, no energies": {"selection": "not resname HOH", "precision": 0.001, "fields": [keys.POSITIONS]},
    "energies": {"fields": ["energy"]},
}
JOINED: Final = ("everything", "everything, 1 pm", "protein, 1 pm")
FRAME_INTERVAL_S: Final = 1 / 30


def topology(count: int) -> dict[str, Any]:
    """Of the peptide, and of waters as far as `count` goes."""
    from narupa_trajectory.sources.catalogue import SourceSpec, open_source

    source = open_source(SourceSpec.parse("demo:peptide"))
    try:
        known: dict[str, Any] = dict(source.topology())
    finally:
        source.close()
    peptide, residues = int(known[keys.PARTICLE_COUNT]), int(known[keys.RESIDUE_COUNT])
    waters = (count - peptide + 2) // 3
    more = np.arange(count - peptide, dtype=np.uint32)
    chain = int(known[keys.CHAIN_COUNT])
    first = peptide + 3 * np.arange(waters, dtype=np.uint32)
    bonds = np.concatenate(
        [known[keys.BOND_PAIRS], np.column_stack([first, first + 1]), np.column_stack([first, first + 2])]
    )
    return {
        keys.PARTICLE_COUNT: float(count),
        keys.ELEMENTS: np.concatenate([known[keys.ELEMENTS], np.where(more % 3, 1, 8)]).astype(np.uint32),
        keys.NAMES: known[keys.NAMES] + (["O", "H1", "H2"] * waters)[: len(more)],
        keys.RESIDUES: np.concatenate([known[keys.RESIDUES], residues + more // 3]).astype(np.uint32),
        keys.RESIDUE_COUNT: float(residues + waters),
        keys.RESIDUE_NAMES: known[keys.RESIDUE_NAMES] + ["HOH"] * waters,
        keys.RESIDUE_IDS: known[keys.RESIDUE_IDS] + [str(number + 1) for number in range(waters)],
        keys.RESIDUE_CHAINS: np.append(known[keys.RESIDUE_CHAINS], np.full(waters, chain)).astype(np.uint32),
        keys.CHAIN_COUNT: float(chain + 1),
        keys.CHAIN_NAMES: [*known[keys.CHAIN_NAMES], "W"],
        keys.BOND_PAIRS: bonds[(bonds < count).all(axis=1)].astype(np.uint32),
    }


def recorded(path: Path, frames: Sequence[NDArray[np.float32]]) -> Path:
    """A recording of these positions, with energies."""
    with NanoverZipWriter.create(path) as writer:
        for index, positions in enumerate(frames):
            items = {keys.POSITIONS: positions, keys.TIME: 0.01 * index, keys.POTENTIAL: -1.0, keys.KINETIC: 1.0}
            known = topology(len(positions)) if not index else {}
            writer.write(index * FRAME_INTERVAL_S, Frame.of(index, {**known, **items}))
    return path


def weighed(address: str, view: dict[str, Any], count: int) -> float:
    """Bytes per frame of a view after the first."""
    wanted = pb.View(
        fields=view.get("fields", ()), selection=view.get("selection", ""), precision_nm=view.get("precision", 0.0)
    )
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_stream(
            "/narupa.trajectory.v1.TrajectoryService/SubscribeFrames",
            request_serializer=pb.SubscribeFramesRequest.SerializeToString,
        )(pb.SubscribeFramesRequest(frame_interval_s=FRAME_INTERVAL_S, view=wanted))
        sizes = [len(next(call)) for _ in range(count + 1)]
        call.cancel()
    # The recording begins again at its end, with a whole frame.
    return statistics.median(sizes[1:])


async def joins(address: str, view: dict[str, Any], count: int) -> list[float]:
    """Milliseconds to the first frame, again and again, while another one watches the same from the first on."""
    found = []
    async with narupa_client.open(address) as session:
        await session.status()  # connected
        watching = None
        for _ in range(count):
            start = time.perf_counter()
            frames = session.frames(FRAME_INTERVAL_S, **view)
            frame = await anext(frames)
            found.append(1000 * (time.perf_counter() - start))
            assert len(frame.positions) == frame.particle_count
            if watching is None:
                watching = frames
            else:
                await frames.aclose()
            await asyncio.sleep(0.1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.views", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=60, help="frames of each view to weigh")
    parser.add_argument("--joins", type=int, default=11, help="clients that join each view")
    options = parser.parse_args()
    frames = water()
    with tempfile.TemporaryDirectory() as folder:
        path = recorded(Path(folder) / "water.nanover.zip", list(frames))
        print(f"bytes per frame, {frames.shape[1]} atoms\n{'view':32}{'bytes':>10}{'share':>9}")
        with served(f"{path}?loop=true") as address:
            whole = 0.0
            for name, view in VIEWS.items():
                size = weighed(address, view, options.frames)
                whole = whole or size
                print(f"{name:32}{size:10,.0f}{size / whole:9.2%}", flush=True)
                bound = 5.0 if name == "protein" else None
                note(
                    Figure(
                        "views",
                        f"{name}, {frames.shape[1]:,} atoms",
                        100 * size / whole,
                        "% of the bytes",
                        bound,
                        at_least=False,
                    )
                )
        path = recorded(Path(folder) / "large.nanover.zip", large(frames, 30))
        print(f"\nms to the first frame, 100000 atoms\n{'view':32}{'first':>10}{'then':>10}{'worst':>10}")
        with served(f"{path}?loop=true") as address:
            for name in JOINED:
                first, *later = asyncio.run(joins(address, VIEWS[name], options.joins))
                print(f"{name:32}{first:10.0f}{statistics.median(later):10.0f}{max(later):10.0f}", flush=True)
                late = statistics.median(later)
                note(
                    Figure(
                        "views",
                        f"first frame of a late joiner, {name}, 100,000 atoms",
                        late,
                        "ms",
                        150.0,
                        at_least=False,
                    )
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
