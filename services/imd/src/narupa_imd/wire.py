"""The wire forms of the shared state. Each value is encoded once per change, each set of changes once for all watchers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from narupa_imd.state import Changes, Entry
from narupa_shared.frames import varint
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.interaction_messages import interaction_message
from narupa_shared.interactions import Interaction
from narupa_shared.structs import to_struct

# A message stays well below the 4 MiB that existing clients accept; a larger state goes out in several.
MAX_BODY: Final = 1024 * 1024
MAX_CACHED: Final = 16

Encode = Callable[[Changes, int], list[bytes]]


class Encodings:
    """What the present revision's changes look like on the wire, kept for the other watchers that need the same."""

    def __init__(self) -> None:
        self._revision = -1
        self._kept: dict[tuple[Encode, int | None, str], list[bytes]] = {}

    def of(self, encode: Encode, changes: Changes, after: int | None, prefix: str) -> list[bytes]:
        """The messages, made by `encode`, that tell of `changes` of keys with `prefix` after revision `after`."""
        if changes.revision != self._revision or len(self._kept) > MAX_CACHED:
            self._revision = changes.revision
            self._kept.clear()
        key = (encode, after, prefix)
        if key not in self._kept:
            self._kept[key] = encode(changes, after or 0)
        return self._kept[key]


def watch_responses(epoch: str) -> Encode:
    """Makes serialised `WatchStateResponse`s; only the last one names the revision reached, so a resumed watch is whole."""

    def encode(changes: Changes, after: int) -> list[bytes]:
        bodies = struct_bodies(changes.updated) or [b""]
        messages: list[bytes] = []
        for number, body in enumerate(bodies):
            head = pb.WatchStateResponse(
                epoch=epoch,
                revision=changes.revision if number == len(bodies) - 1 else after,
                whole=changes.whole and number == 0,
                removals=changes.removed if number == 0 else (),
            )
            messages.append(head.SerializeToString() + (b"\x22" + varint(len(body)) + body if body else b""))
        return messages

    return encode


def compat_updates(changes: Changes, after: int) -> list[bytes]:
    """Serialised `StateUpdate`s as existing clients read them: null is a removed key."""
    gone = to_struct(dict.fromkeys(changes.removed)).SerializeToString()
    bodies = struct_bodies(changes.updated) or [b""]
    bodies[0] = gone + bodies[0]
    return [b"\x0a" + varint(len(body)) + body for body in bodies]


def get_state_response(epoch: str, revision: int, entries: Iterable[tuple[str, Entry]]) -> bytes:
    """A serialised `GetStateResponse`."""
    body = b"".join(_field(key, entry) for key, entry in entries)
    head = pb.GetStateResponse(epoch=epoch, revision=revision).SerializeToString()
    return head + b"\x0a" + varint(len(body)) + body


def struct_bodies(entries: Iterable[tuple[str, Entry]]) -> list[bytes]:
    """Serialised Structs that hold the entries between them, none much above `MAX_BODY`."""
    bodies: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for key, entry in entries:
        part = _field(key, entry)
        if parts and size + len(part) > MAX_BODY:
            bodies.append(b"".join(parts))
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    if parts:
        bodies.append(b"".join(parts))
    return bodies


def _field(key: str, entry: Entry) -> bytes:
    # Fields of serialised messages concatenate, so a Struct is the concatenation of Structs of one key each.
    if entry.encoded is None:
        entry.encoded = to_struct({key: entry.value}, key).SerializeToString()
    return entry.encoded


def shown_owner(owner: str) -> str:
    """`Writer.owner` as others see it: the user id, or the address of a client without a token."""
    return owner.removeprefix("user:").removeprefix("peer:")


def follow_response(changes: Changes, prefix: str, heartbeat_s: float) -> pb.FollowInteractionsResponse:
    """What a follower of the interactions must know."""
    acting: list[pb.Interaction] = []
    removed = list(changes.removed)
    for key, entry in changes.updated:
        if isinstance(entry.meaning, Interaction):
            owner = shown_owner(entry.writer.owner)
            acting.append(interaction_message(entry.meaning, properties=False, owner=owner))
        elif not changes.whole:
            removed.append(key)  # replayed, where one that acted may have been
    return pb.FollowInteractionsResponse(
        whole=changes.whole,
        set=acting,
        removed=_suffixes(removed, prefix),
        revision=changes.revision,
        heartbeat_s=heartbeat_s,
    )


def _suffixes(keys: Sequence[str], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in keys]
