"""`.nanover.zip`: what is written is read again, by strangers as well; what is no recording is refused by name."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from narupa_shared.errors import AlreadyExistsError, InvalidArgumentError
from narupa_shared.frames import Frame
from narupa_shared.recordings.nanover_zip import NanoverZipReader, NanoverZipWriter
from narupa_shared.recordings.recording import StateChange


def frame_of(index: int, **values: Any) -> Frame:
    positions = np.arange(6, dtype=np.float32).reshape(2, 3) + index
    return Frame.of(index, {"particle.positions": positions, "particle.names": ["C", "O"], **values})


def written(path: Path) -> Path:
    with NanoverZipWriter.create(path) as writer:
        writer.write(0.0, frame_of(0), StateChange({"scene": [0.0, 1.0]}))
        writer.write(0.25, frame_of(1))
        writer.write(0.5, state=StateChange({"avatar.a": {"name": "Ada", "at": [1.0]}}, ("scene",)))
        writer.write(1.5, frame_of(0))
    return path


def hostile(path: Path, index: Any, messages: bytes = b"\x80" * 100, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("messages.msgpack", messages)
        archive.writestr("index.msgpack", index if isinstance(index, bytes) else msgpack.packb(index))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with NanoverZipReader(written(tmp_path / "run.nanover.zip")) as reader:
        assert reader.contents.times_s.tolist() == [0.0, 0.25, 0.5, 1.5]
        assert reader.contents.frames.tolist() == [True, True, False, True]
        assert reader.contents.states.tolist() == [True, False, True, False]
        assert reader.contents.indices.tolist() == [0, 1, -1, 0]
        assert reader.duration_s == 1.5
        first, _, third, _ = reader
        assert first.frame is not None
        assert first.frame.arrays["particle.names"] == ["C", "O"]
        np.testing.assert_array_equal(
            first.frame.arrays["particle.positions"], frame_of(0).arrays["particle.positions"]
        )
        assert third.state == StateChange({"avatar.a": {"name": "Ada", "at": [1.0]}}, ("scene",))


def test_it_is_an_ordinary_archive(tmp_path: Path) -> None:
    path = written(tmp_path / "run.nanover.zip")
    assert path.stat().st_size < 2000
    assert [file.name for file in tmp_path.iterdir()] == ["run.nanover.zip"]
    with zipfile.ZipFile(path) as archive:
        entries = msgpack.unpackb(archive.read("index.msgpack"))
    assert entries[0]["metadata"] == {"types": ["frame", "state"], "timestamp": 0, "frame.index": 0}
    assert entries[2]["metadata"] == {"types": ["state"], "timestamp": 500_000}
    if shutil.which("unzip"):
        ran = subprocess.run(["unzip", "-t", str(path)], capture_output=True, text=True, timeout=30)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert not ran.stderr


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "run.nanover.zip"
    with NanoverZipWriter.create(path, clock=lambda: now[0]) as writer:
        writer.write(0.0, frame_of(0))
        writer.write(0.1, frame_of(1))
        with NanoverZipReader(path) as reader:
            assert len(reader) == 0
        now[0] = 0.5
        writer.write(0.2, frame_of(2))
        with NanoverZipReader(path) as reader:
            assert len(reader) == 3
        writer.write(0.3, frame_of(3))
        writer.commit()
        with NanoverZipReader(path) as reader:
            assert len(reader) == 4


def test_a_recording_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    path = written(tmp_path / "run.nanover.zip")
    with pytest.raises(AlreadyExistsError, match=r"run\.nanover\.zip exists"):
        NanoverZipWriter.create(path)
    NanoverZipWriter.create(path, overwrite=True).close()
    with NanoverZipReader(path) as reader:
        assert len(reader) == 0


def test_times_count_from_the_first_and_never_go_back(tmp_path: Path) -> None:
    stamps = [5_000_000, 7_000_000, 6_000_000, None, 8_000_000]
    index = [{"offset": 0, "length": 1, "metadata": {"timestamp": stamp}} for stamp in stamps]
    with NanoverZipReader(hostile(tmp_path / "odd.zip", index)) as reader:
        assert reader.contents.times_s.tolist() == [0.0, 2.0, 2.0, 2.0, 3.0]
        assert all(moment.frame is None and moment.state is None for moment in reader)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (7, "must be a map"),
        ({"length": 1}, "offset must be"),
        ({"offset": -1, "length": 1}, "offset must be"),
        ({"offset": True, "length": 1}, "offset must be"),
        ({"offset": 0, "length": 2**60}, "length must be"),
        ({"offset": 0, "length": 101}, "has only 100 bytes"),
        ({"offset": 2**61, "length": 1}, "has only 100 bytes"),
        ({"offset": 0, "length": 1, "metadata": 3}, "metadata must be a map"),
        ({"offset": 0, "length": 1, "metadata": {"timestamp": "now"}}, "timestamp must be"),
        ({"offset": 0, "length": 1, "metadata": {"timestamp": float("nan")}}, "timestamp must be"),
        ({"offset": 0, "length": 1, "metadata": {"types": "frame"}}, "types must be a list"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, entry: Any, problem: str) -> None:
    good = {"offset": 0, "length": 1, "metadata": {"timestamp": 0}}
    with pytest.raises(InvalidArgumentError, match=r"entry 1 of index.msgpack of bad.zip .*" + problem):
        NanoverZipReader(hostile(tmp_path / "bad.zip", [good, entry]))


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"", "must be a list"),
        (b"\x81\x01\x02", "must be a list"),
        (b"\xdd\xff\xff\xff\xff", "too many"),
        (b"\xdd\x00\x00\x00\x09", "ends after 0 of its 9"),
        (b"\x91\xc1", "index.msgpack"),
        (b"\x91" + b"\x91" * 100_000, "index.msgpack"),
        (b"\x91\xdf\xff\xff\xff\xff", "index.msgpack"),
        (b"\x91\xc6\x7f\xff\xff\xff", "index.msgpack"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, index: bytes, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        NanoverZipReader(hostile(tmp_path / "bad.zip", index))


@pytest.mark.parametrize(
    "message",
    [
        b"\xc1",
        b"\x93\x01\x02\x03",
        msgpack.packb({"frame": 3}),
        msgpack.packb({"frame": {"particle.positions": b"12345"}}),
        msgpack.packb({"frame": {"frame.index": -1}}),
        msgpack.packb({"state": {"updates": [1]}}),
        msgpack.packb({"state": {"removals": [1]}}),
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_a_bad_message_is_named_and_the_others_are_read(tmp_path: Path, message: bytes) -> None:
    index = [
        {"offset": 0, "length": 1, "metadata": {}},
        {"offset": 1, "length": len(message), "metadata": {}},
    ]
    with NanoverZipReader(hostile(tmp_path / "bad.zip", index, b"\x80" + message)) as reader:
        assert reader.read(0).frame is None
        with pytest.raises(InvalidArgumentError, match=r"bad\.zip cannot be read at message 1"):
            reader.read(1)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.zip"
    plain.write_bytes(b"no archive")
    with pytest.raises(InvalidArgumentError, match=r"plain\.zip is .*no ZIP file"):
        NanoverZipReader(plain)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InvalidArgumentError, match="is it a NanoVer recording"):
        NanoverZipReader(tmp_path / "other.zip")
    with pytest.raises(InvalidArgumentError, match="without compression"):
        NanoverZipReader(hostile(tmp_path / "small.zip", [], compression=zipfile.ZIP_DEFLATED))
    damaged = bytearray(written(tmp_path / "run.nanover.zip").read_bytes())
    at = damaged.index(b"timestamp")
    damaged[at : at + 9] = b"timestanp"
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(InvalidArgumentError, match="damaged"):
        NanoverZipReader(tmp_path / "damaged.zip")
