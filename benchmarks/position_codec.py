"""What positions weigh on the wire, and what packing them costs, for the codec and for what else there is.

`python -m benchmarks.position_codec [--precision NM] [--frames N] [--steps N]`

Three systems: a peptide in vacuum, a peptide in water (21 000 atoms; made at the first run, which takes some minutes, and kept in
.narupa/), and 100 000 atoms, which are parts of the second at different times. Frames are N steps of the simulation apart,
the service's default unless told otherwise. Each candidate packs and unpacks each frame; prints the bytes per atom and
frame after the first one, and the median milliseconds of processor time for 100 000 atoms. Candidates whose library is not
installed are left out. "floor" is the entropy of the changes, if those of each coordinate were Gaussian.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.figures import Figure, note
from benchmarks.interactions import SAMPLE
from narupa_shared.position_codec import DEFAULT_PRECISION_NM, PositionDecoder, PositionEncoder

Positions = NDArray[np.float32]
WATER = Path(__file__).resolve().parents[1] / ".narupa" / "benchmarks" / "peptide-in-water.npy"
WATER_FRAMES, WATER_EDGE_NM, WATER_STEPS = 300, 6.1, 5
LARGE, LARGE_PARTS = 100_000, 5


class Candidate(Protocol):
    """One way to pack the frames of one view."""

    def encode(self, positions: Positions) -> bytes: ...
    def decode(self, data: bytes) -> Positions: ...


class Codec:
    """The codec itself."""

    def __init__(self, precision: float, *, keys: bool = False) -> None:
        self._encoder, self._decoder, self._keys = PositionEncoder(precision), PositionDecoder(), keys

    def encode(self, positions: Positions) -> bytes:
        return self._encoder.encode(positions, key=self._keys)

    def decode(self, data: bytes) -> Positions:
        return self._decoder.decode(data)


class Raw:
    """float32 as they are, through a general compressor."""

    def __init__(self, compress: Callable[[bytes], bytes] = bytes, expand: Callable[[bytes], bytes] = bytes) -> None:
        self._compress, self._expand = compress, expand

    def encode(self, positions: Positions) -> bytes:
        return self._compress(positions.tobytes())

    def decode(self, data: bytes) -> Positions:
        return np.frombuffer(self._expand(data), np.float32).reshape(-1, 3).copy()


class Fixed:
    """int16 steps from the middle of the frame, through a general compressor; 65 nm at 1 pm is all that it can hold."""

    def __init__(
        self, precision: float, compress: Callable[[bytes], bytes] = bytes, expand: Callable[[bytes], bytes] = bytes
    ) -> None:
        self._precision, self._compress, self._expand = precision, compress, expand

    def encode(self, positions: Positions) -> bytes:
        middle = np.rint((positions.min() + positions.max()) / 2).astype(np.float32)
        steps = np.rint((positions - middle) * np.float32(1 / self._precision))
        if np.abs(steps).max() > 32767:
            raise OverflowError
        steps = steps.astype(np.int16)
        return middle.tobytes() + self._compress(steps.tobytes())

    def decode(self, data: bytes) -> Positions:
        steps = np.frombuffer(self._expand(data[4:]), np.int16).reshape(-1, 3)
        return steps * np.float32(self._precision) + np.frombuffer(data[:4], np.float32)


class Changes:
    """Changes of int32 steps, less what `fitted` earlier changes let expect, in planes or whole, through a general compressor."""

    def __init__(
        self,
        precision: float,
        compress: Callable[[Any], bytes],
        expand: Callable[[bytes], bytes],
        *,
        planes: bool = True,
        least_width: int = 1,
        fitted: int = 0,
    ) -> None:
        self._precision, self._compress, self._expand = precision, compress, expand
        self._planes, self._least_width = planes, least_width
        self._history = {side: [np.zeros((1, 3), np.int32)] * (fitted + 2) for side in ("encode", "decode")}
        self._fitted = fitted

    def encode(self, positions: Positions) -> bytes:
        steps = np.rint(positions.astype(np.float64) / self._precision).astype(np.int32)
        weights = self._weights(steps)
        left = steps - self._expected("encode", weights)
        self._history["encode"] = [steps, *self._history["encode"][:-1]]
        folded = (left << 1) ^ (left >> 31)
        wide = int(folded.view(np.uint32).max()).bit_length()
        width = 4 if not self._planes and wide > 16 else max(self._least_width, (wide + 7) // 8)
        if self._planes:
            parts = [self._compress(folded.view(np.uint8).reshape(-1, 4)[:, n].tobytes()) for n in range(width)]
        else:
            parts = [self._compress(np.ascontiguousarray(folded.astype({1: "u1", 2: "u2", 4: "u4"}[width])))]
        lengths = np.array([width, *map(len, parts)], np.uint32).tobytes()
        return b"".join([weights.tobytes(), lengths, *parts])

    def decode(self, data: bytes) -> Positions:
        weights = np.frombuffer(data, np.int32, self._fitted)
        start = weights.nbytes
        (width,) = np.frombuffer(data, np.uint32, 1, start)
        count = int(width) if self._planes else 1
        lengths = np.frombuffer(data, np.uint32, count, start + 4)
        start += 4 + lengths.nbytes
        parts = []
        for length in lengths.tolist():
            parts.append(self._expand(data[start : start + length]))
            start += length
        if self._planes:
            split = np.zeros((len(parts[0]), 4), np.uint8)
            for n, part in enumerate(parts):
                split[:, n] = np.frombuffer(part, np.uint8)
            folded = split.view(np.uint32).reshape(-1, 3)
        else:
            folded = np.frombuffer(parts[0], {1: "u1", 2: "u2", 4: "u4"}[int(width)]).astype(np.uint32).reshape(-1, 3)
        left = (folded >> np.uint32(1)).view(np.int32) ^ -(folded & np.uint32(1)).view(np.int32)
        steps = left + self._expected("decode", weights)
        self._history["decode"] = [steps, *self._history["decode"][:-1]]
        return (steps * self._precision).astype(np.float32)

    def _weights(self, steps: NDArray[np.int32]) -> NDArray[np.int32]:
        """How much each of the earlier changes counts, in 64ths: least squares over a sample of the particles."""
        history = self._history["encode"]
        if not self._fitted or history[-1].shape != steps.shape:
            return np.zeros(self._fitted, np.int32)
        every = max(1, len(steps) // 2000)
        now, *then = (a[::every].ravel() - b[::every].ravel() for a, b in zip([steps, *history], history, strict=False))
        fit = np.linalg.lstsq(np.stack(then[: self._fitted], 1).astype(float), now.astype(float), rcond=None)[0]
        return np.rint(fit * 64).astype(np.int32)

    def _expected(self, side: str, weights: NDArray[np.int32]) -> NDArray[np.int32]:
        history = self._history[side]
        expected = history[0]
        for n, weight in enumerate(weights):
            expected = expected + (weight * (history[n] - history[n + 1]) >> 6)
        return expected


class Xtc:
    """One frame after the other as GROMACS's XTC, by MDAnalysis, in memory."""

    def __init__(self, precision: float) -> None:
        self._precision = precision
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._path = str(Path(self._folder.name) / "frame.xtc")

    def encode(self, positions: Positions) -> bytes:
        from MDAnalysis.lib.formats.libmdaxdr import XTCFile

        with XTCFile(self._path, "w") as file:
            file.write(positions, np.zeros((3, 3), np.float32), 0, 0.0, 1 / self._precision)
        return Path(self._path).read_bytes()

    def decode(self, data: bytes) -> Positions:
        from MDAnalysis.lib.formats.libmdaxdr import XTCFile

        with XTCFile(self._path) as file:
            found: Positions = file.read().x
        return found


