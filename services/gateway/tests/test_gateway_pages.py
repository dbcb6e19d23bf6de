"""What browsers get: files that are known from the start, with headers that let them do no more than they need."""

from __future__ import annotations

import gzip
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from narupa_gateway.landing import CONTENT_SECURITY_POLICY
from narupa_gateway.pages import Answer, Pages, accepts_gzip, packaged_files

INDEX = b"<!doctype html><title>viewer</title>" + b" " * 100
SCRIPT = b"export const x = 1;\n" * 50
FILES = {
    "index.html": INDEX,
    "assets/index-1a2b.js": SCRIPT,
    "assets/index-1a2b.css": b"p{}",
    "assets/odd.bin": b"\x00",
    "icon.svg": b"<svg/>",
}
KNOWN = {INDEX, *FILES.values(), b"about"}


def about(host: str) -> bytes:
    return b"about " + host.encode() if host else b"about"


PAGES = Pages(FILES, about)


def got(target: str, method: str = "GET", **headers: str) -> Answer:
    return PAGES.answer(method, target, **headers)


@pytest.mark.parametrize(
    "target", ["/", "/?code=7KQM-2XRD&name=Ada", "/7KQM-2XRD", "/7KQM2XRD?x", "/" + "a" * 43, "/a-_" + "b" * 40]
)
def test_the_viewer_is_at_the_root_and_where_a_code_is_the_path(target: str) -> None:
    answer = got(target)
    assert (answer.status, answer.body) == (HTTPStatus.OK, INDEX)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/assets/index-1a2b.js", "text/javascript; charset=utf-8"),
        ("/assets/index-1a2b.css", "text/css; charset=utf-8"),
        ("/assets/odd.bin", "application/octet-stream"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_files_have_their_types_and_those_with_a_hash_are_kept(target: str, kind: str) -> None:
    answer = got(target)
    assert (answer.status, answer.body) == (HTTPStatus.OK, FILES[target[1:]])
    assert answer.headers["Content-Type"] == kind
    assert ("immutable" in answer.headers["Cache-Control"]) == target.startswith("/assets/")


@pytest.mark.parametrize("target", ["/", "/about", "/assets/index-1a2b.js", "/nothing.txt"])
def test_every_answer_is_guarded(target: str) -> None:
    headers = got(target).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Connection"] == "close"


def test_what_is_smaller_compressed_goes_so_to_those_who_take_it() -> None:
    answer = got("/assets/index-1a2b.js", accept_encoding="br, gzip")
    assert answer.headers["Content-Encoding"] == "gzip" and answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Content-Length"] == str(len(answer.body)) and len(answer.body) < len(SCRIPT)
    assert gzip.decompress(answer.body) == SCRIPT
    assert answer.body == Pages(FILES, about).answer("GET", "/assets/index-1a2b.js", "", "gzip").body
    plain = got("/assets/index-1a2b.css", accept_encoding="gzip")
    assert "Content-Encoding" not in plain.headers and plain.body == b"p{}"


@pytest.mark.parametrize(
    ("header", "yes"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5, br", True),
        ("gzip;q=1.0", True),
        ("x-gzip", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*", False),
        ("gzipped", False),
    ],
)
def test_who_takes_gzip(header: str, yes: bool) -> None:
    assert accepts_gzip(header) == yes


@pytest.mark.parametrize("target", ["/", "/about", "/assets/index-1a2b.js", "/nothing.txt"])
def test_head_gets_the_headers_of_get(target: str) -> None:
    answer, whole = got(target, "HEAD"), got(target)
    assert answer.body == b"" and answer.headers == whole.headers and answer.status == whole.status
    assert int(answer.headers["Content-Length"]) == len(whole.body) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "get", ""])
def test_other_methods_are_refused(method: str) -> None:
    answer = got("/", method)
    assert answer.status == HTTPStatus.METHOD_NOT_ALLOWED and answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "target",
    [
        "/assets/",
        "/assets/../index.html",
        "/assets/..%2f..%2fpages.py",
        "/../pages.py",
        "/%2e%2e/pages.py",
        "/..\\pages.py",
        "/assets//index-1a2b.js",
        "/assets/index-1a2b.js/",
        "/assets/index-1a2b.js%00",
        "/index.html.gz",
        "/robots.txt",
        "/favicon.ico",
        "/" + "a" * 5000,
        "//[",
        "",
        "*",
    ],
)
def test_there_is_nothing_anywhere_else(target: str) -> None:
    answer = got(target)
    assert answer.status == HTTPStatus.NOT_FOUND
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert target.encode() not in answer.body or not target


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=40))
@example("/%ff%fe%00", "\ud800", "gzip;;q")
def test_no_request_gets_anything_but_these_files(target: str, host: str, encodings: str) -> None:
    answer = PAGES.answer("GET", target, "", encodings)
    body = gzip.decompress(answer.body) if "Content-Encoding" in answer.headers else answer.body
    assert answer.status == HTTPStatus.NOT_FOUND or body in KNOWN
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert not any("\n" in value or "\r" in value for value in answer.headers.values())


def test_how_to_join_otherwise_is_told_beside_the_viewer() -> None:
    answer = got("/about", host="lab.example.org")
    assert answer.body == b"about lab.example.org"
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Cache-Control"] == "no-store"


def test_and_instead_of_it_where_there_is_none() -> None:
    pages = Pages({}, about)
    assert PAGES.viewer and not pages.viewer
    assert pages.answer("GET", "/", "here").body == b"about here"
    assert pages.answer("GET", "/7KQM-2XRD").body == b"about"
    assert pages.answer("GET", "/assets/index-1a2b.js").status == HTTPStatus.NOT_FOUND


def test_the_viewer_comes_with_the_package_and_needs_nothing_that_its_policy_forbids() -> None:
    files = packaged_files()
    text = files["index.html"].decode()
    assert "<style" not in text and "style=" not in text and "onload" not in text
    assert text.count("<script") == text.count(' src="/assets/')
    for name in files:
        assert not name.endswith(".map")
        assert Pages(files, about).answer("GET", f"/{name}").headers["Content-Type"] != "application/octet-stream"
