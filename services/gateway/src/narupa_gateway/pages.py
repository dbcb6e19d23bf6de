"""What browsers get: the viewer's files, which come with this package, and the page that says how to join otherwise."""

from __future__ import annotations

import gzip
import http
import importlib.resources
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from narupa_gateway import landing
from narupa_gateway.guests import MAX_CODE, SHORTEST_INVITE, looks_like_code

INDEX: Final = "index.html"
ABOUT: Final = "/about"
# Files below it have a hash of what is in them in their names.
_HASHED: Final = "assets/"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_TEXT: Final = _TYPES[".txt"]
# The viewer runs and loads what comes from here, and nothing that is written into a page; it connects by WebSocket.
VIEWER_POLICY: Final = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS: Final[Mapping[str, str]] = {
    "Connection": "close",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), xr-spatial-tracking=(self)",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of HTTP.

    Attributes:
        headers: All of them; the length is that of the body that a GET gets.
        body: Empty for HEAD.
    """

    status: http.HTTPStatus
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    compressed: bytes | None
    kind: str
    cache: str


class Pages:
    """Answers requests from memory: nothing that a request says leads to a file system. No I/O."""

    def __init__(self, files: Mapping[str, bytes], about: Callable[[str], bytes]) -> None:
        """What can be asked for is known from now on.

        Args:
            files: The viewer's files by their path, such as `assets/index-1a2b.js`; none where it has not been built.
            about: Makes the HTML that says how to join, from the Host header that a browser sent.
        """
        self._files = {f"/{name}": _file(name, body) for name, body in files.items() if name != INDEX}
        self._index = _file(INDEX, files[INDEX]) if INDEX in files else None
        self._about = about

    @property
    def viewer(self) -> bool:
        """Whether there is a viewer, and not only the page that says how to join otherwise."""
        return self._index is not None

    def answer(self, method: str, target: str, host: str = "", accept_encoding: str = "") -> Answer:
        """What a request gets.

        Args:
            method: Such as GET.
            target: Path and query; a query changes nothing.
            host: The Host header.
            accept_encoding: The header of that name.
        """
        if method not in ("GET", "HEAD"):
            return refused(
                http.HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered here.\n", Allow="GET, HEAD"
            )
        path = _path(target)
        if path == ABOUT or (self._index is None and _is_page(path)):
            headers = {
                "Content-Type": _TYPES[".html"],
                "Cache-Control": "no-store",
                "Content-Security-Policy": landing.CONTENT_SECURITY_POLICY,
            }
            return _answer(method, http.HTTPStatus.OK, self._about(host), headers)
        file = self._index if _is_page(path) else self._files.get(path)
        if file is None:
            return refused(http.HTTPStatus.NOT_FOUND, "There is nothing at this address.\n", method)
        headers = {
            "Content-Type": file.kind,
            "Cache-Control": file.cache,
            "Content-Security-Policy": VIEWER_POLICY,
            "Vary": "Accept-Encoding",
        }
        if file.compressed is None or not accepts_gzip(accept_encoding):
            return _answer(method, http.HTTPStatus.OK, file.body, headers)
        return _answer(method, http.HTTPStatus.OK, file.compressed, headers | {"Content-Encoding": "gzip"})


def packaged_files() -> dict[str, bytes]:
    """The viewer's files as they come with this package; none where it has been installed without them."""
    root = importlib.resources.files("narupa_gateway").joinpath("web")
    return {name: entry.read_bytes() for name, entry in _below(root, "")} if root.is_dir() else {}


def refused(status: http.HTTPStatus, text: str, method: str = "GET", **headers: str) -> Answer:
    """A response that says in plain text what is wrong."""
    told = {
        "Content-Type": _TEXT,
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'",
        **headers,
    }
    return _answer(method, status, text.encode(), told)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip, by its name."""
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            key, _, weight = parameters.strip().partition("=")
            return key.strip() != "q" or weight.strip().strip("0.") != ""
    return False


def _answer(method: str, status: http.HTTPStatus, body: bytes, headers: Mapping[str, str]) -> Answer:
    whole = {**headers, "Content-Length": str(len(body)), **_ALWAYS}
    return Answer(status, whole, b"" if method == "HEAD" else body)


def _path(target: str) -> str:
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def _is_page(path: str) -> bool:
    """Whether the viewer shows itself there: at the root, and where a code is the path."""
    if path == "/":
        return True
    code = unquote(path).removeprefix("/")
    bare = code.replace("-", "").replace("_", "")
    return looks_like_code(code) or (SHORTEST_INVITE <= len(code) <= MAX_CODE and bare.isascii() and bare.isalnum())


def _file(name: str, body: bytes) -> _File:
    kind = _TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
    compressed = gzip.compress(body, 9, mtime=0)
    return _File(
        body,
        compressed if len(compressed) < len(body) else None,
        kind,
        "public, max-age=31536000, immutable" if name.startswith(_HASHED) else "no-cache",
    )


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _below(entry, f"{name}/")
        else:
            yield name, entry