def candidates(precision: float) -> dict[str, Callable[[], Candidate]]:
    """Makers of the candidates that can be had here, by name."""
    zstd, unzstd = zstandard.ZstdCompressor(level=1).compress, zstandard.ZstdDecompressor().decompress
    slow = zstandard.ZstdCompressor(level=9).compress

    def huffman(data: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        return packer.compress(data) + packer.flush()

    def inflated(data: bytes) -> bytes:
        return zlib.decompress(data, -15)

    found: dict[str, Callable[[], Candidate]] = {
        "float32": Raw,
        "float32, zstd": lambda: Raw(zstd, unzstd),
        "int16": lambda: Fixed(precision),
        "int16, zstd": lambda: Fixed(precision, zstd, unzstd),
        "changes, planes, zstd 1": lambda: Changes(precision, zstd, unzstd),
        "changes, planes, zstd 9": lambda: Changes(precision, slow, unzstd),
        "changes, planes, deflate (Huffman only)": lambda: Changes(precision, huffman, inflated),
        "changes less one fitted, planes, zstd 1": lambda: Changes(precision, zstd, unzstd, fitted=1),
        "changes less two fitted, planes, zstd 1": lambda: Changes(precision, zstd, unzstd, fitted=2),
    }
    if importlib.util.find_spec("blosc2"):
        import blosc2

        for name, codec, shuffle in (
            ("shuffle, zstd", blosc2.Codec.ZSTD, blosc2.Filter.SHUFFLE),
            ("bit shuffle, zstd", blosc2.Codec.ZSTD, blosc2.Filter.BITSHUFFLE),
            ("bit shuffle, lz4", blosc2.Codec.LZ4, blosc2.Filter.BITSHUFFLE),
        ):

            def pack(data: Any, codec: Any = codec, shuffle: Any = shuffle) -> bytes:
                wide = data.itemsize if isinstance(data, np.ndarray) else 4
                packed: bytes = blosc2.compress2(
                    data, codec=codec, clevel=1, filters=[shuffle], typesize=wide, nthreads=1
                )
                return packed

            def unpack(data: bytes) -> bytes:
                unpacked: bytes = blosc2.decompress2(data, nthreads=1)
                return unpacked

            found[f"float32, blosc2 {name}"] = lambda pack=pack, unpack=unpack: Raw(pack, unpack)
            found[f"changes, blosc2 {name}"] = lambda pack=pack, unpack=unpack: Changes(
                precision, pack, unpack, planes=False
            )
    if importlib.util.find_spec("pcodec"):
        from pcodec import ChunkConfig, standalone

        found["changes, pcodec 1"] = lambda: Changes(
            precision,
            lambda data: bytes(standalone.simple_compress(data.ravel(), ChunkConfig(compression_level=1))),
            lambda data: standalone.simple_decompress(data).tobytes(),
            planes=False,
            least_width=2,
        )
    found["XTC"] = lambda: Xtc(precision)
    found["position_codec, whole"] = lambda: Codec(precision, keys=True)
    found["position_codec"] = lambda: Codec(precision)
    return found


def peptide(frames: int, steps: int | None) -> list[Positions]:
    """A peptide in vacuum at 300 K, as the service streams it."""
    from narupa_trajectory.sources.catalogue import SourceSpec, open_source

    source = open_source(SourceSpec.parse(str(SAMPLE) if SAMPLE.exists() else "demo:peptide"))
    try:
        source.advance(2000)
        found = []
        for _ in range(frames):
            source.advance(steps or source.info.steps_per_frame)
            found.append(source.snapshot().positions.astype(np.float32))
        return found
    finally:
        source.close()


def water() -> NDArray[np.float32]:
    """(frames, N, 3) nm: a helix of ten alanines in a box of TIP3P water at 300 K, `WATER_STEPS` steps of 2 fs apart."""
    if WATER.exists():
        return np.load(WATER)
    import openmm
    from openmm import app, unit

    from narupa_trajectory.sources.demos import helix_pdb

    print(f"position_codec: making {WATER.name}, once", flush=True)
    structure = app.PDBFile(io.StringIO(helix_pdb()))
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(structure.topology, structure.positions)
    modeller.addHydrogens(platform=openmm.Platform.getPlatform("Reference"))
    modeller.addSolvent(field, boxSize=openmm.Vec3(*[WATER_EDGE_NM] * 3) * unit.nanometer)
    system = field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=app.HBonds,
    )
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    context = openmm.Context(system, integrator)
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 100)
    context.setVelocitiesToTemperature(300.0)
    integrator.step(1000)
    frames = []
    for _ in range(WATER_FRAMES):
        integrator.step(WATER_STEPS)
        frames.append(context.getState(getPositions=True).getPositions(asNumpy=True)._value.astype(np.float32))
    WATER.parent.mkdir(parents=True, exist_ok=True)
    np.save(WATER, np.array(frames))
    return np.array(frames)


