"""A process that finds the particles that selections mean, with MDAnalysis, whose import takes a second and whose selections
may take for ever: whoever started it kills it when it has taken too long.

Started as `python -m narupa_trajectory.selecting SOCKET`. It is told a system, `system` with a serialised whole frame, and
answers `ready`; then texts, `select`, and answers each with `selected` and the indices, or `refused` and why.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from narupa_shared import frame_keys as keys
from narupa_shared.errors import shown
from narupa_shared.frames import Frame, decode_v1
from narupa_shared.subsets import particle_count
from narupa_shared.units import NM_IN_ANGSTROM
from narupa_trajectory.engine.channel import BlockingChannel
from narupa_trajectory.engine.process import end_with_parent

# Distances between all pairs of a large system would take all memory that there is.
MAX_MEMORY: Final = 3 * 1024**3
MAX_REASON: Final = 300


def universe_of(whole: Frame) -> Any:
    """An `MDAnalysis.Universe` of the particles of a whole frame, with its positions and its box."""
    import MDAnalysis
    from MDAnalysis.guesser.tables import Z2SYMB
    from MDAnalysis.lib.mdamath import triclinic_box

    count = particle_count(whole)
    residues = _indices(whole, keys.RESIDUES, count)
    residue_count = int(residues.max(initial=-1)) + 1
    chains = _indices(whole, keys.RESIDUE_CHAINS, residue_count)
    chain_count = int(chains.max(initial=-1)) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing can be guessed where there are no atoms
        universe = MDAnalysis.Universe.empty(
            count, residue_count, chain_count, atom_resindex=residues, residue_segindex=chains, trajectory=True
        )
    elements = [Z2SYMB.get(number, "X") for number in _indices(whole, keys.ELEMENTS, count).tolist()]
    ids = _texts(whole, keys.RESIDUE_IDS, residue_count, "")
    segments = np.array(_texts(whole, keys.CHAIN_NAMES, chain_count, "A"), object)
    attributes = {
        "elements": elements,
        "types": elements,
        "names": _texts(whole, keys.NAMES, count, "X"),
        "resnames": _texts(whole, keys.RESIDUE_NAMES, residue_count, "UNK"),
        "resids": [_number(text, number + 1) for number, text in enumerate(ids)],
        "icodes": [text.lstrip("-0123456789 ") for text in ids],
        "segids": segments,
        "chainIDs": segments[chains[residues]] if count else [],
    }
    for name, values in attributes.items():
        universe.add_TopologyAttr(name, values)
    pairs: Any = whole.arrays.get(keys.BOND_PAIRS)
    if pairs is not None and pairs.size:
        universe.add_TopologyAttr("bonds", list(map(tuple, pairs.reshape(-1, 2).tolist())))
    positions: Any = whole.arrays.get(keys.POSITIONS)
    if positions is not None and positions.size == 3 * count and count:
        universe.atoms.positions = positions.reshape(-1, 3) * NM_IN_ANGSTROM
    box: Any = whole.arrays.get(keys.BOX)
    if box is not None and box.size == 9:
        universe.dimensions = triclinic_box(*(box.reshape(3, 3) * NM_IN_ANGSTROM))
    return universe


def selected(universe: Any, text: str) -> NDArray[np.uint32] | str:
    """The indices that `text` means, ascending, or why it means nothing."""
    try:
        indices: NDArray[np.uint32] = universe.select_atoms(text).indices.astype(np.uint32)
        return np.sort(indices)
    except MemoryError:
        return "needs too much memory"
    except RecursionError:
        return "is nested too deep"
    except Exception as error:  # its parser raises whatever it trips over
        return f"is no selection that can be evaluated here: {shown(str(error), MAX_REASON)[1:-1]}"


def _indices(whole: Frame, key: str, count: int) -> NDArray[np.int64]:
    array: Any = whole.arrays.get(key, ())
    return np.asarray(array, np.int64) if len(array) == count else np.zeros(count, np.int64)


def _texts(whole: Frame, key: str, count: int, default: str) -> Sequence[str]:
    texts = whole.arrays.get(key)
    return texts if isinstance(texts, list) and len(texts) == count else [default] * count


def _number(text: str, default: int) -> int:
    """A residue's number, without its insertion code."""
    digits = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ")
    try:
        return int(digits)
    except ValueError:
        return default


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))


def main() -> int:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service decides when it ends
    channel = BlockingChannel(socket.socket(fileno=int(sys.argv[1])))
    warnings.simplefilter("ignore")
    _limit_memory()
    universe: Any = None
    try:
        while True:
            for message in channel.receive(None):
                if message["do"] == "system":
                    universe = None  # before there are two
                    universe = universe_of(decode_v1(message["block"]))
                    channel.send({"event": "ready"})
                    continue
                found = selected(universe, message["text"])
                if isinstance(found, str):
                    channel.send({"event": "refused", "reason": found})
                else:
                    channel.send({"event": "selected"}, found.tobytes())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
