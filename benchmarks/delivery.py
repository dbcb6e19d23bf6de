"""How many frames a server delivers per second of CPU time, by whatever it sends them with, in one run.

`python -m benchmarks.delivery [--seconds S] [--rounds N] [--atoms N --viewers N] [--kinds KIND ...]`

A session with a recording of that many atoms, NanoVer's server with a scripted simulation as large, and plain blocking sockets,
which are the floor of the operating system, all at 30 frames/s, take turns, a slice of time each, the others paused. The
gateway's WebSocket and gRPC viewers, and the trajectory service's own (`native`), are compared with the floor and with NanoVer's
viewers that refuse compression of messages; `deflate` are viewers that ask for it, at both; `packed` are native ones that take
positions to 0.001 nm, which is less than the floor sends. Medians of the slices, ratios
of neighbouring ones, and what each process of the session uses per frame. Without `.venv-peers` (`make peers`) there is no
NanoVer to compare with.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.fan_out import recording
from benchmarks.figures import Figure, note
from benchmarks.servers import PEER_PYTHON, Server, Slice, nanover_server, our_session, plain_sockets

# Atoms, and viewers: as many as a class, and as few as a workstation can be asked to send 100 000 atoms to.
SIZES: Final = ((1_000, 100), (100_000, 8))
KINDS: Final = ("websocket", "deflate", "grpc", "native", "packed")
# What our viewers' frames per CPU-second are to be over those of others, by the number of atoms.
ASKED: Final[Mapping[str, Mapping[tuple[str, str], Mapping[int, float]]]] = {
    "websocket": {
        ("plain sockets", "plain"): {1_000: 0.15, 100_000: 0.35},
        ("NanoVer", "websocket"): {1_000: 5.0, 100_000: 3.0},
    },
    "deflate": {("plain sockets", "plain"): {}, ("NanoVer", "deflate"): {}},
    "grpc": {
        ("plain sockets", "plain"): {1_000: 0.08, 100_000: 0.35},
        ("NanoVer", "websocket"): {1_000: 2.5, 100_000: 3.0},
    },
    "native": {
        ("plain sockets", "plain"): {1_000: 0.08, 100_000: 0.35},
        ("NanoVer", "websocket"): {1_000: 2.5, 100_000: 3.0},
    },
    "packed": {("NanoVer", "websocket"): {}},
}
Round = dict[tuple[str, str], Slice]


def rounds(
    servers: Sequence[tuple[str, Server | None, Sequence[str]]], atoms: int, count: int, seconds: float, number: int
) -> list[Round]:
    """By server and kind of viewer, what each had in each round."""
    return [
        {
            (name, kind): server.measured(kind, count, atoms, seconds)
            for name, server, kinds in servers
            if server is not None
            for kind in kinds
        }
        for _ in range(number)
    ]


def described(results: Sequence[Round], kind: str) -> str:
    """One line on our viewers of that kind."""
    ours = [each["ours", kind] for each in results]
    text = speed(ours)
    floor = ("plain sockets", "plain")
    if floor in ASKED[kind]:
        text += f"; {ratio(results, kind, floor)} of plain sockets"
    other = ("NanoVer", "deflate" if kind == "deflate" else "websocket")
    if other in results[0]:
        text += f"; {ratio(results, kind, other)} times NanoVer"
        text += f" ({speed([each[other] for each in results])})"
    used = (f"{name} {median(item.cpu_ms[name] for item in ours):.2f} ms" for name in ours[0].cpu_ms)
    return f"{text}; CPU per frame: {', '.join(used)}"


def note_all(results: Sequence[Round], atoms: int, count: int, kinds: Sequence[str]) -> None:
    """The figures, with what is asked of them."""
    of = f"{atoms:,} atoms, {count} viewers"
    for server, kind in results[0]:
        rate = median(each[server, kind].per_cpu_s for each in results)
        note(Figure("delivery", f"{server}, {kind}, {of}", rate, "frames per CPU-second"))
    for kind in kinds:
        for other, bounds in ASKED[kind].items():
            if other in results[0]:
                shares = [each["ours", kind].per_cpu_s / each[other].per_cpu_s for each in results]
                what = f"{kind} over {' '.join(dict.fromkeys(other))}, {of}"
                note(Figure("delivery", what, statistics.median(shares), "", bounds.get(atoms)))


def speed(slices: Sequence[Slice]) -> str:
    delivered, rate = median(each.per_cpu_s for each in slices), median(each.rate for each in slices)
    return f"{delivered:,.0f} frames per CPU-second at {rate:.1f} frames/s"


def ratio(results: Sequence[Round], kind: str, other: tuple[str, str]) -> str:
    each = [result["ours", kind].per_cpu_s / result[other].per_cpu_s for result in results]
    return f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})"


def median(numbers: Iterable[float]) -> float:
    return statistics.median(numbers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--atoms", type=int)
    parser.add_argument("--viewers", type=int)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    sizes = SIZES if options.atoms is None else ((options.atoms, options.viewers or 8),)
    if not PEER_PYTHON.is_file():
        print("delivery: NanoVer's server is not there to compare with; `make peers` sets it up")
    peers = ("websocket", "deflate") if "deflate" in options.kinds else ("websocket",)
    for atoms, count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            source = str(recording(Path(folder), atoms))
            with our_session(source) as ours, nanover_server(atoms) as theirs, plain_sockets(atoms) as floor:
                servers = (
                    ("plain sockets", floor, ("plain",)),
                    ("ours", ours, options.kinds),
                    ("NanoVer", theirs, peers),
                )
                results = rounds(servers, atoms, count, options.seconds, options.rounds)
        note_all(results, atoms, count, options.kinds)
        floor_rate = median(each["plain sockets", "plain"].per_cpu_s for each in results)
        print(f"delivery: {atoms} atoms, {count} viewers: plain sockets {floor_rate:,.0f} frames per CPU-second")
        for kind in options.kinds:
            print(f"delivery: {atoms} atoms, {count} viewers, {kind}: {described(results, kind)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
