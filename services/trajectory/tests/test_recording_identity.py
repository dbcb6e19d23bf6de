"""Which recordings are the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from narupa_trajectory.sources import recording_source
from narupa_trajectory.sources.recording_source import content_id, open_recording


def recorded(path: Path, frames: int = 3) -> Path:
    path.parent.mkdir(exist_ok=True)
    write(path, [Atoms("CO", [(float(index), 0, 0), (0, 0, 1.1)]) for index in range(frames)])
    return path


def test_a_copy_elsewhere_by_another_name_is_the_same_recording(tmp_path: Path) -> None:
    one, two = recorded(tmp_path / "a" / "run.extxyz"), recorded(tmp_path / "b" / "copy.extxyz")
    assert open_recording(one, "run").info.content_id == open_recording(two, "copy").info.content_id != ""


def test_other_content_another_topology_or_another_reader_is_another_one(tmp_path: Path) -> None:
    one, longer = recorded(tmp_path / "run.extxyz"), recorded(tmp_path / "longer.extxyz", 4)
    other_format = tmp_path / "run.xyz"
    other_format.write_bytes(one.read_bytes())
    ids = [content_id(one, None), content_id(longer, None), content_id(other_format, None), content_id(one, longer)]
    assert len(set(ids)) == len(ids)


def test_of_a_large_file_samples_are_read_its_end_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_source, "WHOLE_BYTES", 4096)
    monkeypatch.setattr(recording_source, "SAMPLE_BYTES", 16)
    path = tmp_path / "run.xyz"
    path.write_bytes(bytes(100_000))
    whole = content_id(path, None)
    for offset in (0, 99_999):
        changed = bytearray(100_000)
        changed[offset] = 1
        path.write_bytes(changed)
        assert content_id(path, None) != whole
    path.write_bytes(bytes(100_001))
    assert content_id(path, None) != whole


def test_a_folder_is_told_by_its_files(tmp_path: Path) -> None:
    ids = set()
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        folder = tmp_path / f"{name}.bundle"
        folder.mkdir()
        (folder / "frames").write_text(content)
        ids.add(content_id(folder, None))
    assert len(ids) == 2
