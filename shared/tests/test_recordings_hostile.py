"""Recordings that were damaged, or made to do harm: each is read, in part or in whole, or refused as what it is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipWriter
from narupa_shared.recordings.opening import open_recording
from narupa_shared.recordings.protobuf_records import ProtobufRecordWriter
from narupa_shared.recordings.recording import StateChange

ROUNDS = 400


def recording(writer: NanoverZipWriter | ProtobufRecordWriter) -> None:
    with writer:
        for number in range(6):
            items = {"particle.positions": np.ones((2, 3), np.float32), "particle.names": ["C", "O"], "x": 1.0}
            writer.write(number * 0.1, Frame.of(number, items), StateChange({"a": {"b": [1.0, "c"]}}, ("d",)))


def damaged(content: bytes, chance: random.Random) -> bytes:
    """With some bytes changed, taken out, or put in; or cut short."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", bytes(4), chance.randbytes(4)])
            case 2:
                del changed[at : at + chance.randint(1, 30)]
            case _:
                changed[at:at] = chance.randbytes(chance.randint(1, 30))
        if not changed:
            break
    return bytes(changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.1 else changed)


@pytest.mark.parametrize("name", ["run.nanover.zip", "run.traj", "run.state"])
def test_a_damaged_recording_is_read_or_refused(tmp_path: Path, name: str) -> None:
    recording(NanoverZipWriter.create(tmp_path / "run.nanover.zip"))
    recording(ProtobufRecordWriter(tmp_path / "run.traj", tmp_path / "run.state"))
    content = (tmp_path / name).read_bytes()
    chance = random.Random(f"damage {name}")
    read = refused = 0
    path = tmp_path / "damaged" / name
    path.parent.mkdir()
    for _ in range(ROUNDS):
        path.write_bytes(damaged(content, chance))
        try:
            opened = open_recording(path)
        except InvalidArgumentError as error:
            assert name in str(error)
            refused += 1
            continue
        with opened:
            for number in range(len(opened)):
                try:
                    opened.read(number)
                except InvalidArgumentError as error:
                    assert name in str(error)
                    refused += 1
                else:
                    read += 1
    assert read > ROUNDS // 10
    assert refused > ROUNDS // 10
