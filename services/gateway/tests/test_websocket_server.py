"""Which web pages may connect."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.datastructures import Headers

from narupa_gateway.config import GatewayConfig
from narupa_gateway.websocket_server import origin_problem

LAB = {"host": "0.0.0.0"}
ALLOWED = {"allow_origins": ("https://lab.example.org",)}


def problem(*origins: str, to: str | None = "127.0.0.1:38801", **settings: Any) -> str:
    headers = Headers()
    if to is not None:
        headers["Host"] = to
    for origin in origins:
        headers["Origin"] = origin
    return origin_problem(headers, GatewayConfig(**settings))


def test_programs_that_are_no_page_may() -> None:
    assert problem() == "" and problem(to="evil.example") == "" and problem(to=None) == ""


@pytest.mark.parametrize("host", ["127.0.0.1:38801", "localhost:38801", "[::1]:38801"])
def test_the_page_of_a_gateway_on_loopback_may(host: str) -> None:
    assert problem(f"http://{host}", to=host) == ""


def test_a_page_from_the_same_place_may_where_others_reach_the_gateway() -> None:
    assert problem("http://lab.local:38801", to="lab.local:38801", **LAB) == ""
    assert problem("http://LAB.local:38801", to="lab.local:38801", **LAB) == ""


@pytest.mark.parametrize(
    ("origins", "host"),
    [
        (["https://evil.example"], "127.0.0.1:38801"),
        (["http://127.0.0.1:8000"], "127.0.0.1:38801"),
        (["http://evil.example:38801"], "evil.example:38801"),  # a name of theirs that leads to loopback
        (["http://127.0.0.1:38801", "http://127.0.0.1:38801"], "127.0.0.1:38801"),
        (["null"], "127.0.0.1:38801"),
        (["null"], None),
        ([""], None),
        ([""], ""),
        (["http://[::bad"], "[::bad"),
    ],
)
@pytest.mark.parametrize("settings", [{}, ALLOWED])
def test_any_other_page_may_not(origins: list[str], host: str | None, settings: dict[str, Any]) -> None:
    assert "--allow-origins" in problem(*origins, to=host, **settings)


@pytest.mark.parametrize(("origin", "host"), [("null", None), ("", ""), ("https://evil.example", "lab.local:38801")])
def test_nor_where_others_reach_the_gateway(origin: str, host: str | None) -> None:
    assert problem(origin, to=host, **LAB)


def test_pages_that_the_settings_name_may() -> None:
    assert problem("https://lab.example.org", **ALLOWED) == ""
    assert problem("https://lab.example.org.evil.example", **ALLOWED)
    assert problem("http://lab.example.org", **ALLOWED)
    assert problem("https://lab.example.org", "https://evil.example", **ALLOWED)