def large(frames: NDArray[np.float32], count: int) -> list[Positions]:
    """`count` frames of `LARGE` atoms: the system at different times beside itself."""
    offsets = np.linspace(0, len(frames) - count, LARGE_PARTS).astype(int)
    beside = [frames[start : start + count] + np.float32(WATER_EDGE_NM * n) for n, start in enumerate(offsets)]
    return list(np.concatenate(beside, axis=1)[:, :LARGE])


def measured(
    make: Callable[[], Candidate], frames: Sequence[Positions], allowed_nm: float
) -> tuple[float, float, float]:
    """Bytes per atom, and median milliseconds to encode and to decode, of all frames but the first ones."""
    candidate = make()
    sizes, encoding, decoding = [], [], []
    for frame in frames:
        start = time.process_time()
        data = candidate.encode(frame)
        between = time.process_time()
        got = candidate.decode(data)
        decoding.append((time.process_time() - between) * 1000)
        encoding.append((between - start) * 1000)
        sizes.append(len(data) / len(frame))
        error = float(np.abs(got.astype(np.float64) - frame).max())
        if error > allowed_nm:
            raise AssertionError(f"a coordinate is {error} nm off")
    return statistics.mean(sizes[3:]), statistics.median(encoding[3:]), statistics.median(decoding[3:])


