"""Which format a recording has."""

from __future__ import annotations

from pathlib import Path

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.recordings.nanover_zip import NanoverZipReader
from narupa_shared.recordings.protobuf_records import (
    FRAMES_SUFFIX,
    STATE_SUFFIX,
    ProtobufRecording,
    is_record_file,
)
from narupa_shared.recordings.recording import OpenRecording

_ZIP: tuple[bytes, ...] = (b"PK\x03\x04", b"PK\x05\x06")


def is_recording(path: Path) -> bool:
    """Whether the file is a recording of a session, by how it begins. ASE has files that end in `.traj` too."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP or is_record_file(path)
    except OSError:
        return False


def open_recording(path: Path, state: Path | None = None) -> OpenRecording:
    """The recording at `path`.

    Args:
        state: Of a `.traj` file: where the changes of the state are; unset takes the `.state` file beside it, if there is one.

    Raises:
        InvalidArgumentError: it is none, or it is damaged; the text names the file and the place.
    """
    try:
        if not is_recording(path):
            path.open("rb").close()
            reason = "is no recording of a session: these are .nanover.zip, .traj and .state files"
            raise InvalidArgumentError("recording", path.name, reason)
        if not is_record_file(path):
            if state is not None:
                raise InvalidArgumentError("state", str(state), f"{path.name} has its state in itself")
            return NanoverZipReader(path)
        if path.suffix.lower() == STATE_SUFFIX and state is None:
            return ProtobufRecording(None, path)
        beside = path.with_suffix(STATE_SUFFIX)
        if state is None and path.suffix.lower() == FRAMES_SUFFIX and beside.is_file():
            state = beside
        return ProtobufRecording(path, state)
    except OSError as error:
        raise InvalidArgumentError("recording", path.name, f"cannot be read ({error})") from None
