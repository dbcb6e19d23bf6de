"""The page for browsers: it says how to join, tells no secret, loads nothing, and whoever asks cannot put anything into it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from narupa_gateway.landing import CONTENT_SECURITY_POLICY, landing_page, requested_host

PORTS = {"websocket_port": 38801, "grpc_port": 38802}


class Outline(HTMLParser):
    """The tags of a page, its attributes, and what can be copied from it."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.typed: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "pre":
            self.typed.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["pre"]:
            self.typed[-1] += data
            self.tags.append("")


def page(session: str = "default", requested: str = "lab.example.org:38801", **more: Any) -> bytes:
    return landing_page(session, requested, **{**PORTS, **more})


def test_every_client_is_told_its_address_at_the_host_that_was_asked_for() -> None:
    typed = Outline(page(lobbies=["127.0.0.1:1", "0.0.0.0:38810"], imd_port=8888)).typed
    assert "ws://lab.example.org:38801" in typed
    assert "lab.example.org:38802" in typed
    assert "imd://lab.example.org:8888" in typed
    assert "narupa watch --lobby lab.example.org:38810" in typed
    assert any('from_url("ws://lab.example.org:38801")' in text for text in typed)
    assert any('connect("lab.example.org:38810")' in text for text in typed)


def test_a_session_with_tls() -> None:
    typed = Outline(page("kinases", "[::1]:38801", lobbies=["127.0.0.1:38810"], tls=True)).typed
    assert "wss://[::1]:38801" in typed
    assert "narupa watch --lobby 127.0.0.1:38810 --session kinases --tls-ca ca.pem" in typed
    assert any("session='kinases'" in text and "TlsConfig" in text for text in typed)


def test_a_lobby_of_that_machine_only_is_not_told_to_others() -> None:
    text = page(lobbies=["127.0.0.1:38810", "localhost:38810"])
    assert b"--lobby" not in text and b"38810" not in text
    assert b"--lobby 127.0.0.1:38810" in page(requested="localhost:38801", lobbies=["127.0.0.1:38810"])


def test_nothing_is_loaded_and_the_style_is_the_one_that_the_policy_allows() -> None:
    text = page().decode()
    style = re.search(r"<style>(.*)</style>", text)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert not {"script", "link", "img", "iframe", "a", "form"} & set(Outline(page()).tags)


@given(st.text(max_size=80), st.text(max_size=80))
@example("<script>alert(1)</script>", 'a"><script>')
@example("default", "lab.example.org:38801'\"><b>")
@example("\ud800", "\ud800")
def test_no_session_and_no_request_puts_anything_into_the_page(session: str, requested: str) -> None:
    outline = Outline(landing_page(session, requested, **PORTS, lobbies=["0.0.0.0:38810"]))
    assert set(outline.tags) <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "pre", ""}
    assert set(outline.attributes) <= {"lang", "charset", "name", "content"}


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("lab.example.org", "lab.example.org"),
        ("10.0.0.5:38801", "10.0.0.5"),
        ("[2001:db8::1]:38801", "[2001:db8::1]"),
        ("[::1]", "[::1]"),
        ("", "HOST"),
        ("lab:http", "HOST"),
        ("lab:1:2", "HOST"),
        ("lab/x", "HOST"),
        ("[fe80::1%eth0]", "HOST"),
        ("[::1", "HOST"),
        ("a b", "HOST"),
        ("x" * 300, "HOST"),
    ],
)
def test_the_host_of_a_request(header: str, host: str) -> None:
    assert requested_host(header) == host