def floor(frames: Sequence[Positions], precision: float) -> float:
    """Bytes per atom that changes need at least, if each coordinate's are Gaussian and independent."""
    spread = np.diff(np.array(frames, np.float64), axis=0).std(axis=0) / precision
    return float(3 * np.log2(np.sqrt(2 * np.pi * np.e * (spread**2 + 1 / 12))).mean() / 8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", type=float, default=DEFAULT_PRECISION_NM, help="nm")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--steps", type=int, default=WATER_STEPS, help="of the simulation from one frame to the next")
    options = parser.parse_args()
    stride = max(1, options.steps // WATER_STEPS)
    wet = water()[::stride]
    count = min(options.frames, len(wet))
    systems = [peptide(options.frames, options.steps), list(wet[:count]), large(wet, min(count, len(wet) // 2))]
    sizes = [len(frames[0]) for frames in systems]
    print(
        f"bytes per atom and frame at {options.precision} nm, frames of {stride * WATER_STEPS} steps; ms of {LARGE} atoms"
    )
    print(f"{'':46}" + "".join(f"{f'{size} atoms':>13}" for size in sizes) + f"{'encode ms':>11}{'decode ms':>11}")
    print(f"{'floor':46}" + "".join(f"{floor(frames, options.precision):13.2f}" for frames in systems))
    # Half a step, and what float32 arithmetic adds to it in those candidates that do theirs in it.
    allowed = options.precision / 2 + max(float(np.abs(frames[-1]).max()) for frames in systems) * 4e-7
    for name, make in candidates(options.precision).items():
        try:
            rows = [measured(make, frames, allowed) for frames in systems]
        except OverflowError:
            print(f"{name:46} cannot hold so many steps")
            continue
        ours = name == "codec"
        for size, row in zip(sizes, rows, strict=True):
            bound = 3.5 if ours else None
            note(
                Figure(
                    "position_codec",
                    f"{name}, {size:,} atoms",
                    row[0],
                    "bytes per atom and frame",
                    bound,
                    at_least=False,
                )
            )
        if ours:
            both = rows[-1][1] + rows[-1][2]
            note(Figure("position_codec", f"encode and decode, {LARGE:,} atoms", both, "ms", 5.0, at_least=False))
        print(f"{name:46}" + "".join(f"{row[0]:13.2f}" for row in rows) + f"{rows[-1][1]:11.2f}{rows[-1][2]:11.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
